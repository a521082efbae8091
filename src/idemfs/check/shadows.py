"""What snapshots own: each version can be theirs, the index names it, and the bytes add up.

A snapshot that sees an inode and owns another record of it owns the inode too. It may own records
of an inode that it does not see, and blocks past the end of a file: an older snapshot that sees more
looks through it, or did so until it was deleted. But of inodes that are younger than itself it
owns nothing but absence: ``ABSENT`` records and holes.

Threads: under the store's lock.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from idemfs.check import records
from idemfs.check.context import Context, Span
from idemfs.check.extents import Extents, sectors_of
from idemfs.check.findings import Finding, Kind
from idemfs.check.scans import Version, pairs, versions
from idemfs.errors import Damaged
from idemfs.format import entry, keys
from idemfs.format.indirect import ShadowBlock
from idemfs.format.inode import ABSENT
from idemfs.ids import FilesetId, Ino, SnapshotId, fileset_of
from idemfs.limits import SECTOR_SIZE


class _Usage:
    """Bytes of one snapshot's extents and records."""

    __slots__ = ("data_bytes", "record_bytes")

    def __init__(self) -> None:
        self.data_bytes = 0
        self.record_bytes = 0


class ShadowRecords:
    """One pass over the shadow table. ``extents`` is given what snapshots own."""

    def __init__(self, context: Context, extents: Extents) -> None:
        self._context = context
        self._extents = extents
        self._block_size = context.store.block_size
        self._inline_size = context.store.superblock.inline_size
        self._usage: dict[tuple[FilesetId, SnapshotId], _Usage] = {}
        self._ino = Ino(-1)
        self._spans: list[Span] = []

    def check(self) -> Iterator[Finding]:
        unknown: set[tuple[FilesetId, SnapshotId]] = set()
        for key, owned in versions(self._context.store.shadow):
            try:
                records.check_key(key, self._block_size)
            except Damaged as damaged:
                yield Finding(Kind.RECORD, self._context.record(key), f"{damaged}, in the shadow table")
                continue
            fileset = FilesetId(int.from_bytes(key[:2], "big"))
            timeline = self._context.timelines.get(fileset)
            for owner, value in owned:
                if timeline is None or timeline.position(owner) is None:
                    if (fileset, owner) not in unknown and fileset not in self._context.unreadable:
                        unknown.add((fileset, owner))
                        what = "owns records and does not exist"
                        yield Finding(Kind.SNAPSHOT, f"snapshot number {owner} of fileset {fileset}", what)
                    continue
                yield from self._version(key, (owner, value))
        yield from self._compare_usage()

    def _version(self, key: bytes, version: Version) -> Iterator[Finding]:
        owner, value = version
        fileset = FilesetId(int.from_bytes(key[:2], "big"))
        usage = self._usage.setdefault((fileset, owner), _Usage())
        usage.record_bytes += len(key) + 8 + len(value)
        if self._context.store.owned.get(keys.owned(owner, key)) is None:
            yield Finding(
                Kind.OWNED, self._context.version(key, owner), "is missing in the index of what snapshots own"
            )
        try:
            block = self._decode(key, value)
        except Damaged as damaged:
            yield Finding(Kind.RECORD, self._context.version(key, owner), str(damaged))
            return
        if block is not None:
            pairs_of_block = block.entries.values()
            found = array("Q", [address for address, _ in pairs_of_block])
            usage.data_bytes += sectors_of(found) * SECTOR_SIZE
            self._extents.add(found, array("Q", [checksum for _, checksum in pairs_of_block]))
        what = self._cannot_be(key, version, block)
        if what:
            yield Finding(Kind.SHADOW, self._context.version(key, owner), what)

    def _decode(self, key: bytes, value: bytes) -> ShadowBlock | None:
        kind = keys.kind_of(key)
        if kind == keys.BLOCK:
            return records.decode_shadow_map(value)
        if value == ABSENT:
            return None
        if kind == keys.INODE:
            records.decode_inode(key, value, self._inline_size)
        elif kind == keys.ENTRY:
            entry.unpack(value)
        else:
            records.check_present(key, value)
        return None

    def _cannot_be(self, key: bytes, version: Version, block: ShadowBlock | None) -> str:
        """Why the snapshot cannot own this version; empty when it can."""
        owner, value = version
        ino = keys.ino_of(key)
        if keys.kind_of(key) == keys.INODE:
            if value == ABSENT:
                return ""
            birth, seen = int.from_bytes(value[:8], "little"), int.from_bytes(value[8:16], "little")
            return "the inode was born or seen after the snapshot" if max(birth, seen) >= owner else ""
        if value == ABSENT or (block is not None and not block.real_entries()):
            return ""
        if ino != self._ino:
            self._ino, self._spans = ino, self._context.spans(ino)
        if not self._spans:
            return ""
        if min(span.node.birth for span in self._spans) >= owner:
            return "the inode is younger than the snapshot"
        # Two primaries that took over apart from each other may have given one number to inodes of different types.
        if block is not None and not any(span.node.is_file for span in self._spans):
            return "only regular files have blocks"
        timeline = self._context.timelines[fileset_of(ino)]
        position = timeline.position(owner)
        assert position is not None
        is_seen = any(span.start <= position < span.end for span in self._spans)
        is_moving = timeline.is_going(position) or timeline.is_going(position + 1)
        if is_seen and not is_moving and self._context.store.shadow.get(keys.shadow(keys.inode(ino), owner)) is None:
            return "the snapshot owns it without the inode"
        return ""

    def _compare_usage(self) -> Iterator[Finding]:
        for number, timeline in self._context.timelines.items():
            for snapshot in timeline.snapshots:
                usage = self._usage.get((number, snapshot.id)) or _Usage()
                where = f"snapshot {snapshot.name}"
                if snapshot.data_bytes != usage.data_bytes:
                    what = f"says that it owns {snapshot.data_bytes} bytes of data; it owns {usage.data_bytes}"
                    yield Finding(Kind.USAGE, where, what)
                if snapshot.record_bytes != usage.record_bytes:
                    what = f"says that it owns {snapshot.record_bytes} bytes of records; it owns {usage.record_bytes}"
                    yield Finding(Kind.USAGE, where, what)


def check_owned(context: Context) -> Iterator[Finding]:
    """Each record of the index names a shadow record that exists."""
    shadow = context.store.shadow
    for owned_key, value in pairs(context.store.owned):
        owner, key = SnapshotId(int.from_bytes(owned_key[:8], "big")), owned_key[8:]
        if len(key) < keys.NAME_AT or value:
            yield Finding(Kind.RECORD, f"key {owned_key.hex()}", "is no record of the index of what snapshots own")
        elif shadow.get(keys.shadow(key, owner)) is None:
            yield Finding(
                Kind.OWNED, context.version(key, owner), "stands in the index, and the snapshot does not own it"
            )
