"""Begin and end drills: what a standby received last, or had at one of its snapshots, to be changed for a test.

A drill has a clone of each fileset that appears in the store at that instant, each in the place where the active
file system has it. All of them are made in one group, and begin to be deleted in one: after a crash there is a
drill that can be ended, or there is none.

Threads: takes the store's lock.
"""

from __future__ import annotations

from typing import NamedTuple

from idemfs.errors import DrillError, FilesetInUse, NotStandby
from idemfs.format.role import Role
from idemfs.format.tables import Fileset, Snapshot
from idemfs.ids import ROOT_FILESET, FilesetId, Guid, Ino, Number, fileset_of, make_ino, number_of
from idemfs.limits import FILESET_COUNT_MAX, FILESET_NAME_SIZE_MAX, FILESET_NUMBER_MAX
from idemfs.snapshots import clones, delete, diverged, drills, drop, lines, received
from idemfs.snapshots.drills import Drill, Part
from idemfs.store.store import Store
from idemfs.versions.resolve import View
from idemfs.vfs.junctions import check_fileset_name
from idemfs.vfs.tree import Tree

DEFAULT_NAME = "drill"
_RECORD_COUNT = 8
_RECORD_BYTES = 2000
"""What the records of one fileset of a drill may take."""


class Piece(NamedTuple):
    """One fileset that a drill is to have: a clone of ``snapshot``, which is of ``origin``, named ``name``."""

    origin: Fileset
    snapshot: Snapshot
    name: str


def free_name(store: Store, wanted: str = DEFAULT_NAME) -> str:
    """A name that neither a drill nor a fileset has."""
    taken = {each.name for each in drills.listed(store)}
    name, count = wanted, 1
    while name in taken or store.catalog.has_fileset(name):
        count += 1
        name = f"{wanted}-{count}"
    return name


def plan(tree: Tree, name: str, snapshot: Snapshot | None = None) -> list[Piece]:
    """What drill ``name`` would have, the root of the drill first. ``snapshot`` None: what was received last.

    Of another fileset than the root one, ``snapshot`` makes a drill of that fileset and of those that appear in it.
    Raises ``NotStandby``, ``DrillError``, ``BadFilesetName``.
    """
    store = tree.store
    with store.lock:
        if tree.role.role is not Role.STANDBY:
            raise NotStandby("this store is no standby: 'idemfs snapshot clone' makes a writable copy of a snapshot")
        check_fileset_name(name)
        if drills.find(store, name) is not None or store.catalog.has_fileset(name):
            raise DrillError(f"a drill or a fileset named {name!r} exists; choose another name")
        found = snapshot or received.base(store, ROOT_FILESET)
        if found is None:
            raise DrillError("this standby never received a complete snapshot, so there is nothing to make a drill of")
        root = store.catalog.filesets[found.fileset]
        if not lines.is_own(store, root.number):
            raise DrillError(f"fileset {root.name!r} is not of this store's primary; a drill is of what that sent")
        pieces = [Piece(root, found, name)]
        _add_below(tree, pieces, found, is_newest=snapshot is None)
        _refuse_too_many(store, len(pieces))
        return pieces


def _add_below(tree: Tree, pieces: list[Piece], root: Snapshot, *, is_newest: bool) -> None:
    """What appears in the filesets of ``pieces``, and in those that are added."""
    store = tree.store
    names = {pieces[0].name}
    for above in pieces:
        view = View(tree.active, above.snapshot.id)
        for fileset in sorted(store.catalog.children(above.origin.number), key=lambda each: each.number):
            if not lines.is_own(store, fileset.number):
                continue
            found = received.base(store, fileset.number) if is_newest else _as_of(store, fileset.number, root)
            node = view.inode(fileset.junction)
            if found is None or node is None or not node.is_dir or not node.nlink or node.size:
                # It was not there at that instant.
                continue
            name = _name_of_part(store, pieces[0].name, fileset, names)
            names.add(name)
            pieces.append(Piece(fileset, found, name))


def _as_of(store: Store, fileset: FilesetId, root: Snapshot) -> Snapshot | None:
    """The snapshot of a fileset that belongs to one of another: of the same time, or else the last one before it.

    What diverged belongs to nothing else than what diverged with it.
    """
    known = store.catalog.snapshots(fileset)
    same = [each for each in known if each.created_ns == root.created_ns]
    if same:
        return same[-1]
    marks = diverged.marks(store)
    before = [each for each in known if each.created_ns < root.created_ns and each.id not in marks]
    return before[-1] if before else None


