"""What the project declares is what it uses."""

from __future__ import annotations

import re
import sys
import tomllib

from tests.tidy.source import ROOT, imports, modules

OWN = {"idemfs", "bench", "demo", "tests"}
TYPES_ONLY = {"_typeshed"}
"""What only the type checker imports, and brings along."""
COMPARED_WITH = {"pyfuse3", "trio"}
"""What figures are compared with; where it is missing they are skipped."""


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in project["dependencies"]}


def imported(*folders: str) -> set[str]:
    names = {name.partition(".")[0] for module in modules(*folders) for _, name in imports(module)}
    return names - OWN - TYPES_ONLY - COMPARED_WITH - sys.stdlib_module_names


def test_every_library_that_is_imported_is_declared() -> None:
    assert imported("src", "demo", "bench") - declared() == set()


def test_every_library_that_is_declared_is_imported() -> None:
    assert declared() - imported("src", "demo", "bench") == set()
