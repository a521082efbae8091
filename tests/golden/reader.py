"""A reader of format 1, written from docs/FORMAT.md alone: it imports nothing of idemfs.

It reads one store whole, without regard to speed, to show that the page says enough.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb
import xxhash
import zstandard

HOLE = 0
HEAD = ("birth", "seen", "atime", "sectors", "checksum")
SHOWN = ("mode", "uid", "gid", "nlink", "rdev", "size", "mtime", "ctime", "btime")
FIELDS = (*HEAD, *SHOWN, "flags", "parent", "name_size")
REGULAR, DIRECTORY, INLINE, DYNAMIC = 0o100000, 0o040000, 1, 2

Key = bytes
Pair = tuple[int, int]


class State(NamedTuple):
    """One state of the root fileset: a snapshot, or with id None the active one."""

    id: int | None
    name: str
    guid: str
    created_ns: int
    digest: str
    data_bytes: int
    record_bytes: int


class StoreReader:
    """A store, read into memory record by record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        block = (path / "superblock").read_bytes()
        fields = struct.unpack("<8sIQQ16sIIIBq23s", block[:88])
        assert fields[0] == b"idemfs\r\n" and fields[1] == 1 and fields[3] == 0
        assert xxhash.xxh3_64_intdigest(block[:88]) == int.from_bytes(block[88:], "little")
        self.block_size, self.inline_size, self.entry_count = fields[5:8]
        self.tables: dict[str, dict[bytes, bytes]] = {}
        with lmdb.open(str(path / "meta"), readonly=True, lock=False, max_dbs=4) as env:
            for name in ("active", "shadow", "owned", "small"):
                database = env.open_db(name.encode(), create=False)
                with env.begin(database) as transaction:
                    self.tables[name] = {bytes(key): bytes(value) for key, value in transaction.cursor()}
        self.versions: dict[Key, list[tuple[int, bytes]]] = {}
        for key, value in sorted(self.tables["shadow"].items()):
            self.versions.setdefault(key[:-8], []).append((int.from_bytes(key[-8:], "big"), value))

    def states(self) -> Iterator[State]:
        fileset = self.tables["small"][b"F\0\0"]
        guid, _, newest, digest, _ = struct.unpack_from("<16sQQ16sQ", fileset)
        yield State(None, "", guid.hex(), 0, digest[::-1].hex(), 0, 0)
        while newest:
            value = self.tables["small"][struct.pack(">cQH", b"s", newest, 0)]
            guid, created, digest, data, records, state, _, older = struct.unpack_from("<16sq16sqqBQQ", value)
            if state == 0:
                yield State(newest, value[73:].decode(), guid.hex(), created, digest[::-1].hex(), data, records)
            newest = older

    def record(self, key: Key, snapshot: int | None) -> bytes | None:
        """A record that is no indirect block, as the state has it."""
        if snapshot is not None:
            for owner, value in self.versions.get(key, ()):
                if owner >= snapshot:
                    return value or None
        active = self.tables["active"].get(key)
        if active is not None and snapshot is not None and key[8:] == b"i":
            if int.from_bytes(active[:8], "little") >= snapshot:
                return None
        return active

    def keys(self) -> list[Key]:
        return sorted(self.tables["active"].keys() | self.versions.keys())

    def block_map(self, key: Key, size: int, snapshot: int | None) -> dict[int, Pair]:
        """Entry number to address and checksum, of what is no hole and lies inside the file."""
        found: dict[int, Pair] = {}
        if snapshot is not None:
            for owner, value in self.versions.get(key, ()):
                if owner >= snapshot:
                    count = int.from_bytes(value[:2], "little")
                    numbers = struct.unpack_from(f"<{count}H", value, 2)
                    places = struct.unpack_from(f"<{count}Q", value, 2 + 2 * count)
                    checks = struct.unpack_from(f"<{count}Q", value, 2 + 10 * count)
                    for number, place, check in zip(numbers, places, checks, strict=True):
                        found.setdefault(number, (place, check))
        active = self.tables["active"].get(key, b"\0\0")
        count = int.from_bytes(active[:2], "little")
        places = struct.unpack_from(f"<{count}Q", active, 2)
        checks = struct.unpack_from(f"<{count}Q", active, 2 + 8 * count)
        for number in range(count):
            found.setdefault(number, (places[number], checks[number]))
        first = int.from_bytes(key[9:], "big") * self.entry_count
        inside = {n: pair for n, pair in found.items() if (first + n) * self.block_size < size and pair[0] != HOLE}
        last = size // self.block_size
        if last - first in inside:
            inside[last - first] = self._cut(inside[last - first], size % self.block_size)
        return {number: pair for number, pair in inside.items() if pair[0] != HOLE}

    def _cut(self, pair: Pair, size: int) -> Pair:
        """The tail block, with the checksum of what is inside the file."""
        payload = self.payload(pair)
        cut = payload[:size].rstrip(b"\0") if len(payload) > size else payload
        return (pair[0], xxhash.xxh3_64_intdigest(cut)) if cut else (HOLE, 0)

    def payload(self, pair: Pair) -> bytes:
        """What an extent holds. Its checksum is that of the whole payload, before any cut."""
        sector, size, is_compressed = pair[0] & (1 << 38) - 1, pair[0] >> 38 & (1 << 23) - 1, pair[0] >> 61 & 1
        assert sector > 0 and pair[0] >> 62 == 0
        number, offset = divmod(sector * 4096, 1 << 30)
        with open(self._path / "blocks" / f"{number:08x}.seg", "rb") as file:
            file.seek(offset)
            stored = file.read(size)
        if is_compressed:
            return zstandard.ZstdDecompressor().decompress(stored, max_output_size=self.block_size)
        return stored

    def inodes(self, snapshot: int | None) -> dict[int, tuple[dict[str, int], bytes, bytes]]:
        """Number to fields, name and data."""
        found = {}
        for key in self.keys():
            if key[8:] == b"i" and (value := self.record(key, snapshot)) is not None:
                fields = dict(zip(FIELDS, struct.unpack_from("<QQqQQIIIIQQqqqBQB", value), strict=True))
                assert fields["checksum"] == xxhash.xxh3_64_intdigest(value[40:])
                name_end = 106 + fields["name_size"]
                found[int.from_bytes(key[:8], "big")] = fields, value[106:name_end], value[name_end:]
        return found

    def content(self, ino: int, size: int, snapshot: int | None) -> bytes:
        content = bytearray(size)
        for key in self.keys():
            if key[:9] == ino.to_bytes(8, "big") + b"b":
                for number, pair in self.block_map(key, size, snapshot).items():
                    start = (int.from_bytes(key[9:], "big") * self.entry_count + number) * self.block_size
                    payload = self.payload(pair)
                    content[start : start + len(payload)] = payload
        return bytes(content[:size])

    def digest(self, snapshot: int | None) -> str:
        total = 0
        inodes = self.inodes(snapshot)
        for key in self.keys():
            ino = int.from_bytes(key[:8], "big")
            if ino not in inodes:
                continue
            fields = inodes[ino][0]
            if key[8:9] == b"b":
                if fields["mode"] & 0o170000 != REGULAR or fields["flags"] & INLINE:
                    continue
                entries = self.block_map(key, fields["size"], snapshot)
                if entries:
                    checks = [entries.get(number, (0, 0))[1] for number in range(max(entries) + 1)]
                    total += xxhash.xxh3_128_intdigest(key[2:] + struct.pack(f"<{len(checks)}Q", *checks))
            elif (value := self.record(key, snapshot)) is not None:
                rest = value[40:] if key[8:] == b"i" else b"\0" + value
                total += xxhash.xxh3_128_intdigest(key[2:] + rest)
        return f"{total % (1 << 128):032x}"

    def files(self, snapshot: int | None) -> dict[str, dict[str, object]]:
        """Path to what is there, from the root down."""
        inodes = self.inodes(snapshot)
        found: dict[str, dict[str, object]] = {}

        def add(path: bytes, ino: int) -> None:
            fields, _, data = inodes[ino]
            row: dict[str, object] = {"number": ino}
            row |= {name: fields[name] for name in SHOWN}
            row["xattrs"] = {name.decode(): value[1:].hex() for name, value in self.named(ino, b"x", snapshot)}
            if fields["mode"] & 0o170000 == REGULAR:
                is_inline = fields["flags"] & INLINE
                content = data if is_inline else self.content(ino, fields["size"], snapshot)
                row["sha256"] = hashlib.sha256(content).hexdigest()
            elif fields["flags"] & DYNAMIC:
                (row["names"],) = struct.unpack("<Q", data)
            elif data:
                row["target"] = os.fsdecode(data)
            found[os.fsdecode(path)] = row
            if fields["mode"] & 0o170000 == DIRECTORY:
                for name, value in self.named(ino, b"d", snapshot):
                    add(path.rstrip(b"/") + b"/" + name, struct.unpack("<QB", value)[0])

        add(b"/", 1)
        return found

    def named(self, ino: int, kind: bytes, snapshot: int | None) -> Iterator[tuple[bytes, bytes]]:
        """The names and values of entries or attributes."""
        start = ino.to_bytes(8, "big") + kind
        for key in self.keys():
            if key.startswith(start) and (value := self.record(key, snapshot)) is not None:
                yield key[9:], value

    def filesets(self) -> dict[str, dict[str, object]]:
        """Of each fileset that is not being deleted, what its records say, and what its active records are."""
        found = {}
        for key, value in self.tables["small"].items():
            if key[:1] != b"F":
                continue
            guid, _, _, digest, _ = struct.unpack_from("<16sQQ16sQ", value)
            state, flags, compression, junction, size, inodes, sectors, record_bytes = struct.unpack(
                "<BBBQQQqq", self.tables["small"][b"U" + key[1:]]
            )
            if state:
                continue
            records = {k: v for k, v in self.tables["active"].items() if k[:2] == key[1:]}
            assert record_bytes == sum(len(k) + len(v) for k, v in records.items())
            assert sectors == sum(int.from_bytes(v[24:32], "little") for k, v in records.items() if k[8:] == b"i")
            if junction:
                mode, nlink, length = struct.unpack_from(
                    "<I8xI8xQ", self.tables["active"][junction.to_bytes(8, "big") + b"i"], 40
                )
                assert mode & 0o170000 == DIRECTORY and (nlink, length) == (2, 0)
            found[value[56:].decode()] = {
                "number": int.from_bytes(key[1:], "big"),
                "guid": guid.hex(),
                "digest": f"{int.from_bytes(digest, 'little'):032x}",
                "junction": junction,
                "quota": [size, inodes, flags, compression],
                "used": [sectors, record_bytes],
            }
        return found
