"""Rules of talking to other stores, broken on purpose: the simulations with a network must notice each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from idemfs.errors import IdemfsError
from idemfs.failover import actions, decisions
from idemfs.replication import link, session
from idemfs.snapshots import manage, received
from idemfs.testing.network import Trouble
from tests.sim.lives import live, prune, swap_under_load
from tests.sim.nodes import Nodes
from tests.sim.scenes import failover, replicate
from tests.sim.test_network import SCENES, at_each_message, lost_or_done, pruned_or_done

Break = Callable[[pytest.MonkeyPatch], None]
Look = Callable[[], None]

pytestmark = pytest.mark.usefixtures("small_frames")


# -- rules ---------------------------------------------------------------------------------------------


def believe_every_message(patch: pytest.MonkeyPatch) -> None:
    """Whether it is damaged, came twice, or came instead of another one."""

    def believing(self: session.Session) -> tuple[int, bytes]:
        message = self._channel.receive()
        return message[8], bytes(message[9:])

    patch.setattr(session.Session, "_next", believing)


def hold_nothing_for_standbys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(link._Link, "hold_only", lambda *_, **__: None)
    patch.setattr(manage, "hold", lambda *_: None)


def go_on_writing_while_roles_are_exchanged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(actions, "freeze", lambda tree, frozen: None)


def take_the_next_epoch_whoever_may_have_it(patch: pytest.MonkeyPatch) -> None:
    """Two that do not hear each other take the same epoch."""
    patch.setattr(decisions, "next_epoch", lambda store, me, peers: me.role.epoch + 1)


def release_no_hold(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(manage, "release", lambda store, snapshot, owner: None)


def forget_what_was_received_last(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(received, "put_base", lambda store, guid, fileset=0: None)


# -- who looks -----------------------------------------------------------------------------------------


def at_messages_of_a_transfer() -> None:
    for trouble in (Trouble.CORRUPT, Trouble.DUPLICATE, Trouble.LOSE, Trouble.KILL_RECEIVER):
        at_each_message(SCENES["replicate"], trouble, lost_or_done, nested=False)


def at_messages_of_all() -> None:
    for scene in SCENES.values():
        at_each_message(scene, Trouble.KILL_RECEIVER, lost_or_done, nested=False)


def while_snapshots_are_pruned() -> None:
    for scene in SCENES.values():
        at_each_message(scene, prune, pruned_or_done, nested=False, compare=False)


def under_load() -> None:
    swap_under_load(Nodes(), 5)


def in_random_lives() -> None:
    for seed in range(20):
        live(Nodes("AB", seed=seed), 20)


def while_all_are_parted() -> None:
    world = Nodes("ABC")
    world.write("A", 3)
    world.run("A", replicate)
    world.blocked |= {(one, other) for one in "ABC" for other in "ABC"}
    for name in "BC":
        world.run(name, failover)
        world.write(name)
        world.check()


CANARIES: tuple[tuple[Break, Look], ...] = (
    (believe_every_message, at_messages_of_a_transfer),
    (hold_nothing_for_standbys, while_snapshots_are_pruned),
    (go_on_writing_while_roles_are_exchanged, under_load),
    (take_the_next_epoch_whoever_may_have_it, while_all_are_parted),
    (release_no_hold, in_random_lives),
    (forget_what_was_received_last, at_messages_of_all),
)


@pytest.mark.parametrize(("break_rule", "look"), CANARIES, ids=lambda each: each.__name__)
def test_a_broken_rule_is_noticed(break_rule: Break, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    break_rule(monkeypatch)
    with pytest.raises((AssertionError, IdemfsError)) as caught:
        look()
    print(caught.value)
