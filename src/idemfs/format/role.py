"""The role record of a store: ``role(1) · epoch(8) · seen epoch(8)``, little-endian.

A store without the record is a primary of epoch 1.

*Epoch* is the one in which this store got its role; *seen* is the highest that it
ever heard of. A primary that has seen a higher epoch than its own is fenced.
"""

from __future__ import annotations

from enum import Enum
from struct import Struct, error
from typing import NamedTuple

from idemfs.errors import Damaged
from idemfs.format import keys

KEY = keys.replication("role")
FROZEN = keys.replication("frozen")
"""There from freezing for a switchover until that is done."""
_LAYOUT = Struct("<BQQ")


class Role(Enum):
    PRIMARY = 1
    STANDBY = 2
    FENCED = 3


class RoleRecord(NamedTuple):
    role: Role = Role.PRIMARY
    epoch: int = 1
    seen_epoch: int = 1


def pack(record: RoleRecord) -> bytes:
    return _LAYOUT.pack(record.role.value, record.epoch, record.seen_epoch)


def unpack(value: bytes | None) -> RoleRecord:
    """Raises ``Damaged``."""
    if value is None:
        return RoleRecord()
    try:
        role, epoch, seen = _LAYOUT.unpack(value)
        return RoleRecord(Role(role), epoch, seen)
    except (error, ValueError) as bad:
        raise Damaged("the role record is damaged") from bad
