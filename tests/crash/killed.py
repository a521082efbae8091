"""Numbered operations that follow from a seed, and a process that does them to real files until it is killed.

An operation depends on nothing but its number and the state before it. So whoever does the first ``n`` of
them, in one process or in many that were killed, ends in one and the same state.

``python -m tests.crash.killed STORE SEED FIRST`` does operations from number FIRST on, and prints
``NUMBER`` after each, with a ``!`` when it is durable.
"""

from __future__ import annotations

import sys
from random import Random

from idemfs.store.files import open_files
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.crash.disk import BLOCK_SIZE
from tests.crash.workload import Hands

_NAMES = [f"file {number}" for number in range(12)]
_SNAPSHOT_COUNT_MAX = 5


def clock_at(number: int) -> Simulated:
    """Time is a second for each operation; guids are others in each process."""
    clock = Simulated(number)
    clock.advance(number)
    return clock


def operate(tree: Tree, seed: int, number: int) -> bool:
    """Operation ``number``; whether it is durable when this returns. The clock is the caller's care."""
    rng = Random(seed << 32 | number)
    hands = Hands(tree, rng.randrange(1 << 30))
    files = [name.decode() for name, _, _ in tree.reader.all_entries(tree.root)]
    snapshots = [snapshot.name for snapshot in tree.store.catalog.snapshots(tree.fileset)]
    kind = rng.randrange(100)
    if kind < 10:
        hands.sync()
        return True
    if kind < 14:
        hands.take(f"snapshot {number}")
        return True
    if (kind < 17 and len(snapshots) > 1) or len(snapshots) > _SNAPSHOT_COUNT_MAX:
        hands.drop(rng.choice(snapshots))
        return True
    if kind < 19 and snapshots:
        hands.restore(rng.choice(snapshots), f"undo {number}")
        return True
    _change_a_file(hands, rng, files)
    return False


def _change_a_file(hands: Hands, rng: Random, files: list[str]) -> None:
    free = [name for name in _NAMES if name not in files]
    if free and (not files or rng.random() < 0.2):
        hands.make(rng.choice(free), data=hands.data(rng.randrange(1500)))
        return
    name = rng.choice(files)
    size = hands.tree.reader.inode(hands.at(name)).size
    kind = rng.randrange(7)
    if kind < 2:
        hands.tree.write(hands.at(name), rng.randint(0, size), hands.data(rng.randint(1, 3 * BLOCK_SIZE)))
    elif kind == 2:
        hands.tree.append(hands.at(name), hands.data(rng.randint(1, 2000)))
    elif kind == 3:
        hands.truncate(name, rng.randint(0, size + 100))
    elif kind == 4:
        hands.punch(name, rng.randint(0, size), BLOCK_SIZE)
    elif kind == 5:
        hands.rename(name, rng.choice(_NAMES))
    elif len(files) > 2:
        hands.unlink(name)


def main(path: str, seed: int, first: int) -> None:
    clock = clock_at(first)
    tree = Tree(open_files(path, clock=clock))
    number = first
    while True:
        is_durable = operate(tree, seed, number)
        print(f"{number}{'!' if is_durable else ''}", flush=True)
        clock.advance(1)
        number += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
