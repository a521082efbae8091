"""Access control lists, and what follows a mode, an owner, or a write."""

from __future__ import annotations

import errno
import stat

import pytest

from idemfs.ids import ROOT_INO
from idemfs.testing.builders import assert_clean, memory_store
from idemfs.vfs import acl
from idemfs.vfs.tree import AllocateFlag, Tree

NOBODY = 0xFFFFFFFF
LIST = [(1, 7, NOBODY), (2, 7, 2), (4, 5, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY)]
"""The owner all, user 2 all, the group to read and execute, the mask all, others nothing."""
PLAIN = [(1, 6, NOBODY), (4, 4, NOBODY), (32, 4, NOBODY)]


@pytest.fixture
def tree() -> Tree:
    return Tree(memory_store())


def make(tree: Tree, name: bytes, mode: int = stat.S_IFREG | 0o666, umask: int | None = 0o022) -> None:
    tree.create(ROOT_INO, name, mode, 0, 0, umask=umask)


def test_packing() -> None:
    assert acl.unpack(acl.pack(LIST)) == LIST
    for wrong in (b"", b"\x01\0\0\0", acl.pack(LIST)[:-1]):
        with pytest.raises(OSError) as caught:
            acl.unpack(wrong)
        assert caught.value.errno == errno.EINVAL


def test_modes() -> None:
    assert acl.is_extended(LIST) and not acl.is_extended(PLAIN)
    assert acl.mode_of(LIST, 0o100644) == 0o100770 and acl.mode_of(PLAIN, 0o6777) == 0o6644
    assert acl.with_mode(LIST, 0o641) == [(1, 6, NOBODY), (2, 7, 2), (4, 5, NOBODY), (16, 4, NOBODY), (32, 1, NOBODY)]
    assert acl.inherit(LIST, 0o100664) == (
        0o100660,
        [(1, 6, NOBODY), (2, 7, 2), (4, 5, NOBODY), (16, 6, NOBODY), (32, 0, NOBODY)],
    )


def test_a_default_list_is_inherited_and_the_umask_is_not(tree: Tree) -> None:
    make(tree, b"plain")
    assert tree.reader.inode(tree.reader.lookup(ROOT_INO, b"plain")).mode == stat.S_IFREG | 0o644
    tree.set_xattr(ROOT_INO, acl.DEFAULT, acl.pack(LIST))
    make(tree, b"f", umask=0o777)
    make(tree, b"d", stat.S_IFDIR | 0o777)
    make(tree, b"api", umask=None)
    file, directory, other = (tree.reader.lookup(ROOT_INO, name) for name in (b"f", b"d", b"api"))
    assert tree.reader.inode(file).mode == stat.S_IFREG | 0o660
    assert tree.reader.xattr_names(file) == [acl.ACCESS] and tree.reader.xattr_names(other) == []
    assert tree.reader.xattr(directory, acl.DEFAULT) == acl.pack(LIST)
    assert_clean(tree)


def test_mode_and_list_say_the_same(tree: Tree) -> None:
    make(tree, b"f")
    file = tree.reader.lookup(ROOT_INO, b"f")
    tree.set_acl(file, acl.pack(LIST))
    assert tree.reader.inode(file).mode & 0o777 == 0o770
    tree.set_attributes(file, mode=0o701)
    assert acl.mode_of(acl.unpack(tree.reader.xattr(file, acl.ACCESS)), 0) == 0o701
    tree.set_acl(file, acl.pack(PLAIN))
    assert tree.reader.inode(file).mode & 0o777 == 0o644 and tree.reader.xattr_names(file) == []
    assert_clean(tree)


@pytest.mark.parametrize(("mode", "after"), [(0o6777, 0o777), (0o6766, 0o2766), (0o4600, 0o600), (0o2610, 0o610)])
def test_bits_that_give_rights_go(tree: Tree, mode: int, after: int) -> None:
    make(tree, b"f")
    file = tree.reader.lookup(ROOT_INO, b"f")
    tree.set_attributes(file, mode=mode)
    tree.set_attributes(file, uid=5)
    assert tree.reader.inode(file).mode & 0o7777 == after
    tree.set_attributes(file, mode=mode)
    tree.clear_set_id(file)
    assert tree.reader.inode(file).mode & 0o7777 == after


def test_capabilities_go_with_a_change_of_content(tree: Tree) -> None:
    make(tree, b"f", stat.S_IFREG | 0o755)
    file = tree.reader.lookup(ROOT_INO, b"f")
    tree.set_xattr(file, b"security.capability", b"x")
    tree.drop_capability(file)
    assert tree.reader.xattr_names(file) == []
    tree.drop_capability(file)
    assert_clean(tree)


def test_allocating_and_seeking(tree: Tree) -> None:
    make(tree, b"f")
    file, block = tree.reader.lookup(ROOT_INO, b"f"), tree.store.block_size
    tree.write(file, 0, b"x" * (3 * block))
    tree.allocate(file, 0, 5 * block)
    assert tree.reader.inode(file).size == 5 * block
    tree.allocate(file, block, block, AllocateFlag.PUNCH_HOLE | AllocateFlag.KEEP_SIZE)
    tree.allocate(file, 4 * block, 4 * block, AllocateFlag.ZERO_RANGE | AllocateFlag.KEEP_SIZE)
    assert tree.reader.inode(file).size == 5 * block
    tree.allocate(file, 4 * block, 4 * block, AllocateFlag.ZERO_RANGE)
    assert tree.reader.inode(file).size == 8 * block
    holes = [tree.reader.seek(file, each * block, hole=True) // block for each in range(8)]
    assert holes == [1, 1, 3, 3, 4, 5, 6, 7]
    data = [tree.reader.seek(file, each * block, hole=False) // block for each in range(3)]
    assert data == [0, 2, 2]
    for offset, hole in ((3 * block, False), (8 * block, True), (-1, True)):
        with pytest.raises(OSError) as caught:
            tree.reader.seek(file, offset, hole=hole)
        assert caught.value.errno == errno.ENXIO
    for flags in (AllocateFlag.PUNCH_HOLE, AllocateFlag(8)):
        with pytest.raises(OSError) as caught:
            tree.allocate(file, 0, 1, flags)
        assert caught.value.errno == errno.EOPNOTSUPP
    assert_clean(tree)


def test_what_holds_anything_takes_room(tree: Tree) -> None:
    make(tree, b"f")
    file = tree.reader.lookup(ROOT_INO, b"f")
    for size, least, most in ((0, 0, 0), (1, 1, 1), (100_000, 1, 32)):
        tree.truncate(file, 0)
        tree.write(file, 0, b"x" * size)
        count = tree.reader.sector_count(file, tree.reader.inode(file))
        assert least <= count <= most
