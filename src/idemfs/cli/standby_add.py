"""``idemfs standby add STORE PEER``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_store


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("peer", metavar="PEER", help="path of the standby; it is made when there is nothing yet")


def run(options: Namespace) -> None:
    from idemfs.failover.places import add_standby

    peer = add_standby(options.store, options.peer)
    print(f"{show_name(peer.path)} is a standby of {show_name(options.store)}, by the name of {show_name(peer.name)}")
