"""Two stores of one process that speak to each other as if they were apart: over a socket, with all that takes.

Threads: the caller's asks; one serves at the other end until the ``with`` is left.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from idemfs.ids import Guid
from idemfs.replication import remote
from idemfs.replication.channel import Channel, PipeChannel
from idemfs.replication.link import Progress, Report, replicate_into
from idemfs.replication.remote import RemoteReceiver
from idemfs.replication.session import Handler, Session
from idemfs.vfs.tree import Tree


def channels() -> tuple[Channel, Channel]:
    """Both ends of one connection."""
    ends = socket.socketpair()
    one, other = (PipeChannel(end.fileno(), end.detach()) for end in ends)
    return one, other


@contextmanager
def served(tree: Tree, handlers: Mapping[str, Handler], asking: Guid = Guid(b"?" * 16)) -> Iterator[Session]:
    """A session with a store that answers in a thread of its own."""
    here, there = channels()
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            with Session(there, Guid(tree.store.superblock.guid), handlers) as session:
                session.serve()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=serve, name="idemfs-served")
    thread.start()
    try:
        with Session(here, asking) as session:
            yield session
    finally:
        thread.join()
    if failures:
        raise failures[0]


def replicate_apart(source: Tree, target: Tree, progress: Progress | None = None) -> Report:
    """As ``replicate_into``, over a connection."""
    with served(target, remote.handlers(target), Guid(source.store.superblock.guid)) as session:
        return replicate_into(source, RemoteReceiver(session), progress)
