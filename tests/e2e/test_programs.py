"""Real programs on a mounted store: databases, git, a build, and programs that copy.

Each is Debian's own; `.ci/run` installs what is missing, and elsewhere a test whose program is missing is skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.conformance.mounted import idemfs, missing, mounted
from tests.e2e.ending import kill, wait_for_end

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), default=Path("/usr/lib/postgresql")).parent


def needs(*programs: str) -> pytest.MarkDecorator:
    absent = [each for each in programs if shutil.which(each) is None]
    return pytest.mark.skipif(bool(absent), reason=f"not installed here: {', '.join(absent)}")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may pass through, as those of pytest may not."""
    with tempfile.TemporaryDirectory(prefix="idemfs-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def at(place: Path) -> Iterator[Path]:
    idemfs("init", place / "store")
    with mounted(place / "store", place / "mount") as directory:
        yield directory


def run(*command: str | Path, cwd: Path | None = None, user: str | None = None) -> str:
    """What it says on both streams, which is shown when it fails."""
    ended = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"},
    )
    assert ended.returncode == 0, f"{' '.join(map(str, command))}\n{ended.stdout[-4000:]}"
    return ended.stdout


def listing(root: Path) -> list[tuple[object, ...]]:
    """All that a copy keeps of a tree: names, kinds, content, links, owners, modes, times, sizes, attributes, holes."""
    found: list[tuple[object, ...]] = []
    first: dict[int, str] = {}
    for directory, names, files in os.walk(root):
        for name in sorted([*names, *files, "."]):
            path = Path(directory, name)
            status = os.lstat(path)
            relative = str(path.relative_to(root))
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found.append(
                (
                    relative,
                    status.st_mode,
                    status.st_uid,
                    status.st_gid,
                    status.st_mtime_ns,
                    status.st_rdev,
                    os.readlink(path) if stat.S_ISLNK(status.st_mode) else content,
                    first.setdefault(status.st_ino, relative),
                    {
                        each: os.getxattr(path, each, follow_symlinks=False)
                        for each in os.listxattr(path, follow_symlinks=False)
                    },
                )
            )
    return sorted(found, key=lambda each: str(each[0]))


class Postgres:
    """A server on ``data``, which listens on a socket in ``place`` alone."""

    def __init__(self, data: Path, place: Path, port: int) -> None:
        self.data, self.place, self.port = data, place, port

    def command(self, program: str, *words: str | Path) -> list[str]:
        return [
            str(POSTGRES / program),
            "-h",
            str(self.place),
            "-p",
            str(self.port),
            "-U",
            "postgres",
            *map(str, words),
        ]

    def run(self, program: str, *words: str | Path) -> str:
        return run(*self.command(program, *words), user="postgres", cwd=self.place)

    def query(self, text: str) -> str:
        return self.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text, "postgres").strip()

    def balanced(self) -> int:
        """How many transfers were made; the tables of pgbench agree on what they sum to."""
        tables = ("accounts", "abalance"), ("tellers", "tbalance"), ("branches", "bbalance"), ("history", "delta")
        sums = [self.query(f"SELECT coalesce(sum({column}), 0) FROM pgbench_{table}") for table, column in tables]
        assert len(set(sums)) == 1, sums
        return int(self.query("SELECT count(*) FROM pgbench_history"))

    def control(self, *words: str | Path) -> None:
        # The server keeps its standard streams; it must not keep ours.
        log = self.place / f"log-{self.port}"
        options = f"-k {self.place} -p {self.port} -c listen_addresses= -c shared_buffers=16MB -c max_connections=10"
        words = ("-D", self.data, "-w", "-l", log, "-o", options, *words)
        try:
            run(POSTGRES / "pg_ctl", *words, user="postgres", cwd=self.place)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text() if log.exists() else ''}") from None

    def __enter__(self) -> Postgres:
        self.control("start")
        return self

    def __exit__(self, *_: object) -> None:
        self.control("-m", "fast", "stop")


