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

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Generic, NamedTuple, TypeVar

import msgspec

from idemfs.clock import Clock
from idemfs.engines.host import sync_directory
from idemfs.errors import ConfigError, PeerError
from idemfs.limits import OFFER_COUNT_MAX, STATE_FILE_SIZE_MAX, TOKEN_COUNT_MAX, TRUSTED_PEER_COUNT_MAX
from idemfs.node import certificates, offers, tokens
from idemfs.node.config import NodeConfig
from idemfs.node.offers import Card, Code, Offer
from idemfs.node.tokens import Scope, Token

KEY, IDENTITY, CERTIFICATE = "key.pem", "identity.pem", "certificate.pem"
_OWNER_ALONE = 0o077

Record = TypeVar("Record")
_Attributes = tuple[int, int, int]


class TrustedPeer(msgspec.Struct, frozen=True, kw_only=True):
    """Another node that this one is paired with. ``certificate`` is its identity, as PEM."""

    name: str
    url: str
    fingerprint: str
    certificate: str
    paired_ns: int


class Shown(NamedTuple):
    """The files that TLS needs: a chain of certificates, their key, and whose certificates are believed, if any's."""

    certificate: str
    key: str
    authorities: str | None


class Keys:
    """What a node knows and shows. Making one reads nothing; ``prepare`` makes what is missing."""

    def __init__(self, config: NodeConfig, clock: Clock) -> None:
        self.directory = config.state
        self.name = config.name
        self._config = config
        self._clock = clock
        self._peers = _Records(self._path("peers.json"), TrustedPeer)
        self._tokens = _Records(self._path("tokens.json"), Token)
        self._offers = _Records(self._path("offers.json"), Offer)

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    # -- what this node is -----------------------------------------------------------------------------

    def prepare(self) -> bool:
        """Make what is missing, renew what is about to expire; whether the certificate is another one now.

        Raises ``ConfigError``, ``OSError``.
        """
        with self._changing():
            if self._config.certificate is not None:
                return False
            key = _read(self._path(KEY))
            identity = _read(self._path(IDENTITY))
            if key is None or identity is None:
                key = key or certificates.new_key()
                identity = certificates.make_identity(key, self.name, self._clock.now_ns())
                _write(self._path(KEY), key)
                _write(self._path(IDENTITY), identity)
            elif os.stat(self._path(KEY)).st_mode & _OWNER_ALONE:
                raise ConfigError(f"{self._path(KEY)}: others may read this key; run 'chmod 600' on it")
            chain = _read(self._path(CERTIFICATE))
            if chain is not None and not self._is_outdated(chain, identity):
                return False
            host = offers.host_port(self._config.url)[0] if self._config.url else ""
            issued = certificates.issue(key, identity, self.name, [host], self._clock.now_ns())
            _write(self._path(CERTIFICATE), issued + identity)
            return True

    def _is_outdated(self, chain: bytes, identity: bytes) -> bool:
        if not certificates.is_of(certificates.to_der(chain), identity, (), ()):
            return True
        host = offers.host_port(self._config.url)[0] if self._config.url else self.name
        if not {self.name, host} <= certificates.hosts_of(chain):
            return True
        return certificates.should_renew(chain, self._clock.now_ns())

    def shown(self) -> Shown:
        """The files for TLS, after ``prepare``."""
        config = self._config
        return Shown(config.certificate or self._path(CERTIFICATE), config.key or self._path(KEY), config.ca)

    def identity(self) -> bytes:
        """What other nodes are told to trust, as PEM. Raises ``ConfigError``."""
        path = self._config.certificate or self._path(IDENTITY)
        found = _read(path)
        if found is None:
            raise ConfigError(f"{path}: is not there; run 'idemfs node init --config {self._config.file}'")
        return certificates.to_pem(certificates.load(found))

    def certificate(self) -> bytes:
        """What connections show, as PEM. Raises ``ConfigError``."""
        path = self.shown().certificate
        found = _read(path)
        if found is None:
            raise ConfigError(f"{path}: is not there")
        return found

    def refuse_expired(self) -> None:
        """Raises ``PeerError`` when the certificate of connections is no good any more."""
        if certificates.expires_ns(self.certificate()) < self._clock.now_ns():
            raise PeerError(
                f"{self.shown().certificate}: this certificate has expired, and other nodes refuse it: renew it"
            )

    def fingerprint(self) -> str:
        return certificates.fingerprint(self.identity())

    def authorities(self) -> list[bytes]:
        """Certificates, as PEM, whose issuer the configuration believes."""
        path = self._config.ca
        found = None if path is None else _read(path)
        return [] if found is None else [found]

    def card(self) -> Card:
        """How this node presents itself to one that it is paired with."""
        return Card(name=self.name, url=self.url(), certificate=self.identity().decode())

    def url(self) -> str:
        """How others reach this node; empty when they cannot."""
        config = self._config
        if config.listen is None or config.listen.port:
            return config.url
        place = _read(self._path("listening"))
        port = place.decode().rpartition(":")[2] if place else "0"
        return f"{config.url.rpartition(':')[0]}:{port}" if config.url.endswith(":0") else config.url

    def note_listening(self, place: str | None) -> None:
        """Where this process listens; None: not any more."""
        if place is not None:
            _write(self._path("listening"), place.encode())
        else:
            with suppress(FileNotFoundError):
                os.unlink(self._path("listening"))

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
            if known.fingerprint != peer.fingerprint:
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

    # -- changes ---------------------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        fd = os.open(self._path("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


class _Records(Generic[Record]):
    """A file that holds a list; it is read again when another process has replaced it."""

    def __init__(self, path: str, kind: type[Record]) -> None:
        self._path = path
        self._decode: Callable[[bytes], list[Record]] = msgspec.json.Decoder(list[kind]).decode  # type: ignore[valid-type]
        self._lock = threading.Lock()
        self._attributes: _Attributes | None = None
        self._records: tuple[Record, ...] = ()

    def read(self) -> tuple[Record, ...]:
        """Raises ``ConfigError``, ``OSError``."""
        with self._lock:
            attributes = _attributes(self._path)
            if attributes != self._attributes:
                data = _read(self._path)
                try:
                    self._records = () if data is None else tuple(self._decode(data))
                except (msgspec.DecodeError, UnicodeDecodeError) as bad:
                    raise ConfigError(f"{self._path}: is damaged: {bad}") from bad
                self._attributes = attributes
            return self._records

    def write(self, records: Sequence[Record], count_max: int) -> None:
        """Durable on return; under the lock of the directory. Raises ``PeerError``."""
        if len(records) > count_max:
            raise PeerError(f"{self._path}: holds {count_max} already; remove some first")
        _write(self._path, msgspec.json.format(msgspec.json.encode(list(records)), indent=1) + b"\n")


def _attributes(path: str) -> _Attributes | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(STATE_FILE_SIZE_MAX)
    except FileNotFoundError:
        return None


def _write(path: str, data: bytes) -> None:
    """The whole file, for the owner alone, or not at all."""
    new = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(new)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        # crash: the content is there before the name leads to it.
        os.fsync(fd)
    os.replace(new, path)
    # crash: who is told of a token or a pairing next finds it.
    sync_directory(os.path.dirname(path))
