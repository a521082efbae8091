"""The steps of ``World`` that make, change, bring back and remove snapshots.

Threads: one.
"""

from __future__ import annotations

import pytest

from idemfs.api.contents import Writable
from idemfs.errors import FilesetInUse, QuotaExceeded, SnapshotHeld
from idemfs.ids import Ino
from idemfs.snapshots import bring_back, manage
from tests.property.states import Editor, State, read, without
from tests.property.twins import PINNED_NAME, Twins

SNAPSHOTS_MAX = 7
USER = "user"


def loses(before: State, after: State) -> bool:
    """Whether a file is gone, or was cut."""
    return any(
        node is not None and ((now := after.get(path)) is None or len(now.content) < len(node.content))
        for path, node in before.items()
    )


class SnapshotSteps(Twins):
    """What is done with snapshots."""

    def editor(self, writable: Writable, base: str, state: State) -> Editor:
        """Who changes files."""
        return Editor(self.rng, writable, base, state)

    def orphan(self) -> None:
        """A snapshot sees a file without a name, which somebody has open."""
        twin = self.pick()
        files = sorted(path for path, node in twin.state.items() if node is not None)
        if files and len(twin.snapshots) < SNAPSHOTS_MAX:
            path = self.rng.choice(files)
            ino = Ino(self.fs.stat(f"{twin.path}/{path}").st_ino)
            self.fs.tree.open(ino)
            self.fs.unlink(f"{twin.path}/{path}")
            del twin.state[path]
            name = f"s{self.count}"
            self.fs.snapshots.create(f"{twin.name}@{name}")
            twin.snapshots[name] = dict(twin.state)
            self.fs.tree.release(ino)

    def snapshot(self) -> None:
        """Of one fileset, or of several at one instant."""
        twins = [twin for twin in self.twins if twin.path is not None and len(twin.snapshots) < SNAPSHOTS_MAX]
        twins = self.rng.sample(twins, self.rng.randint(min(1, len(twins)), len(twins)))
        self.fs.snapshots.create_all(*(f"{twin.name}@s{self.count}" for twin in twins))
        for twin in twins:
            twin.snapshots[f"s{self.count}"] = dict(twin.state)

    def drop(self) -> None:
        picked = self.pick_snapshot()
        if picked is None:
            return
        twin, name = picked
        if manage.holders(self.fs.tree.store, self.record(twin, name)):
            with pytest.raises(SnapshotHeld):
                self.fs.snapshots.delete(f"{twin.name}@{name}")
            return
        self.note()
        self.fs.snapshots.delete(f"{twin.name}@{name}")
        del twin.snapshots[name]
        for clone in self.twins:
            if clone.origin == (twin, name):
                clone.origin = twin, name + PINNED_NAME

    def hold(self) -> None:
        picked = self.pick_snapshot()
        if picked is not None:
            name = f"{picked[0].name}@{picked[1]}"
            if USER in self.fs.snapshots.holders(name):
                self.fs.snapshots.release(name, USER)
            else:
                self.fs.snapshots.hold(name, USER)

    def restore(self) -> None:
        picked = self.pick_snapshot()
        if picked is None:
            return
        twin, name = picked
        try:
            undo = self.fs.snapshots.restore(f"{twin.name}@{name}", f"undo{self.count}")
        except FilesetInUse:
            # One that was made in it since then would have no place.
            assert self.has_filesets(twin)
            return
        twin.snapshots[undo.name] = dict(twin.state)
        twin.state = dict(twin.snapshots[name])
        self.allow(twin)

    def roll_back(self) -> None:
        """To the newest snapshot."""
        twin = self.pick()
        if twin.snapshots:
            name = list(twin.snapshots)[-1]
            snapshot = self.record(twin, name)
            try:
                self.fs.tree.refuse_losing_junctions(snapshot)
            except FilesetInUse:
                assert self.has_filesets(twin)
                return
            bring_back.rollback(self.fs.tree.active, snapshot.fileset)
            self.fs.tree.moves += 1
            twin.state = dict(twin.snapshots[name])
            self.allow(twin)

    def restore_path(self) -> None:
        """A file or directory of a snapshot, where it was."""
        picked = self.pick_snapshot()
        if picked is None or not picked[0].snapshots[picked[1]]:
            return
        twin, name = picked
        then = twin.snapshots[name]
        path = self.rng.choice(sorted(then))
        above = path.rpartition("/")[0]
        whole = f"{twin.name}@{name}"
        if above and above not in twin.state:
            with pytest.raises(FileNotFoundError):
                self.fs.snapshots.restore(whole, f"undo{self.count}", path=f"/{path}")
            return
        try:
            done = self.fs.snapshots.restore(whole, f"undo{self.count}", path=f"/{path}")
        except QuotaExceeded:
            return
        assert done.undo is not None
        twin.snapshots[done.undo.name] = dict(twin.state)
        twin.state = without(twin.state, path)
        self.place(twin, then, path, path)

    def restore_elsewhere(self) -> None:
        """A file or directory of a snapshot under a new name, most often in another fileset; or all that it has."""
        picked, target = self.pick_snapshot(), self.pick()
        if picked is None or not picked[0].snapshots[picked[1]]:
            return
        twin, name = picked
        then, whole = twin.snapshots[name], f"{twin.name}@{name}"
        try:
            if not target.state and not self.fs.listdir(target.path or "/"):
                self.fs.snapshots.restore(whole, path="/", to_fileset=target.name)
                for path in (path for path in then if "/" not in path):
                    self.place(target, then, path, path)
            else:
                path, new = self.rng.choice(sorted(then)), f"r{self.count}"
                self.fs.snapshots.restore(whole, path=f"/{path}", to=f"{target.path}/{new}")
                self.place(target, then, path, new)
        except QuotaExceeded:
            return

    def write_inside(self) -> None:
        picked = self.pick_snapshot()
        if picked is None:
            return
        twin, name = picked
        whole = f"{twin.name}@{name}"
        if not self.may_change(twin, name):
            with pytest.raises(SnapshotHeld):
                self.fs.snapshots.write(whole)
            return
        state = twin.snapshots[name]
        before = dict(state)
        with self.fs.snapshots.write(whole) as written:
            editor = self.editor(written, "", state)
            for _ in range(self.rng.choice((1, 3, 6))):
                editor.edit()
        self.compare_state(read(self.fs.snapshots[whole]), state, whole)
        if loses(before, state):
            # What is removed in a snapshot, which no quota refuses, the next older one owns from then on.
            self.allow(twin)

    def refresh(self) -> None:
        """A snapshot becomes what a newer one is, or the active state."""
        picked = self.pick_snapshot()
        if picked is None:
            return
        twin, name = picked
        names = list(twin.snapshots)
        newer = self.rng.choice([None, *names[names.index(name) + 1 :]])
        if not self.may_change(twin, name):
            with pytest.raises(SnapshotHeld):
                self.fs.snapshots.refresh(f"{twin.name}@{name}", newer and f"{twin.name}@{newer}")
            return
        self.fs.snapshots.refresh(f"{twin.name}@{name}", newer and f"{twin.name}@{newer}")
        if newer is None:
            del twin.snapshots[name]
        twin.snapshots[name] = dict(twin.state if newer is None else twin.snapshots[newer])
        self.allow(twin)

    def purge(self) -> None:
        picked = self.pick_snapshot()
        if picked is None or not picked[0].snapshots[picked[1]]:
            return
        twin, name = picked
        path = self.rng.choice(sorted(twin.snapshots[name]))
        touched = [each for each, state in twin.snapshots.items() if path in state]
        snapshots, active = self.fs.filesets[twin.name].snapshots, self.rng.random() < 0.5
        pinned = self.pinned_having(twin, path)
        if pinned or not all(self.may_purge(twin, each) for each in touched):
            with pytest.raises(SnapshotHeld):
                snapshots.purge(path, active=active)
            return
        record = snapshots.purge(path, active=active)
        assert list(record.snapshots) == touched
        for each in touched:
            twin.snapshots[each] = without(twin.snapshots[each], path)
        if active:
            twin.state = without(twin.state, path)
