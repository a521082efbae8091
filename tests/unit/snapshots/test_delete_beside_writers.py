"""A snapshot is deleted step by step, and files change whenever a step has let others in."""

from __future__ import annotations

import pytest

from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import delete, manage
from idemfs.store.store import Store
from idemfs.testing.builders import assert_clean, content_of, make_file, memory_tree


@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_changes_between_admitting_a_step_and_doing_it(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = memory_tree()
    ino = make_file(tree, tree.root, b"f", b"x" * 9 * 4096)
    older = manage.create(tree.store, ROOT_FILESET, "older")
    snapshot = manage.create(tree.store, ROOT_FILESET, "newest")
    tree.write(ino, 0, b"y" * 4096)
    admit_step = delete._admit_step
    calls = 0

    def letting_others_in(store: Store) -> tuple[int, int]:
        nonlocal calls
        admitted = admit_step(store)
        calls += 1
        if calls <= times:
            tree.write(ino, calls * 4096, b"z" * 4096)
        return admitted

    monkeypatch.setattr(delete, "_admit_step", letting_others_in)
    delete.delete(tree.active, snapshot)
    assert calls > times
    assert content_of(tree.snapshot_reader(older), ino) == b"x" * 9 * 4096
    assert_clean(tree)
