"""The digest of a fileset's state: a multiset hash over its records.

The digest is the sum, modulo 2**128, of the xxh3-128 of each record's portable
bytes: the key without its fileset, and what is the same on every standby
(an inode without its local head, checksums without addresses). A sum can be
kept as records change: add the new record, subtract the old one.
It finds accidents; it is no defence against somebody who forges records.

Source: Clarke et al., "Incremental Multiset Hash Functions", ASIACRYPT 2003 (AdHash form).
"""

from __future__ import annotations

from xxhash import xxh3_128_intdigest

from idemfs.format.inode import LOCAL_SIZE

MASK = (1 << 128) - 1
EMPTY = 0


def contribution(key: bytes, value: bytes) -> int:
    """What the active record ``key``: ``value`` adds to the digest of its fileset."""
    kind = key[8]
    if kind == 0x69:  # inode
        return xxh3_128_intdigest(key[2:] + value[LOCAL_SIZE:])
    if kind == 0x62:  # indirect block
        return xxh3_128_intdigest(key[2:] + value[2 + (len(value) - 2) // 2 :])
    return xxh3_128_intdigest(key[2:] + b"\0" + value)


def to_text(digest: int) -> str:
    return f"{digest:032x}"
