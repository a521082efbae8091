"""``idemfs node peers --config FILE``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.nodes import keys_of
from idemfs.cli.parser import add_config, add_json
from idemfs.cli.render import Column, format_time_ns, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.cli.render import Json


def arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)


def run(options: Namespace) -> None:
    rows: list[dict[str, Json]] = [
        {
            "name": peer.name,
            "url": peer.url or None,
            "fingerprint": peer.fingerprint,
            "paired": format_time_ns(peer.paired_ns),
        }
        for peer in keys_of(options).peers()
    ]
    listing(rows, [Column("name"), Column("url"), Column("fingerprint"), Column("paired")], json=options.json)
