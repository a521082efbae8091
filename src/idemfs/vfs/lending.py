"""A process that owns an open store lets other parts of it open the store by its path, as if it were free.

So a command does the same whether it runs by itself or in the process that has the store mounted: ``open_files``
gives it the owner's store, ``Tree`` of that is the owner's tree, and closing it commits.

Threads: any. What is lent must not be closed by its owner before the ``with`` is left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from idemfs.store import peek
from idemfs.vfs.tree import Tree


@contextmanager
def lending(path: str, tree: Tree) -> Iterator[None]:
    """``path`` names the store of ``tree`` in this process meanwhile."""
    name = os.path.realpath(path)
    assert name not in peek.lent, "a store is lent by one owner"
    tree.store.lent_by = tree
    peek.lent[name] = tree.store
    try:
        yield
    finally:
        del peek.lent[name]
        tree.store.lent_by = None
