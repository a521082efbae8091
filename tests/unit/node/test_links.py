"""The threads of links: when they run, stop, go on, and what they say of themselves."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from idemfs.limits import SILENCE_SECONDS
from idemfs.node import history
from idemfs.node.config import LinkConfig, StoreConfig, Window
from idemfs.node.links import LinkRunner, linking
from idemfs.node.owner import Commands, OwnedStore
from idemfs.node.peer import end_sessions
from idemfs.node.progress import LinkStatus
from idemfs.store.claim import Claim
from idemfs.store.files import create_files, open_files
from idemfs.testing.builders import assert_clean, make_file
from idemfs.vfs.tree import Tree
from tests.e2e.serving import Served
from tests.unit.replication.pairs import assert_same, snapshots

NO_COMMANDS = Commands(lambda _arguments: 1, lambda _arguments: False, lambda _arguments: False)
PATIENCE_SECONDS = 60.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the test fails if it never comes."""
    waiting, end = threading.Event(), time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        waiting.wait(0.01)


class Linked:
    """A store ``A`` that is served, with its links."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        create_files(self.path("A"), block_size=4096)
        self._count = 0

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def link(
        self, to: str = "B", *, every: int = 1, bandwidth: int = 0, windows: tuple[Window, ...] = ()
    ) -> LinkConfig:
        address = to if ":" in to else self.path(to)
        return LinkConfig(to=address, every_seconds=every, bandwidth=bandwidth, windows=windows)

    def config(self, *links: LinkConfig) -> StoreConfig:
        return StoreConfig(name="data", path=self.path("A"), links=links)

    @contextmanager
    def served(self, *links: LinkConfig) -> Iterator[OwnedStore]:
        tree = Tree(open_files(self.path("A")))
        owner = OwnedStore(self.config(*links), tree, NO_COMMANDS, {"links": linking()})
        try:
            owner.start()
            owner.complete(strict=True)
            yield owner
        finally:
            owner.close()

    def write(self, owner: OwnedStore, size: int = 9000) -> None:
        self._count += 1
        make_file(owner.tree, owner.tree.root, f"f{self._count}".encode(), os.urandom(size))
        owner.tree.store.commit()

    def assert_equal(self, to: str = "B") -> None:
        """When nobody has the stores open: the newest snapshot of ``A`` is the newest one there."""
        one, other = (Tree(open_files(self.path(name), background=False)) for name in ("A", to))
        try:
            newest = snapshots(one)[-1].name
            assert snapshots(other)[-1].name == newest
            assert_same(one, other, newest)
            assert_clean(other)
        finally:
            one.store.close()
            other.store.close()


@pytest.fixture
def linked(tmp_path: Path) -> Linked:
    return Linked(tmp_path)


def status(owner: OwnedStore, number: int = 0) -> LinkStatus:
    return owner.links[number]


def is_current(owner: OwnedStore, number: int = 0) -> bool:
    found = status(owner, number)
    return found.state == "idle" and found.lag_seconds == 0.0


def test_a_link_keeps_the_other_store_up_to_date(linked: Linked) -> None:
    with linked.served(linked.link()) as owner:
        until(lambda: is_current(owner))
        seen = {status(owner).common}
        for count in (2, 3):
            linked.write(owner)
            until(lambda: is_current(owner) and status(owner).common not in seen)
            seen.add(status(owner).common)
            assert len(seen) == count
        found = status(owner)
        assert found.sent_count >= 3 and found.sent_bytes > 18_000 and found.failure_count == 0
    linked.assert_equal()
    joined, first, *_ = history.events(linked.path("A"))
    assert (joined.what, joined.target, joined.by) == ("standby add", linked.path("B"), "link")
    assert (first.what, first.source, first.target, first.outcome) == (
        "transfer",
        linked.path("A"),
        linked.path("B"),
        "done",
    )


def test_of_two_new_stores_with_a_link_each_the_one_that_is_written_to_is_the_primary(linked: Linked) -> None:
    create_files(linked.path("B"), block_size=4096)
    config = StoreConfig(name="data", path=linked.path("B"), links=(linked.link("A"),))
    b = OwnedStore(config, Tree(open_files(linked.path("B"))), NO_COMMANDS, {"links": linking()})
    try:
        b.start()
        with linked.served(linked.link("B")) as a:
            b.complete(strict=True)
            until(lambda: all(status(each).state == "resting" for each in (a, b)))
            assert snapshots(a.tree) == snapshots(b.tree) == []
            linked.write(a)
            until(lambda: is_current(a))
            until(lambda: status(b).reason == "is the primary")
    finally:
        b.close()
    linked.assert_equal()


def test_a_store_with_many_standbys_each_with_its_own_interval(linked: Linked) -> None:
    with linked.served(
        linked.link("B"), linked.link("C", every=3600), linked.link(f"archive:{linked.path('D')}")
    ) as owner:
        until(lambda: all(is_current(owner, number) for number in range(3)))
        linked.write(owner)
        until(lambda: is_current(owner, 0) and is_current(owner, 2))
        behind = status(owner, 1)
        assert behind.lag_seconds is not None and behind.lag_seconds > 0 and behind.lag_bytes == 9000
        assert behind.next_ns is not None
        # For the one that is behind its snapshot is held, and that of the others too.
        assert len(snapshots(owner.tree)) == 2
    linked.assert_equal("B")


def test_closed_in_the_midst_of_a_transfer_it_goes_on_where_it_was(linked: Linked) -> None:
    with linked.served(linked.link(bandwidth=2_000_000)) as owner:
        until(lambda: is_current(owner))
        linked.write(owner, 30_000_000)
        until(lambda: (found := status(owner).transfer) is not None and found.bytes_sent > 2_000_000)
        found = status(owner).transfer
        assert found is not None and found.bytes_total is not None and found.bytes_total >= 30_000_000
        assert found.fileset == "root" and found.base is not None
        assert found.bytes_per_second > 0 and found.remaining_seconds is not None
    with linked.served(linked.link()) as owner:
        until(lambda: is_current(owner))
        assert 0 < status(owner).sent_bytes < 29_000_000
    linked.assert_equal()


def test_another_bandwidth_drops_no_transfer(linked: Linked) -> None:
    with linked.served(linked.link(bandwidth=1_000_000)) as owner:
        until(lambda: is_current(owner))
        linked.write(owner, 20_000_000)
        until(lambda: (found := status(owner).transfer) is not None and found.bytes_sent > 1_000_000)
        rounds = status(owner).round_count
        owner.configure(linked.config(linked.link()))
        until(lambda: is_current(owner))
        assert status(owner).sent_bytes > 20_000_000
        events = [each for each in history.events(linked.path("A")) if each.outcome != "done"]
        assert events == [] and status(owner).round_count >= rounds
    linked.assert_equal()


def test_links_come_and_go_with_the_configuration(linked: Linked) -> None:
    with linked.served(linked.link("B")) as owner:
        until(lambda: is_current(owner))
        part = owner.parts["links"]
        owner.configure(linked.config(linked.link("C")))
        owner.complete()
        assert owner.parts["links"] is part and isinstance(part, LinkRunner)
        until(lambda: is_current(owner))
        assert [each.to for each in owner.links] == [linked.path("C")]
        owner.configure(linked.config())
        owner.complete()
        assert owner.links == [] and owner.parts == {}
    linked.assert_equal("C")


def test_outside_of_its_window_a_link_waits_and_says_for_how_long(linked: Linked) -> None:
    now = time.gmtime()
    minute = (now.tm_hour * 60 + now.tm_min + 120) % 1440
    with linked.served(linked.link(windows=(Window(minute, (minute + 60) % 1440),))) as owner:
        until(lambda: status(owner).state == "waiting for its window")
        found = status(owner)
        assert found.next_ns is not None and 3600 < found.next_ns / 1e9 - time.time() < 7300
        owner.configure(linked.config(linked.link()))
        until(lambda: is_current(owner))
    linked.assert_equal()


def test_a_failure_is_told_once_and_tried_again(linked: Linked, caplog: pytest.LogCaptureFixture) -> None:
    os.mkdir(linked.path("B"))
    (linked.folder / "B" / "mine").write_bytes(b"keep")
    with linked.served(linked.link()) as owner:
        until(lambda: status(owner).failure_count >= 2)
        found = status(owner)
        assert found.state == "failed" and found.reason is not None and "B" in found.reason
        assert found.next_ns is not None and found.lag_seconds is None
        assert list(owner.problems) == [f"link {linked.path('B')}"]
        os.unlink(linked.folder / "B" / "mine")
        until(lambda: is_current(owner))
        assert owner.problems == {}
    assert len([record for record in caplog.records if "link " in record.getMessage()]) == 1
    outcomes = [each.outcome for each in history.events(linked.path("A")) if each.what == "transfer"]
    assert len(outcomes) == 2 and outcomes[1] == "done"


def test_a_command_that_wants_the_store_has_it_at_once(linked: Linked) -> None:
    with linked.served(linked.link(bandwidth=1_000_000)) as owner:
        until(lambda: is_current(owner))
        linked.write(owner, 20_000_000)
        until(lambda: status(owner).transfer is not None)
        claim = owner.tree.store.claim
        claim.take(10.0)
        until(lambda: status(owner).state == "paused")
        claim.release()
        owner.configure(linked.config(linked.link()))
        until(lambda: is_current(owner))
    linked.assert_equal()


def test_a_failover_waits_for_no_store_that_is_silent(linked: Linked) -> None:
    with linked.served(linked.link()) as owner:
        until(lambda: is_current(owner))
    config = linked.folder / "B.toml"
    config.write_text(f'[[store]]\nname = "b"\npath = "{linked.path("B")}"\n')
    other = Served(config)
    try:
        other.wait_for("is ready")
        with linked.served(linked.link()) as owner:
            linked.write(owner)
            until(lambda: is_current(owner))
            other.process.send_signal(signal.SIGSTOP)
            linked.write(owner)
            until(lambda: status(owner).lag_seconds != 0.0 and is_taken(owner))
            # As ``failover`` takes it; otherwise the command would wait until the silence is noticed.
            owner.tree.store.claim.take(SILENCE_SECONDS / 2, partial(end_sessions, owner.path))
            owner.tree.store.claim.release()
            until(lambda: status(owner).state == "failed")
            other.process.send_signal(signal.SIGCONT)
            until(lambda: is_current(owner))
    finally:
        other.close()


def test_a_link_can_be_interrupted_from_the_moment_it_has_the_claim(
    linked: Linked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a failover that comes just then would wait for a silent store."""
    with linked.served(linked.link()) as owner:
        until(lambda: is_current(owner))
    config = linked.folder / "B.toml"
    config.write_text(f'[[store]]\nname = "b"\npath = "{linked.path("B")}"\n')
    other = Served(config)
    claimed, ended = Claim.background, threading.Event()

    @contextmanager
    def then_ended(claim: Claim) -> Iterator[bool]:
        with claimed(claim) as is_free:
            end_sessions(linked.path("A"))
            ended.set()
            yield is_free

    try:
        other.wait_for("is ready")
        other.process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(Claim, "background", then_ended)
        with linked.served(linked.link()) as owner:
            linked.write(owner)
            assert ended.wait(PATIENCE_SECONDS)
            owner.tree.store.claim.take(SILENCE_SECONDS / 2)
            owner.tree.store.claim.release()
            monkeypatch.undo()
            other.process.send_signal(signal.SIGCONT)
            until(lambda: is_current(owner))
    finally:
        other.close()


def is_taken(owner: OwnedStore) -> bool:
    with owner.tree.store.claim.background() as is_free:
        return not is_free


def test_under_load_nothing_piles_up(linked: Linked) -> None:
    with linked.served(linked.link()) as owner:
        until(lambda: is_current(owner))
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                linked.write(owner, 20_000)

        writer = threading.Thread(target=load)
        writer.start()
        try:
            rounds = status(owner).round_count
            until(lambda: status(owner).round_count >= rounds + 4)
            # One that is common, one under way, and one that was just replaced.
            assert len(snapshots(owner.tree)) <= 3
        finally:
            stop.set()
            writer.join()
        until(lambda: is_current(owner))
        assert len(snapshots(owner.tree)) == 1
    linked.assert_equal()
