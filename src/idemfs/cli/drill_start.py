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

    if options.mount is not None and not options.dry_run:
        _refuse_mounting(options.store, options.mount)
    with api.open(options.store, readonly=options.dry_run) as fs:
        plan = fs.drills.plan(options.name, snapshot=options.snapshot)
        if options.dry_run:
            _show(plan, options)
            return 0
        fileset = fs.drills.start(plan.name, snapshot=options.snapshot).fileset
    of = ", ".join(show_name(snapshot) for snapshot, _ in plan.pieces)
    print(f"{show_name(plan.name)}  of {of}", flush=True)
    if options.mount is None:
        return 0
    from idemfs.cli.main import main

    status = main(["mount", options.store, options.mount, "--fileset", fileset])
    if status:
        # Whoever asked for a mounted drill is not left with one that is not.
        with api.open(options.store) as fs:
            fs.drills.end(plan.name)
    return status


def _refuse_mounting(store: str, directory: str) -> None:
    """A process mounts one thing. Raises ``Refused``, ``OSError``."""
    import os

    from idemfs.cli.failures import Refused
    from idemfs.engines.lock import owner
    from idemfs.store.peek import lent

    if not os.path.isdir(directory):
        raise NotADirectoryError(20, "Not a directory", directory)
    pid = os.getpid() if os.path.realpath(store) in lent else owner(store)
    if pid is not None:
        raise Refused(
            f"{store}: process {pid} has this store open: begin the drill without --mount; when that process has "
            "ended, 'idemfs mount STORE DIR --fileset NAME' shows it"
        )


def _show(plan: DrillPlan, options: Namespace) -> None:
    from idemfs.cli.plans import show_rows

    rows = [("would", f"drill start {plan.name}"), ("on", options.store)]
    rows += [("clone", f"{snapshot} as fileset {name}") for snapshot, name in plan.pieces]
    if options.mount is not None:
        rows.append(("mount", options.mount))
    rows.append(("at risk", "nothing; what is written there is nobody's but this store's, and goes with the drill"))
    rows.append(("roles", "a failover, failback or switchover neither ends it nor waits for it"))
    show_rows(rows)
