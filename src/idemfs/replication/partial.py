"""The *receiving record*: which change set a standby has half received, and how far.

Layout (little-endian)::

    target guid(16) has base(1) base guid(16) cursor number(8) cursor block(8) dropping(1) name

Each fileset has its own. It is written in the transaction group of the changes that it speaks of, so that after
a crash both agree. *Dropping* says that these changes are being undone, and that nothing goes on from there.

Threads: under the store's lock.
"""

from __future__ import annotations

from struct import Struct, error
from typing import NamedTuple

from idemfs.errors import Damaged
from idemfs.format import keys
from idemfs.ids import ROOT_FILESET, FilesetId, Guid, Number
from idemfs.limits import SNAPSHOT_NAME_SIZE_MAX
from idemfs.replication.records import Cursor
from idemfs.store.store import Store

_NAME = "receiving"
RECORD_SIZE_MAX = 64 + SNAPSHOT_NAME_SIZE_MAX
_LAYOUT = Struct("<16sB16sQqB")


class Partial(NamedTuple):
    """A half-received change set: from ``base`` (None: from nothing) to ``target``, which is to be named ``name``."""

    target: Guid
    base: Guid | None
    cursor: Cursor
    name: str
    is_dropping: bool = False

    def pack(self) -> bytes:
        base = self.base or Guid(bytes(16))
        return (
            _LAYOUT.pack(self.target, self.base is not None, base, *self.cursor, self.is_dropping) + self.name.encode()
        )


def unpack(value: bytes) -> Partial:
    """Raises ``Damaged``."""
    try:
        target, has_base, base, number, block, is_dropping = _LAYOUT.unpack_from(value)
        name = value[_LAYOUT.size :].decode()
    except (error, UnicodeDecodeError) as bad:
        raise Damaged("the record of a half-received change set is damaged") from bad
    base_guid = Guid(base) if has_base else None
    return Partial(Guid(target), base_guid, Cursor(Number(number), block), name, bool(is_dropping))


def get(store: Store, fileset: FilesetId = ROOT_FILESET) -> Partial | None:
    value = store.small.get(keys.fileset_replication(fileset, _NAME))
    return None if value is None else unpack(value)


def put(store: Store, partial: Partial | None, fileset: FilesetId = ROOT_FILESET) -> None:
    """Part of the open group; the caller has admitted ``RECORD_SIZE_MAX`` bytes."""
    store.small.put(keys.fileset_replication(fileset, _NAME), None if partial is None else partial.pack())
