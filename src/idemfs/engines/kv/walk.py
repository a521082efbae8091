"""Read every record of a metadata engine's file, in a process of its own: ``python -m idemfs.engines.kv.walk PATH``.

LMDB has no checksums for its pages, and ends the process at some that are damaged. Who has to live on,
as the check, has them walked first by a process that need not.
"""

from __future__ import annotations

import subprocess
import sys

from idemfs.engines.kv.api import Table
from idemfs.limits import SCAN_COUNT

_END = b"\xff" * 512


def is_readable(path: str) -> bool:
    """Whether another process can read the engine's directory ``path`` to its end."""
    words = [sys.executable, "-m", "idemfs.engines.kv.walk", path]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _walk(path: str) -> None:
    from idemfs.engines.kv.lmdb_engine import LmdbKV

    kv = LmdbKV(path, readonly=True)
    for table in Table:
        start = b""
        while pairs := kv.scan(table, start, _END, SCAN_COUNT):
            start = pairs[-1][0] + b"\0"
    kv.close()


if __name__ == "__main__":
    _walk(sys.argv[1])
