"""What users write, as values: a store with or without a snapshot, a size, a length of time, a date.

Every function here raises ``UsageError`` with what was written and what would be right;
each serves as ``type=`` of an argument.
"""

from __future__ import annotations

from typing import NamedTuple

from idemfs import units
from idemfs.cli.failures import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


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
    """Bytes of what ``units.parse_size`` reads."""
    return _parsed(units.parse_size, text)


def parse_duration(text: str) -> int:
    """Seconds of what ``units.parse_duration`` reads."""
    return _parsed(units.parse_duration, text)


def parse_count(text: str) -> int:
    return _parsed(units.parse_count, text)


def _parsed(parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except ValueError as wrong:
        raise UsageError(str(wrong)) from None


def parse_time(text: str) -> datetime:
    """A date (its beginning), or a date and time, in ISO 8601; UTC unless it names another offset."""
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text[: units.TEXT_SIZE_MAX]!r} is no date; write for example 2030-01-31 or 2030-01-31T12:00:00+01:00"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
