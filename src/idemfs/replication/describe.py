"""Filesets of an open store as streams and links tell of them.

Holds whose owner begins with ``standby:`` are the stores' own, and are not told.

Threads: under the store's lock.
"""

from __future__ import annotations

from idemfs.format import keys
from idemfs.format.tables import SNAPSHOTS_COUNT, Fileset, Snapshot
from idemfs.ids import ROOT_FILESET, Guid, fileset_of, number_of
from idemfs.limits import HOLD_COUNT_MAX
from idemfs.replication.description import Description, Origin
from idemfs.snapshots import lines, manage
from idemfs.store.store import Store
from idemfs.vfs.tree import Tree


def describe(tree: Tree, fileset: Fileset, snapshot: Snapshot, base: Snapshot | None = None) -> Description | None:
    """For the header of a stream of ``snapshot``; None for a root fileset of which there is nothing to tell."""
    made = description_of(tree.store, fileset, snapshot)
    if base is not None and base.fileset != fileset.number:
        assert fileset.origin is not None
        above = tree.store.catalog.filesets[base.fileset]
        made = made._replace(origin=Origin(above.guid, Guid(base.guid), fileset.origin.next_number))
    plain = Description(made.line, made.name)
    return None if fileset.guid == made.line and made == plain else made


def description_of(store: Store, fileset: Fileset, snapshot: Snapshot | None = None) -> Description:
    """Everything there is to tell; without a snapshot, nothing of holds."""
    filesets = store.catalog.filesets
    above = filesets.get(fileset_of(fileset.junction)) if fileset.junction else None
    policy = store.small.get(keys.policy(fileset.number)) or b""
    line = lines.line_of(store, fileset.number)
    if line is not None and fileset.guid == line.root:
        # Where it appears is this store's affair; in its own line it is the root.
        above = None
    return Description(
        line=filesets[ROOT_FILESET].guid if line is None else line.root,
        name=fileset.name if line is None else lines.home_name(store, fileset, line),
        parent=None if above is None else above.guid,
        junction=0 if above is None else number_of(fileset.junction),
        compression=fileset.compression,
        quota_bytes=fileset.quota_bytes,
        quota_inodes=fileset.quota_inodes,
        flags=fileset.flags & SNAPSHOTS_COUNT,
        policy=policy.decode(),
        holds=() if snapshot is None else holds_of(store, snapshot),
        locked_until_ns=0 if snapshot is None else manage.locked_until(store, snapshot),
    )


def holds_of(store: Store, snapshot: Snapshot) -> tuple[tuple[str, int], ...]:
    """Who holds it until when, but for stores."""
    now_ns = store.clock.now_ns()
    found = []
    for key, value in store.small.scan(*keys.hold_range(snapshot.id), HOLD_COUNT_MAX):
        owner, expires_ns = key[9:].decode(), int.from_bytes(value, "little")
        if expires_ns > now_ns and not owner.startswith(manage.STANDBY_PREFIX):
            found.append((owner, expires_ns))
    return tuple(found)
