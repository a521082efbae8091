"""Primary and standby from the command line: the whole life, what is asked, what is refused, what is printed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import idemfs as package
from tests.conformance.disks import small_disk
from tests.e2e.program import done, idemfs, on_terminal, refused, rows


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory to work in, so that stores have short names: ``A`` is a store with one file."""
    before = os.getcwd()
    os.chdir(tmp_path)
    done("init", "A")
    write("A", "/first", "1")
    yield tmp_path
    os.chdir(before)


def write(store: str, path: str, text: str) -> None:
    with package.open(store) as fs:
        fs.write_text(path, text)


def read(store: str, path: str) -> str:
    with package.open(store, readonly=True) as fs:
        return fs.read_text(path)


def names(store: str) -> list[str]:
    return [row["name"] for row in rows("snapshot", "list", store)]


def pair() -> None:
    done("standby", "add", "A", "B")
    done("replicate", "A")


def content_of(*stores: str) -> dict[str, bytes]:
    """Every byte on disk, but for the lock that says who uses a store, and LMDB's table of readers."""
    files = [file for store in stores for file in Path(store).rglob("*") if file.is_file()]
    return {str(file): file.read_bytes() for file in files if file.name not in ("lock", "lock.mdb")}


# -- the whole life ------------------------------------------------------------------------------------


def test_loss_takeover_return_and_reversion(place: Path) -> None:
    pair()
    write("A", "/unsent", "only on A")
    os.rename("A", "away")
    assert "B: primary of epoch" in done("failover", "B", "--yes")
    assert read("B", "/first") == "1"
    write("B", "/second", "by B")
    os.rename("away", "A")
    out = done("failback", "A", "--yes")
    assert "took snapshot diverged-1" in out and "A: standby" in out
    assert read("A", "/second") == "by B"
    assert "is a standby" in refused("put", "A", "/etc/hostname", "/x")
    write("B", "/third", "while B serves")
    out = done("switchover", "B", "--yes")
    assert "A: primary of epoch" in out and "B: standby" in out
    write("A", "/fourth", "A is back")
    done("replicate", "A")
    for store in "AB":
        assert [read(store, f"/{name}") for name in ("first", "second", "third", "fourth")] == [
            "1",
            "by B",
            "while B serves",
            "A is back",
        ]
        assert done("check", store).startswith("clean")
    assert done("cat", "A@diverged-1", "/unsent") == "only on A"
    assert [row["role"] for row in rows("status", "A")] == ["primary", "standby"]


def test_replicate_takes_a_snapshot_only_when_something_changed(place: Path) -> None:
    pair()
    first = names("A")
    assert len(first) == 1 and first[0].startswith("auto-")
    assert "has every snapshot" in done("replicate", "A")
    assert names("A") == first
    done("snapshot", "create", "A", "mine")
    write("A", "/more", "2")
    out = done("replicate", "A")
    assert "2 snapshots" in out
    assert names("B") == names("A") and names("A")[1] == "mine"
    digests = [[row["digest"] for row in rows("snapshot", "list", store)] for store in "AB"]
    assert digests[0] == digests[1]


def test_an_old_primary_is_fenced_for_good_when_it_meets_the_new_one(place: Path) -> None:
    pair()
    os.rename("A", "away")
    done("failover", "B", "--yes")
    os.rename("away", "A")
    write("A", "/late", "A does not know yet")
    assert "run 'idemfs failback A'" in refused("replicate", "A")
    for _ in range(2):
        assert "has ended this store's right to write" in refused("put", "A", "/etc/hostname", "/x")
    assert rows("status", "A")[0]["role"] == "fenced"
    done("failback", "A", "--yes")
    assert done("cat", "A@diverged-1", "/late") == "A does not know yet"


def test_a_standby_made_by_init(place: Path) -> None:
    assert "a standby of A" in done("init", "B", "--standby-of", "A")
    done("replicate", "A")
    assert read("B", "/first") == "1"
    assert "--block-size" in refused("init", "C", "--standby-of", "A", "--block-size", "4096", status=2)
    assert "is a store already" in refused("init", "B", "--standby-of", "A")
    assert "no store here" in refused("init", "C", "--standby-of", "missing")
    assert not os.path.exists("C")


def test_several_standbys(place: Path) -> None:
    for name in "BC":
        done("standby", "add", "A", name)
    done("replicate", "A")
    listed = rows("standby", "list", "A")
    assert [(row["name"], row["role"], row["behind_snapshots"]) for row in listed] == [
        ("B", "standby", 0),
        ("C", "standby", 0),
    ]
    assert "choose one with --to" in refused("switchover", "A", "--yes")
    done("switchover", "A", "--to", "C", "--yes")
    write("C", "/by-c", "3")
    done("replicate", "C")
    assert read("A", "/by-c") == read("B", "/by-c") == "3"


