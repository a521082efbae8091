"""What is wrong with filesets is found: their names, where they appear, what they are said to hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from idemfs import FileSystem
from idemfs.check import Kind, find
from idemfs.format.tables import DELETING, Fileset
from idemfs.ids import FilesetId, Guid, Ino, Number, make_ino
from idemfs.testing.builders import memory_store
from idemfs.vfs.tree import Tree

ROOT, OUTER, INNER = FilesetId(0), FilesetId(1), FilesetId(2)


@pytest.fixture
def fs() -> FileSystem:
    """Filesets ``outer`` at /outer and in it ``inner``; /full/of and /file."""
    fs = FileSystem(Tree(memory_store()))
    fs.filesets.create("/outer")
    fs.filesets.create("/outer/inner")
    fs.makedirs("/full/of")
    fs.write_bytes("/file", b"x" * 10_000)
    fs.write_bytes("/outer/file", b"x" * 10_000)
    fs.sync()
    return fs


def ino(fs: FileSystem, path: str) -> Ino:
    return Ino(fs.stat(path).st_ino)


def put(field: str, value: object) -> Callable[[FileSystem, Fileset], None]:
    return lambda fs, fileset: setattr(fileset, field, value)


WRONG: dict[str, tuple[FilesetId, Callable[[FileSystem, Fileset], None], Kind, str]] = {
    "appears nowhere": (INNER, put("junction", Ino(0)), Kind.FILESET, "appears nowhere"),
    "no directory": (INNER, lambda fs, f: setattr(f, "junction", ino(fs, "/file")), Kind.FILESET, "is no directory"),
    "nothing there": (INNER, put("junction", make_ino(ROOT, Number(99))), Kind.FILESET, "is no directory"),
    "not empty": (INNER, lambda fs, f: setattr(f, "junction", ino(fs, "/full")), Kind.FILESET, "not empty"),
    "twice": (
        INNER,
        lambda fs, f: setattr(f, "junction", fs.tree.store.catalog.filesets[OUTER].junction),
        Kind.FILESET,
        "appears in the directory of fileset outer",
    ),
    "in no fileset": (INNER, put("junction", make_ino(FilesetId(9), Number(1))), Kind.FILESET, "which does not exist"),
    "inside of itself": (
        OUTER,
        lambda fs, f: setattr(f, "junction", fs.tree.create(ino(fs, "/outer"), b"loop", 0o40755, 0, 0)),
        Kind.FILESET,
        "inside of itself",
    ),
    "root in a directory": (
        ROOT,
        lambda fs, f: setattr(f, "junction", ino(fs, "/full/of")),
        Kind.FILESET,
        "appears in",
    ),
    "root deleted": (ROOT, put("state", DELETING), Kind.FILESET, "is the root fileset, and is being deleted"),
    "state": (INNER, put("state", 7), Kind.FILESET, "state 7"),
    "flags": (INNER, put("flags", 64), Kind.FILESET, "flags 0x40"),
    "compression": (INNER, put("compression", 9), Kind.FILESET, "compression 9"),
    "name of another": (INNER, put("name", "outer"), Kind.FILESET, "has the name of another"),
    "no name": (INNER, put("name", "a@b"), Kind.FILESET, "'/@*?['"),
    "sectors": (OUTER, put("sectors", 2), Kind.USAGE, "has 2 sectors of data; it has 3"),
    "record bytes": (OUTER, put("record_bytes", 5), Kind.USAGE, "5 bytes of records"),
}


def test_a_clean_one(fs: FileSystem) -> None:
    assert list(find(fs.tree)) == []


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong(fs: FileSystem, case: str) -> None:
    number, change, kind, words = WRONG[case]
    store = fs.tree.store
    with store.lock:
        store.admit(10, 1000)
        fileset = store.catalog.filesets[number]
        change(fs, fileset)
        if kind is Kind.FILESET:
            store.commit()
            store.admit(10, 1000)
        store.catalog.changed_fileset(number)
    findings = list(find(fs.tree))
    assert kind in {finding.kind for finding in findings} and words in "\n".join(map(str, findings)), findings


def test_usage_of_a_fileset_that_does_not_exist(fs: FileSystem) -> None:
    with fs.tree.store.lock:
        fs.tree.store.admit(2, 1000)
        fs.tree.store.small.put(b"U\0\7", Fileset(FilesetId(7), Guid(bytes(16)), "x").pack_usage())
        fs.tree.store.small.put(b"U\0\2", b"short")
    findings = "\n".join(map(str, find(fs.tree)))
    assert "does not exist" in findings and "usage record of fileset 2 is damaged" in findings
