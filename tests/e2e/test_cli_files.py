"""init, put, get, ls, cat, info as processes: what they do, print and return."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import idemfs as library
from tests.conformance.disks import small_disk
from tests.e2e.program import done, idemfs, lines, on_terminal, refused, rows
from tests.interop import trees


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    done("init", path, "--block-size", "4KiB")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    trees.build(tmp_path / "source")
    return tmp_path / "source"


def test_init(tmp_path: Path) -> None:
    path = tmp_path / "a" / "store"
    assert done("init", path, "--block-size", "64KiB", "--compression", "zstd") == f"{path}: made, blocks of 64 KiB\n"
    info = json.loads(done("info", path, "--json"))
    assert (info["block_size"], info["compression"]) == (65536, "zstd")
    assert "is a store already" in refused("init", path)
    (tmp_path / "file").write_bytes(b"")
    assert "is a file" in refused("init", tmp_path / "file")
    assert "is not empty" in refused("init", tmp_path)
    for size, told in (
        ("0", "block size 0"),
        ("5000", "5000"),
        ("2KiB", "2048"),
        ("8MiB", "4 MiB"),
        ("much", "'much' is no size"),
    ):
        assert told in refused("init", tmp_path / "b", "--block-size", size, status=2)
    assert "lzma" in refused("init", tmp_path / "b", "--compression", "lzma", status=2)
    assert not (tmp_path / "b").exists()


def test_what_a_killed_init_left_is_in_nobodys_way(tmp_path: Path) -> None:
    done("init", tmp_path / "store")
    (tmp_path / "store" / "superblock").unlink()
    (tmp_path / "store" / "meta" / "data.mdb").write_bytes(b"half")
    done("init", tmp_path / "store")
    assert done("check", tmp_path / "store").startswith("clean")


def test_init_without_room_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        assert "full" in refused("init", disk / "store")
        assert list(disk.iterdir()) == []
        (disk / "store").mkdir()
        assert "full" in refused("init", disk / "store")
        assert list((disk / "store").iterdir()) == []


def test_a_stores_own_directory_is_left_alone(store: Path, source: Path, tmp_path: Path) -> None:
    """Whatever a tree holds, no copy writes into a store, or reads from one that changes meanwhile."""
    (tmp_path / "evil" / "store" / "meta").mkdir(parents=True)
    for name in ("superblock", "meta/data.mdb", "new"):
        (tmp_path / "evil" / "store" / name).write_bytes(b"junk")
    done("put", store, tmp_path / "evil", "/")
    before = sorted(os.listdir(store))
    for destination in (store, store / "meta", store / "new" / "er"):
        assert f"lies in the store {store}" in refused("get", store, "/store", destination)
    ended = idemfs("get", store, "/", tmp_path)
    assert ended.status == 1 and "it is an idemfs store" in ended.err
    for place in (store, store / "blocks"):
        assert "lies in the store" in refused("put", store, place, "/in")
    for command in (("init", store / "in"), ("standby", "add", store, store / "in")):
        assert "lies in the store" in refused(*command)
    assert "the store itself is left out" in idemfs("put", store, tmp_path, "/all").err
    assert sorted(os.listdir(store)) == before
    assert done("check", store, "--data").startswith("clean")


def test_a_tree_goes_in_and_comes_out(store: Path, source: Path, tmp_path: Path) -> None:
    before = trees.describe(source)
    assert done("put", store, source, "/in").startswith(f"{len(before):,} copied (")
    done("snapshot", "create", store, "monday")
    assert done("put", "--mirror", store, source, "/in").endswith("as they were\n")
    assert lines("snapshot", "diff", store, "monday") == []
    done("get", store, "/in", tmp_path / "out")
    assert trees.difference(before, trees.describe(tmp_path / "out")) == []
    (tmp_path / "empty").mkdir()
    assert "removed" in done("put", "--mirror", store, tmp_path / "empty", "/in")
    assert done("ls", store, "/in", "-a") == ""
    done("get", f"{store}@monday", "/in", tmp_path / "old")
    assert trees.difference(before, trees.describe(tmp_path / "old")) == []
    assert done("check", store, "--data").startswith("clean")


def test_a_dry_run_tells_and_changes_nothing(store: Path, tmp_path: Path) -> None:
    (tmp_path / "s" / "d").mkdir(parents=True)
    for name in ("kept", "changed", "d/new"):
        (tmp_path / "s" / name).write_bytes(name.encode())
    (tmp_path / "gone").write_bytes(b"")
    done("put", store, tmp_path / "s", "/x")
    done("put", store, tmp_path / "gone", "/x/gone/below/")
    digest = done("digest", store)
    (tmp_path / "s" / "changed").write_bytes(b"otherwise")
    (tmp_path / "s" / "d" / "newer").write_bytes(b"")
    told = done("put", store, tmp_path / "s", "/x", "--mirror", "--dry-run")
    assert told == "would remove /x/gone\nwould replace /x/changed\nin all: make 1, replace 1, keep 3, remove 1\n"
    told = done("put", store, tmp_path / "s", "/x", "--dry-run")
    assert told.endswith("in all: make 1, replace 3, keep 1\n")
    assert done("put", "--dry-run", store, tmp_path / "gone", "/y") == "in all: make 1\n"
    assert "No such file" in refused("put", store, tmp_path / "none", "/x", "--dry-run")
    assert done("digest", store) == digest


def test_put_refuses(store: Path, tmp_path: Path) -> None:
    assert refused("put", store, tmp_path / "no", "/") == f"{tmp_path}/no: No such file or directory"
    assert "begins with '/'" in refused("put", store, tmp_path, "relative")
    assert "no store here" in refused("put", tmp_path / "no", tmp_path, "/")
    (tmp_path / "file").write_bytes(b"1")
    done("put", store, tmp_path / "file", "/f")
    assert refused("put", store, tmp_path / "file", "/f/g") == "/f/g: Not a directory"
    assert refused("put", store, tmp_path, "/f/g/h") == "/f/g/h: Not a directory"
    assert refused("put", store, tmp_path / "file", "g") == "g: Invalid argument: a path in a store begins with '/'"


def test_put_leaves_the_store_out(store: Path, tmp_path: Path) -> None:
    (tmp_path / "beside").write_bytes(b"1")
    ended = idemfs("put", store, tmp_path, "/")
    assert ended.status == 0 and "the store itself is left out" in ended.err and ended.err.count("\n") == 1
    assert done("ls", store) == "beside\n"


def test_what_cannot_be_copied_is_told_and_the_rest_is_copied(store: Path, tmp_path: Path) -> None:
    (tmp_path / "s" / "d").mkdir(parents=True)
    (tmp_path / "s" / "z").write_bytes(b"1")
    (tmp_path / "d").write_bytes(b"file")
    done("put", store, tmp_path / "d", "/d")
    ended = idemfs("put", store, tmp_path / "s", "/")
    assert ended.status == 1
    lines = ended.err.splitlines()
    assert lines[0].startswith(f"idemfs: {tmp_path}/s/d: Not a directory") and lines[1].startswith(
        "idemfs: 1 could not"
    )
    assert done("cat", store, "/z") == "1"


def test_get_refuses(store: Path, tmp_path: Path) -> None:
    assert refused("get", store, "/no", tmp_path / "out") == "/no: No such file or directory"
    assert "no snapshot named 'no'" in refused("get", f"{store}@no", "/", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ls(store: Path, source: Path) -> None:
    done("put", store, source, "/")
    names = done("ls", store, "/").encode(errors="surrogateescape").splitlines()
    assert b"\xff not utf-8" in names and b"small" in names
    (source / ".hidden").write_bytes(b"")
    done("put", store, source / ".hidden", "/")
    assert ".hidden" not in done("ls", store) and ".hidden\n" in done("ls", store, "-a")
    long = done("ls", store, "-l", "/").splitlines()
    assert long[0].split() == ["MODE", "LINKS", "OWNER", "GROUP", "SIZE", "MODIFIED", "NAME"]
    assert any(line.endswith("link -> small") and line.startswith("lrwxrwxrwx") for line in long)
    found = {row["name"]: row for row in rows("ls", store, "/")}
    assert found["small"]["type"] == "file" and found["small"]["size"] == 5 and found["small"]["links"] == 4
    assert found["dir"]["type"] == "directory" and found["link"]["target"] == "small"
    assert found["fifo"]["type"] == "fifo" and os.fsdecode(b"\xff not utf-8\n") in found
    if os.geteuid() == 0:
        assert found["null"]["device"] == [1, 3]
    assert found["small"]["mtime_ns"] == os.lstat(source / "small").st_mtime_ns
    assert done("ls", store, "/small") == "/small\n" and done("ls", store, "/link-to-dir") == done("ls", store, "/dir")
    assert refused("ls", store, "/no") == "/no: No such file or directory"


def test_names_are_escaped_on_a_terminal(store: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "\x1b[31mred\n").write_bytes(b"")
    done("put", store, tmp_path / "s", "/")
    status, seen = on_terminal("ls", store)
    assert status == 0 and seen == "\\x1b[31mred\\x0a\r\n"


def test_names_forge_no_rows_in_a_pipe(store: Path, tmp_path: Path) -> None:
    name = b"\x1b[31mred\nremoved  all\xff"
    (tmp_path / "s").mkdir()
    (tmp_path / os.fsdecode(b"s/" + name)).write_bytes(b"1")
    done("snapshot", "create", store, "empty")
    done("put", store, tmp_path / "s", "/")
    done("snapshot", "create", store, "one")
    path, shown = b"/" + name, os.fsdecode(rb"/\x1b[31mred\x0aremoved  all" + b"\xff")
    told = (
        done("snapshot", "diff", store, "empty"),
        done("snapshot", "find", store, os.fsdecode(path)),
        done("ls", store, "-l", "/"),
        done("snapshot", "purge", store, os.fsdecode(path), "--dry-run"),
        done("snapshot", "purge", store, os.fsdecode(path), "--yes"),
        done("snapshot", "purge", store, "--list"),
    )
    for text in told:
        assert shown.lstrip("/") in text and "\x1b" not in text
        assert not any(line.startswith("removed  all") for line in text.splitlines())
    assert [row["path"] for row in rows("snapshot", "purge", store, "--list")] == [os.fsdecode(path)]
    assert done("ls", store) == os.fsdecode(name) + "\n"


def test_a_bar_shows_how_far_a_copy_is(store: Path, source: Path) -> None:
    status, seen = on_terminal("put", store, source, "/")
    assert status == 0 and "put" in seen and "files" in seen and "copied (" in seen


def test_cat(store: Path, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"\0\xff\n" * 500_000)
    (tmp_path / "two").write_bytes(b"two")
    for name in ("one", "two"):
        done("put", store, tmp_path / name, "/")
    command = [sys.executable, "-m", "idemfs", "cat", str(store), "/one", "/two"]
    assert subprocess.check_output(command) == b"\0\xff\n" * 500_000 + b"two"
    done("snapshot", "create", store, "monday")
    with library.open(store) as fs:
        fs.write_bytes("/two", b"changed")
    assert done("cat", f"{store}@monday", "/two") == "two" and done("cat", store, "/two") == "changed"
    assert refused("cat", store, "/no") == "/no: No such file or directory"
    assert refused("cat", store, "/") == "/: Is a directory"


def test_a_reader_that_goes_away_is_no_error(store: Path, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(range(256)) * 20_000)
    done("put", store, tmp_path / "large", "/")
    command = f"{sys.executable} -m idemfs cat {store} /large | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_info(store: Path, source: Path) -> None:
    done("put", store, source, "/")
    done("snapshot", "create", store, "monday")
    info = json.loads(done("info", store, "--json"))
    assert info["path"] == str(store) and info["format"] == 1 and info["block_size"] == 4096
    assert (info["role"], info["epoch"], info["snapshots"], info["newest_snapshot"]) == ("primary", 1, 1, "monday")
    assert len(info["guid"]) == len(info["fileset_guid"]) == 32 and info["in_use_by"] is None
    assert info["files"] > 20 and info["data_bytes"] > 1_234_567 and info["free_bytes"] > 0
    lines = done("info", store).splitlines()
    assert lines.index("") == len(info) - 1 and any(line.split() == ["block", "size", "4", "KiB"] for line in lines)


def test_a_store_in_use(store: Path, tmp_path: Path) -> None:
    with library.open(store) as fs:
        fs.write_bytes("/f", b"1")
        for words in (
            ("ls", store),
            ("cat", store, "/f"),
            ("get", store, "/", tmp_path / "o"),
            ("put", store, "/etc", "/"),
        ):
            assert f"in use by process {os.getpid()}" in refused(*words)
        assert json.loads(done("info", store, "--json"))["in_use_by"] == os.getpid()
        assert rows("snapshot", "list", store) == []
    assert done("cat", store, "/f") == "1"


def test_what_is_no_store(tmp_path: Path) -> None:
    for words in (("ls",), ("info",), ("snapshot", "list")):
        assert "no store here; 'idemfs init" in refused(*words, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_help_of_each_command_names_its_arguments() -> None:
    for words in (("init",), ("put",), ("get",), ("ls",), ("cat",), ("info",)):
        text = done(*words, "--help")
        assert text.startswith(f"usage: idemfs {words[0]}") and "exit status: 0 done" in text
        assert "STORE" in text
        assert "see 'idemfs" in refused(*words, status=2)


def test_a_damaged_page_of_the_metadata_is_told_by_the_check(store: Path, source: Path, tmp_path: Path) -> None:
    """LMDB has no checksums for its pages, and ends a process that meets some kinds of damage."""
    done("put", store, source, "/")
    page_count = (store / "meta" / "data.mdb").stat().st_size // 4096
    told = set()
    for number in range(2, page_count, 3):
        copy = tmp_path / str(number)
        shutil.copytree(store, copy)
        with open(copy / "meta" / "data.mdb", "r+b") as file:
            file.seek(number * 4096)
            file.write(bytes(4096))
        ended = idemfs("check", copy)
        told.add((ended.status, "the metadata file is damaged" in ended.err))
    assert (1, True) in told
    # Some pages are free.
    assert told <= {(1, True), (0, False), (1, False)}


def test_a_full_host_leaves_room_to_delete(source: Path, tmp_path: Path) -> None:
    """Also for a process that opens the store when the host is full already."""
    with small_disk(tmp_path / "disk", 48 << 20) as disk:
        done("init", disk / "store")
        (source / "large").write_bytes(os.urandom(16 << 20))
        done("put", disk / "store", source, "/")
        done("snapshot", "create", disk / "store", "monday")
        with open(disk / "other", "wb", buffering=0) as other, pytest.raises(OSError, match="space"):
            while True:
                other.write(bytes(1 << 16))
        (tmp_path / "empty").mkdir()
        done("put", "--mirror", disk / "store", tmp_path / "empty", "/")
        done("snapshot", "delete", "--yes", disk / "store", "monday")
        assert os.statvfs(disk).f_bavail * 4096 > 12 << 20
        assert done("check", disk / "store").startswith("clean")