# -- plans and questions -------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(place: Path) -> None:
    pair()
    write("A", "/unsent", "more")
    before = content_of("A", "B")
    for command, store in (("replicate", "A"), ("switchover", "A"), ("failover", "B")):
        out = done(command, store, "--dry-run")
        assert f"would    {command}\n" in out
        assert "\ncommon   auto-" in out and "\nat risk  " in out and "\nstep 1   " in out
    assert "changes that are in no snapshot" in done("failover", "B", "--dry-run")
    shutil.move("A", "away")
    done("failover", "B", "--yes")
    shutil.move("away", "A")
    middle = content_of("A", "B")
    out = done("failback", "A", "--dry-run")
    assert "diverged-1" in out and "\nfrom     " in out and "\nto       A\n" in out
    assert content_of("A", "B") == middle
    assert {name: data for name, data in middle.items() if name.startswith("A")} == {
        name: data for name, data in before.items() if name.startswith("A")
    }


def test_a_dry_run_of_joining_and_leaving_changes_nothing(place: Path) -> None:
    out = done("standby", "add", "A", "B", "--dry-run")
    assert "would    standby add\n" in out and "step 1   make a store at " in out
    assert not os.path.exists("B") and rows("standby", "list", "A") == []
    done("init", "B")
    before = content_of("A", "B")
    assert "make the empty store at " in done("standby", "add", "A", "B", "--dry-run")
    assert content_of("A", "B") == before
    pair()
    before = content_of("A", "B")
    out = done("standby", "add", "A", "B", "--dry-run")
    assert "the standby that it is" in out and "common   auto-" in out
    out = done("standby", "remove", "A", "B", "--dry-run")
    assert "forgets" in out and "common   auto-" in out
    assert content_of("A", "B") == before
    assert "is the store itself" in refused("standby", "add", "A", "A", "--dry-run")


def test_a_failover_beside_a_primary_that_is_there_is_not_done_without_yes(place: Path) -> None:
    pair()
    said = refused("failover", "B")
    assert "'idemfs switchover" in said and "loses nothing" in said and "--yes" in said
    status, seen = on_terminal("failover", "B", answer="y\n")
    assert status == 1 and "switchover" in seen
    done("failover", "B", "--yes")
    assert [row["role"] for row in rows("status", "B")] == ["primary", "fenced"]


def test_what_moves_roles_asks_first(place: Path) -> None:
    pair()
    assert "Nobody is here to be asked" in refused("switchover", "A")
    status, seen = on_terminal("switchover", "A", answer="n\n")
    assert status == 1 and "nothing was done" in seen
    assert rows("status", "A")[0]["role"] == "primary"
    status, seen = on_terminal("switchover", "A", answer="y\n")
    assert status == 0 and "B: primary of epoch" in seen
    os.rename("B", "away")
    write("away", "/unsent", "x")
    status, seen = on_terminal("failover", "A", answer="y\n")
    assert status == 0 and "At risk: " in seen and "no store there" in seen


def test_status_tells_what_is_behind_and_what_is_out_of_reach(place: Path) -> None:
    pair()
    done("snapshot", "create", "A", "mine")
    write("A", "/big", "x" * 5000)
    mine, other = rows("status", "A")
    assert (mine["role"], mine["has_changed"], mine["is_reachable"]) == ("primary", True, True)
    assert (other["role"], other["behind_snapshots"]) == ("standby", 1)
    assert 5000 <= other["behind_bytes"] < 6000
    assert other["common"] == names("B")[0]
    os.rename("B", "away")
    assert rows("status", "A")[1]["reason"] == "no store there"
    assert "not reachable: no store there" in done("status", "A")
    done("init", "B")
    assert rows("status", "A")[1]["reason"] == "another store stands there"


# -- refusals ------------------------------------------------------------------------------------------


def test_each_refusal_is_one_clear_line(place: Path) -> None:
    assert "has no standby" in refused("replicate", "A")
    assert "has no standby" in refused("switchover", "A", "--yes")
    assert "is primary already" in refused("failover", "A", "--yes")
    assert "nothing to come back from" in refused("failback", "A", "--yes")
    assert "is the store itself" in refused("standby", "add", "A", "A")
    Path("file").write_text("x")
    assert "is a file" in refused("standby", "add", "A", "file")
    done("init", "other")
    write("other", "/x", "in use")
    assert "is in use for something else" in refused("standby", "add", "A", "other")
    done("init", "small", "--block-size", "4KiB")
    assert "blocks of 4096 bytes" in refused("standby", "add", "A", "small")
    assert "no standby or primary that this store knows" in refused("standby", "remove", "A", "B")
    done("standby", "add", "A", "B")
    assert "never received a complete snapshot" in refused("failover", "B", "--yes")
    assert "C is a standby of B" in done("standby", "add", "B", "C")
    assert "run replicate on its primary" in refused("replicate", "B")
    done("replicate", "A")
    os.rename("B", "away")
    assert "B is not reachable (no store there)" in idemfs("replicate", "A").err
    assert "no standby is reachable" in refused("switchover", "A", "--yes")
    done("standby", "remove", "A", "B")
    assert rows("standby", "list", "A") == []


