"""``idemfs snapshot diff STORE BASE [TARGET]``."""

from __future__ import annotations

import sys

from idemfs.cli.parser import add_store
from idemfs.cli.render import Column, listing, show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from idemfs.cli.render import Json
    from idemfs.snapshots.diff import Change
    from idemfs.snapshots.glance import Glance

_TABLE_ROW_COUNT_MAX = 20_000
"""So many rows are sorted and aligned; if there are more, all come as they are found."""
_COLUMNS = ("kind", "path", "new_path", "what")


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("base", metavar="BASE", help="the older snapshot; FILESET@NAME of another fileset")
    parser.add_argument("target", metavar="TARGET", nargs="?", help="the newer one (default: the active state)")
    parser.add_argument("--json", action="store_true", help="write one object a line, as changes are found")
    parser.add_argument(
        "--glance",
        metavar="LEVELS",
        nargs="?",
        type=int,
        const=1,
        choices=range(1, 10),
        help="count changes and bytes below the directories of so many levels (default: 1)",
    )


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store) as fs:
        changes = fs.snapshots.diff(options.base, options.target)
        if options.glance:
            _print_glance(changes, options.glance, json=options.json)
        elif options.json:
            _print_lines(changes)
        else:
            _print_table(changes)


def _print_lines(changes: Iterator[Change]) -> None:
    from json import dumps

    for change in changes:
        row = {
            "kind": change.kind.value,
            "path": change.path,
            "new_path": change.new_path,
            "type": change.type,
            "what": change.what,
            "old_size": change.old_size,
            "size": change.size,
            "ranges": change.ranges,
        }
        sys.stdout.write(dumps(row) + "\n")


def _print_table(changes: Iterator[Change]) -> None:
    from itertools import chain, islice

    columns = [Column(name) for name in _COLUMNS]
    first = [_row(change) for change in islice(changes, _TABLE_ROW_COUNT_MAX)]
    further = next(changes, None)
    if further is None:
        first.sort(key=lambda row: str(row["path"]))
        listing(first, columns, json=False)
        return
    listing(first, columns, json=False)
    from idemfs.cli.names import show_name

    for change in chain((further,), changes):
        row = _row(change)
        print("  ".join(show_name(column.show(row[column.key])) for column in columns))


def _row(change: Change) -> dict[str, Json]:
    return {
        "kind": change.kind.value,
        "path": change.path,
        "new_path": change.new_path,
        "what": ", ".join(change.what) or None,
    }


def _print_glance(changes: Iterator[Change], levels: int, *, json: bool) -> None:
    from idemfs.snapshots.glance import glance

    found = [_glance_row(each) for each in glance(changes, levels)]
    if json:
        from json import dumps

        for row in found:
            sys.stdout.write(dumps(row) + "\n")
        return
    found[-1]["path"] = "total"
    columns = [Column("path", "DIRECTORY")]
    columns += [Column(name, right=True) for name in ("added", "removed", "modified", "renamed", "metadata")]
    columns.append(Column("changed_bytes", "CHANGED BYTES", show_size, right=True))
    columns.append(Column("removed_bytes", "REMOVED BYTES", show_size, right=True))
    listing(found, columns, json=False)


def _glance_row(glance: Glance) -> dict[str, Json]:
    return {
        "path": glance.path,
        **{kind.value: count for kind, count in glance.counts.items()},
        "changed_bytes": glance.changed_bytes,
        "removed_bytes": glance.removed_bytes,
    }
