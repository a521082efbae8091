"""``idemfs node status --config FILE``: what the process that serves this configuration says of its stores, their
links and mounts, and what keeps any of it from its work."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from idemfs.cli.links import COLUMNS, row
from idemfs.cli.names import show_name
from idemfs.cli.parser import add_config
from idemfs.cli.render import Column, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from idemfs.cli.render import Json
    from idemfs.node.node import NodeStatus, StoreStatus

_LINK_COLUMNS = [Column("store"), Column("to", "LINK"), *(Column(each) for each in COLUMNS[1:])]


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
        raise Refused(_not_asked(options.config, [store.path for store in config.stores]))
    if options.json:
        from json import dumps

        print(dumps(to_builtins(status), indent=2))
        return
    rows: list[dict[str, Json]] = [
        {**to_builtins(store), "remarks": "; ".join(_remarks(store))} for store in status.stores
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
    for store in status.stores:
        if store.links:
            print()
            listing([{"store": store.name, **row(link)} for link in store.links], _LINK_COLUMNS, json=False)
    for name, text in status.problems.items():
        print(show_name(f"{name}: {text}"))


def _remarks(store: StoreStatus) -> Iterator[str]:
    """Problems, but those of links, which stand with these."""
    if store.role == "fenced":
        yield f"epoch {store.seen_epoch} has ended its right to write: run 'idemfs failback {store.path}'"
    links = {f"link {link.to}" for link in store.links}
    for name, text in store.problems.items():
        if name not in links:
            yield f"{name}: {text}"
    for directory, what in store.more_mounts.items():
        yield f"{what} on {directory}"


def _not_asked(config: str, paths: list[str]) -> str:
    """Why nobody could be asked: it is a served store that answers."""
    from idemfs.errors import IdemfsError
    from idemfs.store.peek import read_superblock

    why = []
    for path in paths:
        try:
            read_superblock(path)
        except IdemfsError as error:
            why.append(str(error))
        else:
            why.append(f"{path}: nobody serves it")
    return (
        f"{config}: no store of it is served, so nobody can be asked: {'; '.join(why)}; see the log of 'idemfs serve'"
    )


def _asked(path: str) -> NodeStatus | None:
    from msgspec import ValidationError, convert

    from idemfs.node.local_socket import NODE, inquire
    from idemfs.node.node import NodeStatus

    try:
        return convert(inquire(path, NODE), NodeStatus)
    except ValidationError:
        # A store that a mount of its own owns: that knows no node.
        return None
