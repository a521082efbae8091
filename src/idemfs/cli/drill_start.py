"""``idemfs drill start STORE [NAME] [--snapshot SNAP] [--mount DIR] [--dry-run]``."""

from __future__ import annotations

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_dry_run, add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.api.drills import DrillPlan


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the drill (default: drill, drill-2 …)")
    parser.add_argument(
        "--snapshot", metavar="SNAP", help="of this snapshot, or FILESET@SNAP (default: what was received last)"
    )
    parser.add_argument("--mount", metavar="DIR", help="show it there; the mount ends with the drill")
    add_dry_run(parser)


def run(options: Namespace) -> int:
    from idemfs import api
    from idemfs.node.history import Event, record

    if options.mount is not None and not options.dry_run:
        _require_directory(options.mount)
    with api.open(options.store, readonly=options.dry_run) as fs:
        plan = fs.drills.plan(options.name, snapshot=options.snapshot)
        if options.dry_run:
            _show(plan, options)
            return 0
        fileset = fs.drills.start(plan.name, snapshot=options.snapshot).fileset
    of = ", ".join(show_name(snapshot) for snapshot, _ in plan.pieces)
    if options.mount is not None:
        status = _mounted(options, plan.name, fileset)
        if status:
            return status
    record(options.store, Event(what="drill start", snapshot=of, target=plan.name))
    print(f"{show_name(plan.name)}  of {of}", flush=True)
    return 0


def _mounted(options: Namespace, name: str, fileset: str) -> int:
    """Whoever asked for a mounted drill is not left with one that is not."""
    from idemfs import api
    from idemfs.cli.main import main

    status = main(["mount", options.store, options.mount, "--fileset", fileset])
    if status:
        with api.open(options.store) as fs:
            fs.drills.end(name)
    return status


def _require_directory(directory: str) -> None:
    """Before anything is begun. Raises ``OSError``."""
    import os

    if not os.path.isdir(directory):
        raise NotADirectoryError(20, "Not a directory", directory)


def _show(plan: DrillPlan, options: Namespace) -> None:
    from idemfs.cli.plans import show_rows

    rows = [("would", f"drill start {plan.name}"), ("on", options.store)]
    rows += [("clone", f"{snapshot} as fileset {name}") for snapshot, name in plan.pieces]
    if options.mount is not None:
        rows.append(("mount", options.mount))
    rows.append(("at risk", "nothing; what is written there is nobody's but this store's, and goes with the drill"))
    rows.append(("roles", "a failover, failback or switchover neither ends it nor waits for it"))
    show_rows(rows)
