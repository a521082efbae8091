"""``idemfs umount DIR``: returns when the store is closed and unlocked, or durable where ``serve`` keeps it open."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace

_WAIT_SECONDS = 0.01


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="where the store is mounted")
    parser.add_argument("--force", action="store_true", help="also when it is in use: its open files fail from then on")


def run(options: Namespace) -> None:
    from idemfs.cli.failures import Refused
    from idemfs.engines.lock import owner
    from idemfs.mount.channel import mounts, unmount
    from idemfs.node.local_socket import stays

    directory = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(options.directory))), "")
    directory += os.path.basename(os.path.abspath(options.directory))
    stores = [source for source, where in mounts() if where == directory]
    if not stores:
        raise Refused(f"{options.directory}: no store is mounted there")
    pid = owner(stores[-1])
    unmount(directory, detach=options.force)
    if stays(stores[-1]):
        return
    if options.force and pid:
        import signal

        os.kill(pid, signal.SIGTERM)
    # Whoever had it mounted commits what is open before it gives the lock back.
    while pid is not None and owner(stores[-1]) == pid:
        time.sleep(_WAIT_SECONDS)
