"""All stores that one process serves, each with its parts.

What cannot be opened, or was damaged, is tried again and keeps nothing else from being served. A store is known by
its path: a reload with another name for it leaves its mount and its links as they are.

Threads: ``start``, ``reload`` and ``close`` are called by one, in turn with a thread of the node's own, the minder,
which tries again what failed. All else may be called by any thread at any time.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

import msgspec

from idemfs.errors import CommitFailed, StoreInUse
from idemfs.node.config import NodeConfig, StoreConfig
from idemfs.node.local_socket import NODE
from idemfs.node.log import about
from idemfs.node.owner import Commands, OwnedStore, PartFactory, describe, unexpected
from idemfs.store.files import open_files
from idemfs.store.peek import lent
from idemfs.vfs.tree import Tree

log = logging.getLogger("idemfs.node")

RETRY_SECONDS = 5.0
"""How often it is tried again to open a store and to start a part, and looked whether a store has failed."""
_PATIENCE_SECONDS = 0.2


class NodePart(Protocol):
    """What a process has once, as a server for all its stores."""

    def start(self) -> None:
        """Begin. Raises ``IdemfsError``, ``OSError``: then it is not started, and ``close`` is not called."""
        ...

    def close(self) -> None:
        """End, and return when nothing of it runs any more."""
        ...

    def configure(self, config: NodeConfig) -> bool:
        """Go on with this configuration, mostly the same one; False: it wants to be closed and made anew."""
        ...


NodePartFactory: TypeAlias = Callable[["Node"], NodePart | None]
"""Makes a part for a node as ``node.config`` wants it; None: that wants none."""


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One store of a node. Without a role it is not open, and ``problems`` says under ``store`` why."""

    name: str
    path: str
    is_served: bool
    role: str | None = None
    epoch: int | None = None
    seen_epoch: int | None = None
    mount: str | None = None
    """Where it is mounted now."""
    problems: dict[str, str] = {}
    """In words, by what they keep from working: ``store``, ``socket``, ``mount`` or another part."""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A node: what ``msgspec.json.encode`` makes of it is the API's."""

    name: str
    url: str
    stores: list[StoreStatus]
    problems: dict[str, str] = {}
    """Of the parts that the node has once, in words."""


