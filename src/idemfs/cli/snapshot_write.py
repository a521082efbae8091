"""``idemfs snapshot write STORE NAME``: changes are options, and are made in the order in which they are written."""

from __future__ import annotations

import os

from idemfs.cli.failures import UsageError
from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.api import WritableSnapshot

    Change = list[str]
    """The name of the change and its operands."""

CHANGES = {
    "put": (("SRC", "DEST"), "copy a file or the content of a directory of this machine into it"),
    "mkdir": (("PATH",), "make a directory, with those above it that are missing"),
    "remove": (("PATH",), "remove a file, or a directory with everything in it"),
    "rename": (("OLD", "NEW"), "give a file or directory another name"),
}
"""What can be done, with the operands and the help."""


def arguments(parser: ArgumentParser) -> None:
    from argparse import Action

    class Add(Action):
        """Each change with its name, so that their order is kept."""

        def __call__(self, parser: object, options: Namespace, values: object, option: str | None = None) -> None:
            assert isinstance(values, list) and option is not None
            options.changes = [*options.changes, [option.removeprefix("--"), *values]]

    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the snapshot; FILESET@NAME of another fileset")
    for change, (operands, what) in CHANGES.items():
        parser.add_argument(
            f"--{change}", action=Add, dest="changes", nargs=len(operands), metavar=operands, default=[], help=what
        )


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.store.peek import refuse_inside

    changes: list[Change] = options.changes
    if not changes:
        named = ", ".join(f"--{change}" for change in CHANGES)
        raise UsageError(f"say what to change: {named}; or 'idemfs mount STORE DIR --snapshot NAME --writable'")
    for change in changes:
        if change[0] == "put":
            # Before anything is changed: what is not there need not be tried.
            os.stat(change[1])
            refuse_inside(change[1])
    with api.open(options.store) as fs, fs.snapshots.write(options.name) as snapshot:
        for change in changes:
            _make(snapshot, change, options.store)


def _make(snapshot: WritableSnapshot, change: Change, store: str) -> None:
    match change:
        case ["put", source, target]:
            _put(snapshot, source, target, store)
        case ["mkdir", path]:
            snapshot.makedirs(path, exist_ok=True)
        case ["remove", path] if snapshot.is_dir(path) and not snapshot.is_symlink(path):
            snapshot.rmtree(path)
        case ["remove", path]:
            snapshot.unlink(path)
        case ["rename", old, new]:
            snapshot.rename(old, new)


def _put(snapshot: WritableSnapshot, source: str, target: str, store: str) -> None:
    from idemfs.cli.progress import CopyProgress, report
    from idemfs.vfs.copying import size_on_host
    from idemfs.vfs.copying_in import put

    here = os.stat(store)
    raw = os.fsencode(source)
    with CopyProgress("put", lambda: size_on_host(raw)) as progress:
        outcome = put(
            snapshot.tree, raw, os.fsencode(target), watcher=progress, leave_out=((here.st_dev, here.st_ino),)
        )
    report(outcome)
