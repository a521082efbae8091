"""Everything that a primary with many filesets can be asked for, in one random life, beside plain dictionaries.

``filesets.py`` has a shorter list and flatter files; here snapshots are written to, refreshed and purged as well, files
have links, extended attributes and directories, and the power may go in the midst of any step. ``world_pair.py`` adds a
standby.

What a step did is told to the model when it is done. When the power goes in the midst of one, the model is learned from
the store; but a guid names one content for ever, so every snapshot that was known by its guid is compared all the same.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from idemfs import FileSystem
from idemfs.errors import CommitFailed, FilesetInUse, QuotaExceeded, SnapshotHeld
from idemfs.format.role import Role
from idemfs.format.tables import PINNED, Snapshot
from idemfs.ids import Guid, Ino
from idemfs.snapshots import bring_back, clones, manage
from idemfs.testing.builders import assert_clean
from idemfs.testing.clock import Simulated
from idemfs.vfs.sharing import copy_range
from idemfs.vfs.tree import Tree
from tests.property.machine import Machine
from tests.property.states import Editor, State, below, differences, number_at, put, read, without

QUOTA, SLACK = 150_000, 40_000
FILESETS_MAX, SNAPSHOTS_MAX = 6, 7
COMPARE_EVERY = 10
USER = "user"


class Twin:
    """What one fileset should be."""

    def __init__(self, name: str, path: str | None) -> None:
        self.name = name
        self.path = path
        """None: it appears nowhere."""
        self.state: State = {}
        self.snapshots: dict[str, State] = {}
        """Oldest first."""
        self.origin: tuple[Twin, str] | None = None
        self.allowed: int | None = None
        """What it may hold: its quota, or what a restore, which is let through, made of it; None: anything."""

    def __repr__(self) -> str:
        return self.name


class World:
    """A store and its twins."""

    def __init__(self, seed: int, compression: str = "none") -> None:
        self.rng = Random(seed)
        self.clock = Simulated()
        self.machine = Machine(self.clock, compression, Guid(bytes(16)), Role.PRIMARY)
        self.fs = FileSystem(self.machine.tree)
        self.twins = [Twin("root", "")]
        self.known: dict[Guid, State] = {}
        """What every snapshot that there ever was has; a guid names one content."""
        self.count = 0
        self.done: list[str] = []

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
        steps = self.steps()
        self.do(self.rng.choices(list(steps), list(steps.values()))[0])

    def do(self, step: Callable[[], None]) -> None:
        self.count += 1
        self.done.append(step.__name__)
        self.clock.advance(1)
        step()
        if self.count % COMPARE_EVERY == 0:
            self.compare()

    # -- picking -------------------------------------------------------------------------------------

    def pick(self) -> Twin:
        """One that appears somewhere."""
        return self.rng.choice([twin for twin in self.twins if twin.path is not None])

    def pick_snapshot(self) -> tuple[Twin, str] | None:
        found = [(twin, name) for twin in self.twins if twin.path is not None for name in twin.snapshots]
        return self.rng.choice(found) if found else None

    def record(self, twin: Twin, name: str) -> Snapshot:
        catalog = self.fs.tree.store.catalog
        return catalog.by_name(catalog.fileset_named(twin.name).number, name)

    def may_change(self, twin: Twin, name: str) -> bool:
        """Whether a snapshot may be written to."""
        store, snapshot = self.fs.tree.store, self.record(twin, name)
        rests = any(other.origin == (twin, name) for other in self.twins)
        assert rests == bool(clones.clones_of(store, snapshot)), f"who rests on {twin}@{name}"
        return not rests and not manage.holders(store, snapshot)

    # -- files ---------------------------------------------------------------------------------------

    def edit(self) -> None:
        twin = self.pick()
        editor = Editor(self.rng, self.fs, twin.path or "", twin.state)
        for _ in range(self.rng.choice((1, 2, 5))):
            editor.edit()

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

    # -- snapshots -----------------------------------------------------------------------------------

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

    def has_filesets(self, twin: Twin) -> bool:
        return any(other.path and other.path.startswith(f"{twin.path}/") for other in self.twins)

    def allow(self, twin: Twin) -> None:
        """What no quota refuses was done to it."""
        if twin.allowed is not None:
            twin.allowed = max(twin.allowed, self.used(twin))

    def used(self, twin: Twin) -> int:
        """What counts against the quota of bytes."""
        info = self.fs.filesets[twin.name].info()
        return info.active_bytes + (info.snapshot_bytes if info.snapshots_count else 0)

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

    def place(self, twin: Twin, then: State, path: str, new: str) -> None:
        """What ``then`` has at a path is at ``new`` now. Its numbers are learned; links inside stay links."""
        numbers: dict[int, int] = {}
        for each in below(then, path):
            node, there = then[each], new + each.removeprefix(path)
            if node is None:
                twin.state[there] = None
                continue
            number = number_at(self.fs, f"{twin.path}/{there}")
            assert numbers.setdefault(node.number, number) == number, "what was one file is two"
            twin.state[there] = node._replace(number=number)
        assert len(set(numbers.values())) == len(numbers), "what were two files is one"

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
        with self.fs.snapshots.write(whole) as written:
            editor = Editor(self.rng, written, "", state)
            for _ in range(self.rng.choice((1, 3, 6))):
                editor.edit()
        self.compare_state(read(self.fs.snapshots[whole]), state, whole)

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
        if pinned or not all([self.may_change(twin, each) for each in touched]):
            with pytest.raises(SnapshotHeld):
                snapshots.purge(path, active=active)
            return
        record = snapshots.purge(path, active=active)
        assert list(record.snapshots) == touched
        for each in touched:
            twin.snapshots[each] = without(twin.snapshots[each], path)
        if active:
            twin.state = without(twin.state, path)

    def pinned_having(self, twin: Twin, path: str) -> bool:
        """Whether a snapshot that was deleted, and stays for clones, has this path."""
        catalog = self.fs.tree.store.catalog
        snapshots = catalog.all_snapshots(catalog.fileset_named(twin.name).number)
        return any(path in self.known[each.guid] for each in snapshots if each.state == PINNED)

    # -- filesets ------------------------------------------------------------------------------------

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

    # -- the end of a process ------------------------------------------------------------------------

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

    def settle_files(self) -> None:
        """What was written since the last durable step may be there: files are then as they are."""
        for twin in self.twins:
            if twin.path is not None:
                twin.state = read(self.fs, twin.path)

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

    # -- learning ------------------------------------------------------------------------------------

    def note(self) -> None:
        """The content of every snapshot, by guid."""
        for twin in self.twins:
            for name, state in twin.snapshots.items():
                known = self.known.setdefault(self.record(twin, name).guid, dict(state))
                assert known == state, f"two contents had the guid of {twin.name}@{name}"

    def learn(self) -> None:
        """What the store has now. Snapshots whose guids are known have to be what they were, and are compared later."""
        old = {twin.name: twin for twin in self.twins}
        catalog = self.fs.tree.store.catalog
        self.twins = []
        records = {}
        for info in self.fs.filesets:
            twin = Twin(info.name, None if info.path is None else info.path.rstrip("/"))
            record = records[catalog.fileset_named(info.name).number] = catalog.fileset_named(info.name), twin
            if twin.path is not None:
                twin.state = read(self.fs, twin.path)
            for snapshot in catalog.snapshots(record[0].number):
                state = self.known.get(snapshot.guid)
                if state is None:
                    state = read(self.fs.snapshots[f"{info.name}@{snapshot.name}"])
                twin.snapshots[snapshot.name] = dict(state)
            if info.quota_bytes is not None:
                before = old[twin.name].allowed if twin.name in old else None
                twin.allowed = max(QUOTA, before or 0, self.used(twin))
            self.twins.append(twin)
        for fileset, twin in records.values():
            if fileset.origin is not None and clones.origin_of(self.fs.tree.store, fileset) is not None:
                origin = catalog.snapshot(fileset.origin.fileset, fileset.origin.snapshot)
                twin.origin = records[fileset.origin.fileset][1], origin.name

    # -- what is -------------------------------------------------------------------------------------

    def compare_state(self, found: State, wanted: State, where: str) -> None:
        assert found == wanted, f"{where}: {differences(found, wanted)}"

    def compare(self) -> None:
        fs = self.fs
        assert {info.name: info.path for info in fs.filesets} == {
            twin.name: twin.path if twin.path is None else twin.path or "/" for twin in self.twins
        }
        for twin in self.twins:
            info = fs.filesets[twin.name].info()
            assert (info.origin is None) == (twin.origin is None), twin.name
            if twin.origin and not info.origin_deleted:
                assert twin.origin[1] in twin.origin[0].snapshots
            if twin.path is not None:
                self.compare_state(read(fs, twin.path), twin.state, twin.name)
            assert [each.name for each in fs.filesets[twin.name].snapshots] == list(twin.snapshots)
            for name, state in twin.snapshots.items():
                whole = f"{twin.name}@{name}"
                self.compare_state(read(fs.snapshots[whole]), state, whole)
        self.check(fs.tree)
        for twin in self.twins:
            assert twin.allowed is None or self.used(twin) <= twin.allowed + SLACK, f"{twin.name} is over its quota"

    def check(self, tree: Tree) -> None:
        """Nothing is wrong with the store in itself."""
        assert_clean(tree)

    def live(self, step_count: int) -> None:
        """So many steps. A failure says after which."""
        try:
            for _ in range(step_count):
                self.step()
            self.compare()
        except BaseException as failure:
            failure.add_note(f"after {self.count} steps: {' '.join(self.done[-12:])}")
            raise