class Node:
    """Serves the stores of a configuration from ``start`` to ``close``."""

    def __init__(
        self,
        config: NodeConfig,
        commands: Commands,
        parts: Mapping[str, PartFactory],
        node_parts: Mapping[str, NodePartFactory] | None = None,
    ) -> None:
        """``parts`` are made for each store, ``node_parts`` once; they begin in this order and end in the reverse one.
        The names are used in problems, and to find a part."""
        self.config = config
        self.parts: dict[str, NodePart] = {}
        self.problems: dict[str, str] = {}
        self._commands = commands
        self._factories = parts
        self._node_factories = node_parts or {}
        self._questions = {NODE: lambda: msgspec.to_builtins(self.status())}
        self._owned: dict[str, OwnedStore] = {}
        self._failures: dict[str, str] = {}
        self._turn = threading.Lock()
        """Held by who opens, closes or changes."""
        self._closing = threading.Event()
        self._minder = threading.Thread(target=self._mind, name="idemfs-minder", daemon=True)

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve what can be served; the rest is tried again."""
        with self._turn:
            self._complete()
        self._minder.start()

    def reload(self, config: NodeConfig) -> None:
        """Serve as this configuration says. What does not change goes on undisturbed; what was ended is tried again."""
        with self._turn:
            before, self.config = self.config, config
            for name in reversed(list(self.parts)):
                if not self.parts[name].configure(config):
                    self._close_part(name)
            wanted = {store.path: store for store in config.stores}
            for store in before.stores:
                if store.path not in wanted:
                    self._failures.pop(store.path, None)
                    self._close_store(store.path, "is not served any more")
            # All let go of mount points and the like before anything takes them.
            for path, owned in self._owned.items():
                owned.configure(wanted[path])
            self._reopen_failed()
            self._complete()

    def complete(self) -> None:
        """Try now what would be tried again later: somebody is here who needs it, or has just made it."""
        while not self._closing.is_set():
            # Whoever closes may wait for this thread.
            if not self._turn.acquire(timeout=_PATIENCE_SECONDS):
                continue
            try:
                if not self._closing.is_set():
                    self._complete()
                return
            finally:
                self._turn.release()

    def close(self) -> None:
        """End everything: what was written is durable, nothing is mounted, and no store is locked."""
        self._closing.set()
        with self._turn:
            for name in reversed(list(self.parts)):
                self._close_part(name)
            for path in reversed(list(self._owned)):
                self._close_store(path, "is closed")
        if self._minder.is_alive():
            self._minder.join()

    # -- what it has -------------------------------------------------------------------------------

    def stores(self) -> list[OwnedStore]:
        """Those that are open, in the order of the configuration."""
        owned = dict(self._owned)
        return [owned[store.path] for store in self.config.stores if store.path in owned]

    def store(self, name: str) -> OwnedStore | None:
        """The open store that the configuration gives this name."""
        return next((owned for owned in self.stores() if owned.name == name), None)

    def status(self) -> NodeStatus:
        config, owned = self.config, dict(self._owned)
        return NodeStatus(
            name=config.name,
            url=config.url,
            stores=[self._status_of(store, owned.get(store.path)) for store in config.stores],
            problems=dict(self.problems),
        )

    def _status_of(self, config: StoreConfig, owned: OwnedStore | None) -> StoreStatus:
        if owned is None:
            failure = self._failures.get(config.path, "is being opened")
            return StoreStatus(name=config.name, path=config.path, is_served=False, problems={"store": failure})
        role, problems = owned.tree.role, dict(owned.problems)
        failed = owned.tree.store.failure
        if failed is not None:
            problems["store"] = f"takes no changes after a failure: {failed}"
        return StoreStatus(
            name=config.name,
            path=config.path,
            is_served=failed is None,
            role=role.role.name.lower(),
            epoch=role.epoch,
            seen_epoch=role.seen_epoch,
            mount=owned.mount,
            problems=problems,
        )

    # -- opening and closing, each in its turn -----------------------------------------------------

    def _mind(self) -> None:
        while not self._closing.wait(RETRY_SECONDS):
            with self._turn:
                if self._closing.is_set():
                    return
                try:
                    self._reopen_failed()
                    self._complete()
                except Exception:
                    log.exception("what failed cannot be tried again now")

    def _reopen_failed(self) -> None:
        for path, owned in list(self._owned.items()):
            failure = owned.tree.store.failure
            if failure is not None:
                with about(store=owned.name):
                    log.error("takes no changes after a failure, and is opened again: %s", failure)
                self._close_store(path, "is closed")

    def _complete(self) -> None:
        """Open what is not open, start what does not run."""
        for store in self.config.stores:
            if store.path not in self._owned:
                self._open(store)
            if store.path in self._owned:
                self._owned[store.path].complete()
        for name, factory in self._node_factories.items():
            if name not in self.parts:
                self._start_part(name, factory)

    def _open(self, config: StoreConfig) -> None:
        with about(store=config.name):
            try:
                owned = self._opened(config)
            except Exception as error:
                text = describe(error)
                if self._failures.get(config.path) != text:
                    self._failures[config.path] = text
                    log.error("is not served, and tried again: %s", text, exc_info=unexpected(error))
                return
            self._owned[config.path] = owned
            self._failures.pop(config.path, None)
            log.info("serves %s", config.path)

    def _opened(self, config: StoreConfig) -> OwnedStore:
        if os.path.realpath(config.path) in lent:
            raise StoreInUse(config.path, os.getpid())
        store = open_files(config.path)
        try:
            owned = OwnedStore(
                config, Tree(store), self._commands, self._factories, others=self.stores, questions=self._questions
            )
        except BaseException:
            store.abandon()
            raise
        try:
            owned.start()
        except BaseException:
            owned.close()
            raise
        return owned

    def _close_store(self, path: str, what: str) -> None:
        owned = self._owned.pop(path, None)
        if owned is None:
            return
        with about(store=owned.name):
            try:
                owned.close()
                log.info("%s", what)
            except CommitFailed as error:
                log.error("is closed, but what was written last is lost: %s", error)
            except Exception as error:
                log.error("cannot be closed: %s", describe(error), exc_info=unexpected(error))

    def _start_part(self, name: str, factory: NodePartFactory) -> None:
        try:
            part = factory(self)
            if part is not None:
                part.start()
                self.parts[name] = part
        except Exception as error:
            text = describe(error)
            if self.problems.get(name) != text:
                self.problems[name] = text
                log.error("%s: %s", name, text, exc_info=unexpected(error))
        else:
            self.problems.pop(name, None)

    def _close_part(self, name: str) -> None:
        try:
            self.parts.pop(name).close()
        except Exception as error:
            log.error("%s: %s", name, describe(error), exc_info=unexpected(error))
