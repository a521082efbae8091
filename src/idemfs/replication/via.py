"""A standby of a standby: through which store it follows its primary. A record::

    P via    guid of that store(16)

Its link keeps sending, whatever role it has: after a failover or a switchover this store follows the same one as
before. The stores of the line do not count this one among those that know each other, so that it takes no part in their
exchanges of roles, until ``standby add`` on the primary makes it a standby like any other, and takes the record away.

Threads: under the store's lock; what is put is part of the open group.
"""

from __future__ import annotations

from idemfs.errors import Damaged
from idemfs.format import keys
from idemfs.ids import Guid
from idemfs.store.store import Store

_KEY = keys.replication("via")


def get(store: Store) -> Guid | None:
    """None: it is no standby of a standby. Raises ``Damaged``."""
    value = store.small.get(_KEY)
    if value is None:
        return None
    if len(value) != 16:
        raise Damaged("the record of the standby that this store follows is damaged")
    return Guid(value)


def put(store: Store, guid: Guid | None) -> None:
    """The caller has admitted a record."""
    if store.small.get(_KEY) != guid:
        store.small.put(_KEY, guid)
