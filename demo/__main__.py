"""The whole life of a store and its standby, on real files: ``make demo``, or ``python -m demo --help``.

Exit status 0 when every file was right after every step; 1 at the first that is not, with its path.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time

from demo.life import Life
from demo.show import Show
from demo.source import sources
from demo.stores import Mismatch
from idemfs import IdemfsError

TIMES, TIMES_SMALL = 40, 3


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", metavar="DIR", help="import this directory instead of what Python consists of")
    parser.add_argument("--small", action="store_true", help="make few changes, for a small source")
    parser.add_argument("--seed", type=int, default=1, help="which files are changed, and how (default: 1)")
    parser.add_argument("--keep", metavar="DIR", help="work in this new directory, and leave the two stores there")
    options = parser.parse_args(arguments)
    if options.keep:
        os.makedirs(options.keep)
        return _run(options.keep, options)
    directory = tempfile.mkdtemp(prefix="idemfs-demo-")
    try:
        return _run(directory, options)
    finally:
        shutil.rmtree(directory)


def _run(directory: str, options: argparse.Namespace) -> int:
    show = Show()
    start = time.perf_counter()
    times = TIMES_SMALL if options.small else TIMES
    try:
        Life(show, directory, sources(options.source), times, options.seed).run()
    except (Mismatch, IdemfsError, OSError) as error:
        show.failed(str(error))
        return 1
    show.end()
    show.say(f"everything was as it must be, in {time.perf_counter() - start:.0f} seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
