"""What a store remembers of others survives as bytes, and damage is told."""

from __future__ import annotations

import pytest

from idemfs.errors import Damaged, PeerError
from idemfs.failover import records
from idemfs.failover.facts import Frozen
from idemfs.failover.records import PeerRecord, find_peer, pack_members, unpack_members, with_member, without_member
from idemfs.ids import Guid
from tests.unit.failover.sides import guid


def test_peers_come_back_as_they_were_also_with_paths_that_are_not_text() -> None:
    peers = [
        PeerRecord(guid=guid("A"), path="/srv/a", name="a"),
        PeerRecord(guid=guid("B"), path="/srv/\udcff b", name="\udcff b"),
    ]
    assert unpack_members(pack_members(peers)) == peers
    assert unpack_members(None) == []


@pytest.mark.parametrize(
    "value",
    [b"", b"\xff", b"{}x", b"[1]", b'[{"guid": "00", "path": "/", "name": "x"}]', b'[{"guid": "zz"}]', b"17", b"[[]]"],
)
def test_a_damaged_record_is_told(value: bytes) -> None:
    with pytest.raises(Damaged):
        unpack_members(value)


def test_more_peers_than_a_record_holds_are_refused() -> None:
    many = [PeerRecord(guid=guid("A"), path="/" + "x" * 4000, name="x") for _ in range(30)]
    with pytest.raises(PeerError, match="remove some"):
        pack_members(many)


def test_names_are_unique_and_stay_when_a_store_moves() -> None:
    peers = with_member([], guid("A"), "/one/store")
    peers = with_member(peers, guid("B"), "/two/store")
    peers = with_member(peers, guid("C"), "/")
    assert [peer.name for peer in peers] == ["store", "store-2", "store-3"]
    moved = with_member(peers, guid("A"), "/three/other")
    assert [(peer.name, peer.path) for peer in moved] == [
        ("store", "/three/other"),
        ("store-2", "/two/store"),
        ("store-3", "/"),
    ]


def test_a_store_alone_knows_nobody() -> None:
    peers = with_member(with_member([], guid("A"), "/a"), guid("B"), "/b")
    assert without_member(peers, guid("A")) == []
    three = with_member(peers, guid("C"), "/c")
    assert [peer.name for peer in without_member(three, guid("B"))] == ["a", "c"]


def test_a_peer_is_found_by_name_or_path(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = with_member(with_member([], guid("A"), "/one/a"), guid("B"), "/one/b")
    monkeypatch.chdir("/")
    assert find_peer(peers, "a").guid == guid("A")
    assert find_peer(peers, "/one/b").guid == find_peer(peers, "one/b").guid == guid("B")
    with pytest.raises(PeerError, match="known: a, b"):
        find_peer(peers, "c")


def test_a_frozen_record() -> None:
    frozen = Frozen(peer=guid("B"), epoch=7)
    value = records.pack_frozen(frozen)
    assert records.unpack_frozen(value) == frozen
    assert records.unpack_frozen(None) is None
    with pytest.raises(Damaged):
        records.unpack_frozen(Guid(value[:-1]))
