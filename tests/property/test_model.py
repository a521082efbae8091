"""The real file system does what the model does: with random steps from seeds, and with those that hypothesis invents.

Seeded runs are long and reach deep states; hypothesis finds the shortest steps that fail. Both print
the steps of a run that fails. ``make test-all`` looks many times further than ``make test``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.property.driver import Options
from tests.property.pair import Pair
from tests.property.path_driver import PathDriver
from tests.property.steps import NUMBER_MAX, PAIR_WEIGHTS, WEIGHTS, random_steps, run

KINDS = {
    "plain": Options(),
    "compressed": Options(compression="zstd"),
    "small groups": Options(group_record_count=60),
    "not compared in between": Options(compare_each=False),
    "with a standby": Options(standby="none"),
    "with a compressed standby, small groups": Options(standby="zstd", group_record_count=40),
}
RUNS, STEP_COUNT = 2, 150
LONG_RUNS, LONG_STEP_COUNT = 150, 300


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
def test_random_steps(options: Options, seed: int) -> None:
    for number in range(RUNS):
        run(random_steps(seed * 1_000_000 + number, STEP_COUNT, options), options)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
def test_many_random_steps(options: Options, seed: int) -> None:
    for number in range(LONG_RUNS):
        run(random_steps(seed * 1_000_000 + 1000 + number, LONG_STEP_COUNT, options), options)


numbers = st.integers(0, NUMBER_MAX)


def rules_of(weights: dict[str, tuple[int, int]]) -> dict[str, Callable[..., None]]:
    """A rule for each step, those that change files more often several times."""

    def rule_of(name: str, count: int) -> Callable[..., None]:
        labels = [f"number_{index}" for index in range(count)]

        def do(self: StoreMachine, **drawn: int) -> None:
            self.driver.step(name, *(drawn[label] for label in labels))

        strategies: dict[str, Any] = dict.fromkeys(labels, numbers)
        decorate: Callable[[Callable[..., None]], Callable[..., None]] = rule(**strategies)
        return decorate(do)

    return {
        f"{name}_{copy}" if copy else name: rule_of(name, count)
        for name, (weight, count) in weights.items()
        for copy in range(max(1, weight // 4))
    }


class StoreMachine(RuleBasedStateMachine):
    """What hypothesis drives; the rules are added below."""

    driver: PathDriver

    def teardown(self) -> None:
        self.driver.end()


class OneStore(StoreMachine):
    """A store alone."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = PathDriver()


class TwoStores(StoreMachine):
    """A primary and its standby."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Pair(Options(standby="none"))


for machine, weights in ((OneStore, WEIGHTS), (TwoStores, PAIR_WEIGHTS)):
    for rule_name, made in rules_of(weights).items():
        setattr(machine, rule_name, made)

# Half of what the profile says: an example has forty steps, each of which is followed by a comparison of everything.
EXAMPLES = settings(stateful_step_count=40, max_examples=settings().max_examples // 2)
TestOneStore = OneStore.TestCase
TestOneStore.settings = EXAMPLES
TestTwoStores = TwoStores.TestCase
TestTwoStores.settings = EXAMPLES
