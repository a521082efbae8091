"""Change records: what a change set says, one record at a time.

Inodes are named by the 48 bits that are the same on every store. The records of a change set come in order of
their inodes; those of one inode in this order: removed, changed, blocks, then entries, links and extended attributes.
An inode that was not there brings all it has. A value of None, or an empty payload, says: not there any more.

Every record can be applied twice: each says how something is now, not what is to be added to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from idemfs.ids import Number


class InodeChange(NamedTuple):
    """An inode is new or has other attributes; ``portable`` is its record without the local head."""

    number: Number
    portable: bytes


class InodeRemoved(NamedTuple):
    """An inode is gone with every record of it. If a change follows, another one has its number now."""

    number: Number


class BlockChange(NamedTuple):
    """Block ``block`` of a file, cut at the file's size, without trailing zeros; an empty payload is a hole."""

    number: Number
    block: int
    payload: bytes | memoryview
    checksum: int


class EntryChange(NamedTuple):
    """A directory's entry; ``value`` as in its record."""

    number: Number
    name: bytes
    value: bytes | None


class LinkChange(NamedTuple):
    """A further back-reference of a hard-linked inode."""

    number: Number
    parent: Number
    name: bytes
    is_present: bool


class XattrChange(NamedTuple):
    """An extended attribute."""

    number: Number
    name: bytes
    value: bytes | None


Change: TypeAlias = InodeChange | InodeRemoved | BlockChange | EntryChange | LinkChange | XattrChange


class Cursor(NamedTuple):
    """Where a change set goes on: all inodes below ``number`` are done, and of that one its attributes and the blocks
    below ``block``. With ``block`` -1 nothing of it is. Cursors are ordered as tuples."""

    number: Number
    block: int = -1

    def is_past(self, change: Change) -> bool:
        """Whether ``change`` need not be applied again."""
        if change.number != self.number:
            return change.number < self.number
        match change:
            case InodeChange() | InodeRemoved():
                return self.block >= 0
            case BlockChange(block=block):
                return block < self.block
        return False

    def after(self, change: Change) -> Cursor:
        """Where to go on when ``change`` is applied, and all before it."""
        match change:
            case InodeRemoved(number=number):
                return Cursor(number)
            case BlockChange(number=number, block=block):
                return Cursor(number, block + 1)
        return max(self, Cursor(change.number, 0))

    def after_all(self, changes: Sequence[Change]) -> Cursor:
        """``after`` each of them in turn, none of which it is past; what is not of the last inode has no part in it."""
        first = len(changes)
        while first and changes[first - 1].number == changes[-1].number:
            first -= 1
        cursor = self
        for change in changes[first:]:
            cursor = cursor.after(change)
        return cursor

    def to_text(self) -> str:
        """``17``, or ``17:4096`` inside an inode."""
        return str(self.number) if self.block < 0 else f"{self.number}:{self.block}"


START = Cursor(Number(0))


def parse_cursor(text: str) -> Cursor:
    """What ``to_text`` gave. Raises ``ValueError``."""
    number, colon, block = text.partition(":")
    digits = number + block
    if not (digits.isascii() and digits.isdigit() and number and len(text) <= 40 and bool(colon) == bool(block)):
        raise ValueError(f"{text[:40]!r} is no cursor")
    return Cursor(Number(int(number)), int(block) if colon else -1)
