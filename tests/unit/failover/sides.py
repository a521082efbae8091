"""Facts for tests, written shortly: ``side("A", snapshots="1 2", active="2+")``."""

from __future__ import annotations

from idemfs.failover.facts import Frozen, Held, Side, Unreachable
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid

PRIMARY, STANDBY, FENCED = Role.PRIMARY, Role.STANDBY, Role.FENCED
FILESET = Guid(b"f" * 16)


def guid(name: str) -> Guid:
    return Guid(name.encode().ljust(16, b"."))


def held(name: str) -> Held:
    return Held(guid=guid(name), name=name, digest=digest(name), created_ns=0)


def digest(state: str) -> int:
    return int.from_bytes(state.encode(), "big")


def side(
    name: str,
    role: Role = PRIMARY,
    epoch: int = 1,
    seen: int | None = None,
    *,
    snapshots: str = "1",
    active: str | None = None,
    base: str | None = None,
    half_received: bool = False,
    frozen: tuple[str, int] | None = None,
    fileset: Guid = FILESET,
    members: str = "AB",
) -> Side:
    """``active``: the snapshot that the active state equals, or anything else; the newest unless said otherwise."""
    names = snapshots.split()
    newest = names[-1] if names else ""
    return Side(
        guid=guid(name),
        path=f"/{name}",
        fileset=fileset,
        role=RoleRecord(role, epoch, epoch if seen is None else seen),
        members=tuple(map(guid, members)),
        snapshots=tuple(map(held, names)),
        digest=digest(newest if active is None else active),
        base=guid(base or newest) if base or newest else None,
        half_received=half_received,
        frozen=Frozen(peer=guid(frozen[0]), epoch=frozen[1]) if frozen else None,
    )


def lost(name: str) -> Unreachable:
    return Unreachable(guid=guid(name), path=f"/{name}", reason="no store there")
