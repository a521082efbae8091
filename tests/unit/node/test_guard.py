"""What a configuration makes of a guard: its rules, and what it refuses; a guard alone with its store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from idemfs.errors import ConfigError, ConnectionLost, LeaseOver, PeerError
from idemfs.failover import actions, grants, records
from idemfs.failover.automatic import Rules
from idemfs.failover.lease import Answer
from idemfs.failover.observe import guid_of
from idemfs.failover.records import PeerRecord
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid
from idemfs.node.config import StoreConfig
from idemfs.node.guard import Guard, guards, rules_of
from idemfs.replication.channel import Channel
from idemfs.replication.session import Session
from idemfs.store.files import create_files, open_files
from idemfs.testing.builders import make_file
from idemfs.testing.connected import channels
from idemfs.vfs.lending import lending
from idemfs.vfs.tree import Tree

SECOND = 1_000_000_000


def config(seconds: int = 0, *, automatic: bool = False, lag: int | None = None) -> StoreConfig:
    return StoreConfig(
        name="data",
        path="/srv/data",
        write_lease_seconds=seconds,
        automatic_failover=automatic,
        maximum_lag_seconds=lag,
    )


def test_rules_are_what_the_configuration_says() -> None:
    assert rules_of(config()) is None
    assert rules_of(config(5)) == Rules(duration_ns=5 * SECOND)
    assert rules_of(config(automatic=True)) == Rules(duration_ns=10 * SECOND, is_automatic=True)
    assert rules_of(config(2, automatic=True, lag=0)) == Rules(
        duration_ns=2 * SECOND, is_automatic=True, maximum_lag_ns=0
    )


@pytest.mark.parametrize("seconds", [1, 3601])
def test_a_lease_that_is_too_short_or_too_long_is_refused(seconds: int) -> None:
    with pytest.raises(ConfigError, match="2 s at least, 3600 s at most"):
        rules_of(config(seconds))


def nowhere(address: str, readonly: bool) -> Channel:
    raise ConnectionLost(f"{address}: nobody is there")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    create_files(str(tmp_path / "store"))
    return Tree(open_files(str(tmp_path / "store")))


def guard_of(tree: Tree, report: Callable[[str | None], None]) -> Guard:
    return Guard(tree, tree.store.path, "data", Rules(duration_ns=2 * SECOND), nowhere, lambda: None, report=report)


def test_a_primary_that_nobody_follows_has_its_lease_from_nobody(tree: Tree) -> None:
    looked = threading.Event()
    guard = guard_of(tree, lambda problem: looked.set())
    guard.start()
    try:
        assert looked.wait(60)
        make_file(tree, tree.root, b"file")
        status = guard.status()
        assert status.lease_left_seconds and status.etcd == "not used" and not status.missing
        assert guards[tree.store.superblock.guid] is guard
        with pytest.raises(PeerError, match="no \\[etcd\\] is configured"):
            guard.pause(True)
    finally:
        guard.close()
    assert not guards
    assert tree.write_lease is not None
    tree.write_lease.end()
    with pytest.raises(LeaseOver):
        make_file(tree, tree.root, b"other")
    grants.require(tree, None)
    tree.store.close()


def test_it_goes_on_only_with_the_configuration_that_it_has(tree: Tree) -> None:
    guard = guard_of(tree, lambda problem: None)
    assert guard.configure(config(2))
    assert not guard.configure(config(3))
    assert not guard.configure(config())
    assert not guard.configure(config(1))
    tree.store.close()


def test_its_end_does_not_wait_for_a_primary_that_takes_its_time(tree: Tree) -> None:
    path, peer = tree.store.path, Guid(b"p" * 16)
    members = [(guid_of(tree), path, "here"), (peer, "ssh://there/store", "there")]
    records.commit_members(tree.store, [PeerRecord(guid=guid, path=place, name=name) for guid, place, name in members])
    actions.tell(tree, 2)
    asked, released = threading.Event(), threading.Event()

    def claim(_raw: msgspec.Raw, _: Session) -> None:
        asked.set()
        assert released.wait(60)

    answer = Answer(store=peer, role=RoleRecord(Role.PRIMARY, 2, 2))

    def serve(there: Channel) -> None:
        with suppress(ConnectionLost), Session(there, peer, {"ask_lease": lambda _, __: answer, "claim": claim}) as it:
            it.serve()

    def connect(address: str, readonly: bool) -> Channel:
        here, there = channels()
        threading.Thread(target=serve, args=(there,), daemon=True).start()
        return here

    rules = Rules(duration_ns=2 * SECOND, is_automatic=True)
    with lending(path, tree):
        guard = Guard(tree, path, "data", rules, connect, lambda: None)
        guard.start()
        try:
            assert asked.wait(60)
            closing = threading.Thread(target=guard.close)
            closing.start()
            closing.join(20)
            assert not closing.is_alive()
        finally:
            released.set()
            closing.join()
    tree.store.close()
