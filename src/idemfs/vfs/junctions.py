"""Filesets: made, renamed, given another place, deleted; each is one operation of the active file system.

A fileset appears at its *junction*, an empty directory of another fileset. That directory is like any other there,
also for snapshots of that fileset, which show it empty; the fileset's own record names it, and readers of the active
file system go on from it to the fileset's root. While a fileset appears in it, nothing can be made in it or have its
name, and it cannot be removed; it can be renamed inside its own fileset.

Threads: as in ``namespace``.
"""

from __future__ import annotations

import errno
import stat

from idemfs.errors import BadFilesetName, FilesetError, FilesetExists, FilesetInUse, FilesetMissing, SnapshotMissing
from idemfs.format.inode import Inode
from idemfs.format.tables import COMPLETE, SNAPSHOTS_COUNT, STORE_COMPRESSION, Fileset, Snapshot
from idemfs.ids import ROOT_FILESET, ROOT_NUMBER, FilesetId, Guid, Ino, fileset_of, make_ino, number_of
from idemfs.limits import FILESET_COUNT_MAX, FILESET_NAME_SIZE_MAX, FILESET_NUMBER_MAX, LINK_COUNT_MAX
from idemfs.snapshots import clones, delete, drills, drop, lines, promote, usage
from idemfs.snapshots.choose import PATTERN
from idemfs.versions.resolve import View
from idemfs.vfs.fileset_state import RECORD_SIZE, REMOVAL_SIZE, new_inode
from idemfs.vfs.names import SNAPSHOTS_NAME, check_name
from idemfs.vfs.namespace import Namespace
from idemfs.vfs.reader import posix

_ROOT_MODE = stat.S_IFDIR | 0o755


def root_of(fileset: Fileset) -> Ino:
    """The root directory of a fileset."""
    return make_ino(fileset.number, ROOT_NUMBER)


