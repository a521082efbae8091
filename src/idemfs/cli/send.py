"""``idemfs send STORE [--base NAME] TARGET``: the change set goes to standard output."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_store


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("snapshot", metavar="TARGET", help="the snapshot to send, NAME or FILESET@NAME")
    parser.add_argument(
        "--base",
        metavar="NAME",
        help="send what changed since this snapshot of the same fileset, which the standby has",
    )
    parser.add_argument("--compress", action="store_true", help="compress, for a slow connection")
    parser.add_argument(
        "--resume", metavar="CURSOR", default="", help="go on where 'idemfs receive --cursor' says; empty: the start"
    )


def run(options: Namespace) -> None:
    from idemfs.cli.failures import UsageError
    from idemfs.replication.records import parse_cursor
    from idemfs.replication.send import send
    from idemfs.store.files import open_files
    from idemfs.vfs.tree import Tree

    if sys.stdout.isatty():
        raise UsageError("a change set is no text: send it to a file, or to 'idemfs receive'")
    try:
        after = parse_cursor(options.resume) if options.resume else None
    except ValueError as bad:
        raise UsageError(f"--resume: {bad}; 'idemfs receive STORE --cursor' prints one") from bad
    store = open_files(options.store, background=False)
    try:
        tree = Tree(store)
        catalog = store.catalog
        target = catalog.by_name(*catalog.snapshot_place(options.snapshot))
        # A base is of the same fileset, which need not be said again.
        place = None if options.base is None else catalog.snapshot_place(options.base, target.fileset)
        base = None if place is None else catalog.by_name(*place)
        send(tree, base, target, sys.stdout.buffer.write, after=after, compress=options.compress)
        sys.stdout.buffer.flush()
    finally:
        store.close()
