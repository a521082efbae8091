"""The sessions in README and docs are run, line by line, and print what they show.

A ``console`` block goes on where the block before it in the same document ended. Lines after
a command are what it prints; a block line ``…`` stands for anything. A ``python`` block is run too.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.conformance.mounted import missing

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    if re.search(r"^```(console|python)$", path.read_text(), re.MULTILINE)
)


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, text) of the blocks that are to be run."""
    for found in re.finditer(r"^```(console|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield found[1], found[2]


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """(command, lines that it prints) of a console block."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        count = 1
        while lines[count - 1].endswith("\\"):
            count += 1
        yield "\n".join(lines[:count]), lines[count:]


def run(words: list[str], directory: Path) -> str:
    program_path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": program_path, "HOME": str(directory), "TZ": "UTC", "COLUMNS": "120"}
    done = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{words[-1]}\n{done.stdout}{done.stderr}"
    return done.stdout


def same(shown: list[str], printed: list[str]) -> bool:
    """Whether what was printed is what the document shows, its ``…`` being anything."""
    pattern = "\n".join(re.sub(r"[\[*?]", "?", line).replace("…", "*") for line in shown)
    return fnmatchcase("\n".join(line.rstrip() for line in printed), pattern)


def end_processes(place: Path) -> None:
    """A session may leave processes, whose numbers are in such files, only if a line of it failed."""
    for pid in place.glob("*pid"):
        with suppress(ProcessLookupError):
            os.kill(int(pid.read_text()), signal.SIGTERM)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_line_of_a_session_does_what_it_shows(
    document: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(lambda: end_processes(tmp_path))
    not_run = None
    for language, block in blocks((ROOT / document).read_text()):
        if re.search(r"idemfs (mount|serve) ", block) and (reason := missing()) is not None:
            not_run = reason
            continue
        if language == "python":
            run([sys.executable, "-c", block], tmp_path)
            continue
        for command, shown in commands(block):
            printed = run(["bash", "-euo", "pipefail", "-c", command], tmp_path)
            if shown:
                assert same(shown, printed.splitlines()), f"{document}: $ {command}\n{printed}"
    if not_run is not None:
        pytest.skip(f"all but the mounting was run: {not_run}")


def test_a_session_that_prints_something_else_is_noticed() -> None:
    assert same(["a … c", "d"], ["a bbb c", "d"])
    assert not same(["a … c", "d"], ["a bbb c"])
    assert not same(["second"], ["first"])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    place = (ROOT / document).parent
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / document).read_text()):
        assert (place / target).exists(), f"{document} links to {target}"
