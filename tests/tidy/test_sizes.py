"""Files, functions and classes stay readable, and no module hides a library."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import TypeGuard

from tests.tidy.source import CODE_FOLDERS, Module, imports, module_of, modules

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
CLASS_METHODS_MAX = 25

MANY_SHORT_METHODS: dict[str, int] = {}
"""Classes whose number of methods another interface decides: name, and the most lines that each method may have."""


def long_files(sources: Iterable[Module]) -> Iterator[str]:
    for module in sources:
        lines = module.text.count("\n")
        if lines > FILE_LINES_MAX:
            yield f"{module.path}: {lines} lines"


def long_functions(sources: Iterable[Module]) -> Iterator[str]:
    for module in sources:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > FUNCTION_LINES_MAX:
                yield f"{module.place(node)} {node.name}: {_lines(node)} lines"


def wide_classes(sources: Iterable[Module]) -> Iterator[str]:
    for module in sources:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.ClassDef):
                continue
            methods = [item for item in node.body if _is_method(item)]
            if node.name in MANY_SHORT_METHODS:
                for method in methods:
                    if _lines(method) > MANY_SHORT_METHODS[node.name]:
                        yield f"{module.place(method)} {node.name}.{method.name}: {_lines(method)} lines"
            elif len(methods) > CLASS_METHODS_MAX:
                yield f"{module.place(node)} {node.name}: {len(methods)} methods"


def hidden_libraries(sources: Iterable[Module]) -> Iterator[str]:
    for module in sources:
        name = module.name.rpartition(".")[2]
        for line, imported in imports(module):
            if imported.partition(".")[0] == name:
                yield f"{module.path}:{line} imports {imported}"


def _is_method(node: ast.stmt) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    """A definition; the signatures that an overloaded method has besides are none."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not any(
        isinstance(each, ast.Name) and each.id == "overload" for each in node.decorator_list
    )


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_files() -> None:
    assert list(long_files(modules(*CODE_FOLDERS))) == []


def test_functions() -> None:
    assert list(long_functions(modules("src", "bench", "demo"))) == []


def test_classes() -> None:
    assert list(wide_classes(modules("src", "bench", "demo"))) == []


def test_no_module_is_named_as_a_library_that_it_imports() -> None:
    inside = [module for module in modules(*CODE_FOLDERS) if "." in module.name]
    assert list(hidden_libraries(inside)) == []


def test_the_rules_see_what_is_too_large() -> None:
    body = "    x = 1\n" * FUNCTION_LINES_MAX
    wide = "class C:\n" + "    def f(self): ...\n" * (CLASS_METHODS_MAX + 1)
    assert list(long_files([module_of("a", "\n" * (FILE_LINES_MAX + 1))])) == ["a.py: 601 lines"]
    assert list(long_functions([module_of("a", f"def f():\n{body}")])) == ["a.py:1 f: 71 lines"]
    assert list(wide_classes([module_of("a", wide)])) == ["a.py:1 C: 26 methods"]
    assert list(hidden_libraries([module_of("idemfs.lmdb", "import lmdb")])) == ["idemfs/lmdb.py:1 imports lmdb"]
