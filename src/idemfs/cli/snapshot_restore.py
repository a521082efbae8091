"""``idemfs snapshot restore STORE NAME [PATH]``.

Given a directory of a mount in the place of the store, it is done with the caller's own rights.
"""

from __future__ import annotations

from idemfs.cli.failures import UsageError
from idemfs.cli.names import show_name
from idemfs.cli.parser import add_dry_run, add_json, add_store, add_yes
from idemfs.cli.render import confirm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.api import FileSystem, RestoreInfo


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the snapshot, FILESET@NAME of another fileset; newer ones stay")
    parser.add_argument(
        "path", metavar="PATH", nargs="?", help="only this file or directory, as the snapshot has it; '/' is all of it"
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--to", metavar="PATH", help="restore to this path of the store, which nothing has, or an empty directory"
    )
    place.add_argument("--to-fileset", metavar="FILESET", help="restore into this fileset, which is empty")
    parser.add_argument(
        "--undo-name", metavar="NAME", help="of the snapshot taken first (default: before-restore-NAME)"
    )
    add_json(parser)
    add_dry_run(parser)
    add_yes(parser)


def run(options: Namespace) -> None:
    from idemfs.mount import restoring
    from idemfs.store.peek import is_store

    if options.path is None and (options.to is not None or options.to_fileset is not None):
        raise UsageError("name what is to be restored elsewhere; '/' is all that the snapshot has")
    if not is_store(options.store) and restoring.is_root(options.store):
        _restore_mounted(options)
        return
    from idemfs import api

    with api.open(options.store, readonly=options.dry_run) as fs:
        if options.path is not None:
            _restore_path(fs, options)
        elif options.dry_run:
            print(f"would take a snapshot of the active state, and undo {_changes(fs, options.name)}")
        else:
            _restore_all(fs, options)


def _restore_all(fs: FileSystem, options: Namespace) -> None:
    fs.snapshots.info(options.name)
    confirm(
        f"Bring its fileset back to {options.name}? A snapshot of its present state is taken first.",
        yes=options.yes,
    )
    undo = fs.snapshots.restore(options.name, options.undo_name)
    if options.json:
        _print_json({"undo": undo.operand})
    else:
        print(f"restored; '{show_name(undo.operand)}' is the state before, and restoring it undoes this")


def _restore_path(fs: FileSystem, options: Namespace) -> None:
    in_place = options.to is None and options.to_fileset is None
    would = _restored(fs, options, dry_run=True)
    if not options.dry_run and in_place:
        confirm(
            f"{_told(would, 'Restore', 'remove', 'give')}? A snapshot of the present state is taken first.",
            yes=options.yes,
        )
    done = would if options.dry_run else _restored(fs, options, dry_run=False)
    if options.json:
        _print_json(
            {
                "inodes": done.inode_count,
                "renumbered": done.renumbered_count,
                "removed": done.removed_count,
                "undo": None if done.undo is None else done.undo.operand,
            }
        )
    elif options.dry_run:
        print(_told(done, "would restore", "remove", "give"))
    else:
        print(_told(done, "restored", "removed", "gave"))
        if done.undo is not None:
            print(f"'{show_name(done.undo.operand)}' is the state before")


def _restore_mounted(options: Namespace) -> None:
    from idemfs.mount import restoring

    if options.path is None or options.to_fileset is not None:
        raise UsageError("through a mount a PATH is restored, as from the directory that is given, to itself or --to")
    count = restoring.count(options.store, options.name, options.path)
    if options.dry_run:
        print(f"would copy {count:,} name{'' if count == 1 else 's'}")
        return
    if options.to is None:
        confirm(f"Replace {options.path} by what {options.name} has, {count:,} names?", yes=options.yes)
    done = restoring.restore(options.store, options.name, options.path, options.to, options.undo_name)
    if options.json:
        _print_json({"names": done.count, "undo": done.undo, "left": done.left})
        return
    print(f"restored {done.count:,} name{'' if done.count == 1 else 's'}")
    if done.undo is not None:
        print(f"'{show_name(done.undo)}' is the state before")
    if done.left is not None:
        print(f"what was there could not be removed, and is {show_name(done.left)} now")


def _restored(fs: FileSystem, options: Namespace, *, dry_run: bool) -> RestoreInfo:
    return fs.snapshots.restore(
        options.name,
        options.undo_name,
        path=options.path,
        to=options.to,
        to_fileset=options.to_fileset,
        dry_run=dry_run,
    )


def _told(done: RestoreInfo, restored: str, removed: str, gave: str) -> str:
    """What is, or was, done in one line."""
    parts = [f"{restored} {done.inode_count:,} inode{'' if done.inode_count == 1 else 's'}"]
    if done.removed_count:
        parts.append(f"{removed} {done.removed_count:,} that the snapshot has not there")
    if done.renumbered_count:
        parts.append(f"{gave} {done.renumbered_count:,} another inode number")
    return ", ".join(parts)


def _print_json(value: dict[str, object]) -> None:
    import json

    print(json.dumps(value))


def _changes(fs: FileSystem, name: str) -> str:
    """How many changes there were since the snapshot, by kind."""
    counts: dict[str, int] = {}
    for change in fs.snapshots.diff(name):
        counts[change.kind.value] = counts.get(change.kind.value, 0) + 1
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "nothing: there were no changes"
