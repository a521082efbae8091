"""Where a store is: a path, or ``ssh://[user@]host[:port]/path``, or ``https://host[:port]/NAME``. Pure.

A path is a path on the machine that uses it. The other two mean the same everywhere.
"""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from idemfs.errors import PeerError

SSH, HTTPS = "ssh", "https"


class Remote(NamedTuple):
    """``path``: as it is there; with https, the name of a store in the other node's configuration."""

    scheme: str
    host: str
    port: int | None
    path: str
    user: str | None = None


def is_remote(address: str) -> bool:
    return "://" in address


def parse(address: str) -> Remote:
    """Raises ``PeerError``."""
    scheme = address.partition("://")[0]
    if scheme not in (SSH, HTTPS):
        raise PeerError(f"{address}: no such address; name a path, ssh://HOST/PATH or https://HOST:PORT/NAME")
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as bad:
        raise PeerError(f"{address}: {bad}") from bad
    path = unquote(parts.path, errors="surrogateescape")
    if scheme == HTTPS:
        path = path.strip("/")
    if not parts.hostname or parts.hostname.startswith("-") or not path.strip("/") or parts.query or parts.fragment:
        shape = "ssh://HOST/PATH" if scheme == SSH else "https://HOST:PORT/NAME"
        raise PeerError(f"{address}: is no address of a store; it has the form {shape}")
    if (parts.username or "").startswith("-") or parts.password is not None:
        raise PeerError(f"{address}: names a password, or a user that is none; use keys")
    return Remote(scheme, parts.hostname, port, path, parts.username)


def absolute(address: str) -> str:
    """As it means the same from every working directory. Raises ``PeerError`` for a remote one that is none."""
    if is_remote(address):
        parse(address)
        return address
    return os.path.abspath(address)


def name_of(address: str) -> str:
    """What a store there is called, if nobody says otherwise: its host, or the last part of its path."""
    if is_remote(address):
        return parse(address).host
    return os.path.basename(address) or "store"
