"""The state directory of a node: its key and certificates, whom it trusts, and the tokens that it gave out.

::

    key.pem            private key, for the owner alone                  both are made when they are first needed,
    identity.pem       certificate that other nodes are told             unless the configuration names others
    certificate.pem    certificate of connections, and the identity      renewed before it expires
    peers.json · tokens.json · offers.json                               lists of records
    listening          where a running node listens: HOST:PORT
    lock               held by whoever changes any of this

Processes change the lists at the same time, each under the lock, and replace a file whole; readers notice by its
attributes. So a node that runs knows of a pairing or a token at once, whoever made it.

Threads: any.
"""

from __future__ import annotations

import msgspec

from idemfs.clock import Clock
from idemfs.errors import PeerError
from idemfs.limits import OFFER_COUNT_MAX, TOKEN_COUNT_MAX, TRUSTED_PEER_COUNT_MAX
from idemfs.node import certificates, offers, tokens
from idemfs.node.config import NodeConfig
from idemfs.node.identity import Identity, Records
from idemfs.node.offers import Card, Code, Offer
from idemfs.node.tokens import Scope, Token


class TrustedPeer(msgspec.Struct, frozen=True, kw_only=True):
    """Another node that this one is paired with. ``certificate`` is its identity, as PEM."""

    name: str
    url: str
    fingerprint: str
    certificate: str
    paired_ns: int


