"""Stores in files with links between them, whose rounds a test runs one after the other in one thread."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from idemfs.ids import ROOT_FILESET, Guid
from idemfs.node import link_round
from idemfs.node.link_round import Outcome, StoreTarget
from idemfs.snapshots.policy import Policy
from idemfs.store.files import create_files, open_files
from idemfs.testing.builders import assert_clean, make_file
from idemfs.testing.clock import Simulated
from idemfs.vfs.lending import lending
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import assert_same


class Place:
    """Stores in one folder, and links between them. A store that was opened here is this process's."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.clock = Simulated(3)
        self._stack = stack
        self.trees: dict[str, Tree] = {}

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def make(self, name: str) -> Tree:
        create_files(self.path(name), block_size=4096, clock=self.clock)
        return self.open(name)

    def open(self, name: str) -> Tree:
        tree = Tree(open_files(self.path(name), background=False, clock=self.clock))
        self._stack.callback(tree.store.close)
        self._stack.enter_context(lending(self.path(name), tree))
        self.trees[name] = tree
        return tree

    def target(self, source: str, to: str, keep: Policy | None = None) -> StoreTarget:
        return StoreTarget(self.trees[source], self.path(source), self.path(to), keep or Policy())

    def write(self, name: str, content: bytes | None = None) -> None:
        tree = self.trees[name]
        self.clock.advance(1)
        make_file(tree, tree.root, f"f{self.clock.now_ns()}".encode(), content or os.urandom(9000))

    def round(self, source: str, to: str, keep: Policy | None = None) -> Outcome:
        """As the thread of a link does it."""
        link_round.take(self.trees[source], self.path(to))
        outcome = self.target(source, to, keep).run()
        link_round.let_go(self.trees[source])
        return outcome

    def root(self, name: str) -> Guid:
        return Guid(self.trees[name].store.catalog.filesets[ROOT_FILESET].guid)

    def names(self, name: str) -> list[str]:
        """Snapshots, of a store that may not be open here."""
        if name in self.trees:
            tree = self.trees[name]
            return [each.name for each in tree.store.catalog.snapshots(tree.fileset)]
        store = open_files(self.path(name), background=False, clock=self.clock)
        try:
            return [each.name for each in store.catalog.snapshots(Tree(store).fileset)]
        finally:
            store.close()

    def assert_equal(self, source: str, to: str) -> None:
        other = self.trees.get(to) or self.open(to)
        newest = self.names(source)[-1]
        assert self.names(to)[-1] == newest
        assert_same(self.trees[source], other, newest)
        assert_clean(other)


def transfers(outcome: Outcome) -> list[tuple[str | None, str]]:
    assert outcome.report is not None
    return [(each.base, each.target) for each in outcome.report.transfers]
