"""``idemfs fileset list STORE``: reads the last committed group, and takes no lock."""

from __future__ import annotations

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, listing, show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.cli.render import Json
    from idemfs.snapshots.usage import FilesetInfo


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--shared", action="store_true", help="count what they share, which takes a while")
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store, readonly=True) as fs:
        rows = [row(info) for info in fs.filesets.list(shared=options.shared)]
    columns = [
        Column("name"),
        Column("path"),
        Column("inodes", right=True),
        Column("active_bytes", "ACTIVE", show_size, right=True),
        Column("snapshots", right=True),
        Column("snapshot_bytes", "OWNED", show_size, right=True),
        Column("quota_bytes", "QUOTA", show_size, right=True),
        Column("quota_inodes", "INODE QUOTA", right=True),
    ]
    if options.shared:
        columns.insert(6, Column("shared_bytes", "SHARED", show_size, right=True))
    if any(each["origin"] for each in rows):
        columns.append(Column("origin"))
    listing(rows, columns, json=options.json)


def row(info: FilesetInfo) -> dict[str, Json]:
    return {
        "name": info.name,
        "path": info.path,
        "guid": info.guid,
        "inodes": info.inode_count,
        "active_bytes": info.active_bytes,
        "snapshots": info.snapshot_count,
        "snapshot_bytes": info.snapshot_bytes,
        "shared_bytes": info.shared_bytes,
        "quota_bytes": info.quota_bytes,
        "quota_inodes": info.quota_inodes,
        "quota_counts_snapshots": info.snapshots_count,
        "compression": info.compression,
        "origin": info.origin,
        "origin_deleted": info.origin_deleted,
    }
