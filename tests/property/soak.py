"""The long run: random lives of all drivers, one after the other, until so many steps are done.

    python -m tests.property.soak --steps 2000000 --seed 1

Each life has a seed of its own, the next number, which also says what kind of life it is; so a run goes on where
another one ended, and a life that failed is repeated alone with ``--seed N --steps 1``. Exit status 1 if one failed.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from unittest import mock

import pytest

from idemfs.store import store as store_module
from tests.property import filesets, steps
from tests.property.driver import Options
from tests.property.world import World
from tests.property.world_open import WorldOpen
from tests.property.world_pair import WorldPair

REPORT_EVERY = 25
SMALL_GROUP = 60


def one_fileset(options: Options) -> Callable[[int], int]:
    def live(seed: int) -> int:
        made = steps.random_steps(seed, 300, options)
        steps.run(made, options)
        return len(made)

    return live


def many_filesets(seed: int) -> int:
    filesets.run(seed, 300)
    return 300


def world(make: Callable[[int, str], World], compression: str, group_record_count: int | None) -> Callable[[int], int]:
    def live(seed: int) -> int:
        with ExitStack() as stack:
            if group_record_count is not None:
                stack.enter_context(mock.patch.object(store_module, "GROUP_RECORD_COUNT_MAX", group_record_count))
            life = make(seed, compression)
            life.live(300)
        return life.count

    return live


LIVES: dict[str, Callable[[int], int]] = {
    "one fileset": one_fileset(Options()),
    "a world with a standby": world(WorldPair, "none", None),
    "one fileset, a standby, small groups": one_fileset(Options(standby="zstd", group_record_count=40)),
    "a world with a standby, small groups": world(WorldPair, "zstd", SMALL_GROUP),
    "one fileset, not compared in between": one_fileset(Options(compare_each=False, compression="zstd")),
    "a world": world(World, "none", None),
    "a world with a standby, compressed": world(WorldPair, "zstd", None),
    "a world, small groups": world(World, "zstd", SMALL_GROUP),
    "one fileset, a standby": one_fileset(Options(standby="none")),
    "a world with a standby, plain, small groups": world(WorldPair, "none", SMALL_GROUP),
    "many filesets": many_filesets,
    "a world with open snapshots": world(WorldOpen, "none", None),
    "a world with open snapshots, compressed, small groups": world(WorldOpen, "zstd", SMALL_GROUP),
}
"""Seeds go through these in turn."""


def kind_of(seed: int) -> str:
    return list(LIVES)[seed % len(LIVES)]


def soak(step_count: int, first_seed: int) -> list[int]:
    """The seeds that failed."""
    failed: list[int] = []
    seed, done, start = first_seed, 0, time.monotonic()
    while done < step_count:
        try:
            done += LIVES[kind_of(seed)](seed)
        except (Exception, pytest.fail.Exception):
            failed.append(seed)
            print(f"seed {seed} ({kind_of(seed)}) failed; repeat with --seed {seed} --steps 1", flush=True)
            traceback.print_exc(file=sys.stdout)
        seed += 1
        if (seed - first_seed) % REPORT_EVERY == 0:
            seconds = time.monotonic() - start
            print(f"{done:,} steps, {len(failed)} failed, {seconds:.0f} s; go on with --seed {seed}", flush=True)
    print(f"{done:,} steps, seeds {first_seed} to {seed - 1}; failed: {failed or 'none'}", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.property.soak", description="Random lives of all drivers.")
    parser.add_argument("--steps", type=int, default=2_000_000, help="how many steps in all (default: 2000000)")
    parser.add_argument("--seed", type=int, default=1, help="of the first life (default: 1)")
    options = parser.parse_args()
    return 1 if soak(options.steps, options.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
