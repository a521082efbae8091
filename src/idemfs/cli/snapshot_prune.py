"""``idemfs snapshot prune STORE``."""

from __future__ import annotations

import sys

from idemfs.cli.filesets import add_fileset, snapshots_of
from idemfs.cli.parser import add_dry_run, add_json, add_store, add_yes
from idemfs.cli.render import Column, confirm, format_size, format_time_ns, listing, show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable

    from idemfs.api.schedule import Verdict
    from idemfs.cli.render import Json


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_fileset(parser)
    add_dry_run(parser)
    add_json(parser)
    add_yes(parser)


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store, readonly=options.dry_run) as fs:
        schedule = snapshots_of(fs, options.fileset).schedule
        verdicts = schedule.plan()
        going = [each for each in verdicts if not each.keeps]
        freed = schedule.bytes_freed(verdicts)
        if options.dry_run:
            _show(verdicts, json=options.json)
            if not options.json:
                print(f"would delete {len(going)} of {len(verdicts)} snapshots; {format_size(freed)} come back")
            return
        if going and sys.stdin.isatty():
            names = ", ".join(each.snapshot.name for each in going)
            confirm(f"Delete {names}? What no other snapshot keeps is gone.", yes=options.yes)
        deleted = schedule.prune()
    if options.json or deleted:
        _show(deleted, json=options.json)


def _show(verdicts: Iterable[Verdict], *, json: bool) -> None:
    columns = [
        Column("name"),
        Column("action"),
        Column("owned_bytes", "OWNED", show_size, right=True),
        Column("reason", "WHY"),
    ]
    listing([row(each) for each in verdicts], columns, json=json)


def row(verdict: Verdict) -> dict[str, Json]:
    snapshot = verdict.snapshot
    return {
        "name": snapshot.name,
        "id": snapshot.id,
        "created": format_time_ns(snapshot.created_ns),
        "action": "keep" if verdict.keeps else "delete",
        "reason": verdict.reason,
        "owned_bytes": snapshot.owned_bytes,
    }
