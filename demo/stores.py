"""The two stores of the demo: opened, commanded, compared.

Role commands are those of the command line: the same decisions, carried out by the same driver.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import idemfs
from demo import manifest
from demo.manifest import Manifest, View
from demo.show import Show
from idemfs.check import find
from idemfs.failover.driver import Done, carry_out
from idemfs.failover.facts import Decision, Refusal, Send, Step
from idemfs.failover.places import open_stage
from idemfs.failover.stage import Stage
from idemfs.ids import Guid

Between = Callable[[Step, Stage], object]


class Mismatch(Exception):
    """Something is not as it must be; the message has the first path."""


class Moved(NamedTuple):
    """What a command sent: bytes on the wire, bytes of changed blocks, and how long all of it took."""

    bytes: int
    block_bytes: int
    seconds: float
    steps: list[Done]


class Stores:
    """Two paths, and what is known of the trees that their snapshots have."""

    def __init__(self, show: Show, directory: str) -> None:
        self.show = show
        self.a = os.path.join(directory, "A")
        self.b = os.path.join(directory, "B")
        self.known: dict[str, Manifest] = {}
        """By the name of a snapshot, what it had when it was taken."""

    def lose(self, path: str) -> None:
        """The store cannot be reached any more, as if its machine had stopped."""
        os.rename(path, path + ".lost")

    def find_again(self, path: str) -> None:
        os.rename(path + ".lost", path)

    def command(
        self, path: str, decide: Callable[[Stage], Decision], after: Between = lambda step, stage: None
    ) -> Moved:
        """One command on the store at ``path``. ``after`` is called after each step, as whoever uses the stores."""
        start = time.perf_counter()
        with open_stage(path) as stage:
            decision = decide(stage)
            if isinstance(decision, Refusal):
                raise decision.error
            steps = []
            with self.show.bar("change sets", self._expected(stage)) as advance:
                sent: dict[Guid, int] = {}

                def progress(guid: Guid, size: int) -> None:
                    advance(size - sent.get(guid, 0))
                    sent[guid] = size

                for done in carry_out(decision, stage, progress):
                    steps.append(done)
                    after(done.step, stage)
        reports = [done.report for done in steps if done.report is not None]
        took = time.perf_counter() - start
        return Moved(sum(each.bytes for each in reports), sum(each.block_bytes for each in reports), took, steps)

    def _expected(self, stage: Stage) -> int:
        """About how many bytes there are to be sent."""
        from idemfs.failover.status import status

        return max((row.behind_bytes or 0 for row in status(stage)), default=0)

    # -- comparing -----------------------------------------------------------------------------------

    def read(self, view: View, text: str) -> Manifest:
        """Everything that a view shows, read to the last byte."""
        with self.show.bar(f"read {text}", self._size()) as advance:
            return manifest.make(view, advance=advance)

    def _size(self) -> int:
        return manifest.total_bytes(next(reversed(self.known.values()))) if self.known else 0

    def remember(self, path: str, name: str) -> Manifest:
        """Read a new snapshot of the store at ``path``, which others are compared with from now on."""
        with idemfs.open(path) as fs:
            self.known[name] = self.read(fs.snapshots[name], f"snapshot {name} of {os.path.basename(path)}")
        return self.known[name]

    def compare(self, path: str, name: str) -> None:
        """A snapshot that is held here has what it had when it was taken."""
        with idemfs.open(path) as fs:
            seen = self.read(fs.snapshots[name], f"snapshot {name} of {os.path.basename(path)}")
        expect_equal(f"snapshot {name} of {os.path.basename(path)}", self.known[name], seen)

    def compare_now(self, path: str, wanted: Manifest, what: str) -> None:
        """What readers of a store see now is ``wanted``."""
        with idemfs.open(path) as fs:
            seen = self.read(fs, os.path.basename(path))
        expect_equal(f"{os.path.basename(path)} {what}", wanted, seen)

    def equal_digests(self, name: str) -> None:
        digests = []
        for path in (self.a, self.b):
            with idemfs.open(path) as fs:
                digests.append(fs.snapshots.info(name).digest)
        if digests[0] != digests[1]:
            raise Mismatch(f"snapshot {name}: digest {digests[0]} on A, {digests[1]} on B")

    def check(self, path: str) -> None:
        """Nothing is wrong with the store; every block is read."""
        with idemfs.open(path) as fs:
            for finding in find(fs.tree, read_data=True):
                raise Mismatch(f"check of {os.path.basename(path)}: {finding}")


def expect_equal(what: str, wanted: Manifest, seen: Manifest, *, owners: bool = True) -> None:
    difference = manifest.first_difference(wanted, seen, owners=owners)
    if difference is not None:
        raise Mismatch(f"{what}: {difference}")


def is_first_send(step: Step, seen: list[Step]) -> bool:
    """Whether this is the first transfer of a command that has several."""
    return isinstance(step, Send) and not any(isinstance(each, Send) for each in seen)
