"""``idemfs standby list STORE``: reads last committed groups, and takes no lock."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, listing, show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.cli.render import Json


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs.failover.places import open_stage
    from idemfs.failover.records import get_peers
    from idemfs.failover.status import status
    from idemfs.node.connecting import connecting_for

    with open_stage(options.store, readonly=True, connect=connecting_for(options.store)) as stage:
        found = {row.guid: row for row in status(stage)}
        peers = get_peers(stage.me.store)
    rows: list[dict[str, Json]] = []
    for peer in peers:
        row = found[peer.guid.hex()]
        rows.append(
            {
                "name": peer.name,
                "path": peer.path,
                "guid": row.guid,
                "is_reachable": row.is_reachable,
                "role": row.role,
                "newest": row.newest,
                "behind_snapshots": row.behind_snapshots,
                "behind_bytes": row.behind_bytes,
            }
        )
    columns = [
        Column("name"),
        Column("path"),
        Column("is_reachable", "REACHABLE"),
        Column("role"),
        Column("newest", "NEWEST SNAPSHOT"),
        Column("behind_snapshots", "BEHIND", right=True),
        Column("behind_bytes", "BYTES", show_size, right=True),
    ]
    listing(rows, columns, json=options.json)
