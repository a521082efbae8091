"""A fileset of a standby that has no snapshot in common with its primary any more begins anew, and loses nothing.

Its snapshots stay, as ones that diverged: kept until somebody releases them. Its active state becomes empty, which
moves what is there to its newest snapshot and copies nothing. The base record says that nothing of it is received, and
so a full stream fills it again, as snapshots of the same fileset.

Invariant: while it is being emptied, its receiving record says that something is being undone. Whoever finds that
after a crash goes back to the base, as after any change set that is dropped; and the command is repeated.

Threads: the store's lock is held for one step at a time.
"""

from __future__ import annotations

from idemfs.errors import StreamRefused
from idemfs.ids import FilesetId, Guid
from idemfs.replication import partial
from idemfs.replication.applier import empty
from idemfs.replication.apply import drop_partial
from idemfs.replication.partial import Partial
from idemfs.replication.records import START
from idemfs.snapshots import diverged, received
from idemfs.vfs.tree import Tree


def begin(tree: Tree, number: FilesetId) -> None:
    """Durable on return; one that has begun anew already stays so. Raises ``StreamRefused``, ``NoSpace``,
    ``CommitFailed``."""
    store = tree.store
    drop_partial(tree, number)
    with store.exclusive():
        if received.is_anew(store, number):
            return
        known = store.catalog.snapshots(number)
        fileset = store.catalog.filesets[number]
        if fileset.origin is not None:
            raise StreamRefused(
                f"fileset {fileset.name!r} is a clone, which cannot begin anew: 'idemfs fileset promote' makes it "
                "independent where the store is primary; or make a new standby"
            )
        base = received.base(store, number)
        if base is None or not known:
            return
        store.admit(2 + len(known), 200 * len(known) + partial.RECORD_SIZE_MAX)
        diverged.put_newer(store, number, None, tree.role.epoch)
        partial.put(store, Partial(Guid(base.guid), None, START, base.name, is_dropping=True), number)
        # crash: from here on the active state is not to be relied on, and goes back to the base.
        store.commit()
    empty(tree, number)
    with store.exclusive():
        # crash: the digest is that of the active state only when all is committed.
        store.commit()
        assert fileset.digest == 0 and fileset.inode_count == 0, "what is emptied holds nothing"
        store.admit(4, partial.RECORD_SIZE_MAX + 300)
        received.put_anew(store, number)
        partial.put(store, None, number)
        tree.moves += 1
        # crash: one group says that nothing is being undone, and that nothing was received.
        store.commit()
