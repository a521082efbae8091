"""Routes about the node and its stores.

Threads: of the pool.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from idemfs.node import certificates
from idemfs.node.history import Event, events
from idemfs.node.http import answers
from idemfs.node.http.actions import Actions
from idemfs.node.http.answers import (
    FilesetAnswer,
    NewSnapshots,
    NodeAnswer,
    PlanAnswer,
    SnapshotAnswer,
    StoreAnswer,
)
from idemfs.node.http.api import Api, RequestRefused, answer, body_of, decoded
from idemfs.node.keys import Keys
from idemfs.node.node import Node
from idemfs.node.owner import OwnedStore
from idemfs.node.progress import LinkStatus
from idemfs.node.tokens import Scope

Body = Annotated[bytes, Depends(body_of)]
DryRun = Annotated[bool, Query(description="answer with the plan, and change nothing")]

NAMES_COUNT_MAX = 1000


class StoreRoutes:
    """``add_to`` makes the routes."""

    def __init__(self, node: Node, actions: Actions, keys: Keys) -> None:
        self._node = node
        self._actions = actions
        self._keys = keys

    def add_to(self, api: Api) -> None:
        one = "/v1/stores/{name}"
        looks: dict[str, tuple[Callable[..., Response], object]] = {
            "/v1/node": (self.about_node, NodeAnswer),
            "/v1/stores": (self.stores, list[StoreAnswer]),
            one: (self.store, StoreAnswer),
            f"{one}/snapshots": (self.snapshots, list[SnapshotAnswer]),
            f"{one}/filesets": (self.filesets, list[FilesetAnswer]),
            f"{one}/links": (self.links, list[LinkStatus]),
            f"{one}/history": (self.history, list[Event]),
        }
        for path, (endpoint, kind) in looks.items():
            refusals = (404,) if "{" in path else ()
            api.add("GET", path, endpoint, scope=Scope.READ, answers=kind, refusals=refusals)
        api.add(
            "POST",
            f"{one}/snapshots",
            self.create,
            scope=Scope.ADMIN,
            takes=NewSnapshots,
            answers=list[SnapshotAnswer],
            status=201,
            refusals=(404, 409),
        )
        api.add(
            "DELETE",
            f"{one}/snapshots/{{snapshot}}",
            self.delete,
            scope=Scope.ADMIN,
            answers=dict[str, str],
            refusals=(404, 409),
        )
        for command in (self.switchover, self.failover, self.failback):
            path = f"{one}/{command.__name__}"
            api.add("POST", path, command, scope=Scope.ADMIN, answers=PlanAnswer, refusals=(404, 409, 502))

    # -- looking ---------------------------------------------------------------------------------------

    def about_node(self) -> Response:
        """The node itself."""
        return answer(
            NodeAnswer(
                name=self._keys.name,
                version=version("idemfs"),
                url=self._keys.url(),
                fingerprint=self._keys.fingerprint(),
                certificate_expires=answers.format_time(certificates.expires_ns(self._keys.certificate())),
                stores=[store.name for store in self._node.config.stores],
                peers=[peer.name for peer in self._keys.peers()],
            )
        )

    def stores(self) -> Response:
        """The stores that are open."""
        return answer([_described(store) for store in self._node.stores()])

    def store(self, name: str) -> Response:
        """One store: its role, what it holds, and what is wrong with it."""
        return answer(_described(self._found(name)))

    def snapshots(self, name: str) -> Response:
        """The snapshots of all filesets of a store, oldest first."""
        return answer([answers.snapshot_answer(info) for info in self._actions.snapshots(self._found(name))])

    def filesets(self, name: str) -> Response:
        """The filesets of a store, the root fileset first."""
        return answer([answers.fileset_answer(info) for info in self._actions.filesets(self._found(name))])

    def links(self, name: str) -> Response:
        """The links of a store to those that follow it, with state and progress."""
        return answer(self._found(name).links)

    def history(self, name: str) -> Response:
        """Transfers and changes of role, with who ordered them; newest last."""
        return answer(events(self._found(name).path))

    # -- ordering --------------------------------------------------------------------------------------

    def create(self, name: str, body: Body, request: Request) -> Response:
        """Take snapshots, all at one instant, or none; durable when this answers."""
        store = self._found(name)
        wanted: NewSnapshots = decoded(body, NewSnapshots)
        if not 0 < len(wanted.names) <= NAMES_COUNT_MAX:
            raise RequestRefused(400, f"names: 1 to {NAMES_COUNT_MAX} snapshots are taken at one instant")
        made = self._actions.create_snapshots(store, wanted.names, request.state.caller)
        return answer([answers.snapshot_answer(info) for info in made], 201)

    def delete(self, name: str, snapshot: str, request: Request) -> Response:
        """Delete a snapshot, in any order; what is held or locked is refused.

        `snapshot`: NAME, or FILESET@NAME.
        """
        self._actions.delete_snapshot(self._found(name), snapshot, request.state.caller)
        return answer({})

    def switchover(self, name: str, request: Request, dry_run: DryRun = False) -> Response:
        """Exchange primary and standby as planned, losing nothing.

        As `idemfs switchover --yes`: name a store that is to become standby, or the one that is to take over.
        """
        return self._change_roles(name, "switchover", request, dry_run)

    def failover(self, name: str, request: Request, dry_run: DryRun = False) -> Response:
        """Make this standby the primary, without the old primary's consent.

        As `idemfs failover --yes`. Ask with `dry_run` first: the plan says what is left behind.
        """
        return self._change_roles(name, "failover", request, dry_run)

    def failback(self, name: str, request: Request, dry_run: DryRun = False) -> Response:
        """Make this old primary the standby of the one that took over.

        As `idemfs failback --yes`: what only it had is kept there, in snapshots.
        """
        return self._change_roles(name, "failback", request, dry_run)

    def _change_roles(self, name: str, command: str, request: Request, dry_run: bool) -> Response:
        store = self._found(name)
        return answer(self._actions.change_roles(store, command, request.state.caller, dry_run=dry_run))

    def _found(self, name: str) -> OwnedStore:
        """Raises ``RequestRefused``."""
        store = self._node.store(name)
        if store is not None:
            return store
        if any(each.name == name for each in self._node.config.stores):
            raise RequestRefused(503, f"store {name} is not open; the log of the node tells why")
        raise RequestRefused(404, f"this node has no store {name}; /v1/stores lists them")


def _described(store: OwnedStore) -> StoreAnswer:
    return answers.store_answer(store.name, store.path, store.mount, store.tree, dict(store.problems))
