"""Changes of every kind to some files of a tree, from a seed, noted in a ledger.

Each file is changed at most once between two snapshots, so that every content that is written is the state
of some file when the next snapshot is taken.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from random import Random

from demo.ledger import Ledger
from demo.manifest import Manifest
from idemfs import FileSystem

SMALL, LARGE = 100, 1 << 20


class Changes:
    """One round of changes. ``count`` operations were done; ``bytes`` of content were written by them."""

    def __init__(self, fs: FileSystem, manifest: Manifest, ledger: Ledger, seed: int) -> None:
        """``manifest``: what ``fs`` holds now."""
        self._fs = fs
        self._ledger = ledger
        self._rng = Random(seed)
        self._seed = seed
        files = [
            path
            for path, entry in sorted(manifest.items())
            if entry.mode & 0o170000 == 0o100000 and not entry.same_as and entry.size > SMALL
        ]
        self._rng.shuffle(files)
        self._small = [path for path in files if manifest[path].size <= LARGE]
        self._large = [path for path in files if manifest[path].size > LARGE]
        self.count = 0
        self.bytes = 0

    def some_of_each(self, times: int) -> None:
        """``times`` changes of each kind, as long as there are files that were not changed yet."""
        kinds: list[Callable[[], None]] = [
            self.edit,
            self.append,
            self.truncate,
            self.punch,
            self.rename,
            self.hard_link,
            self.delete,
            self.chmod,
            self.create,
        ]
        for _ in range(times):
            for kind in kinds:
                if self._small:
                    kind()
                    self.count += 1
        for _ in range(min(2, len(self._large))):
            self._edit(self._large.pop())
            self.count += 1

    def _wrote(self, path: str, size: int) -> None:
        self._ledger.write(path, self._fs.read_bytes(path))
        self.bytes += size

    def edit(self) -> None:
        self._edit(self._small.pop())

    def _edit(self, path: str) -> None:
        data = self._rng.randbytes(SMALL)
        with self._fs.open(path, "r+b") as file:
            size = file.seek(0, 2)
            file.seek(self._rng.randrange(size - SMALL))
            file.write(data)
        self._wrote(path, len(data))

    def append(self) -> None:
        path, data = self._small.pop(), self._rng.randbytes(self._rng.randrange(1, 20_000))
        with self._fs.open(path, "ab") as file:
            file.write(data)
        self._wrote(path, len(data))

    def truncate(self) -> None:
        path = self._small.pop()
        self._fs.truncate(path, self._rng.randrange(self._fs.lstat(path).st_size))
        self._wrote(path, 0)

    def punch(self) -> None:
        path = self._small.pop()
        size = self._fs.lstat(path).st_size
        self._fs.punch_hole(path, self._rng.randrange(size), size // 2)
        self._wrote(path, 0)

    def rename(self) -> None:
        path = self._small.pop()
        self._fs.rename(path, f"{path}.renamed-{self._seed}")

    def hard_link(self) -> None:
        path = self._small.pop()
        self._fs.link(path, f"{path}.linked-{self._seed}")

    def delete(self) -> None:
        self._fs.unlink(self._small.pop())

    def chmod(self) -> None:
        self._fs.chmod(self._small.pop(), 0o640)

    def create(self) -> None:
        beside = self._small.pop()
        data = self._rng.randbytes(self._rng.randrange(10_000))
        path = posixpath.join(posixpath.dirname(beside), f"new-{self._seed}-{self.count}")
        self._fs.write_bytes(path, data)
        self._wrote(path, len(data))
