"""The filesets of a store, in memory, written with each group that changed them.

A fileset that is being deleted has neither a name nor a junction any more.

Threads: under the store's lock.
"""

from __future__ import annotations

from idemfs.errors import Damaged, FilesetMissing
from idemfs.format import digest, keys, tables
from idemfs.format.tables import COMPLETE, DELETING, Fileset, Origin, StoreState
from idemfs.ids import NUMBER_BITS, FilesetId, Guid, Ino, make_ino
from idemfs.ids import Number as NumberType
from idemfs.store.records import Records


class FilesetTable:
    """The store's counters and its filesets: by number, by name, and where they appear."""

    def __init__(self, small: Records) -> None:
        self._small = small
        value = small.get(keys.STORE_STATE)
        if value is None:
            raise Damaged("the store has no state record; restore it from a standby or a backup")
        self.state: StoreState = tables.unpack_state(value)
        self.filesets: dict[FilesetId, Fileset] = {}
        self._changed_filesets: set[FilesetId] = set()
        self._changed_newest: set[FilesetId] = set()
        """Those that have another newest snapshot; a group of snapshots changes nothing else of most of them."""
        self._written: dict[bytes, bytes] = {}
        """What the records of filesets say, of those that changed since the store was opened."""
        self.junctions: dict[Ino, FilesetId] = {}
        """The directories where filesets appear."""
        self._numbers: dict[str, FilesetId] = {}
        """Of filesets, by their names."""
        self.limited: set[FilesetId] = set()
        """Those with a quota."""
        self.left_bytes: dict[FilesetId, int] = {}
        """What operations may still add to filesets with a quota, until the group is sealed and tells exactly."""
        self.clones: set[FilesetId] = set()
        """Those that have an origin."""
        self._promoted: set[FilesetId] = set()
        """Those that have none any more, until the group is sealed."""
        for key, value in small.scan(*keys.prefix_range(b"F"), 1 << 16):
            number = FilesetId(int.from_bytes(key[1:], "big"))
            self.filesets[number] = tables.unpack_fileset(number, value)
        for key, value in small.scan(*keys.prefix_range(b"U"), 1 << 16):
            fileset = self.filesets.get(FilesetId(int.from_bytes(key[1:], "big")))
            if fileset is not None:
                tables.unpack_usage(fileset, value)
        for key, value in small.scan(*keys.prefix_range(b"G"), 1 << 16):
            number = FilesetId(int.from_bytes(key[1:], "big"))
            if number in self.filesets:
                self.filesets[number].origin = tables.unpack_origin(number, value)
                self.clones.add(number)
        for fileset in self.filesets.values():
            self._learn(fileset)

    def _learn(self, fileset: Fileset) -> None:
        if fileset.state == COMPLETE:
            self._numbers[fileset.name] = fileset.number
        if fileset.junction:
            self.junctions[fileset.junction] = fileset.number
        if fileset.quota_bytes or fileset.quota_inodes:
            self.limited.add(fileset.number)

    def _forget(self, fileset: Fileset) -> None:
        if self._numbers.get(fileset.name) == fileset.number:
            del self._numbers[fileset.name]
        self.junctions.pop(fileset.junction, None)
        self.limited.discard(fileset.number)
        self.left_bytes.pop(fileset.number, None)

    def fileset_named(self, name: str) -> Fileset:
        """Raises ``FilesetMissing``."""
        number = self._numbers.get(name)
        if number is None:
            raise FilesetMissing(f"no fileset named {name!r}; 'idemfs fileset list STORE' shows those there are")
        return self.filesets[number]

    def has_fileset(self, name: str) -> bool:
        return name in self._numbers

    def listed_filesets(self) -> list[Fileset]:
        """The root fileset, then the others as they were made; without those that are being deleted."""
        return [fileset for fileset in self.filesets.values() if fileset.state == COMPLETE]

    def children(self, parent: FilesetId) -> list[Fileset]:
        """Those that appear in this fileset."""
        return [self.filesets[number] for ino, number in self.junctions.items() if ino >> NUMBER_BITS == parent]

    def add_fileset(self, guid: Guid, name: str, junction: Ino, compression: int) -> Fileset:
        """A new one, with no inode in it."""
        number = FilesetId(self.state.next_fileset)
        self.state.next_fileset += 1
        fileset = self.filesets[number] = Fileset(number, guid, name)
        fileset.is_counted = True
        fileset.junction = junction
        fileset.compression = compression
        self._learn(fileset)
        self.changed_fileset(number)
        return fileset

    def change_fileset(self, fileset: Fileset, *, name: str | None = None, junction: Ino | None = None) -> None:
        """Another name, or another place to appear (0: none)."""
        self._forget(fileset)
        fileset.name = fileset.name if name is None else name
        fileset.junction = fileset.junction if junction is None else junction
        self._learn(fileset)
        self.changed_fileset(fileset.number)

    def set_origin(self, fileset: Fileset, origin: Origin | None) -> None:
        """What it is a clone of; None: of nothing any more."""
        fileset.origin = origin
        if origin is None:
            self.clones.discard(fileset.number)
            self._promoted.add(fileset.number)
        else:
            self.clones.add(fileset.number)
        self.changed_fileset(fileset.number)

    def limit_fileset(self, fileset: Fileset, quota_bytes: int, quota_inodes: int, flags: int) -> None:
        """Another quota; 0 is none."""
        self._forget(fileset)
        fileset.quota_bytes, fileset.quota_inodes, fileset.flags = quota_bytes, quota_inodes, flags
        self._learn(fileset)
        self.changed_fileset(fileset.number)

    def end_fileset(self, fileset: Fileset) -> None:
        """Let it be one that is being deleted."""
        self._forget(fileset)
        fileset.state = DELETING
        fileset.name, fileset.junction = "", Ino(0)
        self.changed_fileset(fileset.number)

    def remove_fileset(self, fileset: Fileset) -> None:
        """Nothing is left of it."""
        del self.filesets[fileset.number]
        self.clones.discard(fileset.number)
        self.changed_fileset(fileset.number)

    def changed_fileset(self, number: FilesetId) -> None:
        self._changed_filesets.add(number)

    def add_to_sums(self, number: bytes, delta: int, size: int) -> None:
        """To what is kept of the active state of a fileset: its digest, and the bytes of its records.

        ``number``: as keys begin with it; empty: of no fileset.
        """
        if number:
            fileset = self.filesets[int.from_bytes(number, "big")]  # type: ignore[index]
            fileset.digest = (fileset.digest + delta) & digest.MASK
            fileset.record_bytes += size
            self.changed_fileset(fileset.number)

    def new_ino(self, fileset: Fileset) -> Ino:
        number = fileset.next_number
        fileset.next_number = number + 1
        return make_ino(fileset.number, NumberType(number))

    def _seal_filesets(self) -> None:
        for number in self._changed_filesets:
            fileset = self.filesets.get(number)
            if fileset is None:
                for key in (keys.fileset(number), keys.usage(number)):
                    self._small.put(key, None)
                    self._written.pop(key, None)
                self._drop_origin(number)
                continue
            if fileset.origin is not None:
                self._put_if_changed(keys.origin(number), fileset.origin.pack())
            elif number in self._promoted:
                self._drop_origin(number)
            self._put_if_changed(keys.fileset(number), fileset.pack())
            if fileset.is_counted:
                self._put_if_changed(keys.usage(number), fileset.pack_usage())
        stepped = self._changed_newest - self._changed_filesets
        changes = {keys.fileset(number): self.filesets[number].pack() for number in stepped}
        self._written.update(changes)
        self._small.put_all(changes)
        self._changed_filesets.clear()
        self._changed_newest.clear()
        self.left_bytes.clear()

    def _drop_origin(self, number: FilesetId) -> None:
        self._promoted.discard(number)
        self._written.pop(keys.origin(number), None)
        if self._small.get(keys.origin(number)) is not None:
            self._small.put(keys.origin(number), None)

    def _put_if_changed(self, key: bytes, value: bytes) -> None:
        known = self._written.get(key)
        if value != (self._small.get(key) if known is None else known):
            self._small.put(key, value)
        self._written[key] = value
