"""Imports run downward: a module imports only from rows below its own, and pure modules ask nobody anything."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.tidy.source import Module, imports, module_of, modules

ROWS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("mount", "fsspec_adapter", "node.http", "api"),
    ("node",),
    ("failover",),
    ("replication",),
    ("check",),
    ("vfs",),
    ("snapshots",),
    ("versions",),
    ("store",),
    ("engines",),
    ("format",),
    ("ids", "errors", "limits", "clock", "units"),
)
"""The table of layers, top to bottom. Units of one row do not import each other."""

FACADE = "api"
"""``idemfs/__init__.py`` offers what this unit holds, and stands with it."""
KIT = "testing"
"""The test kit builds on everything below ``cli``; nothing that is shipped for use builds on it."""

PURE = (
    "idemfs.units",
    "idemfs.format.*",
    "idemfs.versions.*",
    "idemfs.snapshots.policy",
    "idemfs.snapshots.schedule",
    "idemfs.snapshots.retention",
    "idemfs.replication.codec",
    "idemfs.replication.collapse",
    "idemfs.replication.description",
    "idemfs.replication.plan",
    "idemfs.failover.automatic",
    "idemfs.failover.decisions",
    "idemfs.failover.keeper",
    "idemfs.failover.lease",
    "idemfs.node.link_decisions",
    "idemfs.node.link_schedule",
    "idemfs.node.offers",
    "idemfs.node.rate",
    "idemfs.node.tokens",
)
IMPURE = frozenset(
    {
        "asyncio",
        "idemfs.clock",
        "lmdb",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "secrets",
        "select",
        "shutil",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "uuid",
    }
)
IMPURE_CALLS = frozenset({"input", "open", "print"})
IMPURE_METHODS = frozenset({"now", "today", "utcnow"})
"""Of ``datetime``: they ask the machine. Its values themselves are arithmetic."""


def unit_of(name: str) -> str:
    """The unit of the table that a module or an object in it belongs to."""
    inside = name.removeprefix("idemfs").removeprefix(".")
    known = [unit for row in ROWS for unit in row if inside == unit or inside.startswith(unit + ".")]
    if known:
        return max(known, key=len)
    first = inside.partition(".")[0]
    return first if first == KIT or any(module.name.startswith(f"idemfs.{first}") for module in modules("src")) else ""


def row_of(unit: str) -> int | None:
    return next((index for index, row in enumerate(ROWS) if unit in row), None)


def upward(sources: Iterable[Module]) -> Iterator[str]:
    """Each import that does not run downward."""
    for module in sources:
        unit = unit_of(module.name) or FACADE
        row = row_of(unit)
        if row is None and unit != KIT:
            yield f"{module.path}: {unit} is in no row of the table"
            continue
        for line, name in imports(module):
            if name != "idemfs" and not name.startswith("idemfs."):
                continue
            other = unit_of(name) or FACADE
            if other == unit:
                continue
            below = row_of(other)
            if unit == KIT:
                allowed = other != "cli"
            else:
                allowed = row is not None and below is not None and below > row
            if not allowed:
                yield f"{module.path}:{line} {unit} imports {other}"


def cycle(sources: Iterable[Module]) -> list[str]:
    """The modules of one import cycle, or nothing."""
    by_name = {module.name: module for module in sources}
    graph: dict[str, set[str]] = {}
    for module in by_name.values():
        edges = graph.setdefault(module.name, set())
        for _, name in imports(module):
            target = name if name in by_name else name.rpartition(".")[0]
            if target in by_name and target not in ("idemfs", module.name):
                edges.add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names: list[str] = error.args[1]
        return names
    return []


def impurities(sources: Iterable[Module]) -> Iterator[str]:
    """What pure modules import or call though it reaches outside."""
    for module in sources:
        if not any(fnmatchcase(module.name, pattern) for pattern in PURE):
            continue
        for line, name in imports(module):
            reached = [bad for bad in IMPURE if name == bad or name.startswith(bad + ".")]
            if reached:
                yield f"{module.path}:{line} imports {name}"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                yield f"{module.place(node)} calls {node.func.id}"
            if isinstance(node, ast.Attribute) and node.attr in IMPURE_METHODS:
                yield f"{module.place(node)} names {node.attr}"


def test_imports_run_downward() -> None:
    assert list(upward(modules("src"))) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    assert cycle(modules("src")) == []


def test_pure_modules_reach_nothing_outside() -> None:
    assert list(impurities(modules("src"))) == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("idemfs.store.a", "from idemfs.versions import b", "store imports versions"),
        ("idemfs.store.a", "def f():\n    import idemfs.cli.main", "store imports cli"),
        ("idemfs.store.a", "from ..cli import main", "store imports cli"),
        ("idemfs.ids", "from idemfs.errors import IdemfsError", "ids imports errors"),
        ("idemfs.node.a", "from idemfs.node.http import b", "node imports node.http"),
        ("idemfs.api", "from idemfs.cli import main", "api imports cli"),
        ("idemfs.vfs.a", "import idemfs", "vfs imports api"),
        ("idemfs.vfs.a", "from idemfs.testing import clock", "vfs imports testing"),
        ("idemfs.testing.a", "from idemfs.cli import main", "testing imports cli"),
        ("idemfs.versions.a", "from idemfs.format import b", None),
        ("idemfs.versions.a", "from . import b", None),
        ("idemfs.node.http.a", "from idemfs.node import b", None),
        ("idemfs.testing.a", "from idemfs.api import b", None),
    ],
)
def test_the_rule_sees_an_upward_import(name: str, text: str, found: str | None) -> None:
    lines = list(upward([module_of(name, text)]))
    assert [line.split(" ", 1)[1] for line in lines] == ([found] if found else [])


def test_the_rule_sees_a_circle() -> None:
    one = module_of("idemfs.vfs.one", "def f():\n    from idemfs.vfs.two import g")
    two = module_of("idemfs.vfs.two", "from idemfs.vfs import one")
    assert set(cycle([one, two])) == {"idemfs.vfs.one", "idemfs.vfs.two"}
    assert cycle([one]) == []


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "from os import path",
        "def f():\n    from random import random",
        "x = open('a')",
        "x = date.today()",
    ],
)
def test_the_rule_sees_what_is_not_pure(text: str) -> None:
    assert list(impurities([module_of("idemfs.format.a", text)])) != []
    assert list(impurities([module_of("idemfs.store.a", text)])) == []
