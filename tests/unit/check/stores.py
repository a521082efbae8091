"""The good stores that are damaged: one without snapshots, one with two."""

from __future__ import annotations

import stat
from random import Random

from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import bring_back, manage
from idemfs.testing.builders import make_directory, make_file
from idemfs.vfs.tree import Tree

BLOCK = 4096


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that cannot be compressed."""
    return Random(seed).randbytes(size)


def fresh(tree: Tree) -> None:
    """Every type of record, no snapshot."""
    root = tree.root
    outer = make_directory(tree, root, b"outer")
    inner = make_directory(tree, outer, b"inner")
    make_directory(tree, inner, b"core")
    file = make_file(tree, root, b"file", content(3 * BLOCK + 500))
    make_file(tree, root, b"other", content(2 * BLOCK, 2))
    make_file(tree, root, b"small", b"inline")
    tree.create(root, b"link", stat.S_IFLNK | 0o777, 0, 0, data=b"file")
    tree.create(root, b"pipe", stat.S_IFIFO | 0o600, 0, 0)
    twice = make_file(tree, root, b"one", b"two names")
    tree.link(twice, outer, b"two")
    tree.set_xattr(file, b"user.note", b"text")
    sparse = make_file(tree, inner, b"sparse")
    tree.write(sparse, 5 * BLOCK, b"end")


def aged(tree: Tree) -> None:
    """Snapshot 1 ``first``, changes of every record's type, snapshot 2 ``second``, a few more changes."""
    fresh(tree)
    root = tree.root
    manage.create(tree.store, ROOT_FILESET, "first")
    file = tree.reader.lookup(root, b"file")
    tree.write(file, 0, content(BLOCK, 3))
    tree.remove_xattr(file, b"user.note")
    tree.unlink(root, b"small")
    tree.append(file, b"tail")
    make_file(tree, root, b"young", content(BLOCK + 1, 4))
    manage.create(tree.store, ROOT_FILESET, "second")
    tree.write(file, BLOCK, content(BLOCK, 5))
    tree.set_attributes(tree.reader.lookup(root, b"pipe"), mode=0o644)
    make_file(tree, root, b"youngest", content(BLOCK, 6))


def shared(tree: Tree) -> None:
    """As ``aged``, brought back to ``first``, so that extents are shared."""
    aged(tree)
    bring_back.restore(tree.active, tree.store.catalog.by_name(ROOT_FILESET, "first"))
