"""What a node keeps in its state directory: its identity, whom it trusts, tokens and offers."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import msgspec
import pytest

from idemfs.errors import ConfigError, PeerError
from idemfs.node import certificates, offers
from idemfs.node.config import Address, NodeConfig
from idemfs.node.keys import Keys
from idemfs.node.offers import Card
from idemfs.node.tokens import Scope
from idemfs.testing.clock import Simulated

DAY = 24 * 3600


def keys_at(path: Path, name: str = "a", clock: Simulated | None = None, url: str = "https://a.example:7443") -> Keys:
    config = NodeConfig(file="node.toml", name=name, listen=Address("", 7443), url=url, state=str(path / name))
    return Keys(config, clock or Simulated())


def test_the_identity_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    keys = keys_at(tmp_path)
    assert keys.prepare() and not keys.prepare()
    fingerprint = keys.fingerprint()
    assert keys_at(tmp_path).fingerprint() == fingerprint and len(fingerprint) == 64
    assert os.stat(tmp_path / "a").st_mode & 0o777 == 0o700
    assert {name: os.stat(tmp_path / "a" / name).st_mode & 0o777 for name in os.listdir(tmp_path / "a")} == {
        "key.pem": 0o600,
        "identity.pem": 0o600,
        "certificate.pem": 0o600,
        "lock": 0o600,
    }
    assert certificates.hosts_of(keys.certificate()) == {"a", "a.example"}


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    keys = keys_at(tmp_path)
    keys.prepare()
    os.chmod(tmp_path / "a" / "key.pem", 0o640)
    with pytest.raises(ConfigError, match="others may read this key"):
        keys.prepare()


def test_the_certificate_is_renewed_before_it_expires_and_the_identity_stays(tmp_path: Path) -> None:
    clock = Simulated()
    keys = keys_at(tmp_path, clock=clock)
    keys.prepare()
    fingerprint, first = keys.fingerprint(), keys.certificate()
    clock.advance(200 * DAY)
    assert not keys.prepare()
    clock.advance(60 * DAY)
    assert keys.prepare()
    second = keys.certificate()
    assert certificates.expires_ns(second) - certificates.expires_ns(first) == 260 * DAY * 10**9
    assert keys.fingerprint() == fingerprint
    assert certificates.is_of(certificates.to_der(second), keys.identity(), (), ())


def test_a_clock_that_was_set_back_gets_a_certificate_that_is_valid(tmp_path: Path) -> None:
    clock = Simulated()
    keys = keys_at(tmp_path, clock=clock)
    keys.prepare()
    clock.jump(-30 * DAY)
    assert keys.prepare() and not keys.prepare()


def test_another_url_is_another_certificate_of_the_same_identity(tmp_path: Path) -> None:
    keys_at(tmp_path).prepare()
    moved = keys_at(tmp_path, url="https://10.0.0.9:7443")
    assert moved.prepare()
    assert certificates.hosts_of(moved.certificate()) == {"a", "10.0.0.9"}
    assert moved.fingerprint() == keys_at(tmp_path).fingerprint()


def test_whose_a_certificate_is(tmp_path: Path) -> None:
    a, b, c = (keys_at(tmp_path, name) for name in "abc")
    for keys in (a, b, c):
        keys.prepare()
    a.add_peer(b.card())
    peer = a.peer_of(certificates.to_der(b.certificate()))
    assert peer is not None and (peer.name, peer.fingerprint) == ("b", b.fingerprint())
    assert a.peer_of(certificates.to_der(c.certificate())) is None
    a.remove_peer("b")
    assert a.peer_of(certificates.to_der(b.certificate())) is None
    with pytest.raises(PeerError, match=r"b: this node is not paired with it \(paired with: none\)"):
        a.remove_peer("b")


def test_a_name_is_not_taken_over(tmp_path: Path) -> None:
    a, b = keys_at(tmp_path, "a"), keys_at(tmp_path, "b")
    other = keys_at(tmp_path / "elsewhere", "b")
    (tmp_path / "elsewhere").mkdir()
    for keys in (a, b, other):
        keys.prepare()
    a.add_peer(b.card())
    with pytest.raises(PeerError, match="is paired with another node named b: run 'idemfs node unpair b' on a"):
        a.add_peer(other.card())
    with pytest.raises(PeerError, match="both nodes are named a"):
        a.add_peer(a.card())
    assert [peer.fingerprint for peer in a.peers()] == [b.fingerprint()]
    a.remove_peer("b")
    a.add_peer(other.card())


def test_an_address_is_not_taken_over(tmp_path: Path) -> None:
    """Else a node could have itself replicated to in the place of another one."""
    a, b, c = (keys_at(tmp_path, name) for name in ("a", "b", "c"))
    for keys in (a, b, c):
        keys.prepare()
    b_card = msgspec.structs.replace(b.card(), url="https://b.example:7443")
    a.add_peer(b_card)
    with pytest.raises(PeerError, match=r"is paired with b at https://b\.example:7443: run 'idemfs node unpair b'"):
        a.add_peer(msgspec.structs.replace(c.card(), url="https://B.example"))
    a.add_peer(b_card)
    a.remove_peer("b")
    a.add_peer(msgspec.structs.replace(c.card(), url="https://b.example:7443"))


@pytest.mark.parametrize(
    ("card", "why"),
    [
        (Card(name="", url="", certificate=""), "no usable name"),
        (Card(name="x\n", url="", certificate=""), "no usable name"),
        (Card(name="b", url="http://b", certificate=""), "not the address of a node"),
        (Card(name="b", url="", certificate="none"), "no certificate"),
    ],
)
def test_what_presents_itself_badly_is_not_trusted(tmp_path: Path, card: Card, why: str) -> None:
    keys = keys_at(tmp_path)
    keys.prepare()
    with pytest.raises(PeerError, match=why):
        keys.add_peer(card)
    assert keys.peers() == ()


def test_a_certificate_of_a_configured_authority_is_believed_for_the_names_of_peers(tmp_path: Path) -> None:
    """Who has one for another name, or from somebody else, is not taken for the peer."""
    clock = Simulated()
    authority_key = certificates.new_key()
    authority = certificates.make_identity(authority_key, "authority", clock.now_ns())
    config = NodeConfig(file="f", name="a", state=str(tmp_path / "a"), ca=str(tmp_path / "ca.pem"))
    (tmp_path / "ca.pem").write_bytes(authority)
    a, b = Keys(config, clock), keys_at(tmp_path, "b", clock)
    a.prepare()
    b.prepare()
    a.add_peer(b.card())

    def shown(name: str, key: bytes, issuer: bytes) -> str | None:
        peer = a.peer_of(certificates.to_der(certificates.issue(key, issuer, name, [], clock.now_ns())))
        return peer.name if peer else None

    assert shown("b", authority_key, authority) == "b"
    assert shown("c", authority_key, authority) is None
    stranger = certificates.new_key()
    pretended = certificates.make_identity(stranger, "authority", clock.now_ns())
    assert shown("b", stranger, pretended) is None


def test_tokens(tmp_path: Path) -> None:
    clock = Simulated()
    keys = keys_at(tmp_path, clock=clock)
    text = keys.add_token("ops", Scope.ADMIN, 60)
    forever = keys.add_token("grafana", Scope.READ, None)
    found = keys.token_of(text)
    assert found is not None and (found.name, found.scope) == ("ops", Scope.ADMIN)
    assert keys.token_of(text + "x") is None and keys.token_of("") is None
    assert text not in (tmp_path / "a" / "tokens.json").read_text()
    with pytest.raises(PeerError, match="ops: a token has this name"):
        keys.add_token("ops", Scope.READ, None)
    clock.advance(60)
    assert keys.token_of(text) is None and keys.token_of(forever) is not None
    keys.remove_token("grafana")
    assert keys.token_of(forever) is None
    with pytest.raises(PeerError, match="no token has this name"):
        keys.remove_token("grafana")


def test_what_another_process_changes_is_seen_at_once(tmp_path: Path) -> None:
    here, there = keys_at(tmp_path), keys_at(tmp_path, clock=Simulated(seed=1))
    text = there.add_token("ops", Scope.READ, None)
    assert here.token_of(text) is not None
    there.remove_token("ops")
    assert here.token_of(text) is None


def test_a_list_that_is_damaged_lets_nobody_in(tmp_path: Path) -> None:
    keys = keys_at(tmp_path)
    text = keys.add_token("ops", Scope.READ, None)
    (tmp_path / "a" / "tokens.json").write_text("[{}]")
    with pytest.raises(ConfigError, match=r"tokens\.json: is damaged"):
        keys.token_of(text)


def test_an_offer_is_good_once_and_for_ten_minutes(tmp_path: Path) -> None:
    clock = Simulated()
    a, b = keys_at(tmp_path, "a", clock), keys_at(tmp_path, "b", clock)
    a.prepare()
    b.prepare()
    code = a.offer()
    assert offers.parse_code(code.to_text() + "\n") == code
    assert code.secret not in (tmp_path / "a" / "offers.json").read_text()
    with pytest.raises(PeerError, match="wrong or older than ten minutes"):
        a.accept(code.secret[:-1], b.card())
    assert a.accept(code.secret, b.card()).name == "b"
    with pytest.raises(PeerError, match="used already"):
        a.accept(code.secret, b.card())
    late = a.offer()
    clock.advance(600)
    with pytest.raises(PeerError, match="wrong or older than ten minutes"):
        a.accept(late.secret, b.card())


def test_an_offer_does_not_last_longer_because_a_clock_was_set_back(tmp_path: Path) -> None:
    clock = Simulated()
    a, b = keys_at(tmp_path, "a", clock), keys_at(tmp_path, "b", clock)
    a.prepare()
    b.prepare()
    code = a.offer()
    clock.jump(-1)
    with pytest.raises(PeerError, match="wrong or older"):
        a.accept(code.secret, b.card())


def test_an_offer_that_is_refused_is_still_good(tmp_path: Path) -> None:
    a, b = keys_at(tmp_path, "a"), keys_at(tmp_path, "b")
    a.prepare()
    b.prepare()
    code = a.offer()
    with pytest.raises(PeerError, match="both nodes are named a"):
        a.accept(code.secret, a.card())
    assert a.accept(code.secret, b.card()).name == "b"


@pytest.mark.parametrize(
    "text", ["", "x", "https://a:1,ab,cd", "http://a," + "0" * 64 + ",x" * 40, "https://a," + "g" * 64 + "," + "s" * 32]
)
def test_what_is_no_code(text: str) -> None:
    with pytest.raises(PeerError):
        offers.parse_code(text)


def test_a_chain_that_tls_takes(tmp_path: Path) -> None:
    keys = keys_at(tmp_path)
    keys.prepare()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.shown().certificate, keys.shown().key)
