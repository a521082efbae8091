"""Does the same to a real store and to the model, step by step.

A step is the name of a ``Driver`` method and small numbers; what they pick (an inode, a
name, an offset) follows from the state, so that any numbers make a step, and a list of steps
is all that is needed to repeat a run. Numbers come from hypothesis or from a seeded generator.

The engines lose what was not synced when they crash. Every step compares what it changed; ``compare.py`` has the
comparisons, and ``machine.py`` the store.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import NamedTuple
from unittest import mock

from idemfs.errors import SnapshotHeld
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, Guid, Ino, Number, make_ino
from idemfs.limits import INDIRECT_ENTRY_COUNT, INLINE_SIZE_MAX
from idemfs.snapshots import bring_back, delete, manage
from idemfs.store import space
from idemfs.store import store as store_module
from idemfs.testing.clock import Simulated
from idemfs.vfs.snapshot_tree import SnapshotTree
from idemfs.vfs.tree import RenameFlag, Tree
from tests.property.compare import (
    check_store,
    compare_active,
    compare_digest,
    compare_nodes,
    compare_snapshot,
    compare_snapshots,
)
from tests.property.machine import BLOCK, Machine
from tests.property.model import ROOT, Model, Node, State
from tests.property.written import WrittenSteps

SPAN = BLOCK * INDIRECT_ENTRY_COUNT
NAMES = (b"a", b"b", b"c", b"a\x01", b"\xff\xfe", b"dd", b"n" * 255)
XATTRS = (b"user.a", b"user.b", b"user.a\x01")
EDGES = (0, INLINE_SIZE_MAX, BLOCK, 2 * BLOCK, 3 * BLOCK, 5 * BLOCK)
NEAR = (0, -1, 1, 700, -700, 2000)
LENGTHS = (1, 600, INLINE_SIZE_MAX, INLINE_SIZE_MAX + 1, 3000, BLOCK, BLOCK + 1, 2 * BLOCK, 10_000)
SPECIAL = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)
MODES = (0o644, 0o755, 0o6711, 0o2775, 0o000)
SNAPSHOT_COUNT_MAX = 7


class Options(NamedTuple):
    """How a run differs from the plain one."""

    compression: str = "none"
    group_record_count: int | None = None
    """Groups are committed at about so many records, and so in the midst of what takes several steps."""
    standby: str | None = None
    """The compression of a standby, if there is to be one."""
    window_sector_count: int = 8
    """Space is handed out from windows of so many sectors; small ones make freed space come back soon."""
    compare_each: bool = True
    """Compare after each step: it fills caches, which may hide something, or bring it out."""


PLAIN = Options()


class Driver(WrittenSteps):
    """One store and its model. ``steps`` is what was done so far.

    A step returns True when it is durable, False when it has told the model what is, and None otherwise.
    """

    def __init__(self, options: Options = PLAIN) -> None:
        self.options = options
        self.clock = Simulated()
        self.steps: list[tuple[str, tuple[int, ...]]] = []
        self._written: SnapshotTree | None = None
        self._patches: list[mock._patch[int]] = []
        self.patch(mock.patch.object(space, "RESERVE_SECTOR_COUNT", options.window_sector_count))
        if options.group_record_count is not None:
            self.patch(mock.patch.object(store_module, "GROUP_RECORD_COUNT_MAX", options.group_record_count))
        self.machine = Machine(self.clock, options.compression, Guid(bytes(16)))
        root = self.tree.reader.inode(self.tree.root)
        self.model = Model(self.clock.now_ns(), root.uid, root.gid)
        self._seen: State = {}
        self._turn = 0
        self._snapshot_count = 0
        self._data_count = 0

    def patch(self, patch: mock._patch[int]) -> None:
        """Until the end of this run."""
        patch.start()
        self._patches.append(patch)

    def end(self) -> None:
        for patch in self._patches:
            patch.stop()

    @property
    def tree(self) -> Tree:
        return self._written or self.machine.tree

    # -- steps ---------------------------------------------------------------------------------------

    def step(self, name: str, *numbers: int) -> None:
        """Do one step to both, and compare."""
        self.steps.append((name, numbers))
        self.clock.advance(0.5)
        commits, saved = self.machine.kv.commit_count, self.model.saved()
        self.machine.kv.orphans.clear()
        durable = getattr(self, name)(*numbers)
        if durable:
            self.model.commit()
        elif durable is None and self.machine.kv.commit_count != commits:
            # Admitting the step committed what was before it; or else the step, of which only the freeing is left.
            gone = map(self.ino, saved[0].keys() - self.model.active.keys())
            self.model.commit(None if self.machine.kv.orphans.intersection(gone) else saved)
        if self.options.compare_each:
            self.compare()

    def both(self, real: Callable[[], object], modelled: Callable[[], object]) -> None:
        """Do something to both; either both do it, or both refuse it for the same reason."""
        expected = _refusal(modelled)
        got = _refusal(real)
        assert got == expected, f"refused with {got}, and the model with {expected}"

    def now(self) -> int:
        return self.clock.now_ns()

    # -- picking -------------------------------------------------------------------------------------

    def ino(self, number: int) -> Ino:
        return make_ino(ROOT_FILESET, Number(number))

    def _pick(self, which: int, wanted: Callable[[Node], bool]) -> int:
        """One of the inodes that are wanted, else the root."""
        found = [number for number, node in self.model.active.items() if wanted(node)]
        return found[which % len(found)] if found else ROOT

    def directory(self, which: int) -> int:
        """Seldom one that is none, or that was removed."""
        if which % 23 == 7:
            return self._pick(which // 23, lambda node: True)
        return self._pick(which, lambda node: node.is_dir and node.nlink > 0)

    def file(self, which: int) -> int:
        """Most often one of the oldest, so that something happens to them."""
        return self._pick(which if which % 4 == 0 else which // 4 % 3, lambda node: node.is_file)

    def anything(self, which: int) -> int:
        return self._pick(which, lambda node: True)

    def place(self, which: int) -> tuple[int, bytes]:
        """An entry that is there, or seldom one that is not."""
        places = [(number, name) for number, node in self.model.active.items() for name in node.entries]
        if not places or which % 29 == 5:
            return self.directory(which // 29), NAMES[which % len(NAMES)]
        return places[which % len(places)]

    def offset(self, number: int, which: int) -> int:
        """On or near an edge: of what the file has data in, of its end, of blocks and indirect blocks."""
        kind, rest = divmod(which, 3)[::-1]
        edge, near = divmod(rest, len(NEAR))
        content = self.model.active[number].content
        # Comparing what is as long as two indirect blocks takes its time, so few files are.
        edges: Sequence[int] = (*EDGES, SPAN, SPAN - BLOCK) if number % 7 == 5 else EDGES
        if kind == 0:
            edges = [at for at in range(0, len(content), BLOCK) if content[at : at + BLOCK].strip(b"\0")] or edges
        elif kind == 1:
            edges = (len(content), len(content) // BLOCK * BLOCK, len(content) // 2)
        return max(0, edges[edge % len(edges)] + NEAR[near])

    def data(self, length: int, kind: int) -> bytes:
        """Random bytes; one byte; bytes with zeros behind them; zeros."""
        size = LENGTHS[length % len(LENGTHS)]
        self._data_count += 1
        rng = Random(self._data_count)
        if kind % 6 < 3:
            return rng.randbytes(size)
        if kind % 6 == 3:
            return bytes((rng.randrange(1, 256),)) * size
        return rng.randbytes(size // 2).ljust(size, b"\0") if kind % 6 == 4 else bytes(size)

    # -- names ---------------------------------------------------------------------------------------

    def furnish(self) -> bool:
        """Something to begin with: files of all sizes, a directory, and all that is durable."""
        for name, (start, length) in enumerate(((0, 0), (0, 8), (3 * BLOCK, 7), (SPAN, 6))):
            self.create(0, name, 0, 0)
            number = self.model.active[ROOT].entries[NAMES[name]]
            if self.model.active[number].is_file:
                data = self.data(length, name)
                self.tree.write(self.ino(number), start, data)
                self.model.write(number, start, data, self.now())
        self.create(0, 4, 4, 1)
        self.set_xattr(1, 0, 3)
        self.tree.sync()
        return True

    def create(self, where: int, name: int, kind: int, extra: int) -> None:
        parent, data, rdev = self.directory(where), b"", 0
        if kind % 8 < 4:
            mode = stat.S_IFREG | MODES[extra % len(MODES)]
            data = bytes(extra % 3) + b"x" * (extra % 50)
        elif kind % 8 < 6:
            mode = stat.S_IFDIR | MODES[extra % len(MODES)]
        elif kind % 8 == 6:
            mode, data = stat.S_IFLNK | 0o777, b"to/%d" % extra
        else:
            mode = SPECIAL[extra % len(SPECIAL)] | 0o600
            rdev = extra if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0
        label, owner = NAMES[name % len(NAMES)], extra % 3
        self.both(
            lambda: self.tree.create(self.ino(parent), label, mode, owner, owner + 1, rdev=rdev, data=data),
            lambda: self.model.create(parent, label, mode, owner, owner + 1, self.now(), rdev=rdev, data=data),
        )

    def link(self, which: int, where: int, name: int) -> None:
        number, parent, label = self.anything(which), self.directory(where), NAMES[name % len(NAMES)]
        self.both(
            lambda: self.tree.link(self.ino(number), self.ino(parent), label),
            lambda: self.model.link(number, parent, label, self.now()),
        )

    def unlink(self, which: int) -> None:
        parent, name = self.place(which)
        self.both(
            lambda: self.tree.unlink(self.ino(parent), name),
            lambda: self.model.unlink(parent, name, self.now()),
        )

    def rmdir(self, which: int) -> None:
        number = self._pick(which, lambda node: node.is_dir and not node.entries and node.nlink > 0)
        places = [
            (parent, name)
            for parent, node in self.model.active.items()
            for name, child in node.entries.items()
            if child == number
        ]
        parent, name = places[0] if places and which % 5 else self.place(which)
        self.both(
            lambda: self.tree.rmdir(self.ino(parent), name),
            lambda: self.model.rmdir(parent, name, self.now()),
        )

    def rename(self, which: int, where: int, name: int, flags: int) -> None:
        parent, label = self.place(which)
        if where % 2:
            new_parent, new_label = self.place(where // 2)
        else:
            new_parent, new_label = self.directory(where // 2), NAMES[name % len(NAMES)]
        flag = (0, 0, 0, 1, 2, 2, 3)[flags % 7]
        self.both(
            lambda: self.tree.rename(self.ino(parent), label, self.ino(new_parent), new_label, RenameFlag(flag)),
            lambda: self.model.rename(parent, label, new_parent, new_label, flag, self.now()),
        )

    def open(self, which: int) -> None:
        number = self.anything(which)
        self.both(lambda: self.tree.open(self.ino(number)), lambda: self.model.open(number))

    def open_unlinked(self, which: int) -> None:
        """Open what an entry names, and remove the entry."""
        parent, name = self.place(which)
        number = self.model.active[parent].entries.get(name) if parent in self.model.active else None
        if number is not None:
            self.both(lambda: self.tree.open(self.ino(number)), lambda: self.model.open(number))
            if self.model.active[number].is_dir:
                self.both(
                    lambda: self.tree.rmdir(self.ino(parent), name),
                    lambda: self.model.rmdir(parent, name, self.now()),
                )
            else:
                self.both(
                    lambda: self.tree.unlink(self.ino(parent), name),
                    lambda: self.model.unlink(parent, name, self.now()),
                )

    def release(self, which: int) -> None:
        handles = list(self.model.handles)
        if handles:
            number = handles[which % len(handles)]
            self.both(lambda: self.tree.release(self.ino(number)), lambda: self.model.release(number))

    # -- attributes ----------------------------------------------------------------------------------

    def set_attributes(self, which: int, kind: int, value: int) -> None:
        number = self.anything(which)
        mode = MODES[value % len(MODES)] if kind & 1 else None
        uid = value % 7 if kind & 2 else None
        gid = value % 5 if kind & 4 else None
        mtime = (value - 500) * 12_345_678_901 if kind & 8 else None
        self.both(
            lambda: self.tree.set_attributes(self.ino(number), mode=mode, uid=uid, gid=gid, mtime_ns=mtime),
            lambda: self.model.set_attributes(number, self.now(), mode=mode, uid=uid, gid=gid, mtime=mtime),
        )

    def set_xattr(self, which: int, name: int, value: int) -> None:
        number, label = self.anything(which), XATTRS[name % len(XATTRS)]
        content = b"" if value % 5 == 0 else b"%d" % value * (value % 400)
        self.both(
            lambda: self.tree.set_xattr(self.ino(number), label, content),
            lambda: self.model.set_xattr(number, label, content, self.now()),
        )

    def remove_xattr(self, which: int, name: int) -> None:
        number = self._pick(which, lambda node: bool(node.xattrs))
        label = XATTRS[name % len(XATTRS)]
        self.both(
            lambda: self.tree.remove_xattr(self.ino(number), label),
            lambda: self.model.remove_xattr(number, label, self.now()),
        )

    def touch(self, which: int) -> None:
        """Reading preserves nothing: no snapshot comes to own more."""
        number = self.anything(which)
        commits = self.machine.kv.commit_count
        before = [snapshot.owned_bytes for snapshot in self.machine.snapshots()]
        self.tree.touch_atime(self.ino(number))
        after = [snapshot.owned_bytes for snapshot in self.machine.snapshots()]
        assert after == before or self.machine.kv.commit_count > commits, "an access time was preserved"

    # -- content -------------------------------------------------------------------------------------

    def write(self, which: int, offset: int, length: int, kind: int) -> None:
        number = self.file(which)
        if number == ROOT:
            self.create(offset, length, 0, kind)
            return
        start, data = self.offset(number, offset), self.data(length, kind)
        self.both(
            lambda: self.tree.write(self.ino(number), start, data),
            lambda: self.model.write(number, start, data, self.now()),
        )

    def append(self, which: int, length: int, kind: int) -> None:
        number = self.file(which)
        data = self.data(length, kind)
        self.both(
            lambda: self.tree.append(self.ino(number), data),
            lambda: self.model.write(number, len(self.model.active[number].content), data, self.now()),
        )

    def append_alone(self, which: int, length: int, kind: int) -> bool:
        """What is appended takes no block into a snapshot, unless one has the file longer."""
        number = self.file(which)
        self.tree.sync()
        before = [snapshot.data_bytes for snapshot in self.machine.snapshots()]
        states = self.model.snapshots.values()
        longest = max((len(state[number].content) for state in states if number in state), default=0)
        is_longest = len(self.model.active[number].content) >= longest
        self.append(which, length, kind)
        self.tree.sync()
        after = [snapshot.data_bytes for snapshot in self.machine.snapshots()]
        assert after == before or not is_longest, "what was appended was preserved"
        return True

    def truncate(self, which: int, offset: int) -> None:
        number = self.file(which)
        size = self.offset(number, offset)
        self.both(
            lambda: self.tree.truncate(self.ino(number), size),
            lambda: self.model.truncate(number, size, self.now()),
        )

    def punch(self, which: int, offset: int, length: int) -> None:
        number = self.file(which)
        start, size = self.offset(number, offset), LENGTHS[length % len(LENGTHS)]
        self.both(
            lambda: self.tree.punch(self.ino(number), start, size),
            lambda: self.model.punch(number, start, size, self.now()),
        )

    # -- groups --------------------------------------------------------------------------------------

    def commit(self) -> bool:
        self.tree.sync()
        return True

    def reopen(self) -> bool:
        # What nobody has open any more goes when the store is opened, in a group that is still open then.
        self.model.commit()
        self.model.forget_handles()
        self.machine.reopen()
        self.compare_all()
        return False

    def crash(self) -> bool:
        self.model.crash()
        self.machine.crash()
        self.compare_all()
        return False

    def torn_commit(self, after: int) -> bool:
        """The power goes while a group is being committed."""
        with self._cut(after):
            self.tree.sync()
        return self._after_cut()

    @contextmanager
    def _cut(self, after: int) -> Iterator[None]:
        commits = self.machine.kv.commit_count
        with self.machine.cut(after % 9 + 1):
            yield
        if self.machine.kv.commit_count > commits:
            # At the least what was before is durable; the caller finds out about the rest.
            self.model.commit()

    def _after_cut(self) -> bool:
        """If the power went: back to what is durable, which the caller has told the model."""
        if self.machine.is_down:
            return self.crash()
        self.compare_all()
        return False

    # -- comparing -----------------------------------------------------------------------------------

    def compare(self) -> None:
        """What changed since the last time, one inode more, and one snapshot after the other."""
        state = self.model.active
        changed = [number for number, node in state.items() if self._seen.get(number) is not node]
        assert self.tree.active.fileset(self.tree.root).next_number == self.model.next_number
        assert self.tree.active.fileset(self.tree.root).inode_count == len(state), "the inode count is wrong"
        self._turn += 1
        if state:
            changed.append(list(state)[self._turn % len(state)])
        compare_nodes(self.tree.reader, state, changed, "the active state")
        for number in self._seen.keys() - state.keys():
            assert self.tree.active.inode(self.ino(number)) is None, f"inode {number} is still there"
        self._seen = dict(state)
        names = list(self.model.snapshots)
        if names:
            name = names[self._turn % len(names)]
            compare_snapshot(self.tree, name, self.model.snapshots[name])

    def compare_all(self) -> None:
        """Everything, read anew."""
        compare_snapshots(self.tree, self.model.snapshots)
        compare_active(self.tree, self.model.active)
        self._seen = dict(self.model.active)

    def check(self) -> bool:
        """Nothing is wrong with the store in itself."""
        check_store(self.tree)
        self.compare_all()
        return True

    # -- snapshots -----------------------------------------------------------------------------------

    def _pick_snapshot(self, which: int) -> str | None:
        names = list(self.model.snapshots)
        return names[which % len(names)] if names else None

    def _new_name(self, kind: str) -> str:
        self._snapshot_count += 1
        return f"{kind}-{self._snapshot_count}"

    def take(self) -> bool | None:
        if len(self.model.snapshots) >= SNAPSHOT_COUNT_MAX:
            return self.delete(0)
        name = self._new_name("taken")
        taken = manage.create(self.tree.store, ROOT_FILESET, name)
        assert taken.owned_bytes == 0, "a new snapshot owns something"
        self.model.take(name)
        compare_digest(self.tree)
        compare_snapshot(self.tree, name, self.model.snapshots[name])
        return True

    def delete(self, which: int) -> bool | None:
        name = self._pick_snapshot(which)
        if name is None:
            return None
        snapshot = self.machine.snapshot(name)
        if manage.holders(self.tree.store, snapshot):
            self._refuse_held(snapshot)
            return None
        delete.delete(self.tree.active, snapshot)
        del self.model.snapshots[name]
        self.compare_all()
        return True

    def _refuse_held(self, snapshot: Snapshot) -> None:
        try:
            delete.delete(self.tree.active, snapshot)
        except SnapshotHeld:
            return
        raise AssertionError("a snapshot that is held was deleted")

    def restore(self, which: int) -> bool | None:
        name = self._pick_snapshot(which)
        if name is None:
            return None
        undo = bring_back.restore(self.tree.active, self.machine.snapshot(name), self._new_name("undo"))
        self.model.take(undo.name)
        self.model.bring_back(name)
        self.compare_all()
        return True

    def undo(self) -> bool | None:
        """Back to before the latest restore, if there was one."""
        names = [at for at, name in enumerate(self.model.snapshots) if name.startswith("undo")]
        return self.restore(names[-1]) if names else None

    def go_back(self, which: int) -> bool | None:
        """As ``restore``, without a snapshot to undo it."""
        name = self._pick_snapshot(which)
        if name is None:
            return None
        bring_back.go_back(self.tree.active, self.machine.snapshot(name))
        self.model.bring_back(name)
        self.compare_all()
        return True

    def rollback(self) -> bool | None:
        """Back to the newest snapshot, which then owns nothing."""
        if not self.model.snapshots:
            return None
        name = list(self.model.snapshots)[-1]
        bring_back.rollback(self.tree.active, ROOT_FILESET)
        self.model.bring_back(name)
        assert self.machine.snapshot(name).owned_bytes == 0, "a snapshot owns something that the active state has"
        self.compare_all()
        return True

    # -- what is interrupted ---------------------------------------------------------------------------

    def torn_take(self, after: int) -> bool | None:
        name = self._new_name("torn")
        with self._cut(after):
            manage.create(self.tree.store, ROOT_FILESET, name)
        if self.machine.has_durable(name):
            self.model.take(name)
            self.model.commit()
        return self._after_cut()

    def torn_delete(self, which: int, after: int) -> bool | None:
        name = self._pick_snapshot(which)
        if name is None or manage.holders(self.tree.store, self.machine.snapshot(name)):
            return None
        with self._cut(after):
            delete.delete(self.tree.active, self.machine.snapshot(name))
        if not self.machine.has_durable(name):
            # Once it has begun it is finished when the store is opened.
            del self.model.snapshots[name]
            self.model.commit()
        return self._after_cut()

    def torn_restore(self, which: int, after: int) -> bool | None:
        name = self._pick_snapshot(which)
        if name is None:
            return None
        undo = self._new_name("undo")
        digest = self.machine.snapshot(name).digest
        with self._cut(after):
            bring_back.restore(self.tree.active, self.machine.snapshot(name), undo)
        if self.machine.has_durable(undo):
            self.model.take(undo)
            if self.machine.has_begun("restore", digest):
                self.model.bring_back(name)
            self.model.commit()
        return self._after_cut()

    def torn_rollback(self, after: int) -> bool | None:
        if not self.model.snapshots:
            return None
        name = list(self.model.snapshots)[-1]
        digest = self.machine.snapshot(name).digest
        commits = self.machine.kv.commit_count
        with self._cut(after):
            bring_back.rollback(self.tree.active, ROOT_FILESET)
        if self.machine.kv.commit_count > commits and self.machine.has_begun("rollback", digest):
            self.model.bring_back(name)
            self.model.commit()
        return self._after_cut()


def _refusal(do: Callable[[], object]) -> str | None:
    """The name of the errno that it was refused with."""
    try:
        do()
    except OSError as refused:
        return errno.errorcode[refused.errno or 0]
    return None
