"""Figures of mounted stores: large files, many small ones, source trees, a database, snapshots."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sysconfig
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from glob import glob

from bench import mounted
from bench.measure import Figure, Skipped, at_least, at_most, btrfs, command, need, paired, seconds
from idemfs.mount.awake import DEVICE

_CALL = 1 << 20
_SEQUENTIAL_COUNT = 512
_FILE_COUNT = 10_000
_CONTENT = os.urandom(1024)
_PAGE = 4096
_READ_COUNT = 2000
_OTHERS = (("bindfs", mounted.bindfs, 1.0), ("a file system that does nothing", mounted.nothing, 0.6))
"""What plain files are compared with, and the part of its rate to reach."""
_TREES = {"6,000 entries": 6_000, "80,000 entries": 80_000}


def sequential(directory: str) -> Iterator[Figure]:
    """512 MiB written and read in calls of 1 MiB, synced at the end: against bindfs, and against doing nothing."""
    piece = os.urandom(_CALL)

    def run(mount: str) -> float:
        path = f"{mount}/large"

        def work() -> None:
            fd = os.open(path, os.O_CREAT | os.O_WRONLY)
            for _ in range(_SEQUENTIAL_COUNT):
                os.write(fd, piece)
            os.fsync(fd)
            os.close(fd)
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            while os.read(fd, _CALL):
                continue
            os.close(fd)

        took = seconds(work)
        os.unlink(path)
        command("sync", "-f", directory)
        return took

    size = 2 * _SEQUENTIAL_COUNT * _CALL / 1e6
    with mounted.store(directory) as ours:
        for name, other, goal in _OTHERS:
            with other(directory) as theirs:
                run(theirs), run(ours)
                a, b, ratio = paired(lambda theirs=theirs: run(theirs), lambda: run(ours))  # type: ignore[misc]
            details = f"{size / b:.0f} MB/s against {size / a:.0f} MB/s"
            yield at_least(
                f"mount: 512 MiB written, synced and read, against {name}", ratio, goal, details, " of its rate"
            )


def small_files(directory: str) -> Iterator[Figure]:
    """10,000 files of 1 KiB: create, stat, unlink; against bindfs, and against doing nothing."""

    def run(mount: str) -> dict[str, float]:
        base = f"{mount}/files"
        os.mkdir(base)
        paths = [f"{base}/f{index}" for index in range(_FILE_COUNT)]

        def create() -> None:
            for path in paths:
                fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644)
                os.write(fd, _CONTENT)
                os.close(fd)

        def look() -> None:
            for path in paths:
                os.stat(path)

        def unlink() -> None:
            for path in paths:
                os.unlink(path)

        took = {"create": seconds(create)}
        _forget_names()
        took |= {"stat": seconds(look), "unlink": seconds(unlink)}
        os.rmdir(base)
        return took

    with mounted.store(directory) as ours:
        for name, other, goal in _OTHERS:
            with other(directory) as theirs:
                run(theirs), run(ours)
                rounds = [(run(theirs), run(ours)) for _ in range(5)]
            for what in ("create", "stat", "unlink"):
                ratio = statistics.median(a[what] / b[what] for a, b in rounds)
                ours_rate, their_rate = (_FILE_COUNT / statistics.median(r[i][what] for r in rounds) for i in (1, 0))
                details = f"{ours_rate:.0f} against {their_rate:.0f} a second"
                yield at_least(f"mount: {what} of 10,000 files against {name}", ratio, goal, details, " of its rate")


def _forget_names() -> None:
    """Have the kernel drop names and attributes, so that it asks for each."""
    command("sync")
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("2\n")


def trees(directory: str) -> Iterator[Figure]:
    """Untar, compare, grep, copy and remove source trees, and git; against bindfs, and against zfs-fuse.

    A mount keeps processors awake by itself (docs/decisions/0034), the others do not; for the smaller trees the details
    say what is left of the ratio where they are kept awake for all.
    """
    need("tar", "diff", "grep", "cp", "rm", "git")
    for size, count in _TREES.items():
        archive, origin = _source_tree(directory, count)
        steps = _tree_steps(archive, origin)
        round_count = 3 if count < 10_000 else 1
        with mounted.store(directory) as ours:
            for name, other in (("bindfs", mounted.bindfs), ("zfs-fuse", mounted.zfs_fuse)):
                with other(directory) as theirs:
                    as_they_are = _tree_rounds(theirs, ours, steps, round_count)
                    awake = {}
                    if count < 10_000 and os.access(DEVICE, os.W_OK):
                        with mounted.awake():
                            awake = _tree_rounds(theirs, ours, steps, round_count)
                for what, (a, b) in as_they_are.items():
                    details = f"{b:.2f} s against {a:.2f} s"
                    if awake:
                        details += f"; {awake[what][1] / awake[what][0]:.2f} with processors awake for both"
                    yield at_most(f"mount: {what}, {size}, against {name}", b / a, 1.0, details)
        shutil.rmtree(origin)


def _tree_rounds(
    theirs: str, ours: str, steps: dict[str, Callable[[str], object]], count: int
) -> dict[str, tuple[float, float]]:
    """For each step the median seconds of both mounts."""
    rounds = [(_run_steps(theirs, steps), _run_steps(ours, steps)) for _ in range(count)]
    return {
        what: (statistics.median(a[what] for a, _ in rounds), statistics.median(b[what] for _, b in rounds))
        for what in steps
    }


def _source_tree(directory: str, count: int) -> tuple[str, str]:
    """A tree of so many entries, which is the standard library as often as it takes, and a tar of it."""
    origin, archive = f"{directory}/origin", f"{directory}/tree.tar"
    library = sysconfig.get_path("stdlib")
    left, number = count, 0
    while left > 0:
        for path, folders, files in os.walk(library):
            folders[:] = [folder for folder in folders if folder not in ("site-packages", "__pycache__")]
            target = f"{origin}/{number}/{os.path.relpath(path, library)}"
            os.makedirs(target, exist_ok=True)
            for file in files[: max(0, left)]:
                shutil.copy2(f"{path}/{file}", target, follow_symlinks=False)
            left -= 1 + len(files)
            if left <= 0:
                break
        number += 1
    with tarfile.open(archive, "w") as tar:
        tar.add(origin, "tree")
    return archive, origin


def _tree_steps(archive: str, origin: str) -> dict[str, Callable[[str], object]]:
    def git(mount: str, *words: str) -> None:
        command("git", "-c", "user.name=n", "-c", "user.email=e", "-c", "gc.auto=0", *words, cwd=f"{mount}/tree")

    def change_branch(mount: str) -> None:
        git(f"{mount}/clone", "switch", "-q", "other")

    def prepare(mount: str) -> None:
        git(mount, "init", "-q", "-b", "main")
        git(mount, "add", ".")
        git(mount, "commit", "-q", "-m", "all")
        git(mount, "switch", "-q", "-c", "other")
        for number, (path, _, files) in enumerate(os.walk(f"{mount}/tree")):
            if number % 3 == 0 and ".git" not in path:
                for file in files:
                    with open(f"{path}/{file}", "ab") as changed:
                        changed.write(b"# changed\n")
        git(mount, "commit", "-q", "-a", "-m", "changed")
        git(mount, "switch", "-q", "main")

    def clone(mount: str) -> None:
        os.mkdir(f"{mount}/clone")
        command("git", "clone", "-q", "--no-local", f"{mount}/tree", f"{mount}/clone/tree")

    return {
        "untar": lambda mount: command("tar", "-xf", archive, "-C", mount),
        "compare": lambda mount: command("diff", "-r", origin, f"{mount}/tree"),
        "grep": lambda mount: subprocess.run(["grep", "-rc", "import", f"{mount}/tree"], stdout=subprocess.DEVNULL),
        "cp": lambda mount: command("cp", "-a", f"{mount}/tree", f"{mount}/copy"),
        "rm": lambda mount: command("rm", "-r", f"{mount}/copy"),
        "git add and commit": prepare,
        "git clone": clone,
        "git switch": change_branch,
    }


def _run_steps(mount: str, steps: dict[str, Callable[[str], object]]) -> dict[str, float]:
    took = {}
    for what, step in steps.items():
        command("sync")
        took[what] = seconds(lambda step=step: step(mount))  # type: ignore[misc]
    mounted.empty(mount)
    return took


def database(directory: str) -> Iterator[Figure]:
    """pgbench, scale 10, 2 clients, 10 seconds, durable: against zfs-fuse and btrfs on a loop device."""
    programs = _postgresql()
    os.chmod(directory, 0o755)
    with ExitStack() as stack:
        ours = stack.enter_context(mounted.store(directory))
        for name, other, goal in (("zfs-fuse", mounted.zfs_fuse, 1.0), ("btrfs", btrfs, 0.6)):
            with other(directory) as theirs:
                rounds = [(_transactions(programs, theirs), _transactions(programs, ours)) for _ in range(2)]
            ratio = statistics.median(b / a for a, b in rounds)
            a, b = (statistics.median(each[i] for each in rounds) for i in (0, 1))
            yield at_least(
                f"mount: pgbench against {name}", ratio, goal, f"{b:.0f} against {a:.0f} a second", " of its rate"
            )


def _postgresql() -> str:
    found = sorted(glob("/usr/lib/postgresql/*/bin"))
    if not found:
        raise Skipped("postgresql is not installed")
    return found[-1]


def _transactions(programs: str, mount: str) -> float:
    """Transactions a second of a new database on this mount."""
    data = f"{mount}/postgres"
    os.mkdir(data)
    shutil.chown(data, "postgres", "postgres")
    sockets = "-k /tmp -c listen_addresses='' -p 54999"

    def run(*words: str) -> str:
        done = command("runuser", "-u", "postgres", "--", *words, cwd="/tmp")
        return done.stdout.decode()

    run(f"{programs}/initdb", "-D", data, "-A", "trust")
    run(f"{programs}/pg_ctl", "-D", data, "-w", "-l", "/dev/null", "-o", sockets, "start")
    try:
        client = ("-h", "/tmp", "-p", "54999", "postgres")
        run(f"{programs}/pgbench", "-q", "-i", "-s", "10", *client)
        report = run(f"{programs}/pgbench", "-c", "2", "-T", "10", *client)
    finally:
        run(f"{programs}/pg_ctl", "-D", data, "-w", "-m", "fast", "stop")
    shutil.rmtree(data)
    return next(float(line.split("=")[1].split()[0]) for line in report.splitlines() if line.startswith("tps"))


def old_reads(directory: str) -> Iterator[Figure]:
    """Random reads of 4 KiB from the oldest of 100 snapshots against the active file, cold and warm."""
    rng = random.Random(1)
    size = 256 << 20
    with mounted.store(directory) as mount:
        with open(f"{mount}/file", "wb") as file:
            for _ in range(size // _CALL):
                file.write(rng.randbytes(_CALL))
        for number in range(100):
            os.mkdir(f"{mount}/.snapshots/s{number:03}")
            with open(f"{mount}/file", "r+b") as changed:
                for _ in range(20):
                    changed.seek(rng.randrange(size // _PAGE) * _PAGE)
                    changed.write(rng.randbytes(_PAGE))
        offsets = [rng.randrange(size // _PAGE) * _PAGE for _ in range(_READ_COUNT)]

        def read(path: str, *, cold: bool) -> float:
            fd = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
                if cold:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                return seconds(lambda: [os.pread(fd, _PAGE, offset) for offset in offsets])
            finally:
                os.close(fd)

        old, active = f"{mount}/.snapshots/s000/file", f"{mount}/file"
        for cold in (True, False):
            read(old, cold=cold), read(active, cold=cold)
            a, b, ratio = paired(lambda cold=cold: read(old, cold=cold), lambda cold=cold: read(active, cold=cold), 7)  # type: ignore[misc]
            word = "cold" if cold else "warm"
            details = f"{a / _READ_COUNT * 1e6:.1f} us against {b / _READ_COUNT * 1e6:.1f} us a read"
            yield at_most(f"mount: random reads, {word}, oldest of 100 snapshots against active", ratio, 1.3, details)
