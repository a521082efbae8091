"""What a round of a link tells the other side, waits for, and keeps open."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import pytest

from idemfs.errors import ConnectionLost, PeerError
from idemfs.failover import actions
from idemfs.failover.observe import guid_of
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid
from idemfs.node import history, link_round
from idemfs.node.link_decisions import Rest
from idemfs.node.link_round import StoreTarget
from idemfs.replication import link, remote
from idemfs.replication.channel import Channel, PipeChannel
from idemfs.replication.receiver import LocalReceiver
from idemfs.replication.session import Session
from idemfs.snapshots import manage
from idemfs.snapshots.policy import Policy
from idemfs.store.files import open_files
from idemfs.testing.connected import channels
from tests.unit.node.link_place import Place, transfers
from tests.unit.replication.pairs import set_role

# -- how far the standby is behind -------------------------------------------------------------------


def test_a_standby_remembers_when_nothing_newer_was_there(place: Place) -> None:
    place.round("A", "B")
    other = place.open("B")
    assert other.current_age() is None, "nobody has said so to this process"
    as_of = place.clock.monotonic_seconds()
    place.clock.advance(5)
    place.target("A", "B").run(as_of=as_of)
    assert other.current_age() == pytest.approx(5)
    place.clock.advance(40)
    assert other.current_age() == pytest.approx(45)
    place.target("A", "B").run(as_of=place.clock.monotonic_seconds())
    assert other.current_age() == pytest.approx(0), "a round in which nothing was sent counts as well"
    place.target("A", "B").run()
    place.clock.advance(2)
    assert other.current_age() == pytest.approx(2), "a round that does not know says nothing"
    actions.tell(other, 7)
    assert other.current_age() is None, "of the primary of this epoch nobody has said so"


def test_a_guest_says_nothing_of_what_a_standby_shows(place: Place) -> None:
    place.round("A", "B")
    LocalReceiver(place.open("B")).note_current(Guid(bytes(16)), 0.0)
    LocalReceiver(place.trees["A"]).note_current(place.root("A"), 0.0)
    assert place.trees["B"].current_age() is place.trees["A"].current_age() is None


def test_it_is_told_over_a_connection(place: Place) -> None:
    place.round("A", "B")
    other = place.open("B")
    (here_in, there_out), (there_in, here_out) = os.pipe(), os.pipe()

    def serve() -> None:
        with Session(PipeChannel(there_in, there_out), guid_of(other), remote.handlers(other)) as there:
            there.serve()

    serving = threading.Thread(target=serve)
    serving.start()
    with Session(PipeChannel(here_in, here_out), guid_of(place.trees["A"])) as here:
        remote.RemoteReceiver(here).note_current(place.root("A"), 3.0)
    serving.join()
    assert other.current_age() == pytest.approx(3)


def test_a_primary_that_is_fenced_by_its_link_has_it_in_its_history(place: Place) -> None:
    place.round("A", "B")
    place.open("B")
    set_role(place.trees["B"].store, RoleRecord(Role.PRIMARY, 2, 2))
    place.trees["B"].reload_role()
    assert isinstance(place.target("A", "B").run().decision, Rest)
    (event,) = [each for each in history.events(place.path("A")) if each.what == "fenced"]
    assert (event.source, event.target, event.by) == (place.path("B"), place.path("A"), "link")
    assert event.outcome == "epoch 2 has ended epoch 1"


def test_a_link_that_ends_does_not_wait_for_a_greeting(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end may be opening a store, or have gone without a trace."""
    here, silent = channels()
    reached = threading.Event()

    def connect(address: str, readonly: bool) -> Channel:
        reached.set()
        return here

    monkeypatch.setattr(link_round, "connect", connect)
    target = StoreTarget(place.make("a"), place.path("a"), "ssh://there/store", Policy())
    failures: list[Exception] = []

    def run() -> None:
        try:
            target.run()
        except PeerError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert reached.wait(30)
    # What is said first tells that it waits for what comes back.
    silent.receive()
    target.interrupt()
    thread.join(20)
    assert not thread.is_alive() and len(failures) == 1
    with pytest.raises(ConnectionLost):
        here.receive()
    silent.close()


def test_a_round_waits_for_the_disk_once_here_and_twice_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.round("A", "B")
    place.open("B")
    counts = dict.fromkeys("AB", 0)

    def count(name: str, commit: Callable[..., None]) -> Callable[..., None]:
        def counted(*args: object) -> None:
            counts[name] += 1
            commit(*args)

        return counted

    for name in counts:
        kv = place.trees[name].store.kv
        monkeypatch.setattr(kv, "commit", count(name, kv.commit))
    for turn in range(1, 4):
        place.write("A")
        place.write("A")
        assert len(transfers(place.round("A", "B"))) == 1
        assert counts == {"A": turn, "B": 2 * turn}
    monkeypatch.undo()
    place.assert_equal("A", "B")


def test_what_a_link_takes_is_held_from_the_first_for_the_store_that_it_filled(place: Place) -> None:
    place.round("A", "B")
    place.write("A")
    tree = place.trees["A"]
    link_round.take(tree, place.path("B"))
    link_round.take(tree, place.path("C"))
    *_, newest = tree.store.catalog.snapshots(tree.fileset)
    known = link_round.filled(tree, place.path("B"))
    assert known is not None
    assert manage.holders(tree.store, newest) == [link.hold_owner(known.store)]
    place.write("A")
    link_round.take(tree, place.path("C"))
    *_, newest = tree.store.catalog.snapshots(tree.fileset)
    assert manage.holders(tree.store, newest) == []


def test_a_round_that_was_left_out_leaves_no_hold_behind(place: Place) -> None:
    place.round("A", "B")
    tree = place.trees["A"]
    for _ in range(3):
        place.write("A")
        link_round.take(tree, place.path("B"))
    place.round("A", "B")
    assert len(place.names("A")) == len(place.names("B")) == 1


def test_without_changes_nothing_is_taken_and_nothing_committed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.round("A", "B")
    store, names = place.trees["A"].store, place.names("A")
    store.commit()

    def commit(*_: object) -> None:
        raise AssertionError("there is nothing to commit")

    monkeypatch.setattr(store.kv, "commit", commit)
    link_round.take(place.trees["A"], place.path("B"))
    monkeypatch.undo()
    assert place.names("A") == names


SSH = """\
#!/bin/sh
# What ssh does with its last argument, on this machine.
echo started >> "$0.log"
for command; do :; done
cd / && exec {python} -m $command
"""


def test_a_connection_over_ssh_stays_open_until_the_link_rests(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    program, log = place.folder / "ssh", place.folder / "ssh.log"
    program.write_text(SSH.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("IDEMFS_SSH", str(program))
    place.round("A", "B")
    address = f"ssh://there{place.path('B')}"
    target = StoreTarget(place.trees["A"], place.path("A"), address, Policy())

    def rounds(count: int) -> int:
        """How often ssh was started by then."""
        for _ in range(count):
            place.write("A")
            link_round.take(place.trees["A"], address)
            assert len(transfers(target.run())) == 1
            link_round.let_go(place.trees["A"])
        return len(log.read_text().splitlines())

    try:
        assert rounds(3) == 1
        target.rest()
        # Nobody has the other store open now.
        open_files(place.path("B"), background=False, clock=place.clock).close()
        assert rounds(2) == 2
    finally:
        target.close()
    place.assert_equal("A", "B")
