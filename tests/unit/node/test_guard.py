"""What a configuration makes of a guard: its rules, and what it refuses; a guard alone with its store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from idemfs.errors import ConfigError, ConnectionLost, LeaseOver, PeerError
from idemfs.failover import grants
from idemfs.failover.automatic import Rules
from idemfs.node.config import StoreConfig
from idemfs.node.guard import Guard, guards, rules_of
from idemfs.replication.channel import Channel
from idemfs.store.files import create_files, open_files
from idemfs.testing.builders import make_file
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
