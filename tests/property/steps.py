"""Random steps from a seed, and how they are repeated."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from random import Random

from tests.property.driver import PLAIN, Driver, Options
from tests.property.pair import Pair
from tests.property.path_driver import PathDriver

Step = tuple[str, tuple[int, ...]]

WEIGHTS: dict[str, tuple[int, int]] = {
    "furnish": (1, 0),
    "create": (16, 4),
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
    "write": (14, 4),
    "append": (7, 3),
    "append_alone": (4, 3),
    "truncate": (10, 2),
    "punch": (7, 3),
    "copy": (6, 5),
    "commit": (3, 0),
    "check": (1, 0),
    "reopen": (1, 0),
    "crash": (2, 0),
    "torn_commit": (2, 1),
    "take": (12, 0),
    "delete": (7, 1),
    "restore": (3, 1),
    "restore_path": (4, 4),
    "undo": (1, 0),
    "go_back": (1, 1),
    "rollback": (1, 0),
    "write_inside": (6, 6),
    "write_more_inside": (5, 10),
    "refresh": (2, 2),
    "torn_refresh": (1, 3),
    "torn_refresh_to_active": (1, 2),
    "torn_take": (1, 1),
    "torn_delete": (2, 2),
    "torn_restore": (1, 2),
    "torn_rollback": (1, 1),
    "torn_restore_path": (2, 5),
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
ALWAYS = ("create", "write", "take", "replicate")
NUMBER_MAX = 999


def random_steps(seed: int, count: int, options: Options = PLAIN, often: Collection[str] = ()) -> list[Step]:
    """Those named in ``often`` come more often than others do."""
    rng = Random(seed)
    weights = WEIGHTS if options.standby is None else PAIR_WEIGHTS
    # Each run does some things often and others never: so it gets deeper than if all did a little of everything.
    factors = {name: 1 if name in ALWAYS else rng.choice((0, 1, 1, 3)) for name in weights}
    factors.update(dict.fromkeys(often, 6))
    names = rng.choices(list(weights), [weight * factors[name] for name, (weight, _) in weights.items()], k=count)
    if seed % 4:
        names = ["furnish", "take", *names[2:]]
    return [(name, tuple(rng.randint(0, NUMBER_MAX) for _ in range(weights[name][1]))) for name in names]


def run(steps: Iterable[Step], options: Options = PLAIN) -> Driver:
    """Do the steps; a failure is given the steps up to it, to be pasted into another ``run``."""
    driver = PathDriver(options) if options.standby is None else Pair(options)
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
