"""A store of many filesets beside plain dictionaries, and random steps for both.

The files themselves are simple here, since ``test_model`` has all that one fileset can do: what is looked for
is that one fileset's changes show in another, or are lost when another goes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest

from idemfs import FilesetInfo, FileSystem
from idemfs.errors import FilesetInUse, QuotaExceeded
from idemfs.format.role import Role
from idemfs.ids import Guid
from idemfs.testing.builders import assert_clean
from idemfs.testing.clock import Simulated
from tests.property.machine import Machine

Files = dict[str, bytes]
QUOTA = 100_000
COMPARE_EVERY = 25


class Twin:
    """What one fileset should be: where it is, its files, its snapshots."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: Files = {}
        self.snapshots: dict[str, Files] = {}
        self.origin: tuple[str, str] | None = None
        """Fileset and snapshot that it is a clone of."""
        self.is_limited = False
        self.allowed = QUOTA
        """What it may hold: its quota, or what the restore of a whole snapshot, which is let through, made of it."""

    def copied(self) -> Twin:
        twin = Twin(self.path)
        twin.origin, twin.is_limited = self.origin, self.is_limited
        twin.files = dict(self.files)
        twin.snapshots = {name: dict(files) for name, files in self.snapshots.items()}
        twin.allowed = self.allowed
        return twin


