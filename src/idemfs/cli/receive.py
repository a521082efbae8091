"""``idemfs receive STORE``: the change set comes from standard input."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import BinaryIO

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_store
from idemfs.cli.render import format_size

_READ_SIZE = 1 << 20


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "--fileset",
        metavar="NAME",
        help="receive into this fileset, beside what the store has; made when there is none",
    )
    parser.add_argument(
        "--cursor",
        action="store_true",
        help="read nothing; print where 'idemfs send --resume' goes on with what was half received, or nothing",
    )


def run(options: Namespace) -> None:
    if options.cursor:
        _print_cursor(options.store, options.fileset)
        return
    from idemfs.cli.failures import UsageError
    from idemfs.replication.codec import StreamReader
    from idemfs.replication.standby import open_standby, receive_into
    from idemfs.snapshots.info import SnapshotInfo
    from idemfs.store.files import refuse_if_in_use

    if sys.stdin.isatty():
        raise UsageError("there is no change set on a terminal: 'idemfs send' makes one")
    # Another process that has the store takes the stream from its beginning.
    refuse_if_in_use(options.store)
    source = sys.stdin.buffer
    stream = StreamReader(source.read)
    tree = open_standby(options.store, stream.header, is_beside=options.fileset is not None)
    try:
        outcome = receive_into(tree, stream, options.fileset)
        name = show_name(SnapshotInfo(outcome.snapshot, tree.store.catalog.filesets[outcome.snapshot.fileset]).operand)
    finally:
        tree.store.close()
    if outcome.was_held:
        _drain(source)
        print(f"snapshot {name} is here already")
    else:
        print(f"received snapshot {name}: {outcome.records:,} records, {format_size(outcome.bytes)}")


def _print_cursor(path: str, fileset: str | None) -> None:
    from idemfs.ids import ROOT_FILESET
    from idemfs.replication.apply import resume_cursor
    from idemfs.store.files import open_files
    from idemfs.vfs.tree import Tree

    store = open_files(path, readonly=True)
    try:
        number = ROOT_FILESET if fileset is None else store.catalog.fileset_named(fileset).number
        cursor = resume_cursor(Tree(store), number)
    finally:
        store.close()
    if cursor is not None:
        print(cursor.to_text())


def _drain(source: BinaryIO) -> None:
    """Whoever sends is not to fail because nobody reads."""
    while source.read(_READ_SIZE):
        continue
