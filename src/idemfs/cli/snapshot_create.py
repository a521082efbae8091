"""``idemfs snapshot create STORE NAME…``."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="+",
        help="up to 200 bytes, without '/' and '@'; FILESET@NAME of another fileset than the root, '*@NAME' of all "
        "that match. Several are taken at one instant, all or none",
    )
    parser.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="leave out filesets that a pattern would name"
    )
    parser.add_argument(
        "--before", metavar="CMD", action="append", default=[], help="run this first; if it fails, no snapshot is taken"
    )
    parser.add_argument(
        "--after", metavar="CMD", action="append", default=[], help="run this at the end, whatever happened before"
    )
    parser.add_argument(
        "--hook-timeout", metavar="SECONDS", type=float, default=60.0, help="kill a CMD after so long (default: 60)"
    )


def run(options: Namespace) -> int | None:
    if options.before or options.after:
        return _quiesced(options)
    from idemfs import api
    from idemfs.cli.names import show_name

    with api.open(options.store) as fs:
        infos = fs.snapshots.create_all(*options.names, exclude=options.exclude)
    for info in infos:
        print(f"{show_name(info.operand)}  {info.guid}  {info.digest}")
    return None


def _quiesced(options: Namespace) -> int:
    """Hooks run in this process, which does not have the store open: also when a mount owns it, and takes them."""
    import os

    from idemfs.cli.failures import UsageError
    from idemfs.cli.main import main
    from idemfs.node.quiesce import quiesced

    if not options.hook_timeout > 0:
        raise UsageError(f"--hook-timeout is more than 0 seconds: not {options.hook_timeout:g}")
    excludes = [f"--exclude={pattern}" for pattern in options.exclude]
    environment = {"IDEMFS_STORE": os.path.abspath(options.store), "IDEMFS_SNAPSHOTS": " ".join(options.names)}
    status = 1
    try:
        with quiesced(options.before, options.after, environment, options.hook_timeout):
            status = main(["snapshot", "create", *excludes, "--", options.store, *options.names])
            if status:
                raise _Failed
    except _Failed:
        return status
    return status


class _Failed(Exception):
    """The snapshots were not taken, and it was said why."""
