"""Rules of the roles, broken on purpose: the simulations must notice each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from idemfs.errors import IdemfsError
from idemfs.failover import actions, decisions
from idemfs.failover.facts import Held, Side, Step, TakeSnapshot
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid
from idemfs.snapshots import received
from idemfs.vfs.tree import Tree
from tests.sim.scenes import SCENES, interrupt_after_every_step, random_life
from tests.sim.world import World

Break = Callable[[pytest.MonkeyPatch], None]


def keep_nothing_that_diverged(patch: pytest.MonkeyPatch) -> None:
    give_up = decisions._give_up

    def broken(me: Side, primary: Side, commons: Mapping[Guid, Held]) -> list[Step]:
        return [step for step in give_up(me, primary, commons) if not isinstance(step, TakeSnapshot)]

    patch.setattr(decisions, "_give_up", broken)


def leave_no_range_of_numbers_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(actions, "_own_numbers", lambda tree, next_number: next_number)


def take_over_in_the_same_epoch(patch: pytest.MonkeyPatch) -> None:
    promote = actions.promote

    def broken(tree: Tree, epoch: int, after: Mapping[Guid, int] | None) -> None:
        promote(tree, epoch, after)
        tree.store.admit(1, 100)
        tree.store.small.put(role.KEY, role.pack(RoleRecord(Role.PRIMARY, tree.role.epoch - 1, tree.role.epoch - 1)))
        tree.store.commit()

    patch.setattr(actions, "promote", broken)


def exchange_without_freezing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(actions, "freeze", lambda tree, frozen: None)


def forget_the_base(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(received, "put_base", lambda store, guid, fileset=0: None)


BREAKS: tuple[Break, ...] = (
    keep_nothing_that_diverged,
    leave_no_range_of_numbers_out,
    take_over_in_the_same_epoch,
    exchange_without_freezing,
    forget_the_base,
)


def look() -> None:
    for scene in SCENES.values():
        interrupt_after_every_step(scene)
    for seed in range(1000, 1030):
        random_life(World("AB", seed=seed), 40)


@pytest.mark.parametrize("break_rule", BREAKS)
def test_a_broken_rule_is_noticed(break_rule: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    break_rule(monkeypatch)
    with pytest.raises((AssertionError, IdemfsError)) as caught:
        look()
    print(caught.value)
