"""What users write, as values: a store with or without a snapshot, a size, a length of time, a date.

Every function here raises ``UsageError`` with what was written and what would be right;
each serves as ``type=`` of an argument.
"""

from __future__ import annotations

from typing import NamedTuple

from idemfs.cli.failures import UsageError
from idemfs.cli.render import SIZE_UNITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

SIZE_TEXT_MAX = 40
"""Longer numbers are no sizes."""
_UNITS: dict[str, int] = {
    **{unit.lower(): 1024**power for power, unit in enumerate(SIZE_UNITS)},
    **{unit[0].lower(): 1024**power for power, unit in enumerate(SIZE_UNITS) if power},
    **{unit: 1000**power for power, unit in enumerate(("kb", "mb", "gb", "tb", "pb", "eb"), start=1)},
}


_SECONDS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}


class Target(NamedTuple):
    """A store's active file system (``snapshot`` is None) or one of its snapshots."""

    store: str
    snapshot: str | None


def parse_target(text: str) -> Target:
    """``STORE``, ``STORE@SNAPSHOT`` or ``STORE@FILESET@SNAPSHOT``.

    The last ``@`` divides if no ``/`` comes after it: a store whose own name has an ``@`` is written with a ``/`` at
    its end, ``me@home/`` or ``me@home/@monday``.
    """
    store, at, snapshot = text.rpartition("@")
    if not at or "/" in snapshot:
        store, snapshot = text, ""
    elif not snapshot:
        raise UsageError(f"{text!r} names no snapshot after the '@'; write STORE or STORE@SNAPSHOT")
    elif "@" in store:
        store, snapshot = _with_fileset(store, snapshot)
    if not store:
        raise UsageError(f"{text!r} names no store; write STORE or STORE@SNAPSHOT")
    return Target(store, snapshot or None)


def _with_fileset(store: str, snapshot: str) -> tuple[str, str]:
    """``STORE@FILESET`` and a snapshot, where ``STORE`` is a store and the whole of it is none."""
    from idemfs.store.peek import is_store

    above, _, fileset = store.rpartition("@")
    if "/" in fileset or is_store(store) or not is_store(above):
        return store, snapshot
    return above, f"{fileset}@{snapshot}"


def parse_size(text: str) -> int:
    """Bytes of ``131072``, ``128KiB``, ``1.5 GiB`` (rounded down), ``4k`` (1024) or ``1 GB`` (1000 to the third)."""
    lowered = text.strip().lower()
    number = lowered.rstrip("bikmgtpe ")
    factor = _UNITS.get(lowered[len(number) :].strip() or "b")
    whole, _, fraction = number.partition(".")
    digits = whole + fraction
    if factor is None or len(text) > SIZE_TEXT_MAX or not (digits.isascii() and digits.isdigit()):
        raise UsageError(f"{text[:SIZE_TEXT_MAX]!r} is no size; write for example 131072, 128KiB or 1.5GiB")
    return int(digits) * factor // int(10 ** len(fraction))


def parse_duration(text: str) -> int:
    """Seconds of ``90``, ``30s``, ``15m``, ``6h``, ``7d`` or ``2w``."""
    number, unit = (text[:-1], text[-1]) if text[-1:].lower() in _SECONDS else (text, "s")
    if not (number.isascii() and number.isdigit()) or len(number) > SIZE_TEXT_MAX:
        raise UsageError(f"{text[:SIZE_TEXT_MAX]!r} is no length of time; write for example 30s, 15m, 6h, 7d or 2w")
    return int(number) * _SECONDS[unit.lower()]


def format_duration(seconds: int) -> str:
    """As ``parse_duration`` reads it, in the largest unit that says it in a whole number."""
    for unit, length in _SECONDS.items():
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return "0s"


def parse_time(text: str) -> datetime:
    """A date (its beginning), or a date and time, in ISO 8601; UTC unless it names another offset."""
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text[:SIZE_TEXT_MAX]!r} is no date; write for example 2030-01-31 or 2030-01-31T12:00:00+01:00"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
