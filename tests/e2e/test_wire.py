"""Two nodes over HTTPS, and what befalls them: a cut cable, in both directions or one, ``kill -9``, two that
were promoted, a full disk, strangers and expired certificates. Real processes, each on a machine of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import pytest

from idemfs.node import certificates
from tests.conformance.disks import small_disk
from tests.conformance.mounted import missing
from tests.e2e.netns import WAIT_SECONDS, wait_until
from tests.e2e.wire import (
    Node,
    Writer,
    cut_both,
    mend_both,
    two_nodes,
    wait_until_equal,
    written,
)

BULK = 16 << 20
SLACK = 2 << 20
"""What TLS, the network and idemfs itself add to what is sent, and what was on its way when the cable was cut."""
MEGABITS = 80

mounts = pytest.mark.skipif(missing() is not None, reason=missing() or "")


def send_bulk(a: Node, b: Node, share: float) -> int:
    """The link of ``a`` sends a large file, and this much of it has come; the rest goes on. What had come before it."""
    a.machine.limit(MEGABITS)
    before = b.machine.bytes_received()
    a.put("/bulk", Random(1).randbytes(BULK))
    wait_until(lambda: b.machine.bytes_received() - before > BULK * share, "a part of it travels")
    return before


def diverged(node: Node) -> list[str]:
    """Snapshots of what a node alone had."""
    return [row["name"] for row in node.rows("diverged", "list", node.store)]


def assert_keeps(node: Node, path: str, content: str) -> None:
    """In a snapshot that is reported as one that diverged."""
    assert any(node.ended("cat", f"{node.store}@{name}", path).out == content for name in diverged(node))


# -- transfers -------------------------------------------------------------------------------------------


def test_after_the_cable_was_cut_in_a_transfer_only_the_rest_travels(tmp_path: Path) -> None:
    with two_nodes(tmp_path) as (a, b):
        before = send_bulk(a, b, 0.5)
        cut_both(a, b)
        came = b.machine.bytes_received() - before
        assert came < BULK * 0.9
        wait_until(lambda: a.link_status()["state"] == "failed", "the link notices")
        assert "lost" in a.link_status()["reason"] or "reached" in a.link_status()["reason"]
        assert b.get("/first") == "1" and b.ended("cat", b.store, "/bulk").status == 1
        mend_both(a, b)
        a.machine.limit(None)
        before = b.machine.bytes_received()
        wait_until_equal(a, b)
        assert b.machine.bytes_received() - before < BULK - came + SLACK
        assert a.log.read_text().count("goes on again") == 1


@pytest.mark.long
@pytest.mark.parametrize("killed", ["a", "b"])
def test_either_side_is_killed_in_the_midst_of_a_transfer(tmp_path: Path, killed: str) -> None:
    with two_nodes(tmp_path) as (a, b):
        before = send_bulk(a, b, 0.5)
        victim = a if killed == "a" else b
        victim.kill()
        assert b.machine.bytes_received() - before < BULK * 0.95
        a.machine.limit(None)
        assert b.ended("cat", b.store, "/bulk").status == 1
        victim.start()
        wait_until_equal(a, b)


@pytest.mark.long
def test_snapshots_are_pruned_while_one_of_them_is_in_flight(tmp_path: Path) -> None:
    """All that nothing holds, again and again, while a change set travels."""
    with two_nodes(tmp_path) as (a, b):
        a.do("snapshot", "create", a.store, "before")
        send_bulk(a, b, 0.3)
        while b.ended("cat", b.store, "/bulk").status != 0:
            for name in a.snapshot_names():
                a.ended("snapshot", "delete", "--yes", a.store, name)
            a.put("/more", os.urandom(1000))
        a.machine.limit(None)
        wait_until_equal(a, b)
        assert "before" not in a.snapshot_names()
        assert b.get("/first") == "1"


@pytest.mark.long
def test_the_disk_of_the_standby_is_full_and_then_has_room(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    with (
        small_disk(tmp_path / "disk", BULK // 2) as disk,
        two_nodes(tmp_path / "nodes", disk=disk) as (a, b),
    ):
        a.put("/bulk", Random(1).randbytes(BULK))
        wait_until(lambda: a.link_status()["state"] == "failed", "there is no room")
        assert "space" in a.link_status()["reason"].lower(), a.link_status()
        assert b.get("/first") == "1" and b.ended("cat", b.store, "/bulk").status == 1
        a.put("/meanwhile", b"2")
        remount = ["mount", "-o", f"remount,size={BULK * 6}", str(disk)]
        assert b.machine.beside(b.pid, *remount).wait() == 0
        wait_until(lambda: b.has("/meanwhile", "2"), "it goes on by itself")
        wait_until_equal(a, b)


# -- roles -----------------------------------------------------------------------------------------------


@mounts
@pytest.mark.parametrize(
    "direction",
    ["both", pytest.param("a to b", marks=pytest.mark.long), pytest.param("b to a", marks=pytest.mark.long)],
)
def test_two_sides_that_were_promoted_are_settled_by_one_command(tmp_path: Path, direction: str) -> None:
    """While they do not hear each other both write. When they do, the older one stops by itself; nothing is lost."""
    with two_nodes(tmp_path, mounted=True) as (a, b):
        if direction != "b to a":
            a.machine.cut()
        if direction != "a to b":
            b.machine.cut()
        on_a = Writer(a, stops=True)
        b.do("failover", b.store, "--yes")
        on_b = Writer(b)
        on_a.wait_for_more()
        on_b.wait_for_more()
        assert (a.role(), b.role()) == ("primary", "primary")
        if direction != "b to a":
            a.machine.mend()
        if direction != "a to b":
            b.machine.mend()
        assert on_a.wait_for_error() == "EROFS"
        assert (a.role(), b.role()) == ("fenced", "primary")
        a.wait_for("ends this store's right to write")
        a.do("failback", a.store, "--yes")
        assert (a.role(), b.role()) == ("standby", "primary")
        on_b.wait_for_more()
        acknowledged = on_a.acknowledged() | on_b.end()
        wait_until_equal(b, a)
        assert diverged(a)
        a.end()
        b.end()
        assert acknowledged <= written((a, b))


@pytest.mark.long
def test_the_primary_is_gone_and_comes_back_with_one_command(tmp_path: Path) -> None:
    with two_nodes(tmp_path) as (a, b):
        a.put("/sent", b"2")
        wait_until_equal(a, b)
        cut_both(a, b)
        a.put("/unsent", b"only on a")
        a.kill()
        b.do("failover", b.store, "--yes")
        assert b.get("/sent") == "2"
        b.put("/by-b", b"3")
        mend_both(a, b)
        a.start()
        wait_until(lambda: a.role() == "fenced", "a hears of it by itself")
        before = a.machine.bytes_received()
        a.do("failback", a.store, "--yes")
        wait_until_equal(b, a)
        assert a.machine.bytes_received() - before < SLACK
        assert a.get("/by-b") == "3"
        assert_keeps(a, "/unsent", "only on a")
        # Rounds of a's link, once it is primary again, delete only what was released.
        b.do("switchover", b.store, "--yes")
        for content in ("4", "5"):
            a.put("/by-a", content.encode())
            wait_until(lambda content=content: b.has("/by-a", content), "the link brings it over")  # type: ignore[misc]
        assert_keeps(a, "/unsent", "only on a")


@mounts
@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.long)])
def test_roles_are_exchanged_while_users_write(tmp_path: Path, count: int) -> None:
    """Both stores are mounted, users write to both, and each time another way is taken to exchange the roles: that of
    a plan, or failover while both run, and failback. Nothing that was acknowledged is lost."""
    with two_nodes(tmp_path, mounted=True) as (a, b):
        writers = {node: Writer(node) for node in (a, b)}
        primary, other = a, b
        for turn in range(count):
            writers[primary].wait_for_more()
            if turn % 4 == 3:
                other.do("failover", other.store, "--yes")
                writers[other].wait_for_more()
                primary.do("failback", primary.store, "--yes")
            else:
                primary.do("switchover", primary.store, "--yes")
            primary, other = other, primary
            assert (primary.role(), other.role()) == ("primary", "standby")
        writers[primary].wait_for_more()
        acknowledged = writers[a].end() | writers[b].end()
        assert {name[0] for name in acknowledged} == {"a", "b"}
        wait_until_equal(primary, other)
        a.end()
        b.end()
        assert acknowledged <= written((a, b)), sorted(acknowledged - written((a, b)))


def command_of_roles(command: str, a: Node, b: Node) -> Node:
    """At which node a command is given that ends with b as primary and a as standby."""
    if command == "failback":
        b.do("failover", b.store, "--yes")
    return b if command == "failover" else a


def settle(command: str, a: Node, b: Node) -> None:
    """What a user does after a command that was interrupted: gives it again, and ``failback`` to a store that lost its
    right to write. Nobody ever sees two primaries of one epoch."""
    for _ in range(3):
        one, other = a.standing(), b.standing()
        assert one != other or one[0] != "primary", "two primaries of one epoch"
        if (one[0], other[0]) == ("standby", "primary"):
            return
        node, words = (a, "failback") if other[0] == "primary" else (b if command == "failover" else a, command)
        node.ended(words, node.store, "--yes")
    assert (a.role(), b.role()) == ("standby", "primary"), (a.standing(), b.standing())


@pytest.mark.long
@pytest.mark.parametrize("killed", ["a", "b"])
@pytest.mark.parametrize("command", ["switchover", "failover", "failback"])
def test_a_node_is_killed_in_the_midst_of_a_change_of_roles(tmp_path: Path, command: str, killed: str) -> None:
    """Sooner and later in it; each time a few commands lead to the end that it would have had."""
    with two_nodes(tmp_path) as (a, b):
        victim = a if killed == "a" else b
        for size in (300, 2_000, 6_000, 12_000):
            name = f"/{size}"
            a.put(name, b"before")
            wait_until(lambda name=name: b.has(name, "before"), "the link brings it over")  # type: ignore[misc]
            at = command_of_roles(command, a, b)
            before = victim.machine.bytes_received()
            running = at.machine.start(command, at.store, "--yes")

            def it_is_time(running=running, before=before, size=size) -> bool:  # type: ignore[no-untyped-def]
                return running.poll() is not None or victim.machine.bytes_received() - before > size

            wait_until(it_is_time, "a part of it is done")
            victim.kill()
            running.communicate(timeout=WAIT_SECONDS)
            victim.start()
            settle(command, a, b)
            assert (a.get(name), b.get(name)) == ("before", "before")
            b.do("switchover", b.store, "--yes")


# -- who is there ----------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("content", ["", "not yours"])
def test_the_standby_was_replaced_by_another_store(tmp_path: Path, content: str) -> None:
    """An empty one becomes a standby when somebody says so; one with files never."""
    with two_nodes(tmp_path) as (a, b):
        wait_until_equal(a, b)
        b.end()
        # Its own link would take snapshots: it would not be an empty one then.
        b.link = ""
        b.configure()
        b.store.rename(b.machine.path("old"))
        b.do("init", b.store)
        if content:
            b.put("/foreign", content.encode())
        b.start()
        a.put("/second", b"2")
        wait_until(lambda: "another store is there" in (a.link_status()["reason"] or ""), "it says why")
        assert b.role() == "primary" and not b.digests().keys() & a.digests().keys()
        adding = a.ended("standby", "add", a.store, b.address, "--own-address", a.address)
        if content:
            assert adding.status == 1 and "in use for something else" in adding.err, adding
            assert b.get("/foreign") == content and b.ended("cat", b.store, "/first").status == 1
        else:
            assert adding.status == 0, adding
            wait_until(lambda: b.has("/second", "2"), "the link goes on")
            wait_until_equal(a, b)
        assert a.role() == "primary" and a.get("/second") == "2"


@pytest.mark.long
def test_another_node_answers_at_the_address_of_the_standby(tmp_path: Path) -> None:
    """It has the same store, and another key: it is sent nothing until the right one is back."""
    with two_nodes(tmp_path) as (a, b):
        b.end()
        b.state.rename(b.machine.folder / "right")
        b.start()
        before = b.digests()
        a.put("/second", b"2")
        wait_until(lambda: "does not show the certificate of b" in (a.link_status()["reason"] or ""), "it is noticed")
        assert b.digests() == before
        said = a.ended("replicate", a.store)
        assert said.status == 1 and "does not show the certificate of b" in said.err
        b.end()
        b.state.rename(b.machine.folder / "wrong")
        (b.machine.folder / "right").rename(b.state)
        b.start()
        wait_until(lambda: b.has("/second", "2"), "it goes on by itself")


def issue_certificate(node: Node, days_ago: int) -> Path:
    """A certificate of the node, for a year, made so long ago."""
    key, identity = ((node.state / name).read_bytes() for name in ("key.pem", "identity.pem"))
    hosts = [node.machine.address]
    made = certificates.issue(key, identity, node.machine.name, hosts, time.time_ns() - days_ago * 86_400 * 10**9)
    path = node.machine.folder / "shown.pem"
    path.write_bytes(made)
    return path


@pytest.mark.long
def test_the_certificate_of_the_standby_has_expired_and_is_renewed(tmp_path: Path) -> None:
    with two_nodes(tmp_path) as (a, b):
        b.end()
        path = issue_certificate(b, 400)
        b.configure(identity=f'certificate = "{path}"\nkey = "{b.state}/key.pem"\n')
        b.start()
        before = b.digests()
        a.put("/second", b"2")
        wait_until(lambda: "has expired" in (a.link_status()["reason"] or ""), "it is noticed")
        assert b.digests() == before
        issue_certificate(b, 0)
        wait_until(lambda: b.has("/second", "2"), "the new one is taken, and the link goes on")
        wait_until_equal(a, b)


@pytest.mark.long
@pytest.mark.parametrize("hours", [1, -1])
def test_the_clock_of_the_standby_counts_from_another_hour(tmp_path: Path, hours: int) -> None:
    """Leases are lengths of time: clocks that began at another one agree on them. (What a clock on the wall says is the
    affair of the simulated nodes.)"""
    seconds = str(hours * 3600)
    with two_nodes(tmp_path, extra='write_lease = "5s"\n') as (a, b):
        b.end()
        b.start("unshare", "-T", "--boottime", seconds, "--monotonic", seconds)
        for content in ("2", "3"):
            wait_until(lambda content=content: _is_put(a, content), "a has a lease")  # type: ignore[misc]
            wait_until(lambda content=content: b.has("/second", content), "the link goes on")  # type: ignore[misc]
        a.kill()
        b.do("failover", b.store, "--yes")
        assert b.get("/second") == "3"
        a.start()
        a.do("failback", a.store, "--yes")
        assert (a.role(), b.role()) == ("standby", "primary")


def _is_put(node: Node, content: str) -> bool:
    (node.machine.folder / "second").write_text(content)
    return node.ended("put", node.store, node.machine.folder / "second", "/second").status == 0
