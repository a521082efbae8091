"""Stores for tests, and changes of every kind from a seed.

The same seed gives the same store, byte for byte: the clock is simulated, and groups are
committed by the caller. Changes pick inodes by number, so that they cost the same in a
store of any size.

Threads: those that change one tree take turns, operation by operation; the outcome then follows no seed.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from random import Random

from idemfs.check import find
from idemfs.clock import Clock
from idemfs.engines.blocks.api import Blocks
from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.engines.kv.api import KV
from idemfs.engines.kv.memory import MemoryKV
from idemfs.format.inode import DYNAMIC, Inode, pack_named
from idemfs.ids import Guid, Ino, Number, make_ino, number_of
from idemfs.limits import BLOCK_SIZE_MIN, INDIRECT_ENTRY_COUNT, LINK_COUNT_MAX
from idemfs.store.files import create_files, first_records, new_superblock, open_files
from idemfs.store.store import Store
from idemfs.testing.clock import Simulated
from idemfs.versions.resolve import View
from idemfs.versions.state import digest_of
from idemfs.vfs.reader import Reader
from idemfs.vfs.tree import RenameFlag, Tree

_PICK_COUNT = 30
"""Inode numbers that are tried before a change is made to something else."""
_REFUSALS = frozenset(
    {
        errno.EBUSY,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.EINVAL,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ENOENT,
        errno.EPERM,
        errno.ENODATA,
        errno.EMLINK,
    }
)
"""What POSIX says to changes that make no sense; random ones often make none."""
_KINDS = (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)


def memory_store(
    *,
    block_size: int = BLOCK_SIZE_MIN,
    compression: str = "none",
    kv: KV | None = None,
    blocks: Blocks | None = None,
    clock: Clock | None = None,
    fileset_guid: Guid | None = None,
) -> Store:
    """A new store, in memory unless engines are given; groups are committed by the caller."""
    clock = clock or Simulated()
    kv = kv or MemoryKV()
    block = new_superblock(clock, block_size, compression)
    first_records(kv, fileset_guid or Guid(clock.random_bytes(16)))
    return Store(block, kv, blocks or MemoryBlocks(), clock)


def memory_tree(*, block_size: int = BLOCK_SIZE_MIN, compression: str = "none", clock: Clock | None = None) -> Tree:
    """The file system of a new store in memory."""
    return Tree(memory_store(block_size=block_size, compression=compression, clock=clock))


def file_store(
    path: str,
    *,
    block_size: int = BLOCK_SIZE_MIN,
    compression: str = "none",
    clock: Clock | None = None,
    fileset_guid: Guid | None = None,
) -> Store:
    """A new store at ``path``; groups are committed by the caller."""
    clock = clock or Simulated()
    create_files(path, block_size=block_size, compression=compression, fileset_guid=fileset_guid, clock=clock)
    return open_files(path, background=False, clock=clock)


def file_tree(path: str, *, block_size: int = BLOCK_SIZE_MIN, compression: str = "none") -> Tree:
    """The file system of a new store at ``path``."""
    return Tree(file_store(path, block_size=block_size, compression=compression))


def reopened(tree: Tree, *, committed: bool = True) -> Tree:
    """The same store after its process has ended and another one has opened it, for engines that outlive ``close``.

    Without ``committed`` the process was killed: the open group is gone.
    """
    store = tree.store
    if committed:
        store.close()
    else:
        store.abandon()
    return Tree(Store(store.superblock, store.kv, store.blocks, store.clock), tree.fileset)


def assert_clean(tree: Tree, *, read_data: bool = True) -> None:
    """Nothing is wrong with the store, and readers of every snapshot get the state that its digest names."""
    findings = list(find(tree, read_data=read_data))
    assert not findings, "\n".join(map(str, findings))
    for snapshot in tree.store.catalog.snapshots(tree.fileset):
        seen = digest_of(View(tree.active, snapshot.id), tree.fileset)
        assert seen == snapshot.digest, f"readers of snapshot {snapshot.name} see another state than it was taken of"


def make_file(tree: Tree, parent: Ino, name: bytes, content: bytes = b"", mode: int = 0o644) -> Ino:
    """A regular file with this content."""
    ino = tree.create(parent, name, stat.S_IFREG | mode, 0, 0)
    tree.write(ino, 0, content)
    return ino


def make_directory(tree: Tree, parent: Ino, name: bytes) -> Ino:
    return tree.create(parent, name, stat.S_IFDIR | 0o755, 0, 0)


def content_of(reader: Reader, ino: Ino) -> bytes:
    """All bytes of a regular file."""
    return reader.read(ino, 0, reader.inode(ino).size)


def random_changes(tree: Tree, rng: Random, count: int) -> None:
    """``count`` changes of every kind that POSIX knows, some of which are refused and change nothing."""
    changes = _Changes(tree, rng)
    for _ in range(count):
        if isinstance(tree.store.clock, Simulated):
            tree.store.clock.advance(rng.random())
        try:
            changes.one()
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise


class _Picks:
    """What to change, and with what: anything at all, with a liking for edges."""

    def __init__(self, tree: Tree, rng: Random) -> None:
        self.tree = tree
        self.rng = rng

    def pick(self, wanted: Callable[[Inode], bool]) -> Ino | None:
        """An inode with a name that ``wanted`` agrees to."""
        with self.tree.store.lock:
            next_number = self.tree.active.fileset(self.tree.root).next_number
            for _ in range(_PICK_COUNT):
                ino = make_ino(self.tree.fileset, Number(self.rng.randrange(1, next_number)))
                node = self.tree.active.inode(ino)
                if node is not None and node.nlink and wanted(node):
                    return ino
        return None

    def file(self) -> Ino:
        return self.pick(lambda node: node.is_file) or self.create(stat.S_IFREG | 0o644)

    def directory(self) -> Ino:
        return self.pick(lambda node: node.is_dir) or self.tree.root

    def anything(self) -> Ino:
        return self.pick(lambda node: bool(node.name)) or self.file()

    def place(self, ino: Ino) -> tuple[Ino, bytes]:
        """One of the names of an inode, with its directory."""
        parent, name = self.rng.choice(self.tree.reader.links(ino))
        return make_ino(self.tree.fileset, parent), name

    def name(self) -> bytes:
        """Seldom one that is not UTF-8, or as long as names may be; often one that is taken."""
        number = self.rng.randrange(self.rng.choice((8, 1 << 30)))
        if self.rng.random() < 0.05:
            return b"%d-" % number + b"\xff" * (250 - len(str(number)))
        return b"n%d" % number

    def size(self) -> int:
        """Of a write: inside an inline file, about a block, or several; often not a multiple of anything."""
        block_size = self.tree.store.block_size
        kind = self.rng.randrange(5)
        if kind == 0:
            return block_size * self.rng.randint(1, 3)
        return self.rng.randint(1, (64, 1000, block_size, 4 * block_size)[kind - 1])

    def data(self) -> bytes:
        """Random bytes, one byte many times, or bytes with zeros at the end."""
        size = self.size()
        kind = self.rng.randrange(4)
        if kind == 0:
            return bytes((self.rng.randrange(256),)) * size
        if kind == 1:
            return self.rng.randbytes(size // 2) + bytes(size - size // 2)
        return self.rng.randbytes(size)

    def offset(self, ino: Ino) -> int:
        """Inside the file, on a block's edge, a little past the end, or seldom in another indirect block."""
        size = self.tree.reader.inode(ino).size
        block_size = self.tree.store.block_size
        kind = self.rng.randrange(12)
        if kind < 7:
            return self.rng.randint(0, size)
        if kind < 9:
            return self.rng.randint(0, size // block_size + 1) * block_size
        if kind < 11:
            return size + self.rng.randint(0, 3 * block_size)
        return self.rng.randint(0, 3) * block_size * INDIRECT_ENTRY_COUNT + self.rng.randint(0, block_size)

    def create(self, mode: int, rdev: int = 0, data: bytes = b"", flags: int = 0) -> Ino:
        owner = self.rng.randrange(3)
        return self.tree.create(self.directory(), self.name(), mode, owner, owner, rdev=rdev, data=data, flags=flags)


class _Changes(_Picks):
    """One method for each kind of change."""

    def __init__(self, tree: Tree, rng: Random) -> None:
        super().__init__(tree, rng)
        weighted: list[tuple[int, Callable[[], None]]] = [
            (14, self.create_file),
            (4, self.create_directory),
            (2, self.create_special),
            (2, self.symlink),
            (14, self.write),
            (8, self.append),
            (8, self.truncate),
            (5, self.punch),
            (4, self.link),
            (10, self.rename),
            (8, self.unlink),
            (2, self.rmdir),
            (1, self.unlink_open),
            (5, self.change_xattr),
            (6, self.change_attributes),
            (1, self.read),
        ]
        self._actions = [action for _, action in weighted]
        self._weights = [weight for weight, _ in weighted]

    def one(self) -> None:
        self.rng.choices(self._actions, self._weights)[0]()

    def create_file(self) -> None:
        ino = self.create(stat.S_IFREG | self.rng.choice((0o600, 0o644, 0o755)), data=self.rng.randbytes(8))
        if self.rng.random() < 0.7:
            self.tree.write(ino, 0, self.data())

    def create_directory(self) -> None:
        self.create(stat.S_IFDIR | self.rng.choice((0o700, 0o755, 0o2775)))

    def create_special(self) -> None:
        kind = self.rng.choice(_KINDS)
        is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        self.create(kind | 0o600, rdev=self.rng.randrange(1 << 20) if is_device else 0)

    def symlink(self) -> None:
        count = self.rng.randint(1, 50)
        target = b"x/" * count + self.name()
        if count % 4:
            self.create(stat.S_IFLNK | 0o777, data=target)
        else:
            self.create(stat.S_IFLNK | 0o777, data=pack_named(number_of(self.tree.root)), flags=DYNAMIC)

    def write(self) -> None:
        ino = self.file()
        self.tree.write(ino, self.offset(ino), self.data())

    def append(self) -> None:
        self.tree.append(self.file(), self.data())

    def truncate(self) -> None:
        ino = self.file()
        self.tree.truncate(ino, 0 if self.rng.random() < 0.2 else self.offset(ino))

    def punch(self) -> None:
        ino = self.file()
        self.tree.punch(ino, self.offset(ino), self.size())

    def link(self) -> None:
        ino = self.pick(lambda node: not node.is_dir and node.nlink < LINK_COUNT_MAX) or self.file()
        self.tree.link(ino, self.directory(), self.name())

    def rename(self) -> None:
        parent, name = self.place(self.anything())
        flags = self.rng.choice((RenameFlag.NONE, RenameFlag.NONE, RenameFlag.NOREPLACE, RenameFlag.EXCHANGE))
        new_parent, new_name = self.directory(), self.name()
        if self.rng.random() < 0.5:
            new_parent, new_name = self.place(self.anything())
        self.tree.rename(parent, name, new_parent, new_name, flags)

    def unlink(self) -> None:
        self.tree.unlink(*self.place(self.anything()))

    def rmdir(self) -> None:
        self.tree.rmdir(*self.place(self.anything()))

    def unlink_open(self) -> None:
        """A file that is open loses a name, most often its last, is written to, and closed."""
        ino = self.file()
        self.tree.open(ino)
        try:
            self.tree.unlink(*self.place(ino))
            self.tree.write(ino, self.offset(ino), self.data())
        finally:
            self.tree.release(ino)

    def change_xattr(self) -> None:
        ino = self.anything()
        names = self.tree.reader.xattr_names(ino)
        if names and self.rng.random() < 0.4:
            self.tree.remove_xattr(ino, self.rng.choice(names))
        else:
            name = b"user.%d" % self.rng.randrange(5)
            self.tree.set_xattr(ino, name, self.rng.randbytes(self.rng.choice((0, 10, 3000))))

    def change_attributes(self) -> None:
        ino = self.anything()
        kind = self.rng.randrange(3)
        if kind == 0:
            self.tree.set_attributes(ino, mode=self.rng.randrange(0o10000))
        elif kind == 1:
            self.tree.set_attributes(ino, uid=self.rng.randrange(5), gid=self.rng.randrange(5))
        else:
            self.tree.set_attributes(ino, atime_ns=self.rng.randrange(1 << 60), mtime_ns=-self.rng.randrange(1 << 60))

    def read(self) -> None:
        self.tree.touch_atime(self.anything())
