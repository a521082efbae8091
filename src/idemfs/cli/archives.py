"""What the commands of archives share."""

from __future__ import annotations

from idemfs.cli.render import format_time_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idemfs.cli.render import Json
    from idemfs.replication.archive import Archive
    from idemfs.replication.manifest import Point
    from idemfs.snapshots.policy import Policy


def add_archive(parser: ArgumentParser) -> None:
    """``options.archive: str``."""
    parser.add_argument("archive", metavar="DIR", help="directory of the archive")


def add_keep(parser: ArgumentParser, *, required: bool, what: str) -> None:
    """``options.keep: str | None`` and ``options.zone: str``, for ``keep_of``."""
    parser.add_argument("--keep", metavar="RULES", required=required, help=what)
    parser.add_argument(
        "--zone", metavar="NAME", default="UTC", help="time zone of days and weeks in RULES (default: UTC)"
    )


def keep_of(text: str, zone: str) -> Policy:
    """Of ``last=10 daily=7``. Raises ``UsageError``."""
    from idemfs.cli.failures import UsageError
    from idemfs.node.config import parse_keep

    try:
        keep = parse_keep(text, zone)
    except ValueError as bad:
        raise UsageError(f"--keep: {bad}") from bad
    if keep.keep_free_bytes:
        raise UsageError("--keep: 'free' is for stores: an archive frees nothing before a whole chain can go")
    return keep


def row(archive: Archive, point: Point, chain: list[Point], *, stands: bool) -> dict[str, Json]:
    return {
        "name": point.name,
        "fileset": point.fileset_name,
        "created": format_time_ns(point.created_ns),
        "created_ns": point.created_ns,
        "kind": "full" if point.base is None else "change",
        "bytes": point.bytes,
        "restore_bytes": sum(each.bytes for each in chain),
        "restore_streams": len(chain),
        "kept": point.is_kept,
        "restorable": stands,
        "purged": point.is_purged,
        "remarks": "has what was purged in the store" if point.is_purged else "",
        "guid": point.snapshot.hex(),
        "base_guid": None if point.base is None else point.base.hex(),
        "digest": f"{point.digest:032x}",
        "file": point.file,
    }
