"""``idemfs serve``: its beginning, its reloads and its end, and what users of its stores see of them."""

from __future__ import annotations

import errno
import grp
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from idemfs.engines.lock import owner
from tests.conformance.mounted import idemfs, missing
from tests.e2e.ending import wait_for_end
from tests.e2e.serving import Served, is_free, is_mounted, served, table

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

DOCUMENT = Path(__file__).parents[2] / "docs/SERVE.md"
NOBODY = 65534
_MEMBER = f"""
import os, sys
from idemfs.cli import failures
from idemfs.cli.main import main
from idemfs.node import local_socket
group, arguments = int(sys.argv[1]), sys.argv[2:]
# What is imported later may not be readable: so it is run once before.
out, err, nothing = os.dup(1), os.dup(2), os.open(os.devnull, os.O_RDWR)
os.dup2(nothing, 1)
os.dup2(nothing, 2)
main(["snapshot", "list", "/nowhere"])
main([*arguments[:-1], "/nowhere"])
os.dup2(out, 1)
os.dup2(err, 2)
os.setgroups([group])
os.setresgid(group, group, group)
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
sys.exit(main(arguments))
"""


class Place:
    """Two stores with a directory each, where they are to be mounted, and a configuration."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "idemfs.toml"
        self.a, self.b = self.store("a"), self.store("b")
        self.at, self.bt = path / "at", path / "bt"
        self.at.mkdir()
        self.bt.mkdir()
        self.configure(table(self.a, self.at), table(self.b, self.bt))

    def store(self, name: str) -> Path:
        idemfs("init", self.path / name)
        return self.path / name

    def configure(self, *tables: str, node: str = "") -> None:
        self.config.write_text(f'[node]\nname = "n"\n{node}\n' + "".join(tables))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_two_stores_from_beginning_to_end(place: Place) -> None:
    with served(place.config):
        (place.at / "f").write_text("of a")
        (place.bt / "f").write_text("of b")
        assert is_mounted(place.at) and owner(str(place.a)) == owner(str(place.b))
        assert idemfs("cat", place.a, "/f").stdout == "of a"
        idemfs("snapshot", "create", place.b, "monday")
        assert (place.bt / ".snapshots/monday/f").read_text() == "of b"
        assert "monday" in idemfs("snapshot", "list", place.b).stdout
        assert "primary" in idemfs("status", place.a).stdout
        refused = idemfs("mount", place.a, place.path, check=False)
        assert refused.returncode == 1 and "in use by process" in refused.stderr
    for store, directory in ((place.a, place.at), (place.b, place.bt)):
        assert is_free(store) and not is_mounted(directory) and os.listdir(directory) == []
        assert "clean" in idemfs("check", store, "--data").stdout
    assert idemfs("cat", place.a, "/f").stdout == "of a"


def test_a_store_without_a_mount(place: Place) -> None:
    place.configure(table(place.a))
    with served(place.config):
        idemfs("put", place.a, place.config, "/f")
        assert idemfs("cat", place.a, "/f").stdout == place.config.read_text()
        assert owner(str(place.a)) and owner(str(place.b)) is None


def test_after_a_kill_it_starts_again(place: Place) -> None:
    with served(place.config) as node:
        with open(place.at / "f", "w") as file:
            file.write("kept")
            file.flush()
            os.fsync(file.fileno())
            node.process.kill()
            wait_for_end(node.process.pid)
        with served(place.config):
            assert (place.at / "f").read_text() == "kept"
            (place.bt / "f").write_text("1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_under_load_loses_nothing_that_was_synced(place: Place, number: signal.Signals) -> None:
    synced: dict[str, int] = {}
    begun = threading.Barrier(3)

    def write(directory: Path) -> None:
        """Until the mount has gone."""
        count = 0
        try:
            with open(directory / "f", "wb", buffering=0) as file:
                while True:
                    file.write(count.to_bytes(8, "big"))
                    os.fsync(file.fileno())
                    synced[directory.name] = count
                    count += 1
                    if count == 20:
                        begun.wait()
        except OSError as error:
            assert error.errno in (errno.ENOTCONN, errno.EIO, errno.ECONNABORTED), error

    with served(place.config) as node:
        writers = [threading.Thread(target=write, args=(directory,)) for directory in (place.at, place.bt)]
        for writer in writers:
            writer.start()
        begun.wait()
        assert node.end(number) == 0, node.log
        for writer in writers:
            writer.join()
    for store, directory in ((place.a, place.at), (place.b, place.bt)):
        assert is_free(store) and not is_mounted(directory)
        idemfs("get", store, "/", place.path / f"{store.name}-copy")
        data = (place.path / f"{store.name}-copy/f").read_bytes()
        assert len(data) >= 8 * (synced[directory.name] + 1) and synced[directory.name] >= 19
        assert all(data[8 * at : 8 * at + 8] == at.to_bytes(8, "big") for at in range(len(data) // 8))
        assert "clean" in idemfs("check", store, "--data").stdout


class TestReload:
    def test_what_did_not_change_goes_on(self, place: Place) -> None:
        added = place.store("c")
        ct = place.path / "ct"
        ct.mkdir()
        with served(place.config) as node:
            (place.bt / "f").write_text("1")
            with open(place.at / "open", "w+", buffering=1) as file:
                file.write("before\n")
                device = os.stat(place.at).st_dev
                place.configure(table(place.a, place.at), table(added, ct))
                node.reload()
                file.write("after\n")
                file.seek(0)
                assert file.read() == "before\nafter\n" and os.stat(place.at).st_dev == device
            assert is_free(place.b) and not is_mounted(place.bt)
            (ct / "f").write_text("1")
            assert idemfs("cat", place.b, "/f").stdout == "1"

    def test_an_open_file_of_a_mount_that_goes(self, place: Place) -> None:
        with served(place.config) as node:
            with open(place.bt / "f", "wb", buffering=0) as file:
                file.write(b"1")
                place.configure(table(place.a, place.at), table(place.b))
                node.reload()
                with pytest.raises(OSError, match="not connected"):
                    file.write(b"2")
            assert not is_mounted(place.bt) and owner(str(place.b)) == node.process.pid
            assert idemfs("cat", place.b, "/f").stdout == "1"
            (place.at / "f").write_text("goes on")

    def test_mounts_change_places(self, place: Place) -> None:
        with served(place.config) as node:
            (place.at / "f").write_text("of a")
            place.configure(table(place.a, place.bt), table(place.b, place.at, 'mount_options = ["ro"]'))
            node.reload()
            assert (place.bt / "f").read_text() == "of a"
            with pytest.raises(OSError, match="Read-only"):
                (place.at / "f").write_text("1")

    def test_a_configuration_with_a_mistake_is_refused(self, place: Place) -> None:
        with served(place.config) as node:
            place.configure(table(place.a, place.at, 'mont = "/mnt"'))
            node.process.send_signal(signal.SIGHUP)
            line = node.wait_for("not reloaded")
            assert "[[store]] a: key mont: is unknown" in line and " error " in line
            (place.bt / "f").write_text("1")


class TestUnmounted:
    @pytest.mark.parametrize("command", [["umount"], [sys.executable, "-m", "idemfs", "umount"]])
    def test_the_store_stays(self, place: Place, command: list[str]) -> None:
        with served(place.config) as node:
            (place.at / "f").write_text("1")
            subprocess.run([*command, str(place.at)], check=True, timeout=60)
            assert "unmounted by somebody" in node.wait_for(f"{place.at} was")
            assert owner(str(place.a)) == node.process.pid and idemfs("cat", place.a, "/f").stdout == "1"
            node.reload()
            assert (place.at / "f").read_text() == "1", "a reload mounts again what should be mounted"

    def test_by_force(self, place: Place) -> None:
        with served(place.config) as node:
            with open(place.at / "f", "wb", buffering=0) as file:
                assert "busy" in idemfs("umount", place.at, check=False).stderr
                idemfs("umount", "--force", place.at)
                assert not is_mounted(place.at)
                file.write(b"open files of a detached mount go on")
            node.wait_for("unmounted by somebody")
            (place.bt / "f").write_text("1")
            assert idemfs("cat", place.a, "/f").stdout.startswith("open files")


def test_what_cannot_be_served_hinders_nothing_and_is_tried_again(place: Place) -> None:
    superblock = place.a / "superblock"
    kept = superblock.read_bytes()
    superblock.write_bytes(bytes(len(kept)))
    place.bt.rmdir()
    node = Served(place.config)
    try:
        assert "store=a" in node.wait_for("is not served, and tried again")
        assert "store=b" in node.wait_for("mount: ")
        node.wait_for("is ready")
        assert "primary" in idemfs("status", place.b).stdout
        seen = json.loads(idemfs("node", "status", "--config", place.config, "--json").stdout)["stores"]
        assert [(each["name"], each["is_served"], each["mount"]) for each in seen] == [
            ("a", False, None),
            ("b", True, None),
        ]
        assert list(seen[0]["problems"]) == ["store"] and list(seen[1]["problems"]) == ["mount"]
        assert str(place.bt) in idemfs("node", "status", "--config", place.config).stdout
        place.bt.mkdir()
        superblock.write_bytes(kept)
        node.wait_for(f"mounted on {place.at}")
        node.wait_for(f"mounted on {place.bt}")
        (place.at / "f").write_text("1")
        assert str(place.bt) in idemfs("node", "status", "--config", place.config).stdout
        assert node.end() == 0
    finally:
        node.close()
    ended = idemfs("node", "status", "--config", place.config, check=False)
    assert ended.returncode == 1 and "nobody serves it" in ended.stderr


def test_the_service_manager_is_told(place: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place.path / "notify"))
        manager.settimeout(60)
        node = Served(place.config, {"NOTIFY_SOCKET": str(place.path / "notify")})
        try:
            assert manager.recv(1000) == b"READY=1"
            node.process.send_signal(signal.SIGHUP)
            first, second = manager.recv(1000).split(b"\n")
            assert first == b"RELOADING=1" and second.removeprefix(b"MONOTONIC_USEC=").isdigit()
            assert manager.recv(1000) == b"READY=1"
            assert node.end() == 0 and manager.recv(1000) == b"STOPPING=1"
        finally:
            node.close()


def test_the_unit_of_the_document(place: Place) -> None:
    found = re.search(r"```\n(\[Unit\]\n.*?)```", DOCUMENT.read_text(), re.S)
    assert found is not None
    if shutil.which("systemd-analyze") is None:
        pytest.skip("not installed here: systemd")
    unit = place.path / "idemfs.service"
    unit.write_text(found[1].replace("/usr/local/bin/idemfs", str(Path(sys.executable).parent / "idemfs")))
    ended = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_logs_as_json(place: Place) -> None:
    place.configure(table(place.a, place.at), node='log = "json"')
    with served(place.config) as node:
        pass
    rows = [json.loads(line) for line in node.log]
    assert {"store": "a", "what": f"mounted on {place.at}", "level": "info"}.items() <= rows[1].items()


def test_the_configuration_is_checked(place: Place) -> None:
    assert "is right; 2 stores" in idemfs("serve", "--config", place.config, "--check").stdout
    assert owner(str(place.a)) is None
    place.configure("[[store]]\n")
    for more in ([], ["--check"]):
        ended = idemfs("serve", "--config", place.config, *more, check=False)
        assert ended.returncode == 1 and "key name: is missing" in ended.stderr and ended.stderr.count("\n") == 1


def test_roles_change_through_the_socket_and_history_says_who_did_it(place: Place) -> None:
    (place.path / "standby").mkdir()
    standby = place.path / "standby/data"
    idemfs("standby", "add", place.a, standby)
    place.configure(table(place.a, place.at), table(standby, place.bt))
    with served(place.config):
        (place.at / "f").write_text("0")
        idemfs("replicate", place.a)
        assert (place.bt / "f").read_text() == "0"
        (place.at / "f").write_text("1")
        idemfs("switchover", place.a, "--yes")
        assert (place.bt / "f").read_text() == "1"
        (place.bt / "f").write_text("2")
        with pytest.raises(OSError, match="Read-only"):
            (place.at / "g").write_text("1")
        rows = json.loads(idemfs("history", place.a, "--json").stdout)
    assert [(row["what"], row["epoch"]) for row in rows] == [
        ("standby add", None),
        ("transfer", None),
        ("transfer", None),
        ("switchover", 2),
    ]
    assert {(row["from"], row["to"]) for row in rows} == {(str(place.a), str(standby))}
    assert all(row["by"].endswith(f"({os.getuid()})") and row["outcome"] == "done" for row in rows)
    there = json.loads(idemfs("history", standby, "--json").stdout)
    assert [row["what"] for row in there] == ["transfer", "transfer", "switchover"]
    assert "switchover" in idemfs("history", standby).stdout


class TestMembersOfTheGroup:
    """Root plays a user who is nobody but a member of a group."""

    def member(self, *arguments: str | Path, group: int = NOBODY) -> subprocess.CompletedProcess[str]:
        """A command of theirs; its last argument is put in place of another one when what it imports is."""
        command = [sys.executable, "-c", _MEMBER, str(group), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, cwd="/", stdin=subprocess.DEVNULL
        )

    @pytest.fixture
    def shared(self) -> Iterator[Place]:
        """Where others may pass."""
        with TemporaryDirectory() as path:
            os.chmod(path, 0o755)
            place = Place(Path(path))
            name = grp.getgrgid(NOBODY).gr_name
            place.configure(table(place.a, None, f'socket_group = "{name}"'), table(place.b))
            yield place

    def test_what_they_may(self, shared: Place) -> None:
        with served(shared.config):
            made = self.member("snapshot", "create", shared.a, "monday")
            assert made.returncode == 0 and "monday" in made.stdout, made.stderr
            assert "monday" in self.member("snapshot", "list", shared.a).stdout
            assert "primary" in self.member("status", shared.a).stdout
            assert "OUTCOME" in self.member("history", shared.a).stdout
            assert "compression" in self.member("info", shared.a).stdout
            assert "root" in self.member("fileset", "list", shared.a).stdout
            assert self.member("links", shared.a).stdout == "no links\n"
            assert "FILESETS" in self.member("drill", "list", shared.a).stdout
            assert "EPOCH" in self.member("diverged", "list", shared.a).stdout

    def test_what_they_may_not(self, shared: Place) -> None:
        with served(shared.config):
            idemfs("snapshot", "create", shared.a, "kept")
            for words in (
                ("snapshot", "delete", shared.a, "kept"),
                ("cat", shared.a, "/f"),
                ("put", shared.a, shared.config, "/f"),
                ("fileset", "list", "--shared", shared.a),
                ("drill", "start", shared.a, "try", "--mount", shared.path),
                ("drill", "mount", shared.a, "try", shared.path),
            ):
                ended = self.member(*words)
                assert ended.returncode == 1 and ended.stdout == "" and ended.stderr.count("\n") == 1, ended
                assert "members of the socket's group may" in ended.stderr
            assert idemfs("snapshot", "list", shared.a).stdout.count("kept") == 1

    def test_who_is_none(self, shared: Place) -> None:
        with served(shared.config) as node:
            assert self.member("status", shared.a).returncode == 0
            for ended in (self.member("status", shared.b), self.member("status", shared.a, group=12345)):
                assert ended.returncode == 1 and "Permission denied" in ended.stderr
            shared.configure(table(shared.a), table(shared.b))
            node.reload()
            assert "Permission denied" in self.member("status", shared.a).stderr