def _name_of_part(store: Store, drill: str, fileset: Fileset, names: set[str]) -> str:
    wanted = f"{drill}.{fileset.name}"
    if len(wanted.encode()) > FILESET_NAME_SIZE_MAX - 8:
        wanted = f"{drill.encode()[:100].decode(errors='ignore')}.{fileset.number}"
    name, count = wanted, 1
    while name in names or store.catalog.has_fileset(name):
        count += 1
        name = f"{wanted}-{count}"
    return name


def _refuse_too_many(store: Store, count: int) -> None:
    if len(store.catalog.filesets) + count > FILESET_COUNT_MAX:
        raise DrillError(f"a store has {FILESET_COUNT_MAX} filesets at most: end other drills first")
    if store.catalog.state.next_fileset + count > FILESET_NUMBER_MAX + 1:
        raise DrillError(f"the store has had {FILESET_NUMBER_MAX} filesets, which is all there can be")


def start(tree: Tree, name: str, snapshot: Snapshot | None = None) -> Drill:
    """Begin a drill; durable on return. It costs a few records for each fileset, whatever these hold.

    Raises as ``plan``, ``NoSpace``, ``CommitFailed``.
    """
    store = tree.store
    with store.exclusive():
        # crash: the drill is one group, in which nothing else stands.
        store.commit()
        count = len(plan(tree, name, snapshot))
        store.admit(_RECORD_COUNT * count, _RECORD_BYTES * count)
        # Again, since admitting may have let others in.
        pieces = plan(tree, name, snapshot)
        now_ns = store.clock.now_ns()
        there: dict[FilesetId, FilesetId] = {}
        for piece in pieces:
            there[piece.origin.number] = _clone(tree, piece, there, Part(name, now_ns, is_root=not there))
        tree.moves += 1
        # crash: who began it is told that it is there.
        store.commit()
        found = drills.find(store, name)
        assert found is not None
        return found


def _clone(tree: Tree, piece: Piece, there: dict[FilesetId, FilesetId], part: Part) -> FilesetId:
    """Part of the open group."""
    store, origin = tree.store, piece.origin
    junction = Ino(0)
    if there:
        junction = make_ino(there[fileset_of(origin.junction)], Number(number_of(origin.junction)))
    guid = Guid(store.clock.random_bytes(16))
    made = store.catalog.add_fileset(guid, piece.name, junction, origin.compression)
    clones.rest(tree.active, made, piece.snapshot, origin.next_number)
    drills.put(store, made.number, part)
    return made.number


def refuse_ending(tree: Tree, drill: Drill, *, held: bool = False) -> None:
    """Raises ``FilesetInUse`` for a drill with clones of its own outside, or with snapshots that are held or locked."""
    store = tree.store
    with store.lock:
        for number in drill.filesets:
            fileset = store.catalog.filesets[number]
            clones.refuse_if_origin(store, fileset)
            kept = drop.locked_snapshots(store, fileset) + ([] if held else drop.held_snapshots(store, fileset))
            if kept:
                raise FilesetInUse(
                    f"snapshots of fileset {fileset.name!r} of drill {drill.name!r} are held or locked: "
                    f"{', '.join(kept)}; 'idemfs snapshot release' lets go what is held"
                )


def end(tree: Tree, name: str) -> None:
    """Throw a drill away. On return it is durable that it goes; what it gives back comes with the next group.

    Raises ``DrillError`` when there is none of this name, ``FilesetInUse``, ``NoSpace``, ``CommitFailed``; then what
    was begun goes on when the store is opened again.
    """
    store = tree.store
    gone: list[Snapshot] = []
    with store.exclusive():
        count = len(find(store, name).filesets)
        # What is kept in memory of files that are seen through would be read without their blocks.
        tree.active.settle(forgets=True)
        store.admit(_RECORD_COUNT * count, _RECORD_BYTES * count, frees=True)
        drill = find(store, name)
        refuse_ending(tree, drill)
        filesets = [store.catalog.filesets[number] for number in drill.filesets]
        for fileset in filesets:
            origin = drop.begin(tree.active, fileset)
            if origin is not None:
                gone.append(origin)
        tree.moves += 1
        # crash: from here on the drill goes, now or when the store is opened again.
        store.commit()
    for fileset in filesets:
        drop.finish(tree.active, fileset)
    for snapshot in gone:
        delete.finish(tree.active, snapshot)


def find(store: Store, name: str) -> Drill:
    """Raises ``DrillError``."""
    found = drills.find(store, name)
    if found is None:
        raise DrillError(f"no drill named {name!r}; 'idemfs drill list STORE' shows those there are")
    return found
