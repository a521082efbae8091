"""``idemfs archive check DIR``."""

from __future__ import annotations

import os

from idemfs.cli.archives import add_archive
from idemfs.cli.names import show_name
from idemfs.cli.parser import add_json
from idemfs.cli.render import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_archive(parser)
    parser.add_argument(
        "--repair", action="store_true", help="make the manifest again from the streams, if it is lost or damaged"
    )
    add_json(parser)


def run(options: Namespace) -> int:
    from idemfs.errors import ArchiveError
    from idemfs.ids import Guid
    from idemfs.replication import manifest as manifests
    from idemfs.replication.archive import locked, open_archive, rebuild

    is_rebuilt = False
    try:
        archive = open_archive(options.archive)
    except ArchiveError:
        if not options.repair or not os.path.isdir(options.archive):
            raise
        with locked(options.archive):
            rebuild(options.archive, Guid(os.urandom(16)))
        archive, is_rebuilt = open_archive(options.archive), True
    findings = list(archive.check())
    bad = {each.file for each in findings if each.is_used}
    points = archive.manifest.points
    left = manifests.standing(points, lambda each: archive.path_of(each) not in bad)
    newest = manifests.restorable(archive.manifest, left)
    if options.json:
        from json import dumps

        found = [{"file": each.file, "problem": each.problem, "used": each.is_used} for each in findings]
        answer = {
            "points": len(points),
            "restorable": len(left),
            "newest": None if newest is None else newest.operand,
            "manifest_made_again": is_rebuilt,
            "findings": found,
        }
        print(dumps(answer, indent=2))
        return 1 if bad else 0
    if is_rebuilt:
        print("the manifest was made again from the streams")
    for each in findings:
        print(f"{show_name(each.file)}: {each.problem}")
    if not bad:
        print(f"{len(points)} streams, {format_size(sum(each.bytes for each in points))}: all whole")
        return 0
    rest = f"up to '--to {show_name(newest.operand)}'" if newest is not None else "none of them with all filesets"
    print(f"{len(left)} of {len(points)} snapshots can be restored, {rest}")
    return 1
