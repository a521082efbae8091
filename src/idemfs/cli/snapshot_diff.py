"""``idemfs snapshot diff STORE BASE [TARGET]``."""

from __future__ import annotations

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.cli.render import Json
    from idemfs.snapshots.diff import Change


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("base", metavar="BASE", help="the older snapshot; FILESET@NAME of another fileset")
    parser.add_argument("target", metavar="TARGET", nargs="?", help="the newer one (default: the active state)")
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store) as fs:
        rows = [_row(change) for change in fs.snapshots.diff(options.base, options.target)]
    rows.sort(key=lambda row: str(row["path"]))
    columns = [Column("kind"), Column("path"), Column("new_path", "NEW PATH"), Column("what", show=_show_what)]
    listing(rows, columns, json=options.json)


def _row(change: Change) -> dict[str, Json]:
    return {
        "kind": change.kind.value,
        "path": change.path,
        "new_path": change.new_path,
        "what": list(change.what),
    }


def _show_what(value: Json) -> str:
    return ", ".join(map(str, value)) or "-" if isinstance(value, list) else "-"
