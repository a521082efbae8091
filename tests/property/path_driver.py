"""The steps that restore one file or subtree of a snapshot, or copy parts of files.

Threads: one.
"""

from __future__ import annotations

from contextlib import suppress

from idemfs.format import keys
from idemfs.snapshots.subtree import Place
from idemfs.vfs import restoring
from idemfs.vfs.sharing import copy_range
from tests.property import restores
from tests.property.driver import NAMES, SNAPSHOT_COUNT_MAX, Driver
from tests.property.machine import BLOCK
from tests.property.model import ROOT


class PathDriver(Driver):
    """All that ``Driver`` does, and these."""

    def copy(self, which: int, where: int, offset: int, to: int, length: int) -> None:
        """A part of a file, as it is now or in a snapshot, into another: as much as one call copies."""
        number = self.file(where)
        name = self._pick_snapshot(which // 3) if which % 3 == 0 else None
        state = self.model.active if name is None else self.model.snapshots[name]
        files = [each for each, node in state.items() if node.is_file and node.nlink]
        if not files or number == ROOT:
            return
        source = files[which % len(files)]
        start, target = (offset % 8) * BLOCK // 2, self.offset(number, to)
        if to % 3:
            target -= (target - start) % BLOCK
        piece = state[source].content[start : start + BLOCK * (length % 6) + length % 2 * 700]
        if not piece or target < 0 or (source == number and name is None and abs(start - target) < len(piece)):
            return
        reader = self.tree.reader if name is None else self.tree.snapshot_reader(self.machine.snapshot(name))
        size = len(piece)
        done = copy_range(self.tree, reader, self.ino(source), start, self.ino(number), target, size)
        assert 0 < done <= size
        self.model.write(number, target, piece[:done], self.now())

    def restore_path(self, which: int, what: int, where: int, name: int) -> bool | None:
        """One file or subtree of a snapshot: in place, or elsewhere."""
        chosen = self._pick_restore(which, what, where, name)
        if chosen is None:
            return None
        snapshot, meant, to = chosen
        undo = self._new_name("undo")
        before = self.model.saved()

        def modelled() -> None:
            self._model_restore(snapshot, meant, to)

        def real() -> None:
            self._restore_path(snapshot, meant, to, undo)

        self.both(real, modelled)
        if any(each.name == undo for each in self.machine.snapshots()):
            self.model.snapshots[undo] = before[0]
        self.compare_all()
        return True

    def _pick_restore(
        self, which: int, what: int, where: int, name: int
    ) -> tuple[str, tuple[int, bytes], tuple[int, bytes] | None] | None:
        """A snapshot, a name in it, and where to restore it to; None: to where it was."""
        snapshot = self._pick_snapshot(which)
        if snapshot is None or len(self.model.snapshots) >= SNAPSHOT_COUNT_MAX:
            return None
        then = self.model.snapshots[snapshot]
        gone = {number for number, node in then.items() if node.is_dir and not node.nlink}
        names = [(n, each) for n, node in then.items() if n not in gone for each in node.entries]
        if not names:
            return None
        to = self._pick(where // 2, lambda node: node.is_dir and node.nlink > 0), NAMES[name % len(NAMES)]
        is_free = to[1] not in self.model.active[to[0]].entries
        return snapshot, names[what % len(names)], to if where % 2 and is_free else None

    def _model_restore(self, snapshot: str, meant: tuple[int, bytes], to: tuple[int, bytes] | None) -> None:
        then = self.model.snapshots[snapshot]
        place = to or (restores.directory_of(self.model, then, meant[0]), meant[1])
        restores.restore(self.model, then, meant, place, to is not None, self.now())

    def _restore_path(self, name: str, meant: tuple[int, bytes], to: tuple[int, bytes] | None, undo: str) -> None:
        snapshot = self.machine.snapshot(name)
        above = self.tree.snapshot_reader(snapshot).path_inside(self.ino(meant[0])).rstrip(b"/")
        place = None if to is None else Place(self.ino(to[0]), to[1], None, is_aside=True)
        restoring.restore(self.tree, snapshot, above + b"/" + meant[1], place, undo)

    def torn_restore_path(self, which: int, what: int, where: int, name: int, after: int) -> bool | None:
        chosen = self._pick_restore(which, what, where, name)
        if chosen is None:
            return None
        snapshot, meant, to = chosen
        undo = self._new_name("undo")
        before = self.model.saved()
        with self._cut(after), suppress(FileNotFoundError):
            self._restore_path(snapshot, meant, to, undo)
        if self.machine.has_durable(undo) and not self.machine.has_durable_record(keys.UNDOING):
            self._model_restore(snapshot, meant, to)
            self.model.snapshots[undo] = before[0]
            self.model.commit()
        is_down = self.machine.is_down
        done = self._after_cut()
        if is_down:
            # Numbers that were taken for what was undone are not given again.
            self.model.next_number = self.tree.active.fileset(self.tree.root).next_number
            self.model.commit()
        return done
