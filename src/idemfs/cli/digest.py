"""``idemfs digest STORE [SNAPSHOT]``: the digest of a snapshot, or of the active state; equal wherever it is held.

``--recompute`` works it out from the records, and compares: status 1 when it is another one.
"""

from __future__ import annotations

from idemfs.cli.parser import add_json, add_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument(
        "name",
        metavar="SNAPSHOT",
        nargs="?",
        help="the snapshot, if it is not named after the '@'; FILESET@ for what that has now",
    )
    parser.add_argument("--recompute", action="store_true", help="work the digest out from the records, and compare")
    add_json(parser)


def run(options: Namespace) -> int:
    name = _name(options)
    said, found = (
        _recomputed(options.target.store, name) if options.recompute else (_said(options.target.store, name), None)
    )
    if options.json:
        from json import dumps

        row = {"store": options.target.store, "snapshot": name, "digest": said}
        if found is not None:
            row["recomputed"] = found
        print(dumps([row], indent=2))
    else:
        print(said)
    if found is None or found == said:
        return 0
    from idemfs.cli.failures import Refused

    what = "the active state" if name is None else f"snapshot {name}"
    raise Refused(f"{what} has records with digest {found}: run 'idemfs check {options.target.store}'")


def _name(options: Namespace) -> str | None:
    name: str | None = options.target.snapshot
    if options.name is None:
        return name
    if name is not None:
        from idemfs.cli.failures import UsageError

        raise UsageError("the snapshot is named twice; write STORE@SNAPSHOT or STORE SNAPSHOT")
    named: str = options.name
    return named


def _said(path: str, name: str | None) -> str:
    from idemfs.errors import SnapshotMissing
    from idemfs.format.digest import to_text
    from idemfs.store.peek import read_snapshots

    where, _, name = (name or "").rpartition("@")
    [(fileset, snapshots)] = read_snapshots(path, (lambda catalog: [catalog.fileset_named(where)]) if where else None)
    if not name:
        return to_text(fileset.digest)
    for snapshot in snapshots:
        if snapshot.name == name:
            return to_text(snapshot.digest)
    raise SnapshotMissing(f"no snapshot named {name!r}; 'idemfs snapshot list {path}' shows those there are")


def _recomputed(path: str, name: str | None) -> tuple[str, str]:
    """The digest as it stands in the store, and as it is."""
    from idemfs.cli.check import locked_for_reading
    from idemfs.format.digest import to_text
    from idemfs.versions.active import Active
    from idemfs.versions.resolve import View
    from idemfs.versions.state import ActiveView, digest_of

    with locked_for_reading(path) as store:
        active = Active(store)
        fileset, snapshot_name = store.catalog.snapshot_place(name or "")
        if not snapshot_name:
            return to_text(store.catalog.filesets[fileset].digest), to_text(digest_of(ActiveView(active), fileset))
        snapshot = store.catalog.by_name(fileset, snapshot_name)
        return to_text(snapshot.digest), to_text(digest_of(View(active, snapshot.id), fileset))
