"""What the API answers and takes, as msgspec structs; their names and docstrings stand in the OpenAPI document.

Names are those that ``idemfs … --json`` has. Times that people read are UTC as ISO 8601, in whole seconds.

Threads: any; everything here is values, made under the store's lock.
"""

from __future__ import annotations

from time import gmtime, strftime

import msgspec

from idemfs.format.role import Role
from idemfs.format.tables import Snapshot
from idemfs.snapshots import diverged, received
from idemfs.snapshots.info import NEVER_NS, SnapshotInfo
from idemfs.snapshots.usage import FilesetInfo
from idemfs.vfs.tree import Tree

"""How the names begin of snapshots that keep what only an old primary had."""


class HealthAnswer(msgspec.Struct, frozen=True):
    """Whether a check holds; ``why`` not, in one line."""

    ok: bool
    why: str = ""


class NodeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A node. ``stores``: by name, those that it is to own; ``peers``: the nodes that it is paired with."""

    name: str
    version: str
    url: str
    fingerprint: str
    certificate_expires: str
    stores: list[str]
    peers: list[str]


class StoreAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A store. ``newest_snapshot`` of its root fileset: on a standby the one that it shows. ``problems``: what keeps
    parts of it from their work."""

    name: str
    path: str
    guid: str
    role: str
    epoch: int
    seen_epoch: int
    takes_changes: bool
    mount: str | None
    filesets: int
    snapshots: int
    newest_snapshot: str | None
    newest_snapshot_created: str | None
    diverged_snapshots: list[str]
    data_bytes: int
    metadata_bytes: int
    free_bytes: int
    problems: dict[str, str]


class HoldAnswer(msgspec.Struct, frozen=True):
    """Who needs a snapshot, and until when; ``until`` null: until it is released."""

    owner: str
    until: str | None


class SnapshotAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. ``name`` and ``fileset`` together are unique in a store, ``guid`` everywhere."""

    name: str
    fileset: str
    id: int
    guid: str
    created: str
    created_ns: int
    owned_bytes: int
    digest: str
    locked_until: str | None
    holds: list[HoldAnswer]


class NewSnapshots(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Snapshots to be taken at one instant: each NAME, FILESET@NAME, or PATTERN@NAME for all filesets that match."""

    names: list[str]


class FilesetAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A fileset. ``path``: where it appears, null for nowhere; ``origin``: the snapshot that it is a clone of."""

    name: str
    path: str | None
    guid: str
    inode_count: int
    active_bytes: int
    snapshot_count: int
    snapshot_bytes: int
    quota_bytes: int | None
    quota_inodes: int | None
    compression: str
    origin: str | None


class RiskAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What one store has that is left behind. ``bytes`` null: nobody can tell."""

    path: str
    why: str
    fileset: str | None = None
    snapshots: list[str] = []
    unsaved_changes: bool = False
    bytes: int | None = None


class PlanAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is going to be done, or with ``done`` was done. ``steps``: in words."""

    command: str
    done: bool
    source: str
    target: str
    common: str | None
    risks: list[RiskAnswer]
    warning: str | None
    notes: list[str]
    steps: list[str]


class NewDrill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A drill. ``name`` null: the first free one of drill, drill-2 …; ``snapshot``: NAME, or FILESET@NAME, null for
    what was received last."""

    name: str | None = None
    snapshot: str | None = None


class DrillAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A drill. ``filesets``: that of its root first; ``snapshot`` null: it has become independent of what it was made
    of; ``active_bytes``: what it has changed."""

    name: str
    started: str
    snapshot: str | None
    snapshot_deleted: bool
    filesets: list[str]
    active_bytes: int


class DivergedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that only this store had when another one had taken over. ``since``: the common one. ``files`` and
    ``changed_bytes`` null: nobody can tell."""

    name: str
    epoch: int
    since: str | None
    created: str
    files: int | None
    changed_bytes: int | None
    owned_bytes: int


def format_time(time_ns: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(time_ns // 1_000_000_000))


def role_of(tree: Tree) -> str:
    return tree.role.role.name.lower()


def takes_changes(tree: Tree) -> bool:
    """Whether users can write: it is primary, and its store has not stopped."""
    return tree.role.role is Role.PRIMARY and tree.store.failure is None


def newest(tree: Tree) -> Snapshot | None:
    """Of the root fileset: on a standby what it received last."""
    with tree.store.lock:
        if tree.role.role is Role.STANDBY:
            return received.base(tree.store, tree.fileset)
        return tree.store.catalog.newest(tree.fileset)


def lag_seconds(tree: Tree, now_ns: int) -> float | None:
    """How much of its primary's time a standby may lack: since it was told that there is nothing newer, or else since
    its newest snapshot was taken. None: it has no complete snapshot."""
    found = newest(tree)
    if found is None:
        return None
    age, told = max(0.0, (now_ns - found.created_ns) / 1e9), tree.current_age()
    return age if told is None else min(age, told)


def store_answer(name: str, path: str, mount: str | None, tree: Tree, problems: dict[str, str]) -> StoreAnswer:
    store = tree.store
    found = newest(tree)
    with store.lock:
        filesets = store.catalog.listed_filesets()
        snapshots = [each for fileset in filesets for each in store.catalog.snapshots(fileset.number)]
        unreleased = [snapshot for snapshot, _ in diverged.unreleased(store)]
    return StoreAnswer(
        name=name,
        path=path,
        guid=store.superblock.guid.hex(),
        role=role_of(tree),
        epoch=tree.role.epoch,
        seen_epoch=tree.role.seen_epoch,
        takes_changes=takes_changes(tree),
        mount=mount,
        filesets=len(filesets),
        snapshots=len(snapshots),
        newest_snapshot=found.name if found else None,
        newest_snapshot_created=format_time(found.created_ns) if found else None,
        diverged_snapshots=[each.name for each in unreleased],
        data_bytes=store.blocks.used_bytes(),
        metadata_bytes=store.kv.used_bytes(),
        free_bytes=store.blocks.free_bytes(),
        problems=problems,
    )


def snapshot_answer(info: SnapshotInfo) -> SnapshotAnswer:
    return SnapshotAnswer(
        name=info.name,
        fileset=info.fileset,
        id=info.id,
        guid=info.guid,
        created=format_time(info.created_ns),
        created_ns=info.created_ns,
        owned_bytes=info.owned_bytes,
        digest=info.digest,
        locked_until=format_time(info.locked_until_ns) if info.locked_until_ns else None,
        holds=[HoldAnswer(owner, None if end >= NEVER_NS else format_time(end)) for owner, end in info.holds],
    )


def fileset_answer(info: FilesetInfo) -> FilesetAnswer:
    return FilesetAnswer(
        name=info.name,
        path=info.path,
        guid=info.guid,
        inode_count=info.inode_count,
        active_bytes=info.active_bytes,
        snapshot_count=info.snapshot_count,
        snapshot_bytes=info.snapshot_bytes,
        quota_bytes=info.quota_bytes,
        quota_inodes=info.quota_inodes,
        compression=info.compression,
        origin=info.origin,
    )
