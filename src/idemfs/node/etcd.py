"""A client of etcd's version 3, by its JSON gateway: what leases and compare-and-swap need, and no more.

The endpoints are tried in turn, beginning with the one that answered last, each for its part of the timeout. A
request whose answer was lost may have been carried out: so every change states what it found, and who asks again
finds that it has changed.

Threads: one a client.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from idemfs.errors import EtcdLost, EtcdRefused

if TYPE_CHECKING:
    import ssl

_REFUSED_BELOW = 500
"""Statuses from here on are of an endpoint that cannot say: the next one may."""
_NOT_NOW = frozenset((4, 14))
"""Codes of errors (deadline exceeded, unavailable) that come with other statuses too."""


class Item(NamedTuple):
    """A key's value; ``revision``: of its last change; ``lease``: with whose end it goes, 0: none."""

    value: bytes
    revision: int
    lease: int


class Put(NamedTuple):
    key: bytes
    value: bytes
    lease: int = 0


class EtcdClient:
    """``endpoints`` are URLs. ``ca``, ``cert``, ``key``: paths of PEM files, for TLS."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        timeout_seconds: float = 2.0,
    ) -> None:
        """Raises ``OSError`` for files that cannot be read."""
        import httpx

        assert endpoints
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self.timeout_seconds = timeout_seconds
        verify: ssl.SSLContext | bool = True
        if ca is not None or cert is not None:
            verify = _tls(ca, cert, key)
        self._http = httpx.Client(verify=verify, trust_env=False)
        self._lost: type[Exception] = httpx.TransportError

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> EtcdClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # All raise ``EtcdLost`` when no endpoint answers, ``EtcdRefused`` for what etcd does not do.

    def read(self, prefix: bytes) -> dict[bytes, Item]:
        """All keys that begin with ``prefix``, as the majority of etcd's members have them."""
        reply = self._call("kv/range", {"key": _text(prefix), "range_end": _text(_end(prefix))})
        items = {}
        for each in _list(reply.get("kvs")):
            item = Item(_bytes(each.get("value")), _number(each.get("mod_revision")), _number(each.get("lease")))
            items[_bytes(each.get("key"))] = item
        return items

    def change(self, found: dict[bytes, int], puts: Sequence[Put] = (), deletes: Sequence[bytes] = ()) -> bool:
        """All at once, if each key of ``found`` still has that revision (0: is missing); whether it was done."""
        compare = [
            {"key": _text(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}
            for key, revision in found.items()
        ]
        orders: list[dict[str, object]] = [
            {"request_put": {"key": _text(put.key), "value": _text(put.value), "lease": str(put.lease)}} for put in puts
        ]
        orders += [{"request_delete_range": {"key": _text(key)}} for key in deletes]
        return self._call("kv/txn", {"compare": compare, "success": orders}).get("succeeded") is True

    def grant(self, seconds: int) -> int:
        """A new lease that lives so long from now on."""
        reply = self._call("lease/grant", {"TTL": str(seconds)})
        if _number(reply.get("TTL")) < seconds:
            raise EtcdRefused(f"etcd granted a lease that is shorter than {seconds} s")
        return _number(reply.get("ID"))

    def keep_alive(self, lease: int) -> bool:
        """Whether it is alive, with all its time before it again."""
        reply = self._call("lease/keepalive", {"ID": str(lease)}).get("result")
        return isinstance(reply, dict) and _number(reply.get("TTL")) > 0

    def revoke(self, lease: int) -> None:
        """It has ended, and its keys are gone."""
        self._call("lease/revoke", {"ID": str(lease)})

    def _call(self, what: str, body: dict[str, object]) -> dict[str, object]:
        failures = []
        for endpoint in list(self._endpoints):
            try:
                reply = self._http.post(
                    f"{endpoint}/v3/{what}", json=body, timeout=self.timeout_seconds / len(self._endpoints)
                )
                found = reply.json()
            except self._lost as error:
                failures.append(f"{endpoint}: {str(error) or type(error).__name__}")
                self._put_last(endpoint)
                continue
            except ValueError:
                failures.append(f"{endpoint}: does not answer as etcd does")
                self._put_last(endpoint)
                continue
            told = _error(found) if isinstance(found, dict) else (0, "answers with no object")
            if told is None and reply.status_code == 200:
                return dict(found)
            code, text = told or (0, f"status {reply.status_code}")
            if reply.status_code < _REFUSED_BELOW and code not in _NOT_NOW:
                raise EtcdRefused(f"{endpoint}: {text}")
            failures.append(f"{endpoint}: {text}")
            self._put_last(endpoint)
        raise EtcdLost(f"no endpoint of etcd answers ({'; '.join(failures)})")

    def _put_last(self, endpoint: str) -> None:
        self._endpoints.remove(endpoint)
        self._endpoints.append(endpoint)


def _tls(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    import ssl

    context = ssl.create_default_context(cafile=ca)
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def _error(reply: dict[str, object]) -> tuple[int, str] | None:
    error = reply.get("error")
    if isinstance(error, dict):
        # Of a stream, as keepalive is.
        return _number(error.get("grpc_code")), str(error.get("message"))
    if error is not None:
        return _number(reply.get("code")), str(reply.get("message") or error)
    return None


def _end(prefix: bytes) -> bytes:
    """The first key behind all that begin with ``prefix``."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,)) if kept else b"\0"


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(value: object) -> bytes:
    """What is empty, etcd leaves out."""
    try:
        return base64.b64decode(str(value or ""), validate=True)
    except ValueError as bad:
        raise EtcdRefused("etcd answers with what is not base64") from bad


def _number(value: object) -> int:
    """Numbers of 64 bits are texts in JSON; 0 is left out."""
    try:
        return int(str(value or 0))
    except ValueError as bad:
        raise EtcdRefused("etcd answers with what is no number") from bad


def _list(value: object) -> list[dict[str, object]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
