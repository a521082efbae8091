"""Short commands stay short: what they must not import, each of which costs as much as a bare Python start or more.

The times themselves are printed by ``make bench``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = frozenset(
    {
        "asyncio",
        "click",
        "dataclasses",
        "importlib.metadata",
        "inspect",
        "logging",
        "numpy",
        "rich",
        "sortedcontainers",
        "traceback",
        "zstandard",
    }
)


def imported_by(*arguments: str) -> set[str]:
    """The modules that one Python process imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("import time:")]
    said = [line for line in ended.stderr.splitlines() if not line.startswith("import time:")]
    assert (ended.returncode, said) == (0, []), arguments
    return {line.rpartition("|")[2].strip() for line in lines}


def idemfs(*arguments: str) -> set[str]:
    return imported_by("-m", "idemfs.cli", *arguments)


def test_import_of_the_package() -> None:
    names = imported_by("-c", "import idemfs")
    assert "idemfs" in names and names & HEAVY == set()


def test_help() -> None:
    names = idemfs("--help")
    assert "idemfs.cli.commands" in names and names & (HEAVY | {"argparse", "typing", "re"}) == set()


def test_snapshot_list(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    idemfs("init", store)
    idemfs("snapshot", "create", store, "monday")
    names = idemfs("snapshot", "list", store)
    assert "idemfs.cli.snapshot_list" in names and names & (HEAVY | {"typing", "idemfs.store.store"}) == set()


def test_the_rule_sees_a_heavy_import() -> None:
    assert imported_by("-c", "import dataclasses") & HEAVY >= {"dataclasses", "inspect"}
