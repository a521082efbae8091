"""A difference at a glance: how many changes, and of how many bytes, below each directory near the root.

Directories whose entries alone changed are not counted: the changes in them are.

Threads: any; everything here is values.
"""

from __future__ import annotations

from collections.abc import Iterable

from idemfs.snapshots.diff import Change, ChangeKind


class Glance:
    """What changed below one directory."""

    __slots__ = ("changed_bytes", "counts", "path", "removed_bytes")

    def __init__(self, path: str) -> None:
        self.path = path
        self.counts = dict.fromkeys(ChangeKind, 0)
        """Changes by their kind; of what was renamed, where it is now."""
        self.changed_bytes = 0
        """Content that the target has and the base has not."""
        self.removed_bytes = 0
        """By which files became shorter, or that went with them."""

    def add(self, change: Change) -> None:
        self.counts[change.kind] += 1
        self.changed_bytes += change.changed_bytes
        self.removed_bytes += change.removed_bytes

    def __repr__(self) -> str:
        return f"<Glance {self.path!r} changed_bytes={self.changed_bytes} removed_bytes={self.removed_bytes}>"


def glance(changes: Iterable[Change], levels: int = 1) -> list[Glance]:
    """By the directories of the first ``levels`` levels, by path, and at last all together with an empty path."""
    total = Glance("")
    found: dict[str, Glance] = {}
    for change in changes:
        if change.what == ("entries",) and change.kind is ChangeKind.MODIFIED:
            continue
        path = _directory(change.new_path or change.path, levels)
        at = found.get(path)
        if at is None:
            at = found[path] = Glance(path)
        at.add(change)
        total.add(change)
    return [*(found[path] for path in sorted(found)), total]


def _directory(path: str, levels: int) -> str:
    """The directory of a path, or the one above it that is as deep as is asked for."""
    return "/" + "/".join(path.split("/")[1:-1][:levels])
