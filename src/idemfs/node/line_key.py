"""The key of one line of stores in etcd, and what is published beside it.

::

    PREFIX/FILESET/holder    JSON {"store": hex, "epoch": number}                     bound to the holder's lease
    PREFIX/FILESET/line      JSON {"epoch", "store", "asked": [hex], "recent": [hex], "created_ns", "complete_ns",
                             "time_ns"}: what the holder published last; it stays when the holder goes
    PREFIX/FILESET/paused    there while automatic failover is paused

FILESET is the guid of the root fileset, which all stores of a line have in common. Whoever changes one of them states
the revisions that it found. Nobody else writes there: a holder that is deleted by hand may still be writing.

Threads: one.
"""

from __future__ import annotations

import json

from idemfs.errors import EtcdRefused
from idemfs.failover.automatic import Holder, Line, Seen
from idemfs.failover.lease import Position
from idemfs.ids import Guid
from idemfs.node.etcd import EtcdClient, Item, Put

_NS = 1_000_000_000


class LineKey:
    """What ``store`` does with the key of its line. All raise ``EtcdLost`` and ``EtcdRefused``."""

    def __init__(self, client: EtcdClient, prefix: str, fileset: Guid, store: Guid) -> None:
        self._client = client
        self._store = store
        self._prefix = f"{prefix.rstrip('/')}/{fileset.hex()}/".encode()

    def read(self, *, keep_alive: bool = False) -> Seen:
        """What stands there; with ``keep_alive``, the lease of the key is renewed if the key is this store's."""
        items = self._client.read(self._prefix)
        holder, line = items.get(self._key("holder")), items.get(self._key("line"))
        found = None if holder is None else _unpack_holder(holder.value)
        is_mine = found is not None and found.store == self._store
        return Seen(
            holder=found,
            holder_revision=_revision(holder),
            line=None if line is None else _unpack_line(line.value),
            line_revision=_revision(line),
            is_paused=self._key("paused") in items,
            # The key goes with its lease alone, so it was there as long as that.
            is_kept=keep_alive and is_mine and holder is not None and self._client.keep_alive(holder.lease),
        )

    def claim(self, line: Line, seen: Seen, duration_ns: int) -> bool:
        """Take the key in the epoch of ``line``, if all stands as it was seen; whether it is this store's now."""
        lease = self._client.grant(-(-duration_ns // _NS))
        holder = {"store": self._store.hex(), "epoch": line.epoch}
        puts = [Put(self._key("holder"), json.dumps(holder).encode(), lease), self._put_line(line)]
        if self._client.change(self._found(seen), puts):
            return True
        self._client.revoke(lease)
        return False

    def publish(self, line: Line, seen: Seen) -> bool:
        """The line becomes this one, if all stands as it was seen; whether it did."""
        return self._client.change(self._found(seen), [self._put_line(line)])

    def give_up(self) -> None:
        """The key becomes nobody's, if it is this store's."""
        holder = self._client.read(self._key("holder")).get(self._key("holder"))
        if holder is not None and _unpack_holder(holder.value).store == self._store:
            self._client.change({self._key("holder"): holder.revision}, deletes=[self._key("holder")])

    def pause(self, is_paused: bool) -> None:
        """Whether stores of this line take over by themselves, for all of them."""
        key = self._key("paused")
        if is_paused:
            self._client.change({}, [Put(key, b"paused")])
        else:
            self._client.change({}, deletes=[key])

    def _key(self, name: str) -> bytes:
        return self._prefix + name.encode()

    def _found(self, seen: Seen) -> dict[bytes, int]:
        return {self._key("holder"): seen.holder_revision, self._key("line"): seen.line_revision}

    def _put_line(self, line: Line) -> Put:
        return Put(self._key("line"), _pack_line(line))


def _revision(item: Item | None) -> int:
    return 0 if item is None else item.revision


def _pack_line(line: Line) -> bytes:
    position = line.position
    return json.dumps(
        {
            "epoch": line.epoch,
            "store": line.store.hex(),
            "asked": [store.hex() for store in line.asked],
            "recent": [] if position is None else [guid.hex() for guid in position.recent],
            "created_ns": 0 if position is None else position.created_ns,
            "complete_ns": line.complete_ns,
            "time_ns": line.time_ns,
        }
    ).encode()


def _unpack_holder(value: bytes) -> Holder:
    try:
        found = json.loads(value)
        return Holder(store=_guid(found["store"]), epoch=int(found["epoch"]))
    except (ValueError, KeyError, TypeError) as bad:
        raise EtcdRefused("what stands in etcd as holder of this line was not written by idemfs") from bad


def _unpack_line(value: bytes) -> Line:
    try:
        found = json.loads(value)
        recent = tuple(_guid(each) for each in found["recent"])
        return Line(
            epoch=int(found["epoch"]),
            store=_guid(found["store"]),
            asked=tuple(_guid(each) for each in found["asked"]),
            position=Position(recent=recent, created_ns=int(found["created_ns"])) if recent else None,
            complete_ns=int(found["complete_ns"]),
            time_ns=int(found["time_ns"]),
        )
    except (ValueError, KeyError, TypeError) as bad:
        raise EtcdRefused("what stands in etcd of this line was not written by idemfs") from bad


def _guid(text: str) -> Guid:
    return Guid(bytes.fromhex(text))
