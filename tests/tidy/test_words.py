"""One meaning, one word; nothing left for later; no failure without a trace; no sync without its reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

import pytest

from tests.tidy.source import CODE_FOLDERS, ROOT, Module, module_of, modules, text_files

LATER_WORDS = tuple(map("".join, (("TO", "DO"), ("FIX", "ME"), ("X", "XX"))))
"""Put together from halves, since this file is read too."""
LATER = re.compile(rf"\b(?:{'|'.join(LATER_WORDS)})\b")

SAY: dict[str, str] = {
    "block_pointer": "address",
    "copy_on_write": "preserve",
    "cow": "preserve",
    "disk_pointer": "address",
    "leader": "primary",
    "live_tree": "active",
    "master": "primary",
    "merge_down": "hand down",
    "null_address": "ditto or hole",
    "parent_snapshot": "base, or older snapshot",
    "prev_snapshot": "older snapshot",
    "previous_snapshot": "older snapshot",
    "slave": "standby",
    "source_snapshot": "base",
    "subvolume": "fileset",
}
"""Words that this project does not use in names, and what it says instead."""

SYNCS = frozenset({"fdatasync", "fsync", "msync", "sync", "syncfs"})
CRASH_COMMENT_LINES = 6
"""How far above a sync its ``# crash:`` comment may begin."""


def later(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if LATER.search(line)]


def swallowed(sources: Iterable[Module]) -> Iterator[str]:
    """Handlers that do nothing at all."""
    for module in sources:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler) and all(_is_nothing(item) for item in node.body):
                yield module.place(node)


def _is_nothing(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def misnamed(sources: Iterable[Module]) -> Iterator[str]:
    """Names that contain a word of ``SAY``."""
    for module in sources:
        for line, name in sorted(set(_names(module.tree))):
            words = "_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_") + "_"
            for word, say in SAY.items():
                if f"_{word}_" in words:
                    yield f"{module.path}:{line} {name}: say {say}"


def _names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def unexplained_syncs(sources: Iterable[Module]) -> Iterator[str]:
    """Calls that make something durable without a ``# crash:`` comment on them or just above."""
    for module in sources:
        lines = module.text.splitlines()
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = max(0, node.lineno - 1 - CRASH_COMMENT_LINES)
            if name in SYNCS and not any("# crash:" in line for line in lines[first : node.end_lineno]):
                yield f"{module.place(node)} {name}"


def test_nothing_is_left_for_later() -> None:
    found = {str(file.relative_to(ROOT)): later(file.read_text()) for file in text_files()}
    assert {name: lines for name, lines in found.items() if lines} == {}
    assert "pyproject.toml" in found and "src/idemfs/cli/main.py" in found


def test_no_exception_is_swallowed() -> None:
    assert list(swallowed(modules(*CODE_FOLDERS))) == []


def test_names_use_the_words_of_the_design() -> None:
    assert list(misnamed(modules("src"))) == []


def test_every_sync_says_what_it_is_for() -> None:
    assert list(unexplained_syncs(modules("src"))) == []


@pytest.mark.parametrize("name", ["master", "MasterNode", "old_master_epoch", "prev_snapshot", "PrevSnapshot", "cow"])
def test_the_rule_sees_a_wrong_name(name: str) -> None:
    for text in (f"{name} = 1", f"def {name}(): ...", f"class {name}: ...", f"def f({name}): ...", f"x.{name}()"):
        assert len(list(misnamed([module_of("a", text)]))) == 1
    assert list(misnamed([module_of("a", "remastered = mastered = cowed = 1")])) == []


def test_the_rules_see_what_is_left_swallowed_or_unexplained() -> None:
    for word in LATER_WORDS:
        assert later(f"a\n# {word} b\n{word}s") == [f"# {word} b"]
    for nothing in ("pass", "...", "'no matter'"):
        assert list(swallowed([module_of("a", f"try:\n    f()\nexcept OSError:\n    {nothing}")])) == ["a.py:3"]
    assert list(swallowed([module_of("a", "try:\n    f()\nexcept OSError:\n    return_value = None")])) == []
    assert list(unexplained_syncs([module_of("a", "import os\nos.fsync(3)")])) == ["a.py:2 fsync"]
    assert list(unexplained_syncs([module_of("a", "# crash: the header first.\nblocks.sync()")])) == []
