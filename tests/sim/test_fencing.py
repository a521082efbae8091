"""Automatic failover under partitions, pauses, crashes and loss of etcd: never two take changes, and one does again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from idemfs.failover import automatic, keeper, lease
from idemfs.failover.keeper import Keeper, Order, Replies, Reply
from idemfs.format.role import Role
from tests.sim import fencing
from tests.sim.fencing import DURATION, ETCD, SECOND, Broken, Etcd, Node, World, acceptors

FEW, MANY = 120, 4000
FAULT_SECONDS, HEALED_SECONDS = 300, 120
CANARY_SEED_COUNT = 400


def run(seed: int) -> World:
    world = World(seed, count=2 + seed % 3)
    world.run(FAULT_SECONDS)
    world.heal()
    world.run(HEALED_SECONDS)
    return world


def run_all(first: int, count: int) -> None:
    for seed in range(first, first + count):
        world = run(seed)
        assert len(list(acceptors(world))) == 1, f"nobody takes changes after seed {seed}, though all is well again"
        others = [node for node in world.nodes.values() if not node.accepts]
        assert all(node.role.role is Role.STANDBY for node in others), f"seed {seed}: an old primary did not come back"


def test_one_store_takes_changes_whatever_fails(seed: int) -> None:
    run_all(seed * 100_000, FEW)


@pytest.mark.long
def test_one_store_takes_changes_whatever_fails_many_times(seed: int) -> None:
    run_all(seed * 100_000 + FEW, MANY)


def test_without_etcd_a_standby_that_was_asked_takes_over_by_command_and_never_two_take_changes(seed: int) -> None:
    took_over = 0
    for number in range(seed * 100_000, seed * 100_000 + FEW):
        world = World(number, count=2, uses_etcd=False)
        world.run(FAULT_SECONDS)
        world.heal()
        world.run(HEALED_SECONDS)
        took_over += len(world.writers) - 1
        if not list(acceptors(world)):
            # It was fenced by a failover that came to nothing, as when its store was killed: the command is repeated.
            for node in world.nodes.values():
                world.order_failover(node, again=True)
            world.run(HEALED_SECONDS)
        assert len(list(acceptors(world))) == 1, f"nobody takes changes after seed {number}"
    assert took_over > FEW


# -- what is promised in plain words ---------------------------------------------------------------------


def quiet(count: int = 2) -> World:
    world = World(7, count)
    world.faults = False
    world.run(60)
    return world


def primary_of(world: World) -> Node:
    (node,) = acceptors(world)
    return node


def cut_etcd(world: World, node: Node) -> None:
    world.cut |= {(node.guid, ETCD), (ETCD, node.guid)}


def test_without_etcd_a_primary_that_reaches_its_standbys_goes_on() -> None:
    world = quiet(3)
    first = primary_of(world)
    world.etcd.is_down = True
    for _ in range(60):
        world.run(2)
        assert first.accepts


def test_cut_off_from_etcd_alone_a_primary_that_reaches_its_standbys_goes_on() -> None:
    world = quiet(3)
    first = primary_of(world)
    cut_etcd(world, first)
    for _ in range(60):
        world.run(2)
        assert first.accepts, "a healthy primary was demoted since it lost etcd"


def test_without_etcd_and_standby_a_primary_stops_within_its_lease() -> None:
    world = quiet(2)
    world.etcd.is_down = True
    (standby,) = [node for node in world.nodes.values() if not node.accepts]
    standby.is_up = False
    world.run(DURATION // SECOND + 1)
    assert not list(acceptors(world))
    standby.boot()
    world.run(60)
    assert [node.role.epoch for node in acceptors(world)] == [1]


def test_a_standby_takes_over_from_a_primary_that_died_soon_after_its_lease() -> None:
    world = quiet(2)
    first = primary_of(world)
    first.is_up = False
    world.run(2 * DURATION // SECOND)
    second = primary_of(world)
    assert second is not first and second.role.epoch > 1
    first.boot()
    world.run(60)
    assert first.role.role is Role.STANDBY and second.accepts


def test_a_primary_that_was_paused_past_its_lease_accepts_nothing_afterwards() -> None:
    world = quiet(2)
    first = primary_of(world)
    first.paused_until = world.now + 10 * DURATION
    world.run(3 * DURATION // SECOND)
    assert primary_of(world) is not first
    first.paused_until = world.now
    for _ in range(200):
        world.run(1)
        assert not first.accepts


def test_only_the_standby_that_has_more_takes_over() -> None:
    world = quiet(3)
    first = primary_of(world)
    behind, ahead = (node for node in world.nodes.values() if node is not first)
    behind.snapshots = ahead.snapshots[:-1]
    first.is_up = False
    world.run(4 * DURATION // SECOND)
    assert primary_of(world) is ahead


# -- rules broken on purpose -----------------------------------------------------------------------------


def relied_on_too_long(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(keeper, "usable_ns", lambda duration_ns: duration_ns * 3 // 2)


def grants_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lease, "left_ns", lambda granted_until_ns, now_ns: 0)
    patch.setattr(automatic, "left_ns", lambda granted_until_ns, now_ns: 0)


def grants_lost_in_a_crash(patch: pytest.MonkeyPatch) -> None:
    whole = Node.boot

    def boot(node: Node, first: bool = False) -> None:
        whole(node, first)
        node.granted_until_ns = 0

    patch.setattr(Node, "boot", boot)


def counted_from_the_reply(patch: pytest.MonkeyPatch) -> None:
    whole = Node._exchange

    def exchange(node: Node, order: keeper.Exchange, then: Callable[[Reply], None]) -> None:
        def late(reply: Reply) -> None:
            assert isinstance(reply, Replies)
            then(Replies(began_ns=node.clock(), answers=reply.answers, seen=reply.seen))

        whole(node, order, late)

    patch.setattr(Node, "_exchange", exchange)


def granting_while_taking_over(patch: pytest.MonkeyPatch) -> None:
    whole = Node._do

    def do(node: Node, order: Order) -> Reply:
        reply = whole(node, order)
        node.is_taking_over = False
        return reply

    patch.setattr(Node, "_do", do)


def one_grant_is_enough(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Keeper, "_is_let", lambda self, view, granted: bool(granted))


def nobody_need_be_asked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Keeper, "_is_let", lambda self, view, granted: set(view.own.asked_now) <= set(granted))


def key_taken_without_comparing(patch: pytest.MonkeyPatch) -> None:
    whole = Etcd.put

    def put(etcd: Etcd, line: automatic.Line, seen: automatic.Seen, holder: fencing.Key | None = None) -> bool:
        found = automatic.Seen(holder_revision=etcd.key.revision if etcd.key else 0, line_revision=etcd.line_revision)
        return whole(etcd, line, found, holder)

    patch.setattr(Etcd, "put", put)


def role_alone_is_enough(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Node,
        "accepts",
        property(lambda node: node.is_up and node.world.now >= node.paused_until and node.role.role is Role.PRIMARY),
    )


def failover_by_command_without_waiting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lease, "left_ns", lambda granted_until_ns, now_ns: 0)


CANARIES = (
    relied_on_too_long,
    grants_forgotten,
    grants_lost_in_a_crash,
    counted_from_the_reply,
    granting_while_taking_over,
    one_grant_is_enough,
    nobody_need_be_asked,
    key_taken_without_comparing,
    role_alone_is_enough,
)


@pytest.mark.parametrize("break_rule", CANARIES)
def test_a_rule_broken_on_purpose_is_found(
    break_rule: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_rule(monkeypatch)
    for seed in range(CANARY_SEED_COUNT):
        try:
            World(seed, count=2 + seed % 3).run(FAULT_SECONDS)
        except Broken:
            return
    pytest.fail("the simulation does not notice")


def test_a_failover_by_command_that_does_not_wait_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    failover_by_command_without_waiting(monkeypatch)
    with pytest.raises(Broken):
        for seed in range(CANARY_SEED_COUNT):
            World(seed, count=2, uses_etcd=False).run(FAULT_SECONDS)
