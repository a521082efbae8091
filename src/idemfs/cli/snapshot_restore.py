"""``idemfs snapshot restore STORE NAME``."""

from __future__ import annotations

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_dry_run, add_store, add_yes
from idemfs.cli.render import confirm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.api import FileSystem


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the snapshot, FILESET@NAME of another fileset; newer ones stay")
    parser.add_argument(
        "--undo-name", metavar="NAME", help="of the snapshot taken first (default: before-restore-NAME)"
    )
    add_dry_run(parser)
    add_yes(parser)


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store, readonly=options.dry_run) as fs:
        if options.dry_run:
            print(f"would take a snapshot of the active state, and undo {_changes(fs, options.name)}")
            return
        fs.snapshots.info(options.name)
        confirm(
            f"Bring its fileset back to {options.name}? A snapshot of its present state is taken first.",
            yes=options.yes,
        )
        undo = fs.snapshots.restore(options.name, options.undo_name)
    print(f"restored; '{show_name(undo.operand)}' is the state before, and restoring it undoes this")


def _changes(fs: FileSystem, name: str) -> str:
    """How many changes there were since the snapshot, by kind."""
    counts: dict[str, int] = {}
    for change in fs.snapshots.diff(name):
        counts[change.kind.value] = counts.get(change.kind.value, 0) + 1
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "nothing: there were no changes"
