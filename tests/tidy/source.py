"""The project's own source as data, for the rules in this directory."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("src", "bench", "demo", "tests")
TEXT_SUFFIXES = (".py", ".md", ".toml", ".sh", ".html", ".css", ".js")


class Module(NamedTuple):
    """One Python file: its dotted name, where it lies below the root, its text and its tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    def place(self, node: ast.stmt | ast.expr | ast.ExceptHandler) -> str:
        return f"{self.path}:{node.lineno}"


class Import(NamedTuple):
    """``name`` is a dotted module, or an object in one."""

    line: int
    name: str


def module_of(name: str, text: str, path: str | None = None) -> Module:
    return Module(name, Path(path or name.replace(".", "/") + ".py"), text, ast.parse(text))


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """All Python files below these folders of the project; those of ``src`` bear their import names."""
    found = []
    for folder in folders:
        base = ROOT / "src" if folder == "src" else ROOT
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(base).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(module_of(name, file.read_text(), str(file.relative_to(ROOT))))
    return tuple(found)


def text_files() -> Iterator[Path]:
    """Every file that people write, in the places where they write."""
    for file in ROOT.iterdir():
        if file.is_file() and (file.suffix in TEXT_SUFFIXES or file.name == "Makefile"):
            yield file
    yield from (file for file in (ROOT / ".ci").iterdir() if file.is_file())
    for folder in (*CODE_FOLDERS, "docs"):
        yield from (file for file in (ROOT / folder).rglob("*") if file.suffix in TEXT_SUFFIXES)


def imports(module: Module) -> Iterator[Import]:
    """What a module imports, at any depth: late imports and those for type checkers too."""
    package = module.name.split(".")
    if module.path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            yield from (Import(node.lineno, f"{source}.{alias.name}") for alias in node.names)
