"""Tokens: who may ask a node over HTTPS without a certificate. Pure.

A token is ``idemfs_`` and 32 random bytes in base64url; only its SHA-256 is kept, which is enough for a secret that
nobody can guess. It has one scope:

========  ==================================================================================
read      look at everything
admin     and take and delete snapshots, and move roles
peer      and speak for another node: the channel on which stores replicate and move roles
========  ==================================================================================
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from enum import Enum

import msgspec

SECRET_SIZE = 32
_PREFIX = "idemfs_"


class Scope(Enum):
    """What a caller may do. ``read`` goes with every other one."""

    READ = "read"
    ADMIN = "admin"
    PEER = "peer"


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a token. Times are nanoseconds since 1970; ``expires_ns`` None: never."""

    name: str
    scope: Scope
    hash: str
    created_ns: int
    expires_ns: int | None = None


def text_of(secret: bytes) -> str:
    """The token of these random bytes, as it is shown once."""
    return _PREFIX + urlsafe_b64encode(secret).decode().rstrip("=")


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def find(tokens: Iterable[Token], text: str, now_ns: int) -> Token | None:
    """The token that was shown as ``text``, unless it has expired. Takes as long for a wrong one as for a right one."""
    given = hash_of(text)
    found = None
    for token in tokens:
        if hmac.compare_digest(token.hash, given) and (token.expires_ns is None or now_ns < token.expires_ns):
            found = token
    return found


def allows(scope: Scope, wanted: Scope) -> bool:
    return wanted is Scope.READ or scope is wanted
