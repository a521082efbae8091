"""Pairing, from the side that was given a code: ask the other node who it is, compare, prove the secret, trust.

::

    GET  /v1/pair                        -> its card         over TLS that is not verified; nothing secret is said
         the SHA-256 of its identity is the fingerprint in the code, or that is the end
    POST /v1/pair  secret, own card      -> its card         over TLS that only that identity can have

Threads: one.
"""

from __future__ import annotations

import http.client
import ssl

import msgspec

from idemfs.errors import PeerError
from idemfs.limits import REQUEST_SIZE_MAX
from idemfs.node import certificates, offers, tls
from idemfs.node.keys import Keys, TrustedPeer
from idemfs.node.offers import Card, Code

SECONDS_MAX = 10.0
PATH = "/v1/pair"
_EXPIRED = 10


class PairRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the node with the code sends: the secret of the code, and how it presents itself."""

    secret: str
    node: Card


class _Refusal(msgspec.Struct):
    error: str = ""


def pair(keys: Keys, text: str) -> TrustedPeer:
    """Pair with the node that printed this code; both trust each other on return. Raises ``PeerError``."""
    keys.prepare()
    code = offers.parse_code(text)
    found = _ask(code, tls.unverified(), "GET", b"")
    if certificates.fingerprint(found.certificate.encode()) != code.fingerprint:
        raise PeerError(
            f"{code.url} has another certificate than the node that made this code: somebody may stand between the "
            "two, or the code is an old one; nothing was sent"
        )
    keys.check_peer(found)
    request = msgspec.json.encode(PairRequest(secret=code.secret, node=keys.card()))
    _ask(code, tls.only(found.certificate), "POST", request)
    return keys.add_peer(Card(name=found.name, url=code.url, certificate=found.certificate))


def _ask(code: Code, context: ssl.SSLContext, method: str, body: bytes) -> Card:
    host, port = offers.host_port(code.url)
    connection = http.client.HTTPSConnection(host, port, timeout=SECONDS_MAX, context=context)
    try:
        connection.request(method, PATH, body or None, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        answer = response.read(REQUEST_SIZE_MAX)
    except ssl.SSLCertVerificationError as error:
        raise PeerError(_unverified(code, error)) from error
    except OSError as error:
        why = "does not answer" if isinstance(error, TimeoutError) else f"cannot be reached: {error.strerror or error}"
        raise PeerError(f"{code.url} {why}; does 'idemfs serve' run there?") from error
    except http.client.HTTPException as error:
        raise PeerError(f"{code.url}: what answers there is no node of idemfs") from error
    finally:
        connection.close()
    try:
        if response.status == 200:
            return msgspec.json.decode(answer, type=Card)
        refusal = msgspec.json.decode(answer, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        refusal = ""
    raise PeerError(f"{code.url}: {refusal or f'answered with status {response.status}'}")


def _unverified(code: Code, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return f"the certificate at {code.url} has expired: look at the clocks of both machines, or renew it there"
    return (
        f"{code.url} does not show a certificate of the node that made this code: somebody may stand between the two; "
        "the secret was not sent"
    )
