"""``idemfs snapshot run-due STORE``: one step of its schedules, for cron or a timer."""

from __future__ import annotations

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.cli.render import Json


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)


def run(options: Namespace) -> int:
    import sys

    from idemfs import api
    from idemfs.node.quiesce import scheduled
    from idemfs.snapshots import automatic

    with api.open(options.store) as fs:
        filesets = fs.tree.store.catalog.filesets
        rows: list[dict[str, Json]] = []
        failed = False
        for run in automatic.run_due(fs.tree.active, quiesce=scheduled(fs.tree.store)):
            fileset = filesets[run.fileset].name
            if run.failure:
                failed = True
                print(f"idemfs: schedule of fileset {fileset}: {run.failure}", file=sys.stderr)
            if run.taken is not None:
                rows.append({"fileset": fileset, "action": "take", "name": run.taken.name, "reason": run.reason})
            for each in run.deleted:
                rows.append({"fileset": fileset, "action": "delete", "name": each.snapshot.name, "reason": each.reason})
    if options.json or rows:
        columns = [Column("fileset"), Column("action"), Column("name"), Column("reason", "WHY")]
        listing(rows, columns, json=options.json)
    return 1 if failed else 0
