"""Everything that a primary with many filesets can be asked for, in one random life, beside plain dictionaries.

``filesets.py`` has a shorter list and flatter files; here snapshots are written to, refreshed and purged as well, files
have links, extended attributes and directories, and the power may go in the midst of any step. ``world_pair.py`` adds a
standby.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from idemfs import FileSystem
from idemfs.errors import CommitFailed, FilesetInUse, QuotaExceeded
from idemfs.ids import Ino
from idemfs.vfs.sharing import copy_range
from tests.property.states import put
from tests.property.twins import QUOTA, Twin
from tests.property.world_snapshots import SnapshotSteps

FILESETS_MAX = 6
COMPARE_EVERY = 10


class World(SnapshotSteps):
    """All steps."""

    often: tuple[str, ...] = ()
    """Names of those that come more often than others do."""

    def steps(self) -> dict[Callable[[], None], int]:
        return {
            self.edit: 60,
            self.orphan: 2,
            self.copy: 8,
            self.snapshot: 16,
            self.drop: 8,
            self.hold: 3,
            self.restore: 4,
            self.roll_back: 2,
            self.restore_path: 6,
            self.restore_elsewhere: 5,
            self.write_inside: 10,
            self.refresh: 4,
            self.purge: 4,
            self.create: 5,
            self.clone: 7,
            self.promote: 3,
            self.rename: 2,
            self.delete: 3,
            self.again: 3,
            self.torn: 4,
        }

    def step(self) -> None:
        steps = {step: weight * 6 if step.__name__ in self.often else weight for step, weight in self.steps().items()}
        self.do(self.rng.choices(list(steps), list(steps.values()))[0])

    def do(self, step: Callable[[], None]) -> None:
        self.count += 1
        self.done.append(step.__name__)
        self.clock.advance(1)
        step()
        if self.count % COMPARE_EVERY == 0:
            self.compare()

    def edit(self) -> None:
        twin = self.pick()
        editor = self.editor(self.fs, twin.path or "", twin.state)
        for _ in range(self.rng.choice((1, 2, 5))):
            editor.edit()

    def copy(self) -> None:
        """A part of a file, as it is or as a snapshot of any fileset has it, into another: blocks are shared."""
        source, target = self.pick(), self.pick()
        state, reader, view, base = source.state, self.fs.tree.reader, self.fs, source.path
        snapshot = self.pick_snapshot()
        if snapshot is not None and self.rng.random() < 0.5:
            source, name = snapshot
            state, base = source.snapshots[name], ""
            view = self.fs.snapshots[f"{source.name}@{name}"]  # type: ignore[assignment]
            reader = self.fs.tree.snapshot_reader(self.record(source, name))
        files, targets = ([path for path, node in each.items() if node] for each in (state, target.state))
        if not files or not targets:
            return
        path, to = self.rng.choice(sorted(files)), self.rng.choice(sorted(targets))
        node, old = state[path], target.state[to]
        assert node is not None and old is not None
        start = self.rng.choice((0, 4096, 8192, 100))
        at = start if self.rng.random() < 0.6 else self.rng.choice((0, 4096, 20_480, 1000))
        ino, into = Ino(view.stat(f"{base}/{path}").st_ino), Ino(self.fs.stat(f"{target.path}/{to}").st_ino)
        size = min(len(node.content) - start, self.rng.choice((700, 4096, 12_288)))
        if size <= 0 or ino == into:
            return
        try:
            done = copy_range(self.fs.tree, reader, ino, start, into, at, size)
        except QuotaExceeded:
            return
        assert 0 < done <= size
        content = old.content + bytes(max(0, at - len(old.content)))
        content = content[:at] + node.content[start : start + done] + content[at + done :]
        put(target.state, to, old._replace(content=content))

    def create(self) -> None:
        if len(self.twins) < FILESETS_MAX:
            twin = Twin(f"n{self.count}", f"{self.pick().path}/n{self.count}")
            fileset = self.fs.filesets.create(twin.path or "")
            self.twins.append(twin)
            if self.rng.random() < 0.5:
                fileset.set_quota(QUOTA, counts_snapshots=self.rng.random() < 0.5)
                twin.allowed = QUOTA

    def clone(self) -> None:
        picked = self.pick_snapshot()
        if picked is None or len(self.twins) >= FILESETS_MAX:
            return
        twin, name = picked
        for new in (f"c{self.count}", f"cc{self.count}")[: self.rng.choice((1, 1, 2))]:
            made = Twin(new, f"{self.pick().path}/{new}")
            info = self.fs.filesets.clone(f"{twin.name}@{name}", made.path or "").info()
            assert info.active_bytes == 0 and info.snapshot_bytes == 0, "a new clone owns something"
            made.state, made.origin = dict(twin.snapshots[name]), (twin, name)
            self.twins.append(made)

    def promote(self) -> None:
        found = [twin for twin in self.twins if twin.origin]
        if found:
            twin = self.rng.choice(found)
            self.fs.filesets[twin.name].promote()
            twin.origin = None

    def rename(self) -> None:
        twin = self.pick()
        if twin.name != "root":
            self.fs.filesets[twin.name].rename(f"{twin.name[:1]}{self.count}")
            twin.name = f"{twin.name[:1]}{self.count}"

    def delete(self) -> None:
        twin = self.pick()
        if twin.name == "root":
            return
        rests = any(other.origin and other.origin[0] is twin for other in self.twins)
        if rests or self.has_filesets(twin):
            with pytest.raises(FilesetInUse):
                self.fs.filesets[twin.name].delete(held=True)
            return
        self.fs.filesets[twin.name].delete(held=True)
        self.twins.remove(twin)

    def again(self) -> None:
        """The process ends, or the power goes."""
        kind = self.rng.randrange(3)
        if kind == 0:
            self.machine.reopen()
        else:
            if kind == 1:
                self.fs.sync()
            self.machine.crash()
        self.fs = FileSystem(self.machine.tree)
        if kind == 2:
            self.settle_files()
        self.compare()

    def torn(self) -> None:
        """The power goes in the midst of a step: what has another guid than before is what it is."""
        plain = (self.again, self.torn)
        steps = {step: weight for step, weight in World.steps(self).items() if step not in plain}
        step = self.rng.choices(list(steps), list(steps.values()))[0]
        self.fs.sync()
        self.note()
        self.done.append(f"({step.__name__})")
        try:
            with self.machine.cut(self.rng.randint(1, 25)):
                step()
        except CommitFailed:
            # Whoever leaves a ``with`` when the power is gone.
            assert self.machine.is_down
        if self.machine.is_down:
            self.machine.crash()
            self.fs = FileSystem(self.machine.tree)
            self.learn()
        self.compare()

    def live(self, step_count: int) -> None:
        """So many steps. A failure says after which."""
        try:
            for _ in range(step_count):
                self.step()
            self.compare()
        except BaseException as failure:
            failure.add_note(f"after {self.count} steps: {' '.join(self.done[-12:])}")
            raise
