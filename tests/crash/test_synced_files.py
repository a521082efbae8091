"""The power goes while files are synced one by one: what was synced is there, and nothing that was never there.

Random changes of a few files, some of which are synced by the log and some by a commit; while a group is being
committed others write and sync too. After a cut each file is as it was at some moment since it was last synced,
with all its attributes and names, and snapshots are as they were taken. Then the store lives on, uses the log
again over what the life before left in it, and the power goes again: also in the middle of the recovery.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import pytest

from idemfs.ids import Ino
from idemfs.snapshots import bring_back, delete, manage
from idemfs.testing.builders import assert_clean
from tests.crash.audit import assert_finished, audit
from tests.crash.disk import BLOCK_SIZE, Disk, Witness, new_disk, tighten
from tests.crash.dump import Dump, State, Thing, dump_of, state_of

AGAIN_EVERY = 25
"""Of this many images one lives on until the power goes again."""
CHECK_EVERY = 40
NAMES = [b"file %d" % number for number in range(4)]

Seen = tuple[tuple[str, ...], Thing] | None
"""The names of an inode and what it is; None when it is not there."""
Files = dict[Ino, Seen]


def files_of(dump: Dump) -> Files:
    """By inode, so that a file can be followed through renames."""
    names: dict[Ino, list[str]] = {}
    for path, thing in dump.items():
        names.setdefault(thing.ino, []).append(path)
    return {ino: (tuple(sorted(paths)), dump[paths[0]]) for ino, paths in names.items()}


class Moment(NamedTuple):
    """What was true when an image was taken."""

    disk: Disk
    synced: dict[Ino, int]
    """For each inode, the moment from which on it is durable."""
    all_synced: int
    snapshots: dict[str, Dump]
    """Those that were acknowledged, and not about to go."""
    under_way: str
    """The snapshot that was being taken or deleted: it may be there or not."""
    reached: list[int]
    """One number, known when the step that was under way is done: the last moment that the image may show."""


class Life:
    """One process on a disk: what it did, and images of the disk at every write point."""

    def __init__(self, disk: Disk, seed: int, base: State | None = None) -> None:
        self.rng = Random(seed)
        self.disk = disk
        self.images: list[Moment] = []
        self.moments: list[Files] = [] if base is None else [files_of(base.active)]
        self.synced: dict[Ino, int] = {}
        self.all_synced = 0
        self.snapshots: dict[str, Dump] = {} if base is None else dict(base.snapshots)
        self.under_way = ""
        self.logged_count = 0
        self._reached: list[int] = [0]
        self._is_between = False
        witness = disk.kv._cut
        assert isinstance(witness, Witness)
        self.witness = witness
        if base is not None:
            # What is found after the first cut is found after one in the middle of the recovery.
            witness.seen = self.image
        self.tree = disk.open()
        witness.seen = None
        if base is None:
            self.tree.sync()
            self.note()

    def image(self) -> None:
        moment = Moment(
            self.disk.crash(self.rng, Witness()),
            dict(self.synced),
            self.all_synced,
            dict(self.snapshots),
            self.under_way,
            self._reached,
        )
        self.images.append(moment)

    def note(self) -> int:
        """The state is one that there was."""
        self.moments.append(files_of(dump_of(self.tree.reader)))
        return len(self.moments) - 1

    def seen(self) -> None:
        """At every write point. Others come in between, as they may while a group is being committed."""
        self.image()
        if not self._is_between and self.tree.store._committing and self.rng.random() < 0.5:
            self._is_between = True
            self.write_between()
            self._is_between = False

    def write_between(self) -> None:
        store = self.tree.store
        for name, ino, _ in self.tree.reader.all_entries(self.tree.root):
            if store._admitted_records > 40:
                # The group would be sealed, for which another thread would wait.
                return
            if name in NAMES and self.rng.random() < 0.6 and not store.intents.is_sealed(ino):
                self.disk.clock.advance(1)
                self.tree.write(ino, self.rng.randrange(2000), self.rng.randbytes(self.rng.randint(1, 300)))
                at = self.note()
                if self.rng.random() < 0.7 and ino not in store.intents.otherwise and self.has_room(ino):
                    self.tree.sync_file(ino)
                    self.synced[ino] = at

    def has_room(self, ino: Ino) -> bool:
        """Whether syncing needs no commit, for which a thread in between would have to wait."""
        return self.tree.store.intents._sector_count + 2 <= 10

    def live(self, step_count: int) -> None:
        self.witness.seen = self.seen
        for _ in range(step_count):
            self.step()
        self.witness.seen = None

    def step(self) -> None:
        self._reached = []
        started = len(self.moments) - 1
        is_sync, ino = self.change()
        self.disk.clock.advance(1)
        self._reached.append(self.note())
        if is_sync and ino is None:
            self.all_synced = started
        elif is_sync and ino is not None:
            self.synced[ino] = max(started, self.synced.get(ino, 0))

    def change(self) -> tuple[bool, Ino | None]:
        """Do something; whether it was a sync, and if it was one of a single file, of which."""
        tree, rng = self.tree, self.rng
        here = {name: ino for name, ino, _ in tree.reader.all_entries(tree.root) if name in NAMES}
        name = rng.choice(NAMES)
        if name not in here:
            tree.create(tree.root, name, 0o100644, 0, 0, data=rng.randbytes(rng.choice((0, 500))))
            return False, None
        ino = here[name]
        size = tree.reader.inode(ino).size
        kind = rng.randrange(100)
        if kind < 38:
            tree.write(ino, rng.randint(0, size), rng.randbytes(rng.choice((10, 700, 3000, 6000))))
        elif kind < 43:
            tree.append(ino, rng.randbytes(1000))
        elif kind < 76:
            self.logged_count += ino not in tree.store.intents.otherwise
            if rng.random() < 0.5:
                self.append_for_others([other for other in here.values() if other != ino])
            tree.sync_file(ino)
            return True, ino
        elif kind < 79:
            tree.write(ino, rng.randint(0, 2 * size), rng.randbytes(BLOCK_SIZE + 50))
        elif kind < 81:
            tree.truncate(ino, rng.randint(0, size + 10))
        elif kind < 83:
            tree.punch(ino, rng.randint(0, size), 3000)
        else:
            return self.change_more(kind, name, ino)
        return False, None

    def append_for_others(self, inos: list[Ino]) -> None:
        """Other threads have come as far with their syncs."""
        for ino in inos:
            node = self.tree.active.inode(ino)
            if node is not None:
                self.tree.store.intents.append(ino, node.mtime, node.ctime)

    def change_more(self, kind: int, name: bytes, ino: Ino) -> tuple[bool, Ino | None]:
        tree, rng = self.tree, self.rng
        if kind < 85:
            tree.set_attributes(ino, mode=rng.choice((0o600, 0o644)))
        elif kind < 87:
            tree.set_xattr(ino, b"user.x", rng.randbytes(20))
        elif kind < 89:
            tree.rename(tree.root, name, tree.root, rng.choice(NAMES))
        elif kind < 91:
            tree.unlink(tree.root, name)
        elif kind < 93:
            tree.sync()
            return True, None
        elif kind < 97:
            self.take(f"snapshot {rng.randrange(1 << 40)}")
            return True, None
        elif self.snapshots:
            self.drop(rng.choice(sorted(self.snapshots)), rolls_back=kind == 99)
            return True, None
        return False, None

    def take(self, name: str) -> None:
        self.under_way = name
        started = len(self.moments) - 1
        snapshot = manage.create(self.tree.store, self.tree.fileset, name)
        self.under_way = ""
        taken = self.snapshots[name] = dump_of(self.tree.snapshot_reader(snapshot))
        # Others may have written before it was sealed, while the group before was being committed.
        assert files_of(taken) in self.moments[started:]

    def drop(self, name: str, *, rolls_back: bool) -> None:
        store = self.tree.store
        if rolls_back:
            newest = store.catalog.newest(self.tree.fileset)
            assert newest is not None
            self._is_between = True
            bring_back.rollback(self.tree.active, self.tree.fileset)
            self._is_between = False
            return
        self.under_way = name
        del self.snapshots[name]
        delete.delete(self.tree.active, store.catalog.by_name(self.tree.fileset, name))
        self.under_way = ""


def verify(life: Life, moment: Moment, number: int) -> State:
    tree = moment.disk.open()
    found = state_of(tree)
    last = moment.reached[0]
    files = files_of(found.active)
    known = set().union(*life.moments[moment.all_synced : last + 1])
    for ino in known | files.keys():
        first = max(moment.all_synced, moment.synced.get(ino, 0))
        allowed = [each.get(ino) for each in life.moments[first : last + 1]]
        if files.get(ino) not in allowed:
            wanted = "\n".join(map(str, allowed))
            pytest.fail(f"image {number}: inode {ino} is {files.get(ino)}, and not, since it was synced:\n{wanted}")
    for name, dump in found.snapshots.items():
        assert name == moment.under_way or dump == moment.snapshots[name], f"snapshot {name} has changed"
    assert moment.snapshots.keys() <= found.snapshots.keys()
    tree.sync()
    assert_finished(tree)
    audit(tree)
    if number % CHECK_EVERY == 0:
        assert_clean(tree)
    assert not tree.store.intents.pending()
    return found


def run(seed: int, step_count: int, again_every: int = AGAIN_EVERY) -> tuple[int, int]:
    """How many images there were, and how many syncs of files found nothing that kept them from the log."""
    rng = Random(seed)
    first = Life(new_disk(Witness(), seed=seed), seed)
    first.live(step_count)
    lives = [(first, again_every, 0)]
    image_count = 0
    while lives:
        life, every, depth = lives.pop()
        for number, moment in enumerate(life.images):
            kept = moment.disk.crash(rng, Witness())
            found = verify(life, moment, number)
            image_count += 1
            if depth < 2 and number % every == every - 1:
                again = Life(kept, rng.randrange(1 << 30), found)
                again._reached.append(0)
                again.live(12)
                lives.append((again, 3 * every, depth + 1))
    return image_count, first.logged_count


@pytest.fixture(autouse=True)
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch)


@pytest.mark.parametrize("offset", range(2))
def test_what_was_synced_is_there(offset: int, seed: int) -> None:
    image_count, logged_count = run(1000 * seed + offset, 150)
    assert image_count > 200 and logged_count > 20


@pytest.mark.long
@pytest.mark.parametrize("offset", range(2, 24))
def test_what_was_synced_is_there_whatever_the_host_keeps(offset: int, seed: int) -> None:
    run(1000 * seed + offset, 300, 10)
