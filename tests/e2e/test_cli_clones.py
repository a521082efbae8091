"""Clones as processes: made, changed, listed, promoted, deleted, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import idemfs as library
from tests.e2e.program import done, refused, rows


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Fileset ``home`` at /home with snapshot ``monday``, and a snapshot ``all`` of the root fileset."""
    path = tmp_path / "store"
    library.create(path, block_size=4096).close()
    done("fileset", "create", path, "/home")
    with library.open(path) as fs:
        fs.write_bytes("/f", b"root" * 2000)
        fs.write_bytes("/home/f", b"home" * 2000)
        fs.mkdir("/home/d")
    done("snapshot", "create", path, "home@monday", "all")
    return path


def test_a_clone_is_made_and_listed(store: Path) -> None:
    assert "ORIGIN" not in done("fileset", "list", store)
    said = done("snapshot", "clone", store, "home@monday", "/try")
    assert said.split() == ["try", "/try", "clone", "of", "home@monday"]
    done("snapshot", "clone", store, "all", "/home/d", "--name", "whole")
    found = {row["name"]: row for row in rows("fileset", "list", store)}
    assert [(name, row["path"], row["origin"]) for name, row in found.items()] == [
        ("root", "/", None),
        ("home", "/home", None),
        ("try", "/try", "home@monday"),
        ("whole", "/home/d", "all"),
    ]
    assert found["try"]["active_bytes"] == 0 and found["try"]["inodes"] == 3
    assert done("fileset", "list", store).splitlines()[0].split()[-1] == "ORIGIN"
    assert done("cat", store, "/try/f") == "home" * 2000
    assert done("cat", store, "/home/d/f") == "root" * 2000
    # What was a junction is an empty directory in the snapshot, and in its clone.
    assert done("ls", store, "/home/d/home") == ""
    assert "clean" in done("check", store)


def test_a_clone_is_changed_and_its_origin_is_not(store: Path, tmp_path: Path) -> None:
    done("snapshot", "clone", store, "home@monday", "/try")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/f").write_text("changed")
    done("put", store, tmp_path / "more", "/try")
    done("snapshot", "create", store, "try@mine")
    assert done("cat", store, "/try/f") == "changed" == done("cat", f"{store}@try@mine", "/f")
    assert done("cat", store, "/home/f") == "home" * 2000 == done("cat", f"{store}@home@monday", "/f")
    assert [row["name"] for row in rows("snapshot", "list", store, "try")] == ["mine"]


def test_an_origin_is_deleted_and_stays_while_it_is_needed(store: Path) -> None:
    done("snapshot", "clone", store, "home@monday", "/try")
    done("snapshot", "delete", store, "home@monday", "--yes")
    assert rows("snapshot", "list", store, "home") == []
    with library.open(store) as fs:
        fs.unlink("/home/f")
    home, clone = rows("fileset", "list", store)[1:]
    assert clone["origin"] == "home@monday" and clone["origin_deleted"]
    assert home["snapshots"] == 0 and home["snapshot_bytes"] > 8000
    assert done("cat", store, "/try/f") == "home" * 2000
    assert "clean" in done("check", store)
    done("fileset", "delete", store, "try", "--yes")
    assert rows("fileset", "list", store)[1]["snapshot_bytes"] == 0
    assert "clean" in done("check", store)


def test_promote(store: Path) -> None:
    done("snapshot", "clone", store, "home@monday", "/try")
    message = refused("fileset", "delete", store, "home", "--yes")
    assert "try" in message and "idemfs fileset promote" in message
    assert "no clone" in refused("fileset", "promote", store, "home")
    done("fileset", "promote", store, "try")
    clone = rows("fileset", "list", store)[2]
    assert clone["origin"] is None and clone["active_bytes"] > 8000
    done("fileset", "delete", store, "home", "--yes")
    assert done("cat", store, "/try/f") == "home" * 2000
    assert "clean" in done("check", store)


def test_what_is_refused(store: Path) -> None:
    assert "no snapshot of fileset 'home' named 'never'" in refused("snapshot", "clone", store, "home@never", "/try")
    assert "a fileset appears in the place" in refused("snapshot", "clone", store, "all", "/home", "--name", "other")
    assert "a fileset named 'home' exists" in refused("snapshot", "clone", store, "all", "/x", "--name", "home")
    assert "clean" in done("check", store)


def test_what_is_shared_and_what_is_pinned(store: Path) -> None:
    done("snapshot", "clone", store, "home@monday", "/try")
    assert [row["shared_bytes"] for row in rows("fileset", "list", store)] == [None] * 3
    assert "SHARED" not in done("fileset", "list", store) and "SHARED" in done("fileset", "list", store, "--shared")
    done("fileset", "promote", store, "try")
    assert [row["shared_bytes"] for row in rows("fileset", "list", store, "--shared")] == [0, 8192, 8192]
    done("snapshot", "clone", store, "all", "/home/d", "--name", "whole")
    with library.open(store) as fs:
        fs.unlink("/f")
    done("snapshot", "delete", store, "all", "--yes")
    said = {line.split()[0]: line.split()[-1] for line in done("info", store).splitlines() if " data  " in line}
    assert said["pinned"] == "8,192"


def test_what_goes_with_the_last_clone_is_told(store: Path) -> None:
    done("snapshot", "clone", store, "all", "/try")
    done("snapshot", "clone", store, "all", "/again")
    with library.open(store) as fs:
        fs.unlink("/f")
    assert "deleted" not in done("fileset", "delete", store, "try", "--dry-run")
    done("snapshot", "delete", store, "all", "--yes")
    assert "deleted" not in done("fileset", "delete", store, "try", "--dry-run")
    done("fileset", "delete", store, "again", "--yes")
    told = done("fileset", "delete", store, "try", "--dry-run")
    assert re.search(r"0 B, and the deleted snapshot all \(8\.\d KiB\) with its last clone\n$", told)
    said = refused("fileset", "delete", store, "try")
    assert "KiB) with its last clone are gone. Nobody is here to be asked" in said
    done("fileset", "delete", store, "try", "--yes")
    assert [line.split()[-1] for line in done("info", store).splitlines() if line.startswith("pinned data")] == ["0"]
