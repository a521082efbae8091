"""Everything that was ever written, and whether some snapshot still has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from demo.manifest import Manifest, sha256


class Readable(Protocol):
    """A snapshot."""

    def read_bytes(self, path: str) -> bytes: ...


class Ledger:
    """Each content with the path that it had when the next snapshot was taken."""

    def __init__(self) -> None:
        self._written: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._written)

    @property
    def total_bytes(self) -> int:
        return sum(self._written.values())

    def write(self, path: str, content: bytes) -> None:
        self._written[path, sha256(content)] = len(content)

    def add(self, manifest: Manifest) -> None:
        """Every file of a tree."""
        for path, entry in manifest.items():
            if entry.mode & 0o170000 == 0o100000:
                self._written[path, entry.content] = entry.size

    def first_missing(self, snapshots: Sequence[Readable], advance: Callable[[int], object]) -> str | None:
        """The first path whose content no snapshot has under this path. Everything is read."""
        for (path, content), size in sorted(self._written.items()):
            if not any(_has(snapshot, path, content) for snapshot in snapshots):
                return path
            advance(size)
        return None


def _has(snapshot: Readable, path: str, content: str) -> bool:
    try:
        return sha256(snapshot.read_bytes(path)) == content
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