@pytest.mark.skipif(not (POSTGRES / "pgbench").exists(), reason="not installed here: postgresql")
class TestPostgreSQL:
    def make(self, at: Path, place: Path) -> Path:
        """A database on the mount; where its sockets go."""
        sockets = place / "sockets"
        for directory in (sockets, at / "data"):
            directory.mkdir(mode=0o700)
            shutil.chown(directory, "postgres", "postgres")
        run(POSTGRES / "initdb", "-D", at / "data", "-k", "-A", "trust", "-E", "UTF8", user="postgres", cwd=sockets)
        return sockets

    def test_a_snapshot_while_it_runs_is_a_database(self, at: Path, place: Path) -> None:
        sockets = self.make(at, place)
        with Postgres(at / "data", sockets, 5432) as server:
            server.run("pgbench", "-i", "-q", "-s", "1", "postgres")
            transfers = server.command("pgbench", "-n", "-c", "2", "-T", "5", "postgres")
            running = subprocess.Popen(transfers, user="postgres", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            while int(server.query("SELECT count(*) FROM pgbench_history")) < 50:
                assert running.poll() is None
            committed = int(server.query("SELECT count(*) FROM pgbench_history"))
            os.mkdir(at / ".snapshots/running")
            taken_by = int(server.query("SELECT count(*) FROM pgbench_history"))
            said = running.communicate()[0].decode()
            assert running.returncode == 0 and "failed transactions: 0" in said, said
            total = server.balanced()
            run("cp", "-a", at / ".snapshots/running/data", at / "copy")
            os.unlink(at / "copy/postmaster.pid")
            with Postgres(at / "copy", sockets, 5433) as second:
                assert committed <= second.balanced() <= taken_by <= total
                second.run("pgbench", "-n", "-t", "20", "postgres")
                second.balanced()
        log = (sockets / "log-5433").read_text()
        assert "not properly shut down; automatic recovery in progress" in log and "PANIC" not in log
        for data in ("data", "copy"):
            run(POSTGRES / "pg_checksums", "--check", "-D", at / data, user="postgres", cwd=sockets)

    @pytest.mark.long
    def test_what_was_committed_survives_a_kill(self, place: Path) -> None:
        store, at = place / "store", place / "mount"
        idemfs("init", store)
        at.mkdir()
        idemfs("mount", store, at)
        sockets = self.make(at, place)
        with Postgres(at / "data", sockets, 5432) as server:
            server.run("pgbench", "-i", "-q", "-s", "1", "postgres")
        for number in range(4):
            server.control("start")
            before = server.balanced()
            transfers = server.command("pgbench", "-n", "-c", "2", "-T", "60", "postgres")
            nothing = subprocess.DEVNULL
            with subprocess.Popen(transfers, user="postgres", stdout=nothing, stderr=nothing) as running:
                committed = 0
                while committed < before + 40 * (number + 1):
                    assert running.poll() is None
                    committed = int(server.query("SELECT count(*) FROM pgbench_history"))
                pid = int((at / "data/postmaster.pid").read_text().split()[0])
                kill(store)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGQUIT)
                wait_for_end(pid)
                assert running.wait()
            idemfs("mount", store, at)
            # As long as nobody has waited for the process, the server takes it for a running one.
            os.unlink(at / "data/postmaster.pid")
            server.control("start")
            assert server.balanced() >= committed
            server.control("-m", "fast", "stop")
            run(POSTGRES / "pg_checksums", "--check", "-D", at / "data", user="postgres", cwd=sockets)
        idemfs("umount", at)
        assert idemfs("check", store, "--data").stdout.startswith("clean")


