"""What users write, as values: a store with or without a snapshot, a size.

Every function here raises ``UsageError`` with what was written and what would be right;
each serves as ``type=`` of an argument.
"""

from __future__ import annotations

from typing import NamedTuple

from idemfs.cli.failures import UsageError
from idemfs.cli.render import SIZE_UNITS

SIZE_TEXT_MAX = 40
"""Longer numbers are no sizes."""
_UNITS: dict[str, int] = {
    **{unit.lower(): 1024**power for power, unit in enumerate(SIZE_UNITS)},
    **{unit[0].lower(): 1024**power for power, unit in enumerate(SIZE_UNITS) if power},
    **{unit: 1000**power for power, unit in enumerate(("kb", "mb", "gb", "tb", "pb", "eb"), start=1)},
}


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
