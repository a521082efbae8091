"""``idemfs history STORE``: what was transferred, which roles changed, and who ordered it; oldest first."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, listing, show_size, show_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.cli.render import Json


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)


def run(options: Namespace) -> None:
    from msgspec import to_builtins
    from msgspec.structs import fields

    from idemfs.node.history import Event, events
    from idemfs.store.peek import read_superblock

    read_superblock(options.store)
    empty: dict[str, Json] = dict.fromkeys(field.encode_name for field in fields(Event))
    rows = [{**empty, "outcome": "done", **to_builtins(event)} for event in events(options.store)]
    columns = [
        Column("time"),
        Column("what"),
        Column("from"),
        Column("to"),
        Column("snapshot"),
        Column("bytes", show=show_size, right=True),
        Column("seconds", show=_show_seconds, right=True),
        Column("epoch", right=True),
        Column("outcome"),
        Column("by"),
    ]
    listing(rows, columns, json=options.json)


def _show_seconds(value: Json) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else show_value(value)
