"""Reading a sparse file looks at each of its blocks a few times, however long the holes are."""

from __future__ import annotations

import pytest

from idemfs.ids import Address, Ino
from idemfs.testing.builders import make_file, memory_tree
from idemfs.versions.state import ActiveView

BLOCK = 4096


def test_each_hole_is_looked_up_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = memory_tree(block_size=BLOCK)
    ino = make_file(tree, tree.root, b"f", b"x" * 3 * BLOCK)
    tree.truncate(ino, 300 * BLOCK)
    tree.sync()
    count = 0
    block = ActiveView.block

    def counted(self: ActiveView, ino: Ino, number: int) -> tuple[Address, int]:
        nonlocal count
        count += 1
        return block(self, ino, number)

    monkeypatch.setattr(ActiveView, "block", counted)
    assert tree.reader.read(ino, 0, 300 * BLOCK) == b"x" * 3 * BLOCK + bytes(297 * BLOCK)
    assert count <= 3 * 300
