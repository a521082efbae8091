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
        "--cursor",
        action="store_true",
        help="read nothing; print where 'idemfs send --resume' goes on with what was half received, or nothing",
    )


def run(options: Namespace) -> None:
    if options.cursor:
        _print_cursor(options.store)
        return
    from idemfs.cli.failures import UsageError
    from idemfs.replication.apply import receive_stream
    from idemfs.replication.codec import StreamReader
    from idemfs.replication.standby import open_standby
    from idemfs.store.files import refuse_if_in_use

    if sys.stdin.isatty():
        raise UsageError("there is no change set on a terminal: 'idemfs send' makes one")
    # Another process that has the store takes the stream from its beginning.
    refuse_if_in_use(options.store)
    source = sys.stdin.buffer
    stream = StreamReader(source.read)
    tree = open_standby(options.store, stream.header)
    try:
        outcome = receive_stream(tree, stream)
    finally:
        tree.store.close()
    name = show_name(outcome.snapshot.name)
    if outcome.was_held:
        _drain(source)
        print(f"snapshot {name} is here already")
    else:
        print(f"received snapshot {name}: {outcome.records:,} records, {format_size(outcome.bytes)}")


def _print_cursor(path: str) -> None:
    from idemfs.replication.apply import resume_cursor
    from idemfs.store.files import open_files
    from idemfs.vfs.tree import Tree

    store = open_files(path, readonly=True)
    try:
        cursor = resume_cursor(Tree(store))
    finally:
        store.close()
    if cursor is not None:
        print(cursor.to_text())


def _drain(source: BinaryIO) -> None:
    """Whoever sends is not to fail because nobody reads."""
    while source.read(_READ_SIZE):
        continue
