"""docs/FORMAT.md names every key and every layout, and its tables add up."""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from idemfs import limits
from idemfs.format import address, superblock
from idemfs.replication import partial

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / "docs" / "FORMAT.md").read_text()
FORMAT = ROOT / "src" / "idemfs" / "format"


def trees(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(folder.rglob("*.py")):
        yield file.name, ast.parse(file.read_text())


def calls(folder: Path, name: str) -> list[str]:
    """The texts that this function, or method, is called with."""
    found = []
    for _, tree in trees(folder):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called == name and isinstance(node.args[0].value, str):
                    found.append(node.args[0].value)
    return found


def test_every_layout_is_there_with_its_size() -> None:
    layouts = [*calls(FORMAT, "Struct"), partial._LAYOUT.format]
    assert len(layouts) >= 9
    for layout in layouts:
        assert f"`{layout}`" in DOCUMENT, layout


@pytest.mark.parametrize(
    ("layout", "said"),
    re.findall(r"`(<[0-9a-zA-Z]+)`, (\d+) bytes", DOCUMENT),
)
def test_the_sizes_that_it_gives(layout: str, said: str) -> None:
    assert struct.calcsize(layout) == int(said)


def test_every_key_is_there() -> None:
    letters = {
        node.value
        for node in ast.walk(ast.parse((FORMAT / "keys.py").read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, bytes) and len(node.value) == 1
    }
    prefixes = {letter.decode() for letter in letters if letter.isalpha()}
    assert prefixes == set("ibdlxTEsFROHPDKLIUGWYVQAZNB")
    in_tables = set(re.findall(r"^\| `(?:active|small)` \|[^|]*?`([a-zA-Z])`", DOCUMENT, re.MULTILINE))
    assert in_tables == prefixes


def test_every_record_of_what_is_under_way_is_there() -> None:
    names = set(calls(ROOT / "src" / "idemfs", "replication"))
    assert {"role", "base", "restore"} <= names
    assert {name for name in names if f"| `P {name}` " not in DOCUMENT} == set()


def tables() -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """The format string before a table of fields, and (at, size) of its rows that have both."""
    for part in re.split(r"^(?=.*`<\w+`, )", DOCUMENT, flags=re.MULTILINE):
        layout = re.match(r".*?`(<\w+)`, ", part)
        rows = re.findall(r"^\| (\d+) \| (\d+) \|", part.partition("\n#")[0], re.MULTILINE)
        if layout and rows:
            yield layout[1], [(int(at), int(size)) for at, size in rows]


def test_its_tables_add_up() -> None:
    found = dict(tables())
    assert len(found) == 6
    for layout, rows in found.items():
        end = 0
        for at, size in rows:
            assert at == end, layout
            end = at + size
        # The superblock's own checksum stands behind its layout.
        assert end == struct.calcsize(layout) + (8 if layout.startswith("<8s") else 0)


def test_its_numbers_are_those_of_the_code() -> None:
    assert superblock.VERSION == 1 and "# The format of a store, version 1" in DOCUMENT
    assert superblock.INCOMPATIBLE_KNOWN == 0
    assert (limits.SECTOR_SIZE, limits.INDIRECT_ENTRY_COUNT, limits.SEGMENT_SIZE) == (4096, 512, 1 << 30)
    assert (limits.BLOCK_SIZE_MIN, limits.BLOCK_SIZE_MAX, limits.INLINE_SIZE_MAX) == (4096, 4194304, 1536)
    assert (limits.KEY_SIZE_MAX, limits.RECORD_SIZE_MAX, limits.XATTR_VALUE_SIZE_MAX) == (300, 100_000, 65536)
    assert limits.LOG_HALF_SECTOR_COUNT == 512 and "sectors 513 to 1024" in DOCUMENT
    assert limits.SNAPSHOT_ID_MAX == (1 << 56) - 1
    assert (address.SECTOR_BITS, address.SIZE_BITS, address.HOLE, address.DITTO) == (38, 23, 0, (1 << 64) - 1)
    for text in (
        "4096",
        "512",
        "2³⁰",
        "4194304",
        "1536",
        "at most 300",
        "100,000",
        "65536",
        "2⁵⁶",
        "0 to 37",
        "38 to 60",
    ):
        assert text in DOCUMENT