def check_fileset_name(name: str) -> None:
    """Raises ``BadFilesetName``: names stand before the ``@`` of a snapshot, and are matched by patterns."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadFilesetName(f"fileset name {name!r} is not valid Unicode") from None
    if not 0 < size <= FILESET_NAME_SIZE_MAX:
        raise BadFilesetName(f"a fileset name has 1 to {FILESET_NAME_SIZE_MAX} bytes; this one has {size}")
    if any(c in "/@" or c in PATTERN or not c.isprintable() for c in name):
        raise BadFilesetName(f"fileset name {name!r} has one of '/@*?[' or an unprintable character")
    if name in (".", ".."):
        raise BadFilesetName(f"{name!r} is reserved; choose another fileset name")


def _check_place(name: bytes) -> None:
    """Raises ``FilesetError`` for a last name of a path where no fileset appears."""
    if name in (b".", b".."):
        raise FilesetError(
            "a fileset appears at a directory below the root; give a path that ends with its name, such as '/home'"
        )
    if name == SNAPSHOTS_NAME:
        raise FilesetError("'.snapshots' is where a mount shows snapshots; let the fileset appear by another name")


class Junctions(Namespace):
    """Makes filesets, and changes what they are called and where they appear."""

    def make_fileset(
        self, parent: Ino, name: bytes, fileset_name: str, uid: int, gid: int, *, compression: int = STORE_COMPRESSION
    ) -> Fileset:
        """A new fileset that appears as ``name`` in ``parent``: a directory that is empty, or is made.

        The root of the fileset has owner and permissions of the directory. Raises ``BadFilesetName``,
        ``FilesetExists``, ``FilesetError``, ``OSError``.
        """
        with self.store.lock:
            fileset, node = self._new_fileset(parent, name, fileset_name, (uid, gid), compression)
            root = new_inode(node.mode, node.uid, node.gid, self.store.clock.now_ns())
            root.parent = ROOT_NUMBER
            ino = self.store.catalog.new_ino(fileset)
            assert ino == make_ino(fileset.number, ROOT_NUMBER)
            self.active.insert_inode(ino, root, is_new=True)
            self.moves += 1
            return fileset

    def clone_snapshot(
        self, snapshot: Snapshot, parent: Ino, name: bytes, fileset_name: str, uid: int, gid: int
    ) -> Fileset:
        """A new fileset that appears as ``name`` in ``parent``, as ``make_fileset``, and has all that a snapshot has.

        It costs one record: what the clone does not change it sees in the snapshot. Raises as ``make_fileset``, and
        ``SnapshotMissing``.
        """
        with self.store.lock:
            compression = self.store.catalog.filesets[snapshot.fileset].compression
            # The junction first: making it must not come between looking at the snapshot and resting on it.
            fileset, _ = self._new_fileset(parent, name, fileset_name, (uid, gid), compression, snapshot)
            above = self.store.catalog.filesets[snapshot.fileset]
            clones.rest(self.active, fileset, snapshot, above.next_number)
            self.moves += 1
            return fileset

    def _new_fileset(
        self,
        parent: Ino,
        name: bytes,
        fileset_name: str,
        owner: tuple[int, int],
        compression: int,
        snapshot: Snapshot | None = None,
    ) -> tuple[Fileset, Inode]:
        """One with no inode in it, and the directory where it appears. ``snapshot``: what it is to be a clone of."""
        _check_place(name)
        self._change(parent, 16, 3 * RECORD_SIZE)
        self._refuse_drill(fileset_of(parent))
        self._check_new_name(fileset_name)
        if snapshot is not None and snapshot.state != COMPLETE:
            raise SnapshotMissing(f"snapshot {snapshot.name!r} was deleted")
        if len(self.store.catalog.filesets) >= FILESET_COUNT_MAX:
            raise FilesetExists(f"the store has {FILESET_COUNT_MAX} filesets already; delete some first")
        if self.store.catalog.state.next_fileset > FILESET_NUMBER_MAX:
            raise FilesetExists(f"the store has had {FILESET_NUMBER_MAX} filesets, which is all there can be")
        self._directory(parent)
        found = self.names.find(parent, name)
        junction = self._make_directory(parent, name, *owner) if found is None else found
        node = self._empty_directory(junction)
        guid = Guid(self.store.clock.random_bytes(16))
        return self.store.catalog.add_fileset(guid, fileset_name, junction, compression), node

    def promote_fileset(self, fileset: Fileset) -> None:
        """Make a clone independent of its origin; durable on return. Raises ``FilesetError`` for what is no clone."""
        with self.store.lock:
            self.refuse_changing(fileset.number)
            self._refuse_gone(fileset)
            if fileset.origin is None:
                raise FilesetError(f"fileset {fileset.name!r} is no clone; it depends on no other")
        promote.promote(self.active, fileset)

    def _make_directory(self, parent: Ino, name: bytes, uid: int, gid: int) -> Ino:
        """As ``create``, in the operation that is under way."""
        check_name(name)
        if self.reader.inode(parent).nlink >= LINK_COUNT_MAX:
            raise posix(errno.EMLINK)
        now = self.store.clock.now_ns()
        node = new_inode(_ROOT_MODE, uid, gid, now)
        node.parent, node.name = number_of(parent), name
        ino = self.store.catalog.new_ino(self.active.fileset(parent))
        self.active.insert_inode(ino, node, is_new=True)
        self.names.add(parent, name, ino, node.mode, now)
        return ino

    def _empty_directory(self, ino: Ino) -> Inode:
        """Raises ``OSError``: ENOTDIR, ENOTEMPTY, and EBUSY where another fileset appears already."""
        node = self._directory(ino)
        if node.size:
            raise posix(errno.ENOTEMPTY)
        if number_of(ino) == ROOT_NUMBER:
            raise posix(errno.EBUSY, "this is the root of a fileset")
        return node

    def _check_new_name(self, name: str) -> None:
        check_fileset_name(name)
        if self.store.catalog.has_fileset(name):
            raise FilesetExists(f"a fileset named {name!r} exists; choose another name")

    def rename_fileset(self, fileset: Fileset, name: str) -> None:
        """Give a fileset another name; it stays where it is. Raises ``BadFilesetName``, ``FilesetExists``."""
        with self.store.lock:
            self._change(root_of(fileset), 2, RECORD_SIZE)
            self._refuse_gone(fileset)
            self._check_new_name(name)
            self.store.catalog.change_fileset(fileset, name=name)

    def attach_fileset(self, fileset: Fileset, parent: Ino, name: bytes) -> None:
        """Let a fileset appear as ``name`` in ``parent``, an empty directory, and no longer where it was."""
        _check_place(name)
        with self.store.lock:
            self._change(parent, 2, RECORD_SIZE)
            self._refuse_gone(fileset)
            self._refuse_drill(fileset.number)
            self._refuse_drill(fileset_of(parent))
            if fileset.number == ROOT_FILESET:
                raise FilesetError("the root fileset is the root of the store, and appears nowhere else")
            self._directory(parent)
            junction = self.reader.named(parent, name)
            self._empty_directory(junction)
            if self._is_below(fileset_of(junction), fileset.number):
                raise FilesetError(f"fileset {fileset.name!r} cannot appear inside of itself")
            self.store.catalog.change_fileset(fileset, junction=junction)
            self.moves += 1

    def _is_below(self, number: FilesetId, ancestor: FilesetId) -> bool:
        while number != ancestor:
            junction = self.store.catalog.filesets[number].junction
            if not junction:
                return False
            number = fileset_of(junction)
        return True

    def set_quota(
        self,
        fileset: Fileset,
        *,
        quota_bytes: int | None = None,
        quota_inodes: int | None = None,
        counts_snapshots: bool | None = None,
    ) -> None:
        """Limit what a fileset holds; 0 is no limit, None leaves what is there. It may hold more already."""
        with self.store.lock:
            self._change(root_of(fileset), 2, RECORD_SIZE)
            self._refuse_gone(fileset)
            for number in (quota_bytes, quota_inodes):
                if number is not None and not 0 <= number < 1 << 63:
                    raise ValueError(f"a quota is a number from 0 on, not {number}")
            if not fileset.is_counted:
                self._count(fileset)
            flags = fileset.flags
            if counts_snapshots is not None:
                flags = flags | SNAPSHOTS_COUNT if counts_snapshots else flags & ~SNAPSHOTS_COUNT
            self.store.catalog.limit_fileset(
                fileset,
                fileset.quota_bytes if quota_bytes is None else quota_bytes,
                fileset.quota_inodes if quota_inodes is None else quota_inodes,
                flags,
            )

    def _count(self, fileset: Fileset) -> None:
        """What the root fileset of an old store holds: from now on it is kept."""
        self.store.commit(wait=False)
        fileset.sectors, fileset.record_bytes = usage.counted(self.store, fileset)
        fileset.is_counted = True
        self.store.admit(2, RECORD_SIZE)

    def delete_fileset(self, fileset: Fileset, *, held: bool = False) -> None:
        """Delete a fileset with its snapshots, and the directory where it appears. ``held``: also held snapshots.

        On return it is durable that it goes; what it gives back comes with the next group. Raises ``FilesetInUse``,
        ``FilesetError``, ``NoSpace``, ``CommitFailed``.
        """
        with self.store.lock:
            self._change(root_of(fileset), 16, REMOVAL_SIZE, frees=True)
            self.refuse_deleting(fileset, held=held)
            if fileset.junction:
                self._drop_junction(fileset.junction)
            gone = drop.begin(self.active, fileset)
            lines.remember_gone(self.store, fileset)
            self.moves += 1
            # crash: from here on the deletion happens, now or when the store is opened again.
            self.store.commit()
        drop.finish(self.active, fileset)
        if gone is not None:
            delete.finish(self.active, gone)

    def refuse_deleting(self, fileset: Fileset, *, held: bool = False) -> None:
        """Raises what ``delete_fileset`` would raise."""
        with self.store.lock:
            if fileset.number == ROOT_FILESET:
                raise FilesetError("the root fileset goes with the store")
            self._refuse_gone(fileset)
            children = [child.name for child in self.store.catalog.children(fileset.number)]
            if children:
                raise FilesetInUse(
                    f"in fileset {fileset.name!r} appear others, {', '.join(sorted(children))}: delete them first, or "
                    "let them appear elsewhere ('idemfs fileset attach')"
                )
            clones.refuse_if_origin(self.store, fileset)
            locked = drop.locked_snapshots(self.store, fileset)
            if locked:
                raise FilesetInUse(
                    f"snapshots of fileset {fileset.name!r} are locked: {', '.join(locked)}; nobody can delete them "
                    "before their dates ('idemfs snapshot prune --dry-run' shows them)"
                )
            names = [] if held else drop.held_snapshots(self.store, fileset)
            if names:
                raise FilesetInUse(
                    f"snapshots of fileset {fileset.name!r} are held: {', '.join(names)}; 'idemfs snapshot "
                    "release' lets them go, --held deletes them all the same"
                )

    def _refuse_drill(self, fileset: FilesetId) -> None:
        if drills.is_drill(self.store, fileset):
            raise FilesetError("a drill has the filesets that it began with, each in its place")

    def _refuse_gone(self, fileset: Fileset) -> None:
        if fileset.state != COMPLETE:
            raise FilesetMissing("the fileset was deleted")

    def _drop_junction(self, junction: Ino) -> None:
        """The directory goes with the fileset, unless it has been removed, or filled, by going back to a snapshot."""
        node = self.active.inode(junction)
        if node is None or not node.nlink or node.size:
            return
        parent = make_ino(fileset_of(junction), node.parent)
        now = self.store.clock.now_ns()
        self.names.remove(parent, node.name, node.mode, now)
        self._drop_directory(junction, now)

    def refuse_losing_junctions(self, snapshot: Snapshot) -> None:
        """Before the active state becomes that of ``snapshot``, where a fileset may have no place to appear.

        Raises ``FilesetInUse``.
        """
        view = View(self.active, snapshot.id)
        for fileset in self.store.catalog.children(snapshot.fileset):
            node = view.inode(fileset.junction)
            if node is None or not node.nlink or node.size:
                raise FilesetInUse(
                    f"snapshot {snapshot.name!r} has no empty directory where fileset {fileset.name!r} appears; let it "
                    "appear elsewhere ('idemfs fileset attach'), in another fileset or where the snapshot has one"
                )
