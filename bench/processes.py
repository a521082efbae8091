"""Figures of whole processes: how long the shortest commands take."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from bench import stores
from bench.measure import Figure, at_most, paired, seconds


def start_up(directory: str) -> Iterator[Figure]:
    """``idemfs --help`` and ``idemfs snapshot list`` against ``python -c pass``."""
    import idemfs

    path = stores.build(f"{directory}/store", 200)
    with idemfs.open(path) as fs:
        for index in range(10):
            fs.snapshots.create(f"s{index}")
    program = os.path.join(os.path.dirname(sys.executable), "idemfs")
    # An installed program has its bytecode; where writing it is switched off, every start would compile it.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def run(*words: str) -> float:
        return seconds(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment))

    for words in ([program, "--help"], [program, "snapshot", "list", path]):
        run(*words)
        a, b, ratio = paired(lambda words=words: run(*words), lambda: run(sys.executable, "-c", "pass"), 31)  # type: ignore[misc]
        name = " ".join(["idemfs", *words[1:3]]).replace(f" {path}", "")
        details = f"{a * 1e3:.1f} ms against {b * 1e3:.1f} ms"
        yield at_most(f"{name} against python -c pass, whole processes", ratio, 3, details)