class Filesets:
    """A store and its twins. ``durable`` is what a crash must leave, at least."""

    def __init__(self, seed: int, compression: str) -> None:
        self.rng = Random(seed)
        self.machine = Machine(Simulated(), compression, Guid(bytes(16)), Role.PRIMARY)
        self.fs = FileSystem(self.machine.tree)
        self.twins = {"root": Twin("")}
        self.durable = {"root": Twin("")}
        self.count = 0

    def keep(self) -> None:
        self.durable = {name: twin.copied() for name, twin in self.twins.items()}

    def pick(self) -> tuple[str, Twin]:
        name = self.rng.choice(sorted(self.twins))
        return name, self.twins[name]

    def step(self) -> None:
        self.count += 1
        steps: dict[Callable[[], None], int] = {
            self.write: 40,
            self.unlink: 10,
            self.snapshot: 10,
            self.create: 6,
            self.restore: 4,
            self.drop: 5,
            self.delete: 3,
            self.again: 3,
            self.edit: 12,
            self.edit_both: 6,
            self.rename: 3,
            self.orphan: 2,
            self.clone: 5,
            self.promote: 2,
            self.restore_file: 4,
            self.restore_elsewhere: 3,
        }
        self.rng.choices(list(steps), list(steps.values()))[0]()

    # -- what is done --------------------------------------------------------------------------------

    def write(self) -> None:
        name, twin = self.pick()
        limited = [name for name, twin in sorted(self.twins.items()) if twin.is_limited]
        if limited and self.rng.random() < 0.3:
            name = self.rng.choice(limited)
            twin = self.twins[name]
        file = f"f{self.rng.randrange(6)}"
        data = self.rng.randbytes(self.rng.choice((0, 10, 1500, 4096, 9000, 40_000)))
        try:
            self.fs.write_bytes(f"{twin.path}/{file}", data)
        except QuotaExceeded:
            # It was emptied before, if it was there, and may have been written in part.
            assert name != "root"
            with suppress(FileNotFoundError):
                self.fs.unlink(f"{twin.path}/{file}")
            twin.files.pop(file, None)
            return
        twin.files[file] = data

    def edit(self) -> None:
        """A part of a file is overwritten, it is appended to, or it is made shorter or longer."""
        _, twin = self.pick()
        if twin.files and not twin.is_limited:
            self.edit_file(twin, self.rng.choice(sorted(twin.files)))

    def edit_both(self) -> None:
        """The same file in the fileset of an origin, and in its clone."""
        clones = [twin for _, twin in sorted(self.twins.items()) if twin.origin]
        if not clones:
            return
        clone = self.rng.choice(clones)
        origin = self.twins[clone.origin[0]] if clone.origin else clone
        shared = sorted(clone.files.keys() & origin.files.keys())
        if shared and not origin.is_limited:
            file = self.rng.choice(shared)
            with self.fs.open(f"{origin.path}/{file}", "ab") as opened:
                opened.write(b"appended" * 50)
            origin.files[file] += b"appended" * 50
            self.fs.sync()
            if self.rng.random() < 0.5:
                self.edit_file(clone, file)
                return
            self.fs.truncate(f"{clone.path}/{file}", len(clone.files[file]) + 3000)
            clone.files[file] += bytes(3000)

    def edit_file(self, twin: Twin, file: str) -> None:
        old, path = twin.files[file], f"{twin.path}/{file}"
        size = self.rng.choice((0, len(old), len(old) // 2, 4096, 12_288, max(0, len(old) - 1), len(old) + 5000))
        if self.rng.random() < 0.4:
            self.fs.truncate(path, size)
            twin.files[file] = old[:size] + bytes(size - len(old[:size]))
            return
        if self.rng.random() < 0.03:
            # In the second indirect block.
            size = 512 * 4096 + 100
        data = self.rng.randbytes(self.rng.choice((1, 100, 4096, 5000)))
        with self.fs.open(path, "r+b") as opened:
            opened.seek(size)
            opened.write(data)
        old += bytes(max(0, size - len(old)))
        twin.files[file] = old[:size] + data + old[size + len(data) :]

    def rename(self) -> None:
        _, twin = self.pick()
        if twin.files:
            old, new = self.rng.choice(sorted(twin.files)), f"f{self.rng.randrange(6)}"
            self.fs.rename(f"{twin.path}/{old}", f"{twin.path}/{new}")
            twin.files[new] = twin.files.pop(old)

    def orphan(self) -> None:
        """A snapshot sees a file without a name, which somebody has open."""
        name, twin = self.pick()
        if twin.files:
            file = self.rng.choice(sorted(twin.files))
            with self.fs.open(f"{twin.path}/{file}", "rb"):
                self.fs.unlink(f"{twin.path}/{file}")
                del twin.files[file]
                self.fs.snapshots.create(f"{name}@s{self.count}")
            twin.snapshots[f"s{self.count}"] = dict(twin.files)
            self.keep()

    def unlink(self) -> None:
        _, twin = self.pick()
        if twin.files:
            file = self.rng.choice(sorted(twin.files))
            self.fs.unlink(f"{twin.path}/{file}")
            del twin.files[file]

    def snapshot(self) -> None:
        names = self.rng.sample(sorted(self.twins), self.rng.randint(1, len(self.twins)))
        self.fs.snapshots.create_all(*(f"{name}@s{self.count}" for name in names))
        for name in names:
            self.twins[name].snapshots[f"s{self.count}"] = dict(self.twins[name].files)
        self.keep()

    def create(self) -> None:
        if len(self.twins) > 6:
            return
        _, parent = self.pick()
        name = f"n{self.count}"
        fileset = self.fs.filesets.create(f"{parent.path}/{name}")
        if self.rng.random() < 0.5:
            fileset.set_quota(QUOTA, counts_snapshots=self.rng.random() < 0.5)
        self.twins[name] = Twin(f"{parent.path}/{name}")
        self.twins[name].is_limited = fileset.info().quota_bytes is not None
        self.keep()

    def clone(self) -> None:
        origin, twin = self.pick()
        if not twin.snapshots or len(self.twins) > 6:
            return
        snapshot = self.rng.choice(sorted(twin.snapshots))
        for name in (f"c{self.count}", f"d{self.count}")[: self.rng.choice((1, 1, 2))]:
            _, parent = self.pick()
            fileset = self.fs.filesets.clone(f"{origin}@{snapshot}", f"{parent.path}/{name}")
            info = fileset.info()
            assert info.active_bytes == 0 and info.snapshot_bytes == 0, "a new clone owns something"
            made = self.twins[name] = Twin(f"{parent.path}/{name}")
            made.files, made.origin = dict(twin.snapshots[snapshot]), (origin, snapshot)
        if self.rng.random() < 0.3:
            self.fs.snapshots.delete(f"{origin}@{snapshot}")
            del twin.snapshots[snapshot]
        self.keep()

    def promote(self) -> None:
        clones = [name for name, twin in sorted(self.twins.items()) if twin.origin]
        if clones:
            name = self.rng.choice(clones)
            self.fs.filesets[name].promote()
            self.twins[name].origin = None
            self.keep()

    def restore(self) -> None:
        name, twin = self.pick()
        if not twin.snapshots:
            return
        snapshot = self.rng.choice(sorted(twin.snapshots))
        try:
            undo = self.fs.snapshots.restore(f"{name}@{snapshot}", f"undo{self.count}")
        except FilesetInUse:
            # One that was made in it since then would have no place.
            assert any(other.path.startswith(twin.path + "/") for other in self.twins.values())
            return
        twin.snapshots[undo.name] = dict(twin.files)
        # Filesets that were there then and were deleted left an empty directory.
        twin.files = dict(twin.snapshots[snapshot])
        twin.allowed = max([twin.allowed, *(used(info) for info in self.fs.filesets if info.name == name)])
        self.keep()

    def restore_file(self) -> None:
        """One file of a snapshot, where it was."""
        name, twin = self.pick()
        if twin.snapshots:
            snapshot = self.rng.choice(sorted(twin.snapshots))
            files = twin.snapshots[snapshot]
            if files:
                file = self.rng.choice(sorted(files))
                try:
                    done = self.fs.snapshots.restore(f"{name}@{snapshot}", f"back{self.count}", path=f"/{file}")
                except QuotaExceeded:
                    return
                assert done.undo is not None
                twin.snapshots[done.undo.name] = dict(twin.files)
                twin.files[file] = files[file]
                self.keep()

    def restore_elsewhere(self) -> None:
        """One file of a snapshot under another name, most often into another fileset; or all that it has."""
        name, twin = self.pick()
        other, target = self.pick()
        if not twin.snapshots:
            return
        snapshot = self.rng.choice(sorted(twin.snapshots))
        files = twin.snapshots[snapshot]
        try:
            if not target.files and not self.fs.listdir(target.path or "/"):
                self.fs.snapshots.restore(f"{name}@{snapshot}", path="/", to_fileset=other)
                target.files = dict(files)
            elif files:
                file = self.rng.choice(sorted(files))
                new = f"r{self.count}"
                self.fs.snapshots.restore(f"{name}@{snapshot}", path=f"/{file}", to=f"{target.path}/{new}")
                target.files[new] = files[file]
        except QuotaExceeded:
            return
        self.keep()

    def drop(self) -> None:
        name, twin = self.pick()
        if twin.snapshots:
            snapshot = self.rng.choice(sorted(twin.snapshots))
            self.fs.snapshots.delete(f"{name}@{snapshot}")
            del twin.snapshots[snapshot]
            self.keep()

    def delete(self) -> None:
        name, twin = self.pick()
        if name == "root":
            return
        rests = any(other.origin and other.origin[0] == name for other in self.twins.values())
        if rests or any(other.path.startswith(twin.path + "/") for other in self.twins.values()):
            with pytest.raises(FilesetInUse):
                self.fs.filesets[name].delete()
            return
        self.fs.filesets[name].delete()
        del self.twins[name]
        self.keep()

    def again(self) -> None:
        """The process ends, or the power goes."""
        if self.rng.random() < 0.5:
            self.machine.reopen()
        else:
            self.machine.crash()
            self.twins = {name: twin.copied() for name, twin in self.durable.items()}
            self.settle_files()
        self.fs = FileSystem(self.machine.tree)
        self.keep()
        self.compare()

    def settle_files(self) -> None:
        """What was written since the last durable step may be there: files are then as they are."""
        fs = FileSystem(self.machine.tree)
        for twin in self.twins.values():
            names = [entry.name for entry in fs.scandir(twin.path or "/") if entry.is_file()]
            twin.files = {name: fs.read_bytes(f"{twin.path}/{name}") for name in names}

    # -- what is -------------------------------------------------------------------------------------

    def compare(self) -> None:
        fs = self.fs
        assert {info.name: info.path for info in fs.filesets} == {
            name: twin.path or "/" for name, twin in self.twins.items()
        }
        for name, twin in self.twins.items():
            info = fs.filesets[name].info()
            assert (info.origin is None) == (twin.origin is None), name
            if twin.origin and not info.origin_deleted:
                assert twin.origin[1] in self.twins[twin.origin[0]].snapshots
            found = {entry.name for entry in fs.scandir(twin.path or "/") if entry.is_file()}
            assert found == set(twin.files), name
            assert {file: fs.read_bytes(f"{twin.path}/{file}") for file in found} == twin.files
            assert {info.name for info in fs.filesets[name].snapshots} == set(twin.snapshots)
            for snapshot, files in twin.snapshots.items():
                view = fs.snapshots[f"{name}@{snapshot}"]
                assert {e.name: view.read_bytes(f"/{e.name}") for e in view.scandir("/") if e.is_file()} == files
        assert_clean(fs.tree)
        for info in fs.filesets:
            assert info.quota_bytes is None or used(info) <= self.twins[info.name].allowed + 20_000


def used(info: FilesetInfo) -> int:
    """What counts against the quota of bytes."""
    return info.active_bytes + (info.snapshot_bytes if info.snapshots_count else 0)


def run(seed: int, step_count: int, compression: str = "none") -> None:
    """Random steps, compared now and then. Raises ``AssertionError`` and what idemfs raises."""
    filesets = Filesets(seed, compression)
    for turn in range(step_count):
        filesets.step()
        if turn % COMPARE_EVERY == COMPARE_EVERY - 1:
            filesets.compare()
    filesets.compare()
