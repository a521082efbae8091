"""The power goes at every write point of the rounds of a link, of both stores at once.

What nobody waits for is lost, then: that a snapshot was let go, or for whom one is held. What counts is not: the
standby has nothing that its primary has lost, and the next round brings it to where the primary is.
"""

from __future__ import annotations

from random import Random

import pytest

from idemfs.ids import ROOT_FILESET, Guid
from idemfs.node import link_round
from idemfs.replication import applier, codec, collapse
from idemfs.replication.link import hold_owner, replicate_into
from idemfs.replication.receiver import LocalReceiver
from idemfs.snapshots import manage, received
from idemfs.snapshots.policy import Policy
from idemfs.testing.builders import assert_clean
from tests.crash.audit import audit
from tests.crash.disk import BLOCK_SIZE, Disk, Witness, tighten
from tests.crash.dump import dump_of
from tests.crash.test_power_cut_pair import Pair, new_pair
from tests.crash.workload import Hands

ADDRESS = "B"
ROUNDS, IMAGE_COUNT = 3, 3


@pytest.fixture(autouse=True)
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch)
    monkeypatch.setattr(codec, "STREAM_BATCH_BYTES", 3000)
    monkeypatch.setattr(applier, "_STEP_RECORD_COUNT", 7)


def link_once(pair: Pair) -> None:
    """As a link does it between two stores of its process."""
    source, receiver = pair.trees["A"], LocalReceiver(pair.trees["B"])
    link_round.take(source, ADDRESS, is_met=True)
    until_ns = source.store.clock.now_ns() + link_round.HOLD_NS
    report = replicate_into(source, receiver, keep=Policy(), holds_until_ns=until_ns)
    link_round.note_filled(source, ADDRESS, receiver.guid)
    if report.transfers:
        receiver.prune([Guid(source.store.catalog.filesets[ROOT_FILESET].guid)], Policy())
    link_round.let_go(source)


def test_a_link_survives_power_cuts(seed: int) -> None:
    witness, rng = Witness(), Random(seed)
    pair = new_pair(witness, seed)
    images: list[dict[str, Disk]] = []
    hands = Hands(pair.trees["A"], seed)
    hands.write("large", 0, 4 * BLOCK_SIZE)
    for turn in range(ROUNDS):
        hands.write("large", turn * BLOCK_SIZE, BLOCK_SIZE)
        hands.write(f"small {turn}", 0, 300 + turn)
        witness.seen = lambda: images.extend(pair.crash(rng) for _ in range(IMAGE_COUNT))
        link_once(pair)
        witness.seen = None
        for disk in pair.disks.values():
            disk.clock.advance(5)
    assert len(images) > 60
    for image in images:
        verify(Pair(image))


def verify(pair: Pair) -> None:
    source, target = pair.trees["A"], pair.trees["B"]
    base = received.base(target.store, ROOT_FILESET)
    assert base is None or source.store.catalog.by_guid(ROOT_FILESET, Guid(base.guid)) is not None
    link_once(pair)
    link_once(pair)
    (newest,) = source.store.catalog.snapshots(ROOT_FILESET)
    assert collapse.is_own(newest.name)
    assert dump_of(target.newest_reader()) == dump_of(source.newest_reader())
    assert [each.guid for each in target.store.catalog.snapshots(ROOT_FILESET)] == [newest.guid]
    assert hold_owner(Guid(target.store.superblock.guid)) in manage.holders(source.store, newest)
    for tree in pair.trees.values():
        tree.sync()
        audit(tree)
        assert_clean(tree)
