"""What a store remembers of write leases. Numbers are little-endian.

::

    B required   duration, ns(8)                             changes are taken only with a live lease this long
    B granted    holder guid(16) · epoch(8) · duration, ns(8)    what this standby granted last, and to whom
    B asked      epoch(8) · guid(16) · guid(16) …            whose grants this primary needs, in this epoch

A grant is renewed many times and recorded once: after a crash it counts in full from the opening of the store.
"""

from __future__ import annotations

from struct import Struct, error
from typing import NamedTuple

from idemfs.errors import Damaged
from idemfs.format import keys
from idemfs.ids import Guid

REQUIRED = keys.lease("required")
GRANTED = keys.lease("granted")
ASKED = keys.lease("asked")
_EIGHT = Struct("<Q")
_GRANTED = Struct("<16sQQ")
_GUID_SIZE = 16


class Granted(NamedTuple):
    """``holder`` may write until it has run out, and whoever granted it does not take over before."""

    holder: Guid
    epoch: int
    duration_ns: int


class Asked(NamedTuple):
    """In ``epoch`` this primary writes only while all of ``stores`` let it."""

    epoch: int
    stores: tuple[Guid, ...]


def pack_required(duration_ns: int) -> bytes:
    return _EIGHT.pack(duration_ns)


def unpack_required(value: bytes | None) -> int | None:
    """Raises ``Damaged``."""
    if value is None:
        return None
    try:
        (duration_ns,) = _EIGHT.unpack(value)
    except error as bad:
        raise Damaged("the record of the write lease is damaged") from bad
    return int(duration_ns)


def pack_granted(granted: Granted) -> bytes:
    return _GRANTED.pack(*granted)


def unpack_granted(value: bytes | None) -> Granted | None:
    """Raises ``Damaged``."""
    if value is None:
        return None
    try:
        holder, epoch, duration_ns = _GRANTED.unpack(value)
    except error as bad:
        raise Damaged("the record of a granted lease is damaged") from bad
    return Granted(Guid(holder), epoch, duration_ns)


def pack_asked(asked: Asked) -> bytes:
    return _EIGHT.pack(asked.epoch) + b"".join(asked.stores)


def unpack_asked(value: bytes | None) -> Asked:
    """Raises ``Damaged``."""
    if value is None:
        return Asked(0, ())
    size = len(value) - _EIGHT.size
    if size < 0 or size % _GUID_SIZE:
        raise Damaged("the record of who grants the write lease is damaged")
    guids = (Guid(value[at : at + _GUID_SIZE]) for at in range(_EIGHT.size, len(value), _GUID_SIZE))
    return Asked(_EIGHT.unpack_from(value)[0], tuple(guids))


def check(key: bytes, value: bytes) -> None:
    """Raises ``Damaged`` for a record that cannot be read, or that means nothing."""
    if key == REQUIRED:
        unpack_required(value)
    elif key == GRANTED:
        unpack_granted(value)
    elif key == ASKED:
        unpack_asked(value)
    else:
        raise Damaged("is no record of leases")
