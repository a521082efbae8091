"""What a node is: its directory of state, its key and certificates, and where it listens.

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
from idemfs.limits import STATE_FILE_SIZE_MAX
from idemfs.node import certificates, offers
from idemfs.node.config import NodeConfig
from idemfs.node.offers import Card

KEY, IDENTITY, CERTIFICATE = "key.pem", "identity.pem", "certificate.pem"
_OWNER_ALONE = 0o077

Record = TypeVar("Record")
_Attributes = tuple[int, int, int]


class Shown(NamedTuple):
    """The files that TLS needs: a chain of certificates, their key, and whose certificates are believed, if any's."""

    certificate: str
    key: str
    authorities: str | None


class Identity:
    """One node. Making this reads nothing; ``prepare`` makes what is missing."""

    def __init__(self, config: NodeConfig, clock: Clock) -> None:
        self.directory = config.state
        self.name = config.name
        self._config = config
        self._clock = clock

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

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


class Records(Generic[Record]):
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
