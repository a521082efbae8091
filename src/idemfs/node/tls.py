"""TLS between nodes: contexts made of what the state directory holds now, and what a failure means.

A server asks for a certificate, and takes none for an answer: who has none may have a token. One that it shows must
be a paired node's, or TLS refuses it. What is trusted may change while the server runs: every connection is
handed a context made of the present state in its first step, before any certificate is looked at.

Threads: any.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading

from idemfs.clock import Clock
from idemfs.errors import IdemfsError, PeerError
from idemfs.node import certificates, offers
from idemfs.node.keys import Keys, TrustedPeer

RENEWAL_SECONDS = 3600.0
"""How often it is looked whether the certificate is to be renewed."""
_EXPIRED, _NOT_YET_VALID = 10, 9
"""OpenSSL's numbers of what is wrong with a certificate."""

log = logging.getLogger("idemfs.http")


class ServerTls:
    """The contexts of a server. ``context`` is the one to listen with."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        """Raises ``ConfigError``, ``OSError``."""
        self._keys = keys
        self._clock = clock
        self._lock = threading.Lock()
        keys.prepare()
        self._looked_at = clock.monotonic_seconds()
        self._made_of = self._sources()
        self._current = self._make()
        self.context = self._make()
        self.context.sni_callback = self._hand_over

    def _hand_over(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> int | None:
        """A connection begins; called whether or not it names a server."""
        try:
            connection.context = self._present()
        except (IdemfsError, OSError) as error:
            log.error("no connection can be taken: %s", error)
            return int(ssl.ALERT_DESCRIPTION_INTERNAL_ERROR)
        return None

    def _present(self) -> ssl.SSLContext:
        with self._lock:
            now = self._clock.monotonic_seconds()
            if now - self._looked_at >= RENEWAL_SECONDS:
                self._looked_at = now
                if self._keys.prepare():
                    log.info("renewed the certificate of this node")
            sources = self._sources()
            if sources != self._made_of:
                self._current = self._make()
                self._made_of = sources
            return self._current

    def _sources(self) -> tuple[object, ...]:
        """What a context is made of; other values when that changes."""
        found: list[object] = [self._keys.peers()]
        for path in self._keys.shown():
            if path is not None:
                state = os.stat(path)
                found.append((state.st_ino, state.st_mtime_ns, state.st_size))
        return tuple(found)

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _prepare(context, self._keys, self._keys.peers())
        context.verify_mode = ssl.CERT_OPTIONAL
        # No tickets: a session that goes on would be one without a look at what is trusted by then.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        return context


def client_context(keys: Keys, peer: TrustedPeer) -> ssl.SSLContext:
    """To connect to a paired node: no other one is taken for it, and this one shows who it is.

    ``require_peer`` is to follow when the connection stands. Raises ``ConfigError``, ``PeerError``, ``OSError``.
    """
    keys.prepare()
    keys.refuse_expired()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    _prepare(context, keys, (peer,))
    return context


def require_peer(keys: Keys, peer: TrustedPeer, connection: ssl.SSLSocket) -> None:
    """Raises ``PeerError`` if it is not ``peer`` who answered, but another one that the configured ``ca`` knows."""
    shown = connection.getpeercert(binary_form=True)
    names = {peer.name, offers.host_port(peer.url)[0]}
    if shown is None or not certificates.is_of(shown, peer.certificate.encode(), names, keys.authorities()):
        raise PeerError(_other(peer))


def only(certificate: str) -> ssl.SSLContext:
    """To connect to a node of which nothing but its identity is known."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=certificate)
    return context


def unverified() -> ssl.SSLContext:
    """To ask a node for its identity, which is then compared with a fingerprint; nothing secret may be said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _prepare(context: ssl.SSLContext, keys: Keys, peers: tuple[TrustedPeer, ...]) -> None:
    shown = keys.shown()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The identity of a node whose certificate somebody else issued is that certificate, without its issuer.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_cert_chain(shown.certificate, shown.key)
    if shown.authorities is not None:
        context.load_verify_locations(cafile=shown.authorities)
    if peers:
        context.load_verify_locations(cadata="".join(peer.certificate for peer in peers))


# -- failures ------------------------------------------------------------------------------------------


def what_failed(error: OSError, peer: TrustedPeer) -> str:
    """One line on why there is no connection to a paired node, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
            state = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
            return (
                f"the certificate of {peer.name} at {peer.url} {state}: look at the clocks of both machines; "
                "'idemfs serve' renews a certificate of its own, one that the configuration names is yours to renew"
            )
        return _other(peer)
    if isinstance(error, ssl.SSLError | ConnectionResetError | BrokenPipeError):
        return not_trusted(peer)
    if isinstance(error, TimeoutError):
        return f"{peer.name} at {peer.url} does not answer: look whether it runs, and whether the network leads there"
    return f"{peer.name} at {peer.url} cannot be reached: {error.strerror or error}"


def not_trusted(peer: TrustedPeer) -> str:
    return (
        f"{peer.name} at {peer.url} does not trust this node: 'idemfs node unpair {peer.name}' here, and pair the two "
        "again"
    )


def _other(peer: TrustedPeer) -> str:
    return (
        f"{peer.url} does not show the certificate of {peer.name}: another one answers there, or {peer.name} was set "
        f"up anew; if so, 'idemfs node unpair {peer.name}' here, and pair the two again"
    )
