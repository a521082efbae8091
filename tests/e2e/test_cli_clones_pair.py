"""Two stores from the command line: clones, purges and changes of snapshots on the primary, and the other follows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import idemfs as library
from tests.e2e.program import done, refused, rows

LARGE = os.urandom(400_000)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """``A`` with a large file, a secret, and snapshot ``monday``; ``B`` follows it."""
    before = os.getcwd()
    os.chdir(tmp_path)
    done("init", "A", "--block-size", "4KiB")
    done("fileset", "create", "A", "/home")
    with library.open("A") as fs:
        fs.write_bytes("/large", LARGE)
        fs.write_bytes("/home/large", LARGE)
        fs.makedirs("/home/conf")
        fs.write_bytes("/home/conf/secret", b"hunter2" * 3000)
        fs.link("/home/conf/secret", "/home/again")
    done("snapshot", "create", "A", "*@monday")
    done("standby", "add", "A", "B")
    done("replicate", "A")
    yield tmp_path
    os.chdir(before)


def change(store: str, path: str, text: str) -> None:
    with library.open(store) as fs:
        fs.write_text(path, text)


def state(store: str) -> dict[str, object]:
    """Names, guids and digests of all snapshots, and what all filesets are."""
    assert "clean" in done("check", store)
    filesets = rows("fileset", "list", store)
    found: dict[str, object] = {row["name"]: (row["path"], row["origin"]) for row in filesets}
    for row in filesets:
        snapshots = (
            rows("snapshot", "list", store, row["name"]) if row["name"] != "root" else rows("snapshot", "list", store)
        )
        found[f"{row['name']}@"] = [(each["name"], each["guid"], each["digest"]) for each in snapshots]
    return found


def sent() -> int:
    """Bytes on disk of the second store."""
    return sum(row["active_bytes"] for row in rows("fileset", "list", "B"))


def test_clones_purges_and_roles(place: Path) -> None:
    done("snapshot", "clone", "A", "home@monday", "/try")
    change("A", "/try/more", "mine")
    before = sent()
    done("replicate", "A")
    assert sent() - before < 50_000
    assert state("A") == state("B")
    assert {row["name"]: row["origin"] for row in rows("fileset", "list", "B")}["try"] == "home@monday"

    assert "clones rest on snapshot" in refused("snapshot", "purge", "A", "/home/conf/secret", "--yes")
    done("fileset", "promote", "A", "try")
    done("snapshot", "purge", "A", "/home/conf/secret", "--yes", "--active", "--reason", "leaked")
    assert "purge from snapshots of" in done("replicate", "A", "--dry-run")
    assert "purged what" in done("replicate", "A")
    assert state("A") == state("B")
    assert "No such file" in refused("cat", "B@home@monday", "/conf/secret")
    assert [row["reason"] for row in rows("snapshot", "purge", "B", "--list")] == ["leaked"]

    done("failover", "B", "--yes")
    done("snapshot", "clone", "B", "home@monday", "/other")
    change("B", "/other/again", "other")
    done("snapshot", "purge", "B", "/try/again", "--yes", "--active")
    done("failback", "A", "--yes")
    assert state("A") == state("B")
    done("switchover", "B", "--yes")
    done("replicate", "A")
    assert state("A") == state("B")
    assert not any(name.startswith("diverged") for name in done("snapshot", "list", "A", "home").split())


def test_a_snapshot_that_was_written_to_is_not_taken_for_what_the_standby_has(place: Path) -> None:
    change("A", "/home/late", "late")
    done("replicate", "A")
    done("snapshot", "write", "A", "home@monday", "--remove", "/conf/secret")
    change("A", "/home/later", "later")
    done("snapshot", "create", "A", "home@tuesday")
    done("snapshot", "write", "A", "home@tuesday", "--remove", "/conf/secret")
    done("replicate", "A")
    there = {each["name"]: (each["guid"], each["digest"]) for each in rows("snapshot", "list", "B", "home")}
    here = {each["name"]: (each["guid"], each["digest"]) for each in rows("snapshot", "list", "A", "home")}
    assert there.keys() == here.keys()
    # What it had it keeps; what it had not, it gets as it is.
    assert {name for name in here if here[name] != there[name]} == {"monday"}
    assert here["monday"][0] != there["monday"][0]
    done("snapshot", "refresh", "A", "home@monday", "--yes")
    done("replicate", "A")
    for command, store in (("failover", "B"), ("failback", "A")):
        done(command, store, "--yes")
    assert "clean" in done("check", "A") and "clean" in done("check", "B")
    # By guid: the refreshed one came beside the old one of its name.
    there, here = ({row["guid"]: row["digest"] for row in rows("snapshot", "list", store, "home")} for store in "BA")
    assert all(here[guid] == digest for guid, digest in there.items() if guid in here)
    assert rows("snapshot", "list", "B", "home")[-1]["guid"] in here
