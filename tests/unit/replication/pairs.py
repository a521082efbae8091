"""A primary and its standby in memory, their streams, and whether they hold the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from idemfs.engines.blocks.api import Blocks
from idemfs.engines.kv.api import KV
from idemfs.format import role
from idemfs.format.digest import to_text
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, Guid, Ino
from idemfs.limits import SECTOR_SIZE
from idemfs.replication.send import Frames
from idemfs.snapshots import manage
from idemfs.store.store import Store
from idemfs.testing.builders import memory_store
from idemfs.testing.clock import Simulated
from idemfs.vfs.reader import Reader
from idemfs.vfs.tree import Tree


def standby_of(
    primary: Tree, seed: int = 77, *, epoch: int = 1, kv: KV | None = None, blocks: Blocks | None = None
) -> Tree:
    """An empty standby of ``primary``."""
    store = memory_store(
        block_size=primary.store.block_size,
        fileset_guid=fileset_guid(primary),
        clock=Simulated(seed),
        kv=kv,
        blocks=blocks,
    )
    set_role(store, RoleRecord(Role.STANDBY, epoch, epoch))
    return Tree(store)


def set_role(store: Store, record: RoleRecord) -> None:
    store.admit(1, 100)
    store.small.put(role.KEY, role.pack(record))
    # crash: a test's preparation; everything after it relies on it.
    store.commit()


def fileset_guid(tree: Tree) -> Guid:
    return tree.store.catalog.filesets[ROOT_FILESET].guid


def take(tree: Tree, name: str) -> Snapshot:
    return manage.create(tree.store, tree.fileset, name)


def snapshots(tree: Tree) -> list[Snapshot]:
    return tree.store.catalog.snapshots(tree.fileset)


def frames_of(tree: Tree, base: Snapshot | None, target: Snapshot) -> list[bytes]:
    return list(Frames(tree, base, target))


def stream_of(tree: Tree, base: Snapshot | None, target: Snapshot) -> bytes:
    return b"".join(frames_of(tree, base, target))


def reading(stream: bytes) -> Callable[[int], bytes]:
    """``read`` over these bytes."""
    view, at = memoryview(stream), [0]

    def read(size: int) -> bytes:
        data = bytes(view[at[0] : at[0] + size])
        at[0] += len(data)
        return data

    return read


def visible(tree: Tree) -> list[tuple[str, bytes, str, int]]:
    """What users of a standby can tell: its snapshots and their digests; and where inode numbers go on."""
    return [(each.name, each.guid, to_text(each.digest), each.inode_count) for each in snapshots(tree)]


# -- file by file ------------------------------------------------------------------------------------------


def listing(reader: Reader) -> dict[bytes, tuple[object, ...]]:
    """Every path with everything that POSIX shows of it but access times."""
    found: dict[bytes, tuple[object, ...]] = {}
    waiting: list[tuple[bytes, Ino]] = [(b"/", reader.root)]
    while waiting:
        path, ino = waiting.pop()
        found[path] = _facts(reader, ino)
        if reader.inode(ino).is_dir:
            waiting += [(path + name + b"/", child) for name, child, _ in reader.all_entries(ino)]
    return found


def _facts(reader: Reader, ino: Ino) -> tuple[object, ...]:
    node = reader.inode(ino)
    content: object = None
    if node.is_file:
        content = dict(_pieces(reader, ino))
    elif node.mode & 0o170000 == 0o120000:
        # Where a dynamic link leads depends on what is newest.
        content = node.data if node.is_dynamic else reader.readlink(ino)
    xattrs = {name: reader.xattr(ino, name) for name in reader.xattr_names(ino)}
    times = node.mtime, node.ctime, node.btime
    plain = node.mode, node.uid, node.gid, node.nlink, node.rdev, node.size
    return ino, plain, times, content, xattrs, sorted(reader.links(ino))


def _pieces(reader: Reader, ino: Ino) -> Iterator[tuple[int, bytes]]:
    """What a file holds but zeros, by offset. A tail block of zeros may be one or a hole: nobody can tell."""
    for start, end in reader.data_ranges(ino):
        for offset in range(start, end, SECTOR_SIZE):
            piece = reader.read(ino, offset, min(SECTOR_SIZE, end - offset))
            if piece.strip(b"\0"):
                yield offset, piece


def assert_same(one: Tree, other: Tree, name: str) -> None:
    """Snapshot ``name`` is the same in both, file by file."""
    there, here = (
        listing(tree.snapshot_reader(tree.store.catalog.by_name(tree.fileset, name))) for tree in (one, other)
    )
    assert there.keys() == here.keys()
    for path, facts in there.items():
        assert here[path] == facts, path
