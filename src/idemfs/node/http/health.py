"""Checks for load balancers: 200 or 503, without authentication, as Patroni has them.

``/live``: this process answers. ``/ready``: all stores are open, and nothing keeps parts of them from their work.
``/primary``, ``/standby``: all stores of the node are that; for one of several, ask below its name. They tell no more
than why not, in words that name no file.

Threads: of the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, Response

from idemfs.clock import Clock
from idemfs.format.role import Role
from idemfs.node.http import answers
from idemfs.node.http.answers import HealthAnswer
from idemfs.node.http.api import Api, RequestRefused, answer
from idemfs.node.http.owned import Owned, Stores

Lag = Annotated[float | None, Query(gt=0, description="seconds that the newest complete snapshot may be old")]


class Health:
    """The checks. ``add_to`` makes them routes."""

    def __init__(self, stores: Stores, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock

    def add_to(self, api: Api) -> None:
        for path, endpoint in {
            "/live": self.live,
            "/ready": self.ready,
            "/primary": self.primary,
            "/standby": self.standby,
            "/v1/stores/{name}/ready": self.store_ready,
            "/v1/stores/{name}/primary": self.store_primary,
            "/v1/stores/{name}/standby": self.store_standby,
        }.items():
            refusals = (404, 503) if "{" in path else (503,)
            api.add("GET", path, endpoint, scope=None, answers=HealthAnswer, refusals=refusals)

    # -- the node --------------------------------------------------------------------------------------

    def live(self) -> Response:
        """Whether the process answers."""
        return _said([])

    def ready(self) -> Response:
        """Whether all stores are open and at work."""
        return _said([why for name in self._stores.configured() for why in self._not_ready(name)])

    def primary(self) -> Response:
        """Whether users can write to all stores of the node."""
        return _said([why for name in self._names() for why in self._not_primary(name)])

    def standby(self, lag: Lag = None) -> Response:
        """Whether all stores of the node are standbys.

        With `lag`: whose newest complete snapshots are not older than so many seconds.
        """
        return _said([why for name in self._names() for why in self._not_standby(name, lag)])

    def _names(self) -> Sequence[str]:
        names = self._stores.configured()
        if not names:
            raise RequestRefused(503, "this node has no store")
        return names

    # -- one store -------------------------------------------------------------------------------------

    def store_ready(self, name: str) -> Response:
        """Whether the store is open and at work."""
        return _said(self._not_ready(self._known(name)))

    def store_primary(self, name: str) -> Response:
        """Whether users can write to the store."""
        return _said(self._not_primary(self._known(name)))

    def store_standby(self, name: str, lag: Lag = None) -> Response:
        """Whether the store is a standby.

        With `lag`: whose newest complete snapshot is not older than so many seconds.
        """
        return _said(self._not_standby(self._known(name), lag))

    def _known(self, name: str) -> str:
        if name not in self._stores.configured():
            raise RequestRefused(404, "this node has no store of this name")
        return name

    def _owned(self, name: str) -> Owned | None:
        return next((each for each in self._stores.owned() if each.name == name), None)

    def _not_ready(self, name: str) -> list[str]:
        store = self._owned(name)
        if store is None:
            return [f"store {name} is not open"]
        if store.tree.store.failure is not None:
            return [f"store {name} has stopped taking changes"]
        return [f"store {name}: its {part} is not at work" for part in store.problems]

    def _not_primary(self, name: str) -> list[str]:
        store = self._owned(name)
        if store is None:
            return [f"store {name} is not open"]
        if not answers.takes_changes(store.tree):
            role = answers.role_of(store.tree)
            return [f"store {name} is {role}" if role != "primary" else f"store {name} has stopped taking changes"]
        return []

    def _not_standby(self, name: str, lag: float | None) -> list[str]:
        store = self._owned(name)
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


def _said(whys: list[str]) -> Response:
    return answer(HealthAnswer(not whys, "; ".join(whys)), 503 if whys else 200)
