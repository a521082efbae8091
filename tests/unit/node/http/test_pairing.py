"""Two nodes come to trust each other, or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from idemfs.clock import System
from idemfs.errors import PeerError
from idemfs.node.keys import Keys
from idemfs.node.offers import Code
from idemfs.node.pairing import pair
from tests.unit.node.http.running import Running, config_of, long_ago, running


@pytest.fixture
def a(tmp_path: Path) -> Iterator[Running]:
    with running(config_of(tmp_path, "a")) as node:
        yield node


@pytest.fixture
def b(tmp_path: Path) -> Keys:
    return Keys(config_of(tmp_path, "b", listen=False), System())


def test_both_trust_each_other(a: Running, b: Keys) -> None:
    code = a.keys.offer()
    peer = pair(b, code.to_text())
    assert (peer.name, peer.url, peer.fingerprint) == ("a", code.url, a.keys.fingerprint())
    assert [(each.name, each.url, each.fingerprint) for each in a.keys.peers()] == [("b", "", b.fingerprint())]
    with pytest.raises(PeerError, match="this code was used already: make a new one"):
        pair(b, code.to_text())


def test_a_pair_can_be_paired_anew(a: Running, b: Keys) -> None:
    pair(b, a.keys.offer().to_text())
    pair(b, a.keys.offer().to_text())
    assert len(a.keys.peers()) == len(b.peers()) == 1


def test_a_wrong_secret(a: Running, b: Keys) -> None:
    code = a.keys.offer()
    with pytest.raises(PeerError, match="this code is wrong or older than ten minutes"):
        pair(b, code._replace(secret="x" * len(code.secret)).to_text())
    assert a.keys.peers() == b.peers() == ()


def test_an_expired_code(tmp_path: Path, b: Keys) -> None:
    clock = System()
    with running(config_of(tmp_path, "a"), clock) as a:
        code = a.keys.offer()
        offers = (tmp_path / "a" / "state" / "offers.json").read_text()
        ends = str(a.keys._offers.read()[0].expires_ns)
        (tmp_path / "a" / "state" / "offers.json").write_text(offers.replace(ends, str(clock.now_ns() - 1)))
        with pytest.raises(PeerError, match="this code is wrong or older than ten minutes"):
            pair(b, code.to_text())


def test_somebody_in_between_with_another_certificate_is_sent_nothing(
    a: Running, b: Keys, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = a.keys.offer()
    with running(config_of(tmp_path, "between")) as between:
        caplog.clear()
        led_astray = code._replace(url=between.keys.url())
        with pytest.raises(PeerError, match=r"another certificate than the node .*nothing was sent"):
            pair(b, led_astray.to_text())
        assert between.keys.peers() == b.peers() == () and "refused to pair" not in caplog.text


def test_somebody_in_between_who_tells_the_right_identity_is_sent_no_secret(
    a: Running, b: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the card of the node, which is no secret, but not its key."""
    code = a.keys.offer()
    card = a.keys.card()
    with running(config_of(tmp_path, "between")) as between:
        asked: list[str] = []

        def accept(keys: Keys, secret: str, _: object) -> None:
            asked.append(secret)

        monkeypatch.setattr(Keys, "card", lambda _: card)
        monkeypatch.setattr(Keys, "accept", accept)
        with pytest.raises(PeerError, match=r"does not show a certificate of the node.*the secret was not sent"):
            pair(b, code._replace(url=between.keys.url()).to_text())
        assert asked == [] and b.peers() == ()


def test_an_expired_certificate_is_not_paired_with(tmp_path: Path, b: Keys) -> None:
    with running(config_of(tmp_path, "a"), long_ago()) as old:
        with pytest.raises(PeerError, match=r"the certificate at .* has expired"):
            pair(b, old.keys.offer().to_text())
        assert old.keys.peers() == b.peers() == ()


def test_two_of_one_name(a: Running, tmp_path: Path) -> None:
    namesake = Keys(config_of(tmp_path / "elsewhere", "a", listen=False), System())
    with pytest.raises(PeerError, match="both nodes are named a"):
        pair(namesake, a.keys.offer().to_text())


def test_a_name_that_is_known_for_another_node(a: Running, b: Keys, tmp_path: Path) -> None:
    pair(b, a.keys.offer().to_text())
    again = Keys(config_of(tmp_path / "elsewhere", "b", listen=False), System())
    with pytest.raises(PeerError, match="a is paired with another node named b: run 'idemfs node unpair b' on a"):
        pair(again, a.keys.offer().to_text())
    assert again.peers() == ()


def test_nobody_there(b: Keys, a: Running) -> None:
    code = Code(f"https://127.0.0.1:{a.port}", "0" * 64, "x" * 32)
    a.node.close()
    with pytest.raises(PeerError, match="cannot be reached: Connection refused; does 'idemfs serve' run there"):
        pair(b, code.to_text())


def test_a_node_that_does_not_listen_or_does_not_run_offers_nothing(b: Keys, tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="does not listen, so no other one can reach it: set 'listen'"):
        b.offer()
    with pytest.raises(PeerError, match="does not run"):
        Keys(config_of(tmp_path, "a"), System()).offer()