class Keys(Identity):
    """What a node is, whom it trusts, and what it gave out."""

    def __init__(self, config: NodeConfig, clock: Clock) -> None:
        super().__init__(config, clock)
        self._peers = Records(self._path("peers.json"), TrustedPeer)
        self._tokens = Records(self._path("tokens.json"), Token)
        self._offers = Records(self._path("offers.json"), Offer)

    # -- whom it trusts --------------------------------------------------------------------------------

    def peers(self) -> tuple[TrustedPeer, ...]:
        return self._peers.read()

    def peer_of(self, shown: bytes) -> TrustedPeer | None:
        """Whose certificate (DER) this is."""
        for peer in self.peers():
            if certificates.is_of(shown, peer.certificate.encode(), [peer.name], self.authorities()):
                return peer
        return None

    def peer_at(self, host: str, port: int) -> TrustedPeer:
        """The paired node that is reached there. Raises ``PeerError``."""
        for peer in self.peers():
            if peer.url and offers.host_port(peer.url) == (host, port):
                return peer
        raise PeerError(
            f"https://{host}:{port}: this node is paired with none there; run 'idemfs node pair --offer' on that one, "
            "and 'idemfs node pair' with what it prints here"
        )

    def add_peer(self, card: Card) -> TrustedPeer:
        """Trust a node from now on. Raises ``PeerError`` when its name is another's."""
        peer = self._trusted(card)
        with self._changing():
            self._add_peer(peer)
        return peer

    def _trusted(self, card: Card) -> TrustedPeer:
        if not card.name.isprintable() or not 0 < len(card.name) <= 100:
            raise PeerError("the other node has no usable name")
        if card.name == self.name:
            raise PeerError(f"both nodes are named {self.name}: give one of them another name in its configuration")
        if card.url:
            offers.host_port(card.url)
        pem = card.certificate.encode()
        return TrustedPeer(
            name=card.name,
            url=card.url,
            fingerprint=certificates.fingerprint(pem),
            certificate=certificates.to_pem(certificates.load(pem)).decode(),
            paired_ns=self._clock.now_ns(),
        )

    def check_peer(self, card: Card) -> None:
        """Raises what ``add_peer`` would."""
        self._others(self._trusted(card))

    def _add_peer(self, peer: TrustedPeer) -> None:
        self._peers.write([*self._others(peer), peer], TRUSTED_PEER_COUNT_MAX)

    def _others(self, peer: TrustedPeer) -> list[TrustedPeer]:
        others = []
        for known in self.peers():
            if known.name == peer.name and known.fingerprint != peer.fingerprint:
                raise PeerError(
                    f"{self.name} is paired with another node named {peer.name}: run 'idemfs node unpair {peer.name}' "
                    f"on {self.name} if it is no more"
                )
            if known.fingerprint == peer.fingerprint:
                continue
            if _place_of(known.url) == _place_of(peer.url) is not None:
                # What is said to that address would be said to either of them.
                raise PeerError(
                    f"{self.name} is paired with {known.name} at {known.url}: run 'idemfs node unpair {known.name}' "
                    f"on {self.name} if it is no more"
                )
            others.append(known)
        return others

    def remove_peer(self, name: str) -> TrustedPeer:
        """Trust a node no more. Raises ``PeerError``."""
        with self._changing():
            found = [peer for peer in self.peers() if peer.name == name]
            if not found:
                names = ", ".join(peer.name for peer in self.peers()) or "none"
                raise PeerError(f"{name}: this node is not paired with it (paired with: {names})")
            self._peers.write([peer for peer in self.peers() if peer.name != name], TRUSTED_PEER_COUNT_MAX)
            return found[0]

    # -- offers to pair --------------------------------------------------------------------------------

    def offer(self) -> Code:
        """A code with which one other node can pair within ten minutes. Raises ``PeerError``."""
        url = self.url()
        if not url:
            raise PeerError("this node does not listen, so no other one can reach it: set 'listen' in its [node] table")
        if not offers.host_port(url)[1]:
            raise PeerError("this node does not run, and only then has a port: start 'idemfs serve' first")
        secret = offers.secret_text(self._clock.random_bytes(offers.SECRET_SIZE))
        now_ns = self._clock.now_ns()
        with self._changing():
            kept = offers.live(self._offers.read(), now_ns)
            made = Offer(hash=offers.hash_of(secret), expires_ns=now_ns + offers.VALID_NS)
            self._offers.write([*kept, made], OFFER_COUNT_MAX)
        return Code(url, self.fingerprint(), secret)

    def accept(self, secret: str, card: Card) -> TrustedPeer:
        """Pair with whoever proves an offer of this node, which is used up then. Raises ``PeerError``."""
        with self._changing():
            left = offers.use(self._offers.read(), secret, self._clock.now_ns())
            peer = self._trusted(card)
            self._add_peer(peer)
            self._offers.write(left, OFFER_COUNT_MAX)
        return peer

    # -- tokens ----------------------------------------------------------------------------------------

    def tokens(self) -> tuple[Token, ...]:
        return self._tokens.read()

    def token_of(self, text: str) -> Token | None:
        return tokens.find(self.tokens(), text, self._clock.now_ns())

    def add_token(self, name: str, scope: Scope, seconds: int | None) -> str:
        """A new token, as it is shown once. Raises ``PeerError`` when the name is taken."""
        text = tokens.text_of(self._clock.random_bytes(tokens.SECRET_SIZE))
        now_ns = self._clock.now_ns()
        made = Token(
            name=name,
            scope=scope,
            hash=tokens.hash_of(text),
            created_ns=now_ns,
            expires_ns=None if seconds is None else now_ns + seconds * 1_000_000_000,
        )
        with self._changing():
            if any(token.name == name for token in self.tokens()):
                raise PeerError(f"{name}: a token has this name; revoke it, or take another one")
            self._tokens.write([*self.tokens(), made], TOKEN_COUNT_MAX)
        return text

    def remove_token(self, name: str) -> None:
        """Raises ``PeerError``."""
        with self._changing():
            left = [token for token in self.tokens() if token.name != name]
            if len(left) == len(self.tokens()):
                raise PeerError(f"{name}: no token has this name")
            self._tokens.write(left, TOKEN_COUNT_MAX)


def _place_of(url: str) -> tuple[str, int] | None:
    """None: it is not known, or not yet."""
    host, port = offers.host_port(url) if url else ("", 0)
    return (host, port) if port else None
