"""Connections to stores: over ssh, over HTTPS, or to the process of this machine that has a store open.

Threads: any.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress

from idemfs.engines import lock
from idemfs.errors import ConnectionLost, PeerError, StoreInUse
from idemfs.failover import addresses
from idemfs.failover.addresses import HTTPS, SSH, Remote
from idemfs.node import local_socket
from idemfs.replication.channel import Channel, PipeChannel

SSH_VARIABLE = "IDEMFS_SSH"
"""The command that takes the place of ``ssh``, as words of a shell."""
_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3"
_ENDING_SECONDS = 5.0
_TEXT_SIZE_MAX = 2000

https: Callable[[Remote], Channel] | None = None
"""Makes connections over HTTPS; set by whoever has a node's certificate and knows its peers."""
own_address: Callable[[str], str | None] | None = None
"""By its path: the ``https://`` address of a store of this process. Set with ``https``."""


def connect(address: str, readonly: bool = False) -> Channel:
    """A connection to the store at ``address``, or at a path of this machine that another process has open.

    ``readonly``: for looking only. Raises ``ConnectionLost``, ``PeerError``.
    """
    if not addresses.is_remote(address):
        return OwnerChannel(address, readonly)
    remote = addresses.parse(address)
    if remote.scheme == SSH:
        return SshChannel(address, remote, readonly)
    if https is None:
        raise PeerError(f"{address}: is reached by 'idemfs serve' alone, which has the certificate for it")
    return https(remote)


def connecting_for(store: str) -> Callable[[str, bool], Channel]:
    """``connect`` for a command on the store at ``store``. What only the process that has this store open can reach is
    its to do: then it raises ``StoreInUse`` for the store, which hands the command over."""

    def connect_or_hand_over(address: str, readonly: bool) -> Channel:
        hand_over(store, address)
        return connect(address, readonly)

    return connect_or_hand_over


def hand_over(store: str, address: str) -> None:
    """Raises ``StoreInUse`` as ``connecting_for`` says."""
    if https is None and addresses.is_remote(address) and addresses.parse(address).scheme == HTTPS:
        owner = lock.owner(store)
        if owner not in (None, os.getpid()):
            raise StoreInUse(store, owner)


def peer_command(path: str, readonly: bool) -> list[str]:
    """What is to be run where the store is."""
    return ["peer", path, *(["--read-only"] if readonly else [])]


class SshChannel(PipeChannel):
    """The standard streams of ``idemfs peer PATH`` on another machine."""

    def __init__(self, address: str, remote: Remote, readonly: bool) -> None:
        self._address = address
        words = shlex.split(os.environ.get(SSH_VARIABLE) or _SSH)
        if remote.port is not None:
            words += ["-p", str(remote.port)]
        target = remote.host if remote.user is None else f"{remote.user}@{remote.host}"
        command = shlex.join(["idemfs", *peer_command(remote.path, readonly)])
        try:
            self._process = subprocess.Popen(
                [*words, "--", target, command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ConnectionLost(f"{address}: cannot run {words[0]}: {error.strerror}") from error
        self._said = b""
        self._listener = threading.Thread(target=self._listen, name="idemfs-ssh", daemon=True)
        self._listener.start()
        assert self._process.stdin is not None and self._process.stdout is not None
        super().__init__(os.dup(self._process.stdout.fileno()), os.dup(self._process.stdin.fileno()))
        self._process.stdin.close()
        self._process.stdout.close()

    def close(self) -> None:
        super().close()
        try:
            self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listen(self) -> None:
        """Keep what it says of its failure, and let it never wait for somebody to read that."""
        assert self._process.stderr is not None
        with self._process.stderr as errors:
            while piece := os.read(errors.fileno(), 4096):
                self._said = (self._said + piece)[-_TEXT_SIZE_MAX:]

    def _lost(self) -> ConnectionLost:
        self._listener.join(_ENDING_SECONDS)
        return _ended(self._address, self._said)


class OwnerChannel(PipeChannel):
    """The standard streams of ``peer`` in the process of this machine that has a store open."""

    def __init__(self, path: str, readonly: bool) -> None:
        """Raises ``ConnectionLost``."""
        self._path = path
        # Pipes, and no pair of sockets: what these take at a time makes for many more turns of both ends.
        reading, theirs_to_write = os.pipe()
        theirs_to_read, writing = os.pipe()
        self._said = os.fdopen(os.memfd_create("idemfs-peer", os.MFD_CLOEXEC), "rb", buffering=0)
        self._ending = threading.Lock()
        connection = None
        try:
            streams = theirs_to_read, theirs_to_write, self._said.fileno()
            connection = local_socket.ask(path, peer_command(path, readonly), streams)
        finally:
            if connection is None:
                self._said.close()
            kept = () if connection is not None else (reading, writing)
            for fd in (theirs_to_read, theirs_to_write, *kept):
                os.close(fd)
        if connection is None:
            raise ConnectionLost(f"{path}: the process that has the store open takes no commands")
        self._connection = connection
        super().__init__(reading, writing)

    def close(self) -> None:
        """What the other end holds is given back on return."""
        super().close()
        with self._ending:
            if self._connection.fileno() >= 0:
                with self._connection:
                    self._connection.settimeout(_ENDING_SECONDS)
                    with suppress(TimeoutError):
                        local_socket.answer(self._connection)
                self._said.close()

    def _lost(self) -> ConnectionLost:
        try:
            return _ended(self._path, os.pread(self._said.fileno(), _TEXT_SIZE_MAX, 0))
        except ValueError:
            # Another thread has closed this end meanwhile.
            return _ended(self._path, b"")


def _ended(address: str, said: bytes) -> ConnectionLost:
    """``said``: on standard error, by what was at the other end."""
    lines = said.decode(errors="replace").strip().splitlines()
    if not lines:
        return ConnectionLost(f"{address}: the connection ended")
    return ConnectionLost(f"{address}: {lines[-1].removeprefix('idemfs: ')}")
