"""Run the figures: ``python -m bench [--dir DIRECTORY] [NAME …]``; each in a process of its own, one after another."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

from bench import (
    clones,
    differences,
    files,
    lag,
    many,
    mounts,
    processes,
    restoring,
    roles,
    snapshots,
    standby,
    transfers,
)
from bench.measure import Figure, Skipped, workspace

CASES: dict[str, Callable[[str], Iterator[Figure]]] = {
    "start-up": processes.start_up,
    "create": files.create,
    "large": files.large,
    "snapshot-create": snapshots.create,
    "snapshot-delete": snapshots.delete,
    "oldest": snapshots.oldest_of_many,
    "overwriting": snapshots.overwriting,
    "group": many.group,
    "many-snapshots": many.many,
    "btrfs-snapshots": many.against_btrfs,
    "clone": clones.make,
    "clone-write": clones.first_write,
    "restore": restoring.restore,
    "difference": differences.of_100_files,
    "wire": standby.wire,
    "failover": standby.failover,
    "memory": standby.memory,
    "transfer-changes": transfers.incremental,
    "transfer-bulk": transfers.bulk,
    "transfer-small": transfers.small,
    "lag": lag.held,
    "takeover": roles.takeover,
    "failback": roles.failback,
    "switchover": roles.switchover,
    "mount-large": mounts.sequential,
    "mount-files": mounts.small_files,
    "mount-trees": mounts.trees,
    "mount-database": mounts.database,
    "mount-oldest": mounts.old_reads,
}


def run_case(name: str, parent: str | None) -> int:
    """Print the figures of one case; how many missed their goal."""
    missed = 0
    with workspace(parent) as directory:
        try:
            for figure in CASES[name](directory):
                missed += not figure.reached
                word = "reached" if figure.reached else "MISSED"
                print(f"{figure.what}\n    {figure.value}, goal {figure.goal}: {word} ({figure.details})", flush=True)
        except Skipped as reason:
            print(f"{name}: skipped: {reason}", flush=True)
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--dir", help="measure on the disk of this directory")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in CASES]
    if unknown:
        parser.error(f"no figure named {', '.join(unknown)}; there are: {', '.join(CASES)}")
    if len(options.names) == 1:
        return 1 if run_case(options.names[0], options.dir) else 0
    where = ["--dir", options.dir] if options.dir else []
    missed = 0
    for name in options.names or CASES:
        missed += bool(subprocess.run([sys.executable, "-m", "bench", *where, name], env=os.environ).returncode)
    print(f"{missed} of {len(options.names or CASES)} cases missed a goal" if missed else "every goal was reached")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