def test_an_empty_store_is_taken_over_as_standby_and_adding_it_twice_is_adding_it_once(place: Path) -> None:
    done("init", "B")
    done("standby", "add", "A", "B")
    done("standby", "add", "A", "B")
    assert [row["name"] for row in rows("standby", "list", "A")] == ["B"]
    done("replicate", "A")
    os.rename("B", "moved")
    done("standby", "add", "A", "moved")
    assert [row["path"] for row in rows("standby", "list", "A")] == [str(place / "moved")]
    write("A", "/more", "2")
    done("replicate", "A")
    assert read("moved", "/more") == "2"


def test_a_store_that_somebody_works_with_is_not_lost(place: Path) -> None:
    pair()
    with package.open("A"):
        assert "in use by process" in refused("replicate", "A")
        said = refused("failover", "B")
        assert "is not lost, but in use by process" in said
        assert rows("status", "B")[1]["is_reachable"] is True
    with package.open("B"):
        assert "in use by process" in idemfs("replicate", "A").err


# -- killed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["replicate A", "switchover A --yes", "failover B --yes", "failback A --yes"])
def test_a_command_that_is_killed_anywhere_is_repeated(place: Path, command: str) -> None:
    """Killed after its n-th line of output, and before any: repeated, it leads where it leads undisturbed."""
    pair()
    done("put", "A", os.path.dirname(os.__file__) + "/json", "/json")
    if command.startswith("fail"):
        os.rename("A", "away")
    if command.startswith("failback"):
        done("failover", "B", "--yes")
        write("B", "/by-b", "2")
        os.rename("away", "A")
    start = {name: place / f"start-{name}" for name in ("A", "B", "away") if os.path.exists(name)}
    for name, kept in start.items():
        shutil.copytree(name, kept)
    words = command.split()
    wanted = [(row["role"], row["common"]) for row in after(words)]
    for lines in range(4):
        for name, kept in start.items():
            shutil.rmtree(name)
            shutil.copytree(kept, name)
        kill_after(words, lines)
        assert [row[0] for row in wanted] == [row["role"] for row in after(words)]
        for name in start:
            assert done("check", name).startswith("clean")


def after(words: list[str]) -> list[dict[str, object]]:
    """The status of both stores when the command was repeated until it is done, or says that it is."""
    ended = idemfs(*words)
    assert ended.status == 0 or any(
        said in ended.err for said in ("is primary already", "is a standby: run switchover", "nothing to come back")
    ), ended.err
    return rows("status", words[1])


def kill_after(words: list[str], lines: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "idemfs", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    process.kill()
    process.stdout.close()
    process.wait()


def test_a_switchover_to_a_full_host_leaves_the_primary_as_it_is(place: Path) -> None:
    with small_disk(place / "disk", 24 << 20) as disk:
        done("standby", "add", "A", disk / "B")
        done("replicate", "A")
        with package.open(disk / "B") as held:
            # Its reserve is used up, too.
            with open(disk / "other", "wb", buffering=0) as other, pytest.raises(OSError, match="space"):
                while True:
                    other.write(bytes(4096))
            held.close()
        meta = disk / "B" / "meta" / "data.mdb"
        os.truncate(meta, meta.stat().st_size)
        with open(disk / "more", "wb", buffering=0) as more, pytest.raises(OSError, match="space"):
            while True:
                more.write(bytes(4096))
        assert "full" in refused("switchover", "--yes", "A")
        write("A", "/later", "still primary")
        os.unlink(disk / "other")
        done("switchover", "--yes", "A")
        assert read(str(disk / "B"), "/later") == "still primary"


def test_who_is_full_is_told_where_two_stores_take_part(place: Path) -> None:
    with small_disk(place / "disk", 24 << 20) as disk:
        done("standby", "add", "A", disk / "B")
        done("replicate", "A")
        with package.open("A") as fs:
            fs.write_bytes("/large", os.urandom(32 << 20))
            fs.snapshots.create("large")
        told = refused("replicate", "A")
        assert str(disk / "B") in told and "the host file system is full" in told
        assert done("check", "--data", disk / "B").startswith("clean")
