"""Random steps from a seed, and how they are repeated."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from tests.property.driver import PLAIN, Driver, Options
from tests.property.pair import Pair

Step = tuple[str, tuple[int, ...]]

WEIGHTS: dict[str, tuple[int, int]] = {
    "create": (10, 4),
    "link": (3, 3),
    "unlink": (6, 1),
    "rmdir": (2, 1),
    "rename": (8, 4),
    "open": (1, 1),
    "open_unlinked": (2, 1),
    "release": (2, 1),
    "set_attributes": (3, 3),
    "set_xattr": (4, 3),
    "remove_xattr": (2, 2),
    "touch": (2, 1),
    "write": (12, 4),
    "append": (6, 3),
    "truncate": (8, 2),
    "punch": (5, 3),
    "commit": (3, 0),
    "check": (1, 0),
    "reopen": (1, 0),
    "crash": (1, 0),
    "torn_commit": (1, 1),
    "take": (9, 0),
    "delete": (5, 1),
    "restore": (2, 1),
    "undo": (1, 0),
    "go_back": (1, 1),
    "rollback": (1, 0),
    "torn_take": (1, 1),
    "torn_delete": (2, 2),
    "torn_restore": (1, 2),
    "torn_rollback": (1, 1),
}
"""For each step how often it comes, and how many numbers it takes."""
PAIR_WEIGHTS = WEIGHTS | {
    "replicate": (6, 0),
    "stopped_replicate": (4, 1),
    "torn_replicate": (3, 2),
    "standby_crash": (1, 0),
    "standby_reopen": (1, 0),
    "standby_drop": (1, 0),
    "standby_delete": (2, 1),
    "standby_check": (1, 0),
    "failover": (1, 0),
}
"""The same for a store with a standby."""
NUMBER_MAX = 999


def random_steps(seed: int, count: int, options: Options = PLAIN) -> list[Step]:
    rng = Random(seed)
    weights = WEIGHTS if options.standby is None else PAIR_WEIGHTS
    names = rng.choices(list(weights), [weight for weight, _ in weights.values()], k=count)
    return [(name, tuple(rng.randint(0, NUMBER_MAX) for _ in range(weights[name][1]))) for name in names]


def run(steps: Iterable[Step], options: Options = PLAIN) -> Driver:
    """Do the steps; a failure is given the steps up to it, to be pasted into another ``run``."""
    driver = Driver(options) if options.standby is None else Pair(options)
    try:
        for name, numbers in steps:
            driver.step(name, *numbers)
        driver.step("check")
        if isinstance(driver, Pair):
            driver.step("replicate")
            driver.step("standby_check")
    except BaseException as failure:
        failure.add_note(f"after {len(driver.steps)} steps: run({driver.steps!r}, {options!r})")
        raise
    finally:
        driver.end()
    return driver
