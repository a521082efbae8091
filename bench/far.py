"""A second node on this machine: a store at the end of a connection, through pipes, or through a real ``sshd``."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import idemfs
from bench.measure import Skipped, command, need
from idemfs.failover.observe import guid_of
from idemfs.node.connecting import SSH_VARIABLE
from idemfs.replication.channel import Channel, PipeChannel
from idemfs.replication.link import Report, replicate_into
from idemfs.replication.remote import RemoteReceiver
from idemfs.replication.session import Session

PROGRAM = os.path.join(os.path.dirname(sys.executable), "idemfs")
_SSHD = "/usr/sbin/sshd"
_PATIENCE_SECONDS = 10


@contextmanager
def piped(standby: str) -> Iterator[PipeChannel]:
    """A process that answers for the store at ``standby``, with two pipes in between."""
    with subprocess.Popen([PROGRAM, "peer", standby], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        channel = PipeChannel(os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno()))
        process.stdin.close()
        try:
            yield channel
        finally:
            channel.close()


@contextmanager
def linked(fs: idemfs.FileSystem, channel: Channel) -> Iterator[RemoteReceiver]:
    """What a link has of its standby while the connection stands."""
    with Session(channel, guid_of(fs.tree)) as session:
        yield RemoteReceiver(session)


def update(fs: idemfs.FileSystem, receiver: RemoteReceiver) -> Report:
    """One turn of a link: everything that the standby lacks; durable there on return."""
    return replicate_into(fs.tree, receiver)


@contextmanager
def sshd(directory: str) -> Iterator[list[str]]:
    """An ssh server on a port of its own, with keys of its own; how it is called. ``idemfs`` uses it meanwhile."""
    need("ssh", "ssh-keygen")
    if not os.path.exists(_SSHD):
        raise Skipped("sshd is not installed")
    if os.geteuid():
        raise Skipped("starting sshd needs root")
    os.makedirs("/run/sshd", exist_ok=True)
    home = f"{directory}/ssh"
    os.makedirs(home)
    for name in ("host", "user"):
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{home}/{name}")
    port = free_port()
    with open(f"{home}/config", "w") as config:
        config.write(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nAuthorizedKeysFile {home}/user.pub\n"
            f"StrictModes no\nUsePAM no\nPidFile none\nSetEnv PATH={os.path.dirname(PROGRAM)}:{os.environ['PATH']}\n"
        )
    ssh = ["ssh", "-F", "none", "-p", str(port), "-i", f"{home}/user", "-o", "BatchMode=yes"]
    ssh += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={home}/known", "-o", "LogLevel=ERROR"]
    before = os.environ.get(SSH_VARIABLE)
    with subprocess.Popen([_SSHD, "-D", "-q", "-f", f"{home}/config"]) as server:
        try:
            wait_for_listener(port)
            os.environ[SSH_VARIABLE] = " ".join(ssh)
            yield [*ssh, f"{getpass.getuser()}@127.0.0.1"]
        finally:
            if before is None:
                os.environ.pop(SSH_VARIABLE, None)
            else:
                os.environ[SSH_VARIABLE] = before
            server.terminate()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_for_listener(port: int) -> None:
    """Without connecting, since some take one connection only."""
    until = time.monotonic() + _PATIENCE_SECONDS
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    while time.monotonic() < until:
        with open("/proc/net/tcp") as table:
            if wanted in table.read():
                return
        time.sleep(0.01)
    raise Skipped("nothing listens")
