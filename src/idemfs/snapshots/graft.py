"""Inodes of the active file system get the state that a snapshot has of them, or of others: extents are shared.

What is equal already is left alone, so that nothing of it is preserved. A file whose last block holds more than the
file is the only one of which a block is written. The caller lets nobody else change anything meanwhile, and
undoes all when something fails: groups may be committed at every step.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Callable

from idemfs.format import entry, inode, keys
from idemfs.format.inode import DYNAMIC, Inode, pack_named, unpack
from idemfs.ids import Ino, Number, fileset_of, make_ino, number_of
from idemfs.limits import INDIRECT_ENTRY_COUNT, SCAN_COUNT
from idemfs.snapshots.bring_back import trim_tail
from idemfs.snapshots.subtree import Fate, Name, Plan, is_named_inside, links
from idemfs.versions.active import Active
from idemfs.versions.state import ActiveView

_MAP_RECORD_COUNT = INDIRECT_ENTRY_COUNT + 16
_MAP_BYTES = 40_000
"""Of one indirect block: it, its shadow, and a count for each extent that comes to be shared."""
_INODE_BYTES = 4_000
_DROP_BLOCK_COUNT = 16 * INDIRECT_ENTRY_COUNT
_PAGE_COUNT = 500
_NOWHERE = Number(0)


class Graft:
    """Carries out one plan. ``is_open``: whether somebody has the inode open, so that it outlives its names."""

    def __init__(self, active: Active, plan: Plan, is_open: Callable[[Ino], bool]) -> None:
        self._active = active
        self._store = active.store
        self._records = active.records
        self._plan = plan
        self._view = plan.view
        self._is_open = is_open
        self._numbers: dict[Ino, Ino] = {}
        self.left: list[Ino] = []
        """Inodes without a name that are left to be reclaimed: they are open, or large."""

    def carry_out(self) -> None:
        """Raises ``OSError``, ``Damaged``; then a part was done."""
        plan = self._plan
        self._store.admit(2, 1000)
        self._numbers = plan.numbers(self._active)
        for ino in plan.members:
            self._bring(ino)
        self._set_name()
        for ino in plan.going():
            self._let_go(ino, plan.present[ino])

    # -- what comes ----------------------------------------------------------------------------------

    def _bring(self, source: Ino) -> None:
        ino, target = self._numbers[source], self._plan.target(source)
        if self._plan.fates[source] is Fate.LINKED:
            self._set_links(ino, self._outside(ino) + self._inside(source, target))
            return
        wanted = unpack(target.pack())
        if target.is_dynamic:
            self._point(source, wanted)
        names = self._inside(source, target)
        wanted.nlink = target.nlink if target.is_dir else len(names)
        self._store.admit(8, _INODE_BYTES)
        if self._active.inode(ino) is None:
            fresh = unpack(wanted.pack())
            fresh.sectors = 0
            fresh.parent, fresh.name = number_of(names[0][0]), names[0][1]
            is_new = number_of(ino) >= self._plan.first_number
            self._active.insert_inode(ino, fresh, is_new=is_new)
        self._bring_blocks(source, ino, target)
        self._bring_xattrs(source, ino)
        if target.is_dir:
            self._bring_entries(source, ino)
        if not (source == self._plan.root and self._fills):
            self._set_links(ino, names, wanted)
        self._copy(ino, wanted)

    @property
    def _fills(self) -> bool:
        """Whether an empty directory that stays where it is becomes the root of the subtree."""
        return self._plan.place.is_aside and self._plan.place.existing is not None

    def _point(self, source: Ino, wanted: Inode) -> None:
        """A dynamic link goes on naming its inode; in another fileset, the one that came with it, or nothing."""
        named = is_named_inside(self._plan, source, wanted)
        if fileset_of(source) == self._plan.fileset:
            return
        if named is not None:
            wanted.data = pack_named(number_of(self._numbers[named]))
            return
        wanted.data = b".snapshots/@no-inode-%d" % int.from_bytes(wanted.data, "little")
        wanted.flags &= ~DYNAMIC
        wanted.size = len(wanted.data)

    def _inside(self, source: Ino, target: Inode) -> list[Name]:
        """The names in the subtree, by the numbers that their directories get; in the snapshot's order."""
        plan = self._plan
        if source == plan.root:
            return [(plan.place.parent, plan.place.name)]
        names = plan.members[source]
        if len(names) > 1:
            inside = set(names)
            names = [name for name in links(self._view, source, target) if name in inside]
        return [(self._numbers[directory], name) for directory, name in names]

    def _outside(self, ino: Ino) -> list[Name]:
        node = self._node(ino)
        inside = set(self._plan.present.get(ino, []))
        return [name for name in links(ActiveView(self._active), ino, node) if name not in inside]

    def _node(self, ino: Ino) -> Inode:
        node = self._active.inode(ino)
        assert node is not None, "nobody else removes anything meanwhile"
        return node

    def _bring_blocks(self, source: Ino, ino: Ino, target: Inode) -> None:
        active, store = self._active, self._store
        has_blocks = target.is_file and not target.is_inline
        self._drop_blocks(ino, -(-target.size // store.block_size) if has_blocks else 0)
        if not has_blocks:
            return
        # The snapshot may see, through a ditto, what was appended to its last block.
        is_changed = self._node(ino).size != target.size
        indexes = set(self._view.map_indexes(source, target.size))
        indexes.update(ActiveView(active).map_indexes(ino, target.size))
        for index in sorted(indexes):
            wanted = self._view.file_map(source, target, index)
            if wanted.addresses == active.map(ino, index).addresses:
                continue
            store.admit(_MAP_RECORD_COUNT, _MAP_BYTES)
            node = active.change_inode(ino)
            present = active.map(ino, index).copy()
            for number in range(max(len(wanted.addresses), len(present.addresses))):
                address, checksum = wanted.get(number)
                if present.get(number)[0] != address:
                    store.space.share(address)
                    block = index * INDIRECT_ENTRY_COUNT + number
                    active.set_block(ino, node, block, address, checksum, block * store.block_size)
            is_changed = True
        if is_changed:
            store.admit(4, _MAP_BYTES)
            trim_tail(active, ino, active.change_inode(ino), target, False)

    def _drop_blocks(self, ino: Ino, first: int) -> None:
        """Blocks from this number on go, the last ones first, a part at a time."""
        active = self._active
        node = self._node(ino)
        has_blocks = node.is_file and not node.is_inline
        end = -(-node.size // self._store.block_size) if has_blocks else 0
        while end > first:
            start = max(first, end - _DROP_BLOCK_COUNT)
            if next(active.real_blocks(ino, start, end), None) is not None:
                count = (end - start) // INDIRECT_ENTRY_COUNT + 2
                self._store.admit(4 * count, _MAP_BYTES * count)
                active.drop_blocks(ino, active.change_inode(ino), start, end)
            end = start

    def _bring_xattrs(self, source: Ino, ino: Ino) -> None:
        wanted = {key[keys.NAME_AT :]: value for key, value in self._view.records(*keys.kind_range(source, keys.XATTR))}
        now = list(ActiveView(self._active).records(*keys.kind_range(ino, keys.XATTR)))
        for key, value in now:
            if key[keys.NAME_AT :] not in wanted:
                self._put(ino, key, None, len(value))
        known = dict(now)
        for name, value in wanted.items():
            key = keys.xattr(ino, name)
            if known.get(key) != value:
                self._put(ino, key, value, len(value) + len(known.get(key, b"")))

    def _put(self, ino: Ino, key: bytes, value: bytes | None, size: int) -> None:
        self._store.admit(6, _INODE_BYTES + 2 * size)
        node = self._active.change_inode(ino)
        if value is None:
            self._active.delete_record(key, node)
        else:
            self._active.put_record(key, value, node)

    def _bring_entries(self, source: Ino, ino: Ino) -> None:
        wanted: dict[bytes, bytes] = {}
        for key, value in self._view.records(*keys.kind_range(source, keys.ENTRY)):
            number, kind = entry.unpack(value)
            child = self._numbers[make_ino(fileset_of(source), number)]
            wanted[key[keys.NAME_AT :]] = entry.pack(number_of(child), kind << 12)
        for key, value in ActiveView(self._active).records(*keys.kind_range(ino, keys.ENTRY)):
            name = key[keys.NAME_AT :]
            if wanted.get(name) == value:
                del wanted[name]
            elif name not in wanted:
                self._put(ino, key, None, len(value))
        for name, value in wanted.items():
            self._put(ino, keys.entry(ino, name), value, len(value))

    # -- names ---------------------------------------------------------------------------------------

    def _set_links(self, ino: Ino, names: list[Name], wanted: Inode | None = None) -> None:
        """Let an inode have exactly these names; ``wanted`` is told the first one, or else the inode itself is."""
        if wanted is not None:
            wanted.parent, wanted.name = number_of(names[0][0]), names[0][1]
            rest = names[1:]
        else:
            rest = self._rename(ino, names)
        keys_left = {keys.link(ino, number_of(directory), name) for directory, name in rest}
        for key, _ in list(ActiveView(self._active).records(*keys.kind_range(ino, keys.LINK))):
            if key not in keys_left:
                self._put(ino, key, None, 1)
            keys_left.discard(key)
        for key in sorted(keys_left):
            self._put(ino, key, keys.PRESENT, 1)

    def _rename(self, ino: Ino, names: list[Name]) -> list[Name]:
        """Tell an inode its first name, which stays the one that it is if it can; the others."""
        node = self._node(ino)
        present = (make_ino(fileset_of(ino), node.parent), node.name)
        first = present if present in names else names[0]
        if set(links(ActiveView(self._active), ino, node)) != set(names):
            self._store.admit(4, _INODE_BYTES)
            node = self._active.change_inode(ino)
            node.parent, node.name = number_of(first[0]), first[1]
            node.nlink = len(names)
            node.ctime = self._store.clock.now_ns()
        return [name for name in names if name != first]

    def _copy(self, ino: Ino, wanted: Inode) -> None:
        """The attributes, if any differs."""
        node = self._node(ino)
        if ino == self._numbers[self._plan.root] and self._fills:
            wanted.parent, wanted.name = node.parent, node.name
        if inode.portable(wanted.pack()) != inode.portable(node.pack()):
            self._store.admit(4, _INODE_BYTES)
            node = self._active.change_inode(ino)
            for field in ("mode", "uid", "gid", "nlink", "rdev", "size", "mtime", "ctime", "btime", "flags"):
                setattr(node, field, getattr(wanted, field))
            node.parent, node.name, node.data = wanted.parent, wanted.name, wanted.data
        if self._store.small.get(keys.orphan(ino)) is not None:
            self._store.admit(1, 100)
            self._store.small.put(keys.orphan(ino), None)

    def _set_name(self) -> None:
        """The name of the subtree's root leads to it."""
        place = self._plan.place
        ino = self._numbers[self._plan.root]
        if place.existing == ino:
            return
        self._store.admit(8, _INODE_BYTES)
        node = self._node(ino)
        directory = self._active.change_inode(place.parent)
        before = None if place.existing is None else self._node(place.existing)
        key = keys.entry(place.parent, place.name)
        self._active.put_record(key, entry.pack(number_of(ino), node.mode), directory)
        directory.size += before is None
        directory.nlink += node.is_dir - (before is not None and before.is_dir)
        directory.mtime = directory.ctime = self._store.clock.now_ns()

    # -- what goes -----------------------------------------------------------------------------------

    def _let_go(self, ino: Ino, inside: list[Name]) -> None:
        """An inode loses its names in the subtree; without another name it goes."""
        node = self._node(ino)
        outside = [] if node.is_dir else self._outside(ino)
        if outside:
            self._set_links(ino, outside)
            return
        self._drop_records(ino, keys.ENTRY)
        self._drop_records(ino, keys.LINK)
        is_small = not node.is_file or node.is_inline or node.size <= INDIRECT_ENTRY_COUNT * self._store.block_size
        xattrs = sum(len(value) for _, value in ActiveView(self._active).records(*keys.kind_range(ino, keys.XATTR)))
        self._store.admit(40, 2 * _MAP_BYTES + 2 * xattrs)
        if is_small and not self._is_open(ino):
            self._active.remove_inode(ino)
            return
        node = self._active.change_inode(ino)
        node.parent, node.name, node.nlink = _NOWHERE, b"", 0
        node.size = 0 if node.is_dir else node.size
        node.ctime = self._store.clock.now_ns()
        self._store.small.put(keys.orphan(ino), b"")
        self.left.append(ino)

    def _drop_records(self, ino: Ino, kind: bytes) -> None:
        start, end = keys.kind_range(ino, kind)
        while pairs := self._records.scan(start, end, min(_PAGE_COUNT, SCAN_COUNT)):
            self._store.admit(4 * len(pairs) + 4, 700 * len(pairs) + _INODE_BYTES)
            node = self._active.change_inode(ino)
            for key, _ in pairs:
                self._active.delete_record(key, node)
            start = pairs[-1][0] + b"\0"
