"""The seven steps. Each does one thing to the stores, and then looks at what became of every file."""

from __future__ import annotations

import os
import time

import idemfs
from demo.changes import Changes
from demo.ledger import Ledger
from demo.manifest import Manifest
from demo.show import Advance, Show
from demo.source import Source, measure
from demo.stores import Mismatch, Stores, expect_equal
from idemfs.api import FileSystem
from idemfs.failover import decisions
from idemfs.failover.facts import Decision, Freeze, Promote, Send, Step
from idemfs.failover.stage import Stage
from idemfs.failover.standbys import add_standby
from idemfs.vfs.copying_in import put

FILE_BY_FILE = "SHA-256, mode, owner, times, links"


def replicate(stage: Stage) -> Decision:
    return decisions.replicate(*stage.facts())


def failover(stage: Stage) -> Decision:
    return decisions.failover(*stage.facts())


def failback(stage: Stage) -> Decision:
    return decisions.failback(*stage.facts())


def switchover(stage: Stage) -> Decision:
    return decisions.switchover(*stage.facts())


class Life:
    """What has happened so far. ``times``: how often each kind of change is made in a round."""

    def __init__(self, show: Show, directory: str, sources: list[Source], times: int, seed: int) -> None:
        self._show = show
        self._stores = Stores(show, directory)
        self._sources = sources
        self._times = times
        self._ledger = Ledger()
        self._round = seed * 100
        self._lost: Manifest = {}

    def run(self) -> None:
        """Raises ``Mismatch`` at the first thing that is not as it must be."""
        self._import()
        self._first_transfer()
        self._change_and_replicate()
        self._fail_over()
        self._come_back()
        self._revert()
        self._delete_and_restore()

    def _change(self, fs: FileSystem, now: Manifest) -> Changes:
        """One more round of changes; durable."""
        self._round += 1
        changes = Changes(fs, now, self._ledger, self._round)
        changes.some_of_each(self._times)
        fs.sync()
        return changes

    # -- 1 -------------------------------------------------------------------------------------------

    def _import(self) -> None:
        show, stores = self._show, self._stores
        names = ", ".join(source.path for source in self._sources)
        show.step(f"make store A, import {names}, take snapshot 1")
        start = time.perf_counter()
        with idemfs.create(stores.a) as fs:
            count = size = 0
            for source in self._sources:
                with show.bar(f"import {source.path}", measure(source)[1]) as advance:
                    watcher = _Watcher(advance)
                    done = put(
                        fs.tree,
                        os.fsencode(source.path),
                        os.fsencode(f"/{source.name}"),
                        watcher=watcher,
                        leave_out=source.leave_out,
                    )
                count += done.file_count
                size += done.byte_count
            fs.snapshots.create("1")
        took = time.perf_counter() - start
        seen = stores.remember(stores.a, "1")
        for source in self._sources:
            host = stores.read(source.host(), source.path)
            below = {path[len(source.name) + 1 :]: entry for path, entry in seen.items() if _is_below(path, source)}
            expect_equal(f"{source.path} and its copy", host, _relinked(below, source), owners=os.geteuid() == 0)
        self._ledger.add(seen)
        links = sum(entry.mode & 0o170000 == 0o120000 for entry in seen.values())
        show.row(
            f"{count:,} files, {links} of them symlinks, into A",
            size,
            took,
            f"A against the host, {len(seen):,} paths: {FILE_BY_FILE}",
        )

    # -- 2 -------------------------------------------------------------------------------------------

    def _first_transfer(self) -> None:
        show, stores = self._show, self._stores
        show.step("make store B, standby of A; first transfer")
        add_standby(stores.a, stores.b)
        moved = stores.command(stores.a, replicate)
        stores.compare(stores.b, "1")
        stores.equal_digests("1")
        show.row("snapshot 1, A to B", moved.bytes, moved.seconds, f"B against A: {FILE_BY_FILE}; digest")

    # -- 3 -------------------------------------------------------------------------------------------

    def _change_and_replicate(self) -> None:
        show, stores = self._show, self._stores
        show.step("change A, take snapshot 2, send the change set to B")
        with idemfs.open(stores.a) as fs:
            changes = self._change(fs, stores.known["1"])
            fs.snapshots.create("2")
        moved = stores.command(stores.a, replicate)
        stores.remember(stores.a, "2")
        for name in ("1", "2"):
            stores.compare(stores.b, name)
            stores.equal_digests(name)
        show.say(f"{moved.bytes:,} bytes sent for {moved.block_bytes:,} bytes of changed blocks")
        show.row(
            f"{changes.count} changes of 9 kinds, A to B; {moved.block_bytes:,} bytes of changed blocks",
            moved.bytes,
            moved.seconds,
            f"snapshots 1 and 2 of B against A: {FILE_BY_FILE}; digests",
        )

    # -- 4 -------------------------------------------------------------------------------------------

    def _fail_over(self) -> None:
        show, stores = self._show, self._stores
        show.step("A is lost with changes that were not sent; B takes over and is written to")
        with idemfs.open(stores.a) as fs:
            lost = self._change(fs, stores.known["2"])
            self._lost = stores.read(fs, "A")
        stores.lose(stores.a)
        moved = stores.command(stores.b, failover)
        show.say(f"B took over in {moved.seconds:.3f} seconds")
        stores.compare_now(stores.b, stores.known["2"], "after it took over")
        with idemfs.open(stores.b) as fs:
            written = self._change(fs, stores.known["2"])
        show.row(
            f"B is primary; {lost.count} changes are on A alone, {written.count} were made on B",
            0,
            moved.seconds,
            f"B is as snapshot 2 was: {FILE_BY_FILE}",
        )

    # -- 5 -------------------------------------------------------------------------------------------

    def _come_back(self) -> None:
        show, stores = self._show, self._stores
        show.step("A returns, keeps what only it has, goes back to snapshot 2 and receives what B changed")
        stores.find_again(stores.a)
        moved = stores.command(stores.a, failback)
        kept = self._newest(stores.a, "diverged-")
        stores.known[kept] = self._lost
        stores.compare(stores.a, kept)
        name = self._newest(stores.b)
        stores.remember(stores.b, name)
        stores.compare(stores.a, name)
        stores.compare_now(stores.a, stores.known[name], "as a standby")
        stores.equal_digests(name)
        show.row(
            f"what B changed, B to A; what A had alone is snapshot {kept}",
            moved.bytes,
            moved.seconds,
            f"{kept} has all that A lost, and A is as B: {FILE_BY_FILE}; digest",
        )

    def _newest(self, path: str, start: str = "") -> str:
        with idemfs.open(path) as fs:
            return [info.name for info in fs.snapshots if info.name.startswith(start)][-1]

    # -- 6 -------------------------------------------------------------------------------------------

    def _revert(self) -> None:
        show, stores = self._show, self._stores
        show.step("reversion: a change set while B serves, freeze, the last change set, exchange")
        before = stores.known[self._newest(stores.b)]
        with idemfs.open(stores.b) as fs:
            first = self._change(fs, before)
            now = stores.read(fs, "B")
        counts: list[int] = []
        frozen: list[float] = []

        def between(step: Step, stage: Stage) -> None:
            if isinstance(step, Send) and not counts:
                # B still serves: its users go on writing.
                counts.append(self._change(FileSystem(stage.me), now).count)
            elif isinstance(step, Freeze | Promote):
                frozen.append(time.perf_counter())

        moved = stores.command(stores.b, switchover, between)
        names = [self._newest(stores.a), self._newest(stores.b)]
        if names[0] != names[1]:
            raise Mismatch(f"the newest snapshot is {names[0]} on A and {names[1]} on B")
        stores.remember(stores.a, names[0])
        stores.compare(stores.b, names[0])
        stores.compare_now(stores.a, stores.known[names[0]], "as primary again")
        stores.compare_now(stores.b, stores.known[names[0]], "as standby again")
        stores.equal_digests(names[0])
        self._look_for_everything()
        show.say(f"nobody could write for {frozen[1] - frozen[0]:.3f} seconds")
        show.row(
            f"{first.count} changes while B served, {counts[0]} more before the freeze; A is primary, B standby",
            moved.bytes,
            moved.seconds,
            f"A and B are equal: {FILE_BY_FILE}; digest; each of the {len(self._ledger):,} contents "
            "ever written is in a snapshot of A",
        )

    def _look_for_everything(self) -> None:
        with (
            idemfs.open(self._stores.a) as fs,
            self._show.bar("look for everything that was ever written", self._ledger.total_bytes) as advance,
        ):
            views = [fs.snapshots[info.name] for info in fs.snapshots]
            missing = self._ledger.first_missing(views, advance)
        if missing is not None:
            raise Mismatch(f"{missing}: a content that was written is in no snapshot of A")

    # -- 7 -------------------------------------------------------------------------------------------

    def _delete_and_restore(self) -> None:
        show, stores = self._show, self._stores
        show.step("delete snapshots in mixed order, restore an older one, undo it, check both stores")
        start = time.perf_counter()
        deleted = freed = 0
        for path, order in ((stores.a, (3, 0)), (stores.b, (2, 0))):
            with idemfs.open(path) as fs:
                names = [info.name for info in fs.snapshots]
                for at in order:
                    freed += fs.snapshots.info(names[at]).owned_bytes
                    fs.snapshots.delete(names[at])
                    deleted += 1
        now = stores.known[self._newest(stores.a)]
        with idemfs.open(stores.a) as fs:
            undo = fs.snapshots.restore("2").name
            expect_equal("A restored to 2", stores.known["2"], stores.read(fs, "A"))
            fs.snapshots.restore(undo)
            expect_equal("A after the undo", now, stores.read(fs, "A"))
        took = time.perf_counter() - start
        count = self._compare_all()
        for path in (stores.a, stores.b):
            stores.check(path)
        show.row(
            f"{deleted} snapshots deleted, snapshot 2 restored, the restore undone",
            freed,
            took,
            f"both states and the {count} snapshots left: {FILE_BY_FILE}; check of A and B: clean",
        )

    def _compare_all(self) -> int:
        count = 0
        for path in (self._stores.a, self._stores.b):
            with idemfs.open(path) as fs:
                names = [info.name for info in fs.snapshots if info.name in self._stores.known]
            for name in names:
                self._stores.compare(path, name)
                count += 1
        return count


class _Watcher:
    """Tells a bar how a copy goes on; a file that cannot be copied ends the demo."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance

    def advanced(self, files: int, size: int) -> None:
        self._advance(size)

    def failed(self, path: bytes, error: OSError) -> None:
        raise Mismatch(f"{os.fsdecode(path)}: {error.strerror}")

    def warned(self, text: str) -> None:
        """That folders are left out is meant."""


def _is_below(path: str, source: Source) -> bool:
    return path.startswith(f"/{source.name}/")


def _relinked(found: Manifest, source: Source) -> Manifest:
    """Paths of hard links as they are inside the source."""
    size = len(source.name) + 1
    return {path: entry._replace(same_as=entry.same_as[size:]) for path, entry in found.items()}
