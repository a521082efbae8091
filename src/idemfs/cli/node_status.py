"""``idemfs node status --config FILE``: what the process that serves this configuration says of its stores."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_config
from idemfs.cli.render import Column, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.cli.render import Json
    from idemfs.node.node import NodeStatus


def arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="write one object instead of a table")


def run(options: Namespace) -> None:
    from msgspec import to_builtins

    from idemfs.cli.failures import Refused
    from idemfs.node.config import read_config

    config = read_config(os.path.abspath(options.config))
    status = next((found for store in config.stores if (found := _asked(store.path)) is not None), None)
    if status is None:
        raise Refused(f"{options.config}: no process that serves it answers at the socket of any of its stores")
    if options.json:
        from json import dumps

        print(dumps(to_builtins(status), indent=2))
        return
    rows: list[dict[str, Json]] = [
        {**to_builtins(store), "remarks": "; ".join(f"{name}: {text}" for name, text in store.problems.items())}
        for store in status.stores
    ]
    columns = [
        Column("name"),
        Column("path"),
        Column("is_served", "SERVED"),
        Column("role"),
        Column("epoch", right=True),
        Column("mount"),
        Column("remarks"),
    ]
    listing(rows, columns, json=False)
    for name, text in status.problems.items():
        print(f"{name}: {text}")


def _asked(path: str) -> NodeStatus | None:
    from msgspec import ValidationError, convert

    from idemfs.node.local_socket import NODE, inquire
    from idemfs.node.node import NodeStatus

    try:
        return convert(inquire(path, NODE), NodeStatus)
    except ValidationError:
        # A store that a mount of its own owns: that knows no node.
        return None
