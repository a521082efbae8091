"""Remove a name with everything below it.

Threads: any; each name is removed by an operation of its own, so that others get in between.
"""

from __future__ import annotations

from idemfs.ids import Ino
from idemfs.vfs.tree import Tree

_DIRECTORY = 0o040000 >> 12


def remove_tree(tree: Tree, parent: Ino, name: bytes) -> int:
    """Remove ``name``, and if it is a directory its content first; how many names went. Raises ``OSError``.

    However deep it is: directories that are being emptied are kept in a list. A fileset in it is not emptied (EBUSY).
    """
    ino = tree.reader.named(parent, name)
    tree.refuse_junction(ino)
    if not tree.reader.inode(ino).is_dir:
        tree.unlink(parent, name)
        return 1
    count = 0
    path = [_Emptying(parent, name, ino)]
    while path:
        at = path[-1]
        if at.below:
            child, child_ino = at.below.pop()
            path.append(_Emptying(at.ino, child, child_ino))
            continue
        page = tree.reader.entries(at.ino)
        for child, child_ino, kind in page:
            if kind == _DIRECTORY:
                tree.refuse_junction(tree.reader.named(at.ino, child))
                at.below.append((child, child_ino))
            else:
                tree.unlink(at.ino, child)
                count += 1
        if not page:
            tree.rmdir(at.parent, at.name)
            count += 1
            path.pop()
    return count


class _Emptying:
    """A directory that is being emptied; ``below``: its directories that are still to be."""

    __slots__ = ("below", "ino", "name", "parent")

    def __init__(self, parent: Ino, name: bytes, ino: Ino) -> None:
        self.parent = parent
        self.name = name
        self.ino = ino
        self.below: list[tuple[bytes, Ino]] = []
