"""Two stores that reach each other over a connection: as over ssh, and by the process that has one of them open."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from idemfs.errors import ConnectionLost
from idemfs.failover.remote import RemoteParty
from idemfs.ids import Guid
from idemfs.node.connecting import connect
from idemfs.replication.session import Session
from tests.conformance.mounted import missing, mounted
from tests.e2e.program import done, idemfs, refused, rows

SSH = """\
#!{python}
# What ssh does with its arguments, on this machine: HOST is any, but for one that nobody answers at.
import os, sys

words = sys.argv[1:]
host, command = words[words.index("--") + 1 :]
if host == "nowhere":
    sys.exit("ssh: connect to host nowhere port 22: No route to host")
assert command.startswith("idemfs ")
os.chdir("/")
os.execvp("sh", ["sh", "-c", "exec {python} -m " + command])
"""


@pytest.fixture(autouse=True)
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ssh"
    program.write_text(SSH.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("IDEMFS_SSH", str(program))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A primary with a file, and a standby of it behind ssh, that knows it by ssh, too."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/f").write_text("one")
    done("init", tmp_path / "A")
    done("put", tmp_path / "A", tmp_path / "source", "/d")
    done("snapshot", "create", tmp_path / "A", "one")
    own = f"ssh://here{tmp_path}/A"
    done("standby", "add", tmp_path / "A", f"ssh://there{tmp_path}/B", "--own-address", own)
    done("replicate", tmp_path / "A")
    return tmp_path / "A"


def roles(*stores: Path) -> list[str]:
    return [rows("status", store)[0]["role"] for store in stores]


def test_roles_go_round_over_connections(here: Path, tmp_path: Path) -> None:
    there = tmp_path / "B"
    assert done("cat", there, "/d/f") == "one"
    (row,) = rows("standby", "list", here)
    assert (row["name"], row["is_reachable"], row["behind_snapshots"]) == ("there", True, 0)
    done("switchover", here, "--yes")
    assert roles(here, there) == ["standby", "primary"]
    done("failover", here, "--yes")
    assert roles(here, there) == ["primary", "fenced"]
    (tmp_path / "source/f").write_text("two")
    done("put", here, tmp_path / "source", "/e")
    done("failback", there, "--yes")
    assert roles(here, there) == ["primary", "standby"]
    assert done("cat", there, "/e/f") == "two"
    assert [row["digest"] for row in rows("snapshot", "list", here)] == [
        row["digest"] for row in rows("snapshot", "list", there)
    ]
    done("standby", "remove", here, "there")
    assert rows("standby", "list", there) == []


def test_nothing_is_made_for_a_dry_run(tmp_path: Path) -> None:
    done("init", tmp_path / "A")
    said = done("standby", "add", tmp_path / "A", f"ssh://there{tmp_path}/B", "--dry-run")
    assert f"make a store at ssh://there{tmp_path}/B" in said
    assert not (tmp_path / "B").exists()


def test_who_cannot_be_reached_is_told_with_the_reason(here: Path, tmp_path: Path) -> None:
    said = refused("standby", "add", here, "ssh://nowhere/srv/B")
    assert said == "ssh://nowhere/srv/B: ssh: connect to host nowhere port 22: No route to host"
    (tmp_path / "B").rename(tmp_path / "elsewhere")
    ended = idemfs("replicate", here)
    assert (ended.status, ended.err) == (1, f"idemfs: ssh://there{tmp_path}/B is not reachable (no store there)\n")
    (tmp_path / "file").write_text("")
    assert "is a file" in refused("standby", "add", here, f"ssh://there{tmp_path}/file")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://host/store", "no such address"),
        ("ssh://host", "is no address of a store; it has the form ssh://HOST/PATH"),
        ("ssh://host:port/x", "Port could not be cast"),
        ("ssh://u:secret@host/x", "names a password"),
        ("ssh://-oProxyCommand=x/y", "is no address of a store"),
    ],
)
def test_what_is_no_address_is_refused(tmp_path: Path, address: str, said: str) -> None:
    done("init", tmp_path / "A")
    assert said in refused("standby", "add", tmp_path / "A", address)


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_both_stores_are_mounted_all_the_while(here: Path, tmp_path: Path) -> None:
    there = tmp_path / "B"
    with mounted(here, tmp_path / "a") as a, mounted(there, tmp_path / "b") as b:
        assert (b / "d/f").read_text() == "one"
        (a / "g").write_text("two")
        done("replicate", here)
        assert (b / "g").read_text() == "two"
        done("switchover", here, "--yes")
        (b / "h").write_text("three")
        with pytest.raises(OSError):
            (a / "h").write_text("refused")
        done("switchover", there, "--yes")
        assert (a / "h").read_text() == "three"
        (a / "only here").write_text("kept")
        done("failover", there, "--yes")
        with pytest.raises(OSError):
            (a / "i").write_text("refused")
        (b / "i").write_text("four")
        done("failback", here, "--yes")
        assert sorted(path.name for path in a.iterdir()) == ["d", "g", "h", "i"]
        names = [row["name"] for row in rows("snapshot", "list", here)]
        assert (a / ".snapshots" / next(n for n in names if n.startswith("diverged")) / "only here").exists()
    assert "clean" in done("check", here) and "clean" in done("check", there)


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_two_mounted_stores_of_one_machine_find_each_other_by_path(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    done("init", one)
    done("standby", "add", one, two)
    with mounted(one, tmp_path / "a") as a, mounted(two, tmp_path / "b") as b:
        (a / "f").write_text("1")
        done("replicate", one)
        assert (b / "f").read_text() == "1"
        done("switchover", one, "--yes")
        (b / "f").write_text("2")
        done("switchover", two, "--yes")
        assert (a / "f").read_text() == "2"
    assert roles(one, two) == ["primary", "standby"]


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_an_empty_store_that_is_mounted_becomes_a_standby(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for store in (one, two):
        done("init", store)
    with mounted(two, tmp_path / "b") as b:
        done("standby", "add", one, f"ssh://there{two}", "--own-address", f"ssh://here{one}")
        with pytest.raises(OSError):
            (b / "f").write_text("refused")
        (tmp_path / "source").mkdir()
        (tmp_path / "source/f").write_text("1")
        done("put", one, tmp_path / "source", "/d")
        done("replicate", one)
        assert (b / "d/f").read_text() == "1"


def test_a_role_that_came_over_a_connection_is_in_the_history(here: Path, tmp_path: Path) -> None:
    done("switchover", here, "--yes")
    assert [(row["what"], row["epoch"]) for row in rows("history", tmp_path / "B")] == [("primary", 2)]
    (switchover,) = [row for row in rows("history", here) if row["what"] != "transfer"]
    assert (switchover["what"], switchover["epoch"]) == ("switchover", 2)


def test_a_standby_takes_over_while_a_lost_primary_still_holds_it(here: Path, tmp_path: Path) -> None:
    there = tmp_path / "B"
    with Session(connect(f"ssh://there{there}"), Guid(b"?" * 16)) as session:
        party = RemoteParty(session)
        party.claim()
        assert "primary of epoch 2" in done("failover", there, "--yes")
        with pytest.raises(ConnectionLost):
            party.observe("")
    assert roles(there) == ["primary"]
