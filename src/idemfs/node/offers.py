"""Offers to pair: what one node prints and the other is given, and what is kept of it meanwhile. Pure.

A code is one word, ``URL,FINGERPRINT,SECRET``: where the node is, the SHA-256 of its identity certificate, and what
shows that its operator has asked for this. Whoever has the code can pair once, within ten minutes; only the hash of
the secret is kept.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from idemfs.errors import PeerError

VALID_NS = 600 * 1_000_000_000
SECRET_SIZE = 24
DEFAULT_PORT = 7443
_CODE_SIZE_MAX = 1000


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an offer. ``used`` ones are kept until they would have expired, so that a replay can be told."""

    hash: str
    expires_ns: int
    used: bool = False


class Code(NamedTuple):
    """What ``idemfs node pair --offer`` prints."""

    url: str
    fingerprint: str
    secret: str

    def to_text(self) -> str:
        return ",".join(self)


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a node presents itself to the other one. ``url`` is empty when it cannot be reached."""

    name: str
    url: str
    certificate: str


def parse_code(text: str) -> Code:
    """Raises ``PeerError``."""
    parts = text.strip().split(",")
    if len(parts) != 3 or len(text) > _CODE_SIZE_MAX:
        raise PeerError("this is no code of 'idemfs node pair --offer': it has the form URL,FINGERPRINT,SECRET")
    code = Code(*parts)
    host_port(code.url)
    if len(code.fingerprint) != 64 or any(each not in "0123456789abcdef" for each in code.fingerprint):
        raise PeerError("the fingerprint in this code is not whole: copy all of the line that was printed")
    if len(code.secret) < SECRET_SIZE or not code.secret.isascii():
        raise PeerError("the secret in this code is not whole: copy all of the line that was printed")
    return code


def host_port(url: str) -> tuple[str, int]:
    """Of ``https://HOST:PORT``, port 7443 unless it names one. Raises ``PeerError``."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme != "https" or not parts.hostname or port == -1:
        raise PeerError(f"{url}: is not the address of a node: it has the form https://HOST:PORT")
    return parts.hostname, DEFAULT_PORT if port is None else port


def secret_text(secret: bytes) -> str:
    return urlsafe_b64encode(secret).decode().rstrip("=")


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def live(offers: Iterable[Offer], now_ns: int) -> list[Offer]:
    """Those that have not expired; and after a clock was set back, none that would last for longer than it may."""
    return [offer for offer in offers if now_ns < offer.expires_ns <= now_ns + VALID_NS]


def use(offers: Iterable[Offer], secret: str, now_ns: int) -> list[Offer]:
    """The offers when the one with this secret is used up. Raises ``PeerError``."""
    given = hash_of(secret)
    left, found = [], None
    for offer in live(offers, now_ns):
        if hmac.compare_digest(offer.hash, given):
            found = offer
            offer = msgspec.structs.replace(offer, used=True)
        left.append(offer)
    if found is None:
        raise PeerError("this code is wrong or older than ten minutes: make a new one with 'idemfs node pair --offer'")
    if found.used:
        raise PeerError("this code was used already: make a new one with 'idemfs node pair --offer'")
    return left
