"""Clones: what they rest on, marks of absence, and what they see through their origins.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterator

from idemfs.check.context import Context
from idemfs.check.findings import Finding, Kind
from idemfs.errors import Damaged
from idemfs.format import indirect, keys
from idemfs.format.inode import Inode
from idemfs.format.tables import COMPLETE, DELETING, PINNED, SWEEPING, Fileset
from idemfs.ids import FilesetId, Ino, SnapshotId, fileset_of, number_of
from idemfs.limits import SCAN_COUNT
from idemfs.store.store import Store
from idemfs.versions import origin
from idemfs.versions.active import Active
from idemfs.versions.state import ActiveView, digest_of
from idemfs.vfs.tree import Tree


def active_of(store: Store, tree: Tree | None) -> Active:
    """Reads the store, also what its clones see through their origins."""
    if tree is not None:
        return tree.active
    if isinstance(store.lent_by, Tree):
        return store.lent_by.active
    active = Active(store)
    # It only reads: what changes the store has its own, which keeps the sums.
    store.before_seal.remove(active.flush)
    if not store.active.beneath:
        origin.learn(active)
    return active


def check(context: Context) -> Iterator[Finding]:
    """What clones rest on is there; a snapshot without a name is there for a clone."""
    wanted: set[tuple[FilesetId, SnapshotId]] = set()
    for number, fileset in context.filesets.items():
        if fileset.origin is None or context.is_going(number):
            continue
        what = _wrong_origin(context, fileset)
        if what:
            yield Finding(Kind.FILESET, f"fileset {fileset.name or number}", what)
        elif fileset.origin.state != SWEEPING:
            wanted.add((fileset.origin.fileset, fileset.origin.snapshot))
    for number, timeline in context.timelines.items():
        for snapshot in timeline.snapshots:
            if snapshot.state == PINNED and (number, snapshot.id) not in wanted:
                yield Finding(Kind.SNAPSHOT, f"snapshot {snapshot.name}", "stays for clones, and none rests on it")


def _wrong_origin(context: Context, fileset: Fileset) -> str:
    """What is wrong with what a clone rests on; empty when nothing is."""
    at = fileset.origin
    assert at is not None
    if at.state > SWEEPING:
        return f"is a clone in state {at.state}, which means nothing"
    if at.next_number > fileset.next_number:
        return f"is a clone whose own numbers begin with {at.next_number}, and the next is {fileset.next_number}"
    if at.state == SWEEPING:
        return ""
    above = context.filesets.get(at.fileset)
    if above is None or above.state == DELETING:
        return f"is a clone of a snapshot of fileset {at.fileset}, which does not exist"
    timeline = context.timelines[at.fileset]
    position = timeline.position(at.snapshot)
    if position is None:
        return "" if at.fileset in context.unreadable else f"is a clone of snapshot {at.snapshot}, which does not exist"
    if timeline.snapshots[position].state not in (COMPLETE, PINNED):
        return f"is a clone of {context.snapshot(at.fileset, at.snapshot)}, which is being deleted"
    if fileset.number == at.fileset:
        return "is a clone of itself"
    return ""


def is_mark(context: Context, key: bytes, value: bytes) -> bool:
    """Whether an active record says that the clone has not what its origin has."""
    fileset = context.filesets.get(FilesetId(int.from_bytes(key[:2], "big")))
    if fileset is None or fileset.origin is None or len(key) < keys.NAME_AT:
        return False
    return value == indirect.NO_BLOCKS if keys.kind_of(key) == keys.BLOCK else not value


def rests(context: Context, ino: Ino) -> bool:
    """Whether something of the inode may be seen through an origin."""
    fileset = context.filesets[fileset_of(ino)]
    return fileset.origin is not None and number_of(ino) < fileset.origin.next_number


def is_unseen_orphan(context: Context, ino: Ino) -> bool:
    """Whether a clone sees an inode without links through its origin: nobody can reach it."""
    return rests(context, ino) and context.store.active.get_own(keys.inode(ino)) is None


def seen(context: Context, fileset: FilesetId) -> Iterator[tuple[bytes, bytes]]:
    """The active records of a clone as it sees them, ascending, indirect blocks among them."""
    view = ActiveView(context.active)
    ino = Ino(-1)
    for key, value in view.records(*keys.fileset_range(fileset)):
        if keys.ino_of(key) != ino:
            ino = keys.ino_of(key)
            yield from _maps(context, ino)
        yield key, value


def _maps(context: Context, ino: Ino) -> Iterator[tuple[bytes, bytes]]:
    first = 0
    while indexes := context.active.map_indexes(ino, first, SCAN_COUNT):
        for index in indexes:
            try:
                value = context.active.map(ino, index).copy().pack()
            except Damaged:
                continue
            if value:
                yield keys.block(ino, index), value
        first = indexes[-1] + 1


def active_sums(context: Context, fileset: FilesetId) -> tuple[int, int]:
    """Digest and number of inodes of a clone."""
    view = ActiveView(context.active)
    count = sum(keys.kind_of(key) == keys.INODE for key, _ in view.records(*keys.fileset_range(fileset)))
    return digest_of(view, fileset), count


def sectors_differ(context: Context, ino: Ino, node: Inode, own: int) -> bool:
    """Whether an inode says another number of sectors than its own records name. What it sees it says as its origin."""
    return node.sectors != own and not rests(context, ino)
