"""The guard of a store, for commands that ask it: they run in the process that has the store."""

from __future__ import annotations

from idemfs.cli.failures import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.node.guard import Guard


def guard_of(path: str) -> Guard:
    """Raises ``StoreInUse`` where another process has the store, which then runs the command; ``Refused``."""
    from idemfs.node.guard import guards
    from idemfs.store.files import open_files

    store = open_files(path, background=False)
    try:
        guard = guards.get(store.superblock.guid)
    finally:
        store.close()
    if guard is None:
        raise Refused(
            f"{path}: no guard runs; 'idemfs serve' with write_lease or automatic_failover for this store has one"
        )
    return guard
