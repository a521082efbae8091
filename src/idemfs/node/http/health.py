"""Checks for load balancers: 200 or 503, without authentication, as Patroni has them.

``/live``: this process answers. ``/ready``: all stores are open, and nothing keeps parts of them from their work.
``/primary``, ``/standby``: all stores of the node are that; for one of several, ask below its name. They tell no more
than why not, in words that name no file.

Threads: of the pool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Query, Response

from idemfs.clock import Clock
from idemfs.format.role import Role
from idemfs.node.http import answers
from idemfs.node.http.answers import HealthAnswer
from idemfs.node.http.api import Api, RequestRefused, answer
from idemfs.node.node import Node, StoreStatus

Lag = Annotated[float | None, Query(gt=0, description="seconds that the newest complete snapshot may be old")]


class Health:
    """The checks. ``add_to`` makes them routes."""

    def __init__(self, node: Node, clock: Clock) -> None:
        self._node = node
        self._clock = clock

    def add_to(self, api: Api) -> None:
        checks: dict[str, Callable[..., Response]] = {
            "/live": self.live,
            "/ready": self.ready,
            "/primary": self.primary,
            "/standby": self.standby,
            "/v1/stores/{name}/ready": self.store_ready,
            "/v1/stores/{name}/primary": self.store_primary,
            "/v1/stores/{name}/standby": self.store_standby,
        }
        for path, endpoint in checks.items():
            refusals = (404, 503) if "{" in path else (503,)
            api.add("GET", path, endpoint, scope=None, answers=HealthAnswer, refusals=refusals)

    # -- the node --------------------------------------------------------------------------------------

    def live(self) -> Response:
        """Whether the process answers."""
        return _said([])

    def ready(self) -> Response:
        """Whether all stores are open and at work."""
        return _said([why for store in self._node.status().stores for why in _not_ready(store)])

    def primary(self) -> Response:
        """Whether users can write to all stores of the node."""
        return _said([why for name in self._names() for why in self._not_primary(name)])

    def standby(self, lag: Lag = None) -> Response:
        """Whether all stores of the node are standbys.

        With `lag`: whose newest complete snapshots are not older than so many seconds.
        """
        return _said([why for name in self._names() for why in self._not_standby(name, lag)])

    def _names(self) -> list[str]:
        names = [store.name for store in self._node.config.stores]
        if not names:
            raise RequestRefused(503, "this node has no store")
        return names

    # -- one store -------------------------------------------------------------------------------------

    def store_ready(self, name: str) -> Response:
        """Whether the store is open and at work."""
        self._require(name)
        return _said([why for store in self._node.status().stores if store.name == name for why in _not_ready(store)])

    def store_primary(self, name: str) -> Response:
        """Whether users can write to the store."""
        self._require(name)
        return _said(self._not_primary(name))

    def store_standby(self, name: str, lag: Lag = None) -> Response:
        """Whether the store is a standby.

        With `lag`: whose newest complete snapshot is not older than so many seconds.
        """
        self._require(name)
        return _said(self._not_standby(name, lag))

    def _require(self, name: str) -> None:
        if all(store.name != name for store in self._node.config.stores):
            raise RequestRefused(404, "this node has no store of this name")

    def _not_primary(self, name: str) -> list[str]:
        store = self._node.store(name)
        if store is None:
            return [f"store {name} is not open"]
        role = answers.role_of(store.tree)
        if role != "primary":
            return [f"store {name} is {role}"]
        return [] if answers.takes_changes(store.tree) else [f"store {name} has stopped taking changes"]

    def _not_standby(self, name: str, lag: float | None) -> list[str]:
        store = self._node.store(name)
        if store is None:
            return [f"store {name} is not open"]
        if store.tree.role.role is not Role.STANDBY:
            return [f"store {name} is {answers.role_of(store.tree)}"]
        newest = answers.newest(store.tree)
        if newest is None:
            return [f"store {name} has no complete snapshot"]
        seconds = (self._clock.now_ns() - newest.created_ns) / 1e9
        if lag is not None and seconds > lag:
            return [f"the newest snapshot of store {name} is {seconds:.0f} seconds old"]
        return []


def _not_ready(store: StoreStatus) -> list[str]:
    if store.role is None:
        return [f"store {store.name} is not open"]
    return [f"store {store.name}: its {part} is not at work" for part in store.problems]


def _said(whys: list[str]) -> Response:
    return answer(HealthAnswer(not whys, "; ".join(whys)), 503 if whys else 200)