class TestSQLite:
    WRITER = """
import random, sqlite3, sys
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute("PRAGMA journal_mode = WAL")
base.execute("PRAGMA synchronous = FULL")
base.execute("PRAGMA wal_autocheckpoint = 20")
base.execute("CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, content BLOB, size INTEGER)")
base.execute("CREATE TABLE IF NOT EXISTS total (size INTEGER)")
number = base.execute("SELECT coalesce(max(number), 0) FROM rows").fetchone()[0]
while True:
    number += 1
    content = random.randbytes(random.choice((10, 1000, 20_000)))
    base.execute("BEGIN")
    base.execute("INSERT INTO rows VALUES (?, ?, ?)", (number, content, len(content)))
    base.execute("DELETE FROM total")
    base.execute("INSERT INTO total SELECT sum(size) FROM rows")
    base.execute("COMMIT")
    print(number, flush=True)
"""

    @pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.long)])
    def test_what_was_committed_survives_a_kill(self, place: Path, seed: int, rounds: int) -> None:
        rng = Random(seed)
        store, at = place / "store", place / "mount"
        idemfs("init", store)
        at.mkdir()
        kept = 0
        for _ in range(rounds):
            idemfs("mount", store, at)
            self.verify(at / "base", kept)
            command = [sys.executable, "-c", self.WRITER, str(at / "base")]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as writer:
                assert writer.stdout is not None
                for _ in range(rng.randrange(1, 60)):
                    kept = int(writer.stdout.readline())
                kill(store)
                # It finds its files gone, or falls over what it had mapped of them.
                for line in writer.stdout:
                    kept = int(line)
            assert writer.returncode
        with mounted(store, at):
            self.verify(at / "base", kept)

    def verify(self, path: Path, kept: int) -> None:
        """All transactions up to ``kept`` are there, and the one whose end was not told, or not."""
        if not kept:
            return
        base = sqlite3.connect(path)
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        count, last, size = base.execute("SELECT count(*), max(number), sum(length(content)) FROM rows").fetchone()
        assert count == last and last in (kept, kept + 1)
        assert base.execute("SELECT size FROM total").fetchall() == [(size,)]
        base.close()


@needs("git")
def test_git(at: Path, place: Path) -> None:
    def git(*words: str | Path, where: Path) -> str:
        return run("git", "-c", "user.name=N", "-c", "user.email=n@localhost", *words, cwd=where)

    work, clone = at / "work", at / "clone"
    git("init", "-q", "-b", "main", work, where=at)
    for number in range(12):
        for each in range(25):
            path = work / f"d{each % 5}/f{each}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{number}\n" * (each + 1) if each % (number + 1) == 0 else f"{each}\n" * 50)
        git("add", ".", where=work)
        git("commit", "-q", "-m", f"change {number}", where=work)
    git("clone", "-q", "--no-local", work, clone, where=at)
    os.mkdir(at / ".snapshots/cloned")
    git("switch", "-q", "-c", "other", "HEAD~6", where=clone)
    (clone / "d1/f1").write_text("another\n")
    git("commit", "-q", "-a", "-m", "another", where=clone)
    git("rebase", "-q", "-X", "ours", "main", where=clone)
    git("gc", "-q", "--prune=now", "--aggressive", where=clone)
    for repository in (work, clone, at / ".snapshots/cloned/clone"):
        git("-c", "safe.directory=*", "fsck", "--full", "--strict", where=repository)
    assert git("status", "--porcelain", where=clone) == ""
    git("clone", "-q", clone, place / "outside", where=place)
    assert git("rev-parse", "HEAD", where=place / "outside") == git("rev-parse", "other", where=clone)
    assert listing_of_names(place / "outside") == listing_of_names(clone)


def listing_of_names(root: Path) -> list[tuple[str, bytes]]:
    found = (path for path in root.rglob("*") if path.is_file() and ".git" not in path.relative_to(root).parts)
    return sorted((str(path.relative_to(root)), path.read_bytes()) for path in found)


@needs("make", "cc")
def test_a_build(at: Path) -> None:
    count = 24
    (at / "all.h").write_text("".join(f"int f{each}(void);\n" for each in range(count)))
    for each in range(count):
        (at / f"f{each}.c").write_text(f'#include "all.h"\nint f{each}(void) {{ return {each}; }}\n')
    calls = " + ".join(f"f{each}()" for each in range(count))
    (at / "main.c").write_text(
        f'#include <stdio.h>\n#include "all.h"\nint main(void) {{ printf("%d\\n", {calls}); }}\n'
    )
    (at / "Makefile").write_text(
        "objects = $(patsubst %.c,%.o,$(filter-out main.c,$(wildcard *.c)))\n"
        "program: main.o liball.a\n\tcc -o $@ $^\n"
        "liball.a: $(objects)\n\trm -f $@\n\tar rcs $@ $^\n"
        "%.o: %.c\n\tcc -O1 -g -MMD -c -o $@ $<\n"
        "-include *.d\n"
    )
    run("make", "-j2", cwd=at)
    assert run(at / "program") == f"{sum(range(count))}\n"
    run("make", "-q", cwd=at)
    (at / "f3.c").write_text('#include "all.h"\nint f3(void) { return 1003; }\n')
    again = run("make", "-j2", cwd=at)
    assert again.count("-c -o") == 1 and run(at / "program") == f"{sum(range(count)) + 1000}\n"
    os.utime(at / "all.h")
    assert run("make", "-j2", cwd=at).count("-c -o") == count + 1


