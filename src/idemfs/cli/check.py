"""``idemfs check STORE``: say what is wrong with a store, and where. Status 1 when anything is.

The store is locked, so that nobody changes it meanwhile, and opened for reading, so that this changes nothing either.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, format_size, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from idemfs.store.store import Store


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--data", action="store_true", help="read every block too, and compare it with its checksum")
    add_json(parser)


@contextmanager
def locked_for_reading(path: str) -> Iterator[Store]:
    """A store that neither we nor anybody else changes. Raises as ``open_files``."""
    from idemfs.engines.kv.walk import is_readable
    from idemfs.engines.lock import StoreLock
    from idemfs.errors import Damaged
    from idemfs.store.files import open_files
    from idemfs.store.peek import lent, read_superblock

    own = lent.get(os.path.realpath(path))
    if own is not None:
        # This process has it: what is open is made durable, and then nobody changes anything.
        with own.exclusive():
            own.commit()
            yield own
        return

    # First, since locking makes a file, which has no business where there is no store, or a newer one.
    read_superblock(path)
    with StoreLock(path):
        if not is_readable(os.path.join(path, "meta")):
            raise Damaged(
                f"{path}/meta/data.mdb: the metadata file is damaged; restore this store from a standby or a backup"
            )
        store = open_files(path, readonly=True)
        try:
            yield store
        finally:
            store.close()


def run(options: Namespace) -> int:
    from idemfs.check import find

    with locked_for_reading(options.store) as store:
        rows = [
            {"kind": finding.kind.value, "where": finding.where, "what": finding.what}
            for finding in find(store, read_data=options.data)
        ]
        if options.json or rows:
            listing(rows, [Column("kind"), Column("where"), Column("what")], json=options.json)
        if not options.json:
            print(f"{len(rows)} finding{'s' if len(rows) > 1 else ''}" if rows else f"clean: {_summary(store)}")
    return 1 if rows else 0


def _summary(store: Store) -> str:
    filesets = store.catalog.filesets
    inode_count = sum(fileset.inode_count for fileset in filesets.values())
    snapshot_count = sum(len(store.catalog.snapshots(number)) for number in filesets)
    sectors = store.space.sector_count - 1 - store.space.free_sectors()
    waiting = len(store.intents.pending())
    told = f"; {waiting} synced writes wait in the log for the next opening" if waiting else ""
    return f"{inode_count} files, {snapshot_count} snapshots, {format_size(sectors * 4096)} of data{told}"
