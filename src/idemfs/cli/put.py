"""``idemfs put STORE SRC DEST``."""

from __future__ import annotations

import os

from idemfs.cli.parser import add_dry_run, add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.api import FileSystem


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("source", metavar="SRC", help="a directory, whose content is copied, or a file")
    parser.add_argument("target", metavar="DEST", help="where in the store; what is missing of it is made")
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="also remove what SRC does not have, and skip files whose size and time agree",
    )
    add_dry_run(parser)


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.progress import CopyProgress, report
    from idemfs.store.peek import refuse_inside
    from idemfs.vfs.copying import size_on_host
    from idemfs.vfs.copying_in import put

    source, target = os.fsencode(options.source), os.fsencode(options.target)
    # Before the store is opened: what is not there need not lock it.
    os.stat(source)
    refuse_inside(options.source)
    with api.open(options.store) as fs:
        if options.dry_run:
            _show_plan(fs, source, target, options.mirror)
            return
        here = os.stat(options.store)
        with CopyProgress("put", lambda: size_on_host(source)) as progress:
            outcome = put(
                fs.tree,
                source,
                target,
                mirror=options.mirror,
                watcher=progress,
                leave_out=((here.st_dev, here.st_ino),),
            )
    report(outcome)


def _show_plan(fs: FileSystem, source: bytes, target: bytes, mirror: bool) -> None:
    """A line for each name that would not stay as it is; how many would be made or kept."""
    from collections import Counter

    from idemfs.cli.names import show_name
    from idemfs.vfs.copying_plan import Action, plan

    counts: Counter[Action] = Counter()
    for action, path in plan(fs.reader, source, target, mirror=mirror):
        counts[action] += 1
        if action in (Action.REPLACE, Action.REMOVE, Action.REFUSE):
            print(f"would {action.value} {show_name(path)}")
    print(
        "in all: "
        + (", ".join(f"{action.value} {counts[action]:,}" for action in Action if counts[action]) or "nothing")
    )
