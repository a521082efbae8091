"""``idemfs snapshot list STORE``: reads the last committed group, and takes no lock."""

from __future__ import annotations

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, format_time_ns, listing, show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.cli.render import Json
    from idemfs.snapshots.info import SnapshotInfo


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs.snapshots.info import SnapshotInfo
    from idemfs.store.peek import read_snapshots

    fileset, snapshots = read_snapshots(options.store)
    columns = [
        Column("name"),
        Column("created"),
        Column("owned_bytes", "OWNED", show_size, right=True),
        Column("id", right=True),
        Column("digest"),
    ]
    listing([row(SnapshotInfo(each, fileset)) for each in snapshots], columns, json=options.json)


def row(info: SnapshotInfo) -> dict[str, Json]:
    return {
        "name": info.name,
        "fileset": info.fileset,
        "id": info.id,
        "guid": info.guid,
        "created": format_time_ns(info.created_ns),
        "created_ns": info.created_ns,
        "owned_bytes": info.owned_bytes,
        "digest": info.digest,
    }