def make_tree(root: Path) -> None:
    """Something of everything that a copy should keep."""
    (root / "d/empty").mkdir(parents=True)
    for number in range(40):
        (root / f"d/{number}").write_bytes(bytes([number]) * number * 2_000)
        os.chown(root / f"d/{number}", 1000 + number, 2000 + number)
        os.chmod(root / f"d/{number}", (0o4711, 0o2751, 0o1600, 0o444)[number % 4])
        os.utime(root / f"d/{number}", ns=(10**18 + number, 10**18 + 123_456_789 * number))
    os.link(root / "d/1", root / "linked")
    os.link(root / "d/1", root / "d/empty/linked")
    os.symlink("d/1", root / "symlink")
    os.symlink("x" * 3_000, root / "long symlink")
    os.lchown(root / "symlink", 5, 6)
    os.mkfifo(root / "fifo")
    os.mknod(root / "device", 0o20640, os.makedev(1, 3))
    with open(root / "sparse", "wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
        file.truncate(5_000_000)
    os.setxattr(root / "d/2", "user.long", b"v" * 2_000)
    os.setxattr(root / "d/2", "user.empty", b"")
    os.setxattr(root / "d", "trusted.directory", b"t")
    os.setxattr(root / "symlink", "trusted.link", b"t", follow_symlinks=False)
    os.setxattr(root / "d/4", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    run("setfacl", "-m", "u:12:rw,g:34:r", root / "d/3")
    run("setfacl", "-m", "d:u:12:rwx,d:g:34:rx,u:12:x", root / "d/empty")
    (root / os.fsdecode(b"\xff\xfe name\n")).write_bytes(b"bytes")
    os.utime(root / "d", ns=(1, 987_654_321))


@needs("rsync", "setfacl")
def test_rsync_round_trip(place: Path) -> None:
    idemfs("init", place / "store")
    make_tree(place / "tree")
    with mounted(place / "store", place / "mount") as at:
        run("rsync", "-aHAXS", "--modify-window=-1", "--numeric-ids", f"{place}/tree/", f"{at}/tree/")
        assert listing(at / "tree") == listing(place / "tree")
        assert os.stat(at / "tree/sparse").st_blocks < 1_000
    with mounted(place / "store", place / "mount") as at:
        run("rsync", "-aHAXS", "--modify-window=-1", "--numeric-ids", f"{at}/tree/", f"{place}/back/")
        assert listing(place / "back") == listing(place / "tree")
        changes = run(
            "rsync", "-aHAXSic", "--modify-window=-1", "--delete", "--numeric-ids", f"{place}/tree/", f"{at}/tree/"
        )
        assert changes == ""


@needs("tar", "setfacl")
def test_tar_round_trip(place: Path) -> None:
    idemfs("init", place / "store")
    make_tree(place / "tree")
    words = ("--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--sparse")
    with mounted(place / "store", place / "mount") as at:
        run("tar", *words, "-cf", at / "archive.tar", "-C", place / "tree", ".")
        (at / "tree").mkdir()
        run("tar", *words, "-xpf", at / "archive.tar", "-C", at / "tree")
        assert listing(at / "tree") == listing(place / "tree")
        os.mkdir(at / ".snapshots/one")
        run("tar", *words, "-cf", place / "back.tar", "-C", at / ".snapshots/one/tree", ".")
        (place / "back").mkdir()
        run("tar", *words, "-xpf", place / "back.tar", "-C", place / "back")
        assert listing(place / "back") == listing(place / "tree")
