"""What members of the socket's group may ask for, and that nothing else gets through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from idemfs.errors import NotPermitted
from idemfs.node.members import permitted


@pytest.fixture
def store(tmp_path: Path) -> str:
    os.makedirs(tmp_path / "data")
    os.symlink("data", tmp_path / "link")
    return str(tmp_path / "data")


@pytest.mark.parametrize(
    ("given", "run"),
    [
        ("status STORE", "status -- STORE"),
        ("status --json LINK", "status --json -- STORE"),
        ("info STORE --json", "info --json -- STORE"),
        ("history STORE", "history -- STORE"),
        ("links --json STORE", "links --json -- STORE"),
        ("drill list STORE", "drill list -- STORE"),
        ("diverged list STORE --json", "diverged list --json -- STORE"),
        ("automatic status STORE", "automatic status -- STORE"),
        ("standby list STORE", "standby list -- STORE"),
        ("fileset list STORE", "fileset list -- STORE"),
        ("snapshot list STORE *", "snapshot list -- STORE *"),
        ("snapshot create LINK a b@c", "snapshot create -- STORE a b@c"),
        ("snapshot create --exclude=tmp -- STORE -x", "snapshot create --exclude=tmp -- STORE -x"),
    ],
)
def test_what_is_carried_out(store: str, given: str, run: str) -> None:
    def words(text: str) -> list[str]:
        return text.replace("STORE", store).replace("LINK", f"{os.path.dirname(store)}/link").split()

    assert permitted(words(given), store) == words(run)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "cat STORE /f",
        "ls STORE",
        "get STORE / /tmp/x",
        "put STORE /etc /",
        "snapshot",
        "snapshot delete STORE a",
        "snapshot diff STORE a b",
        "snapshot create STORE a --before id",
        "snapshot create STORE a --before=id",
        "snapshot create --after=id STORE a",
        "snapshot list /",
        "snapshot list",
        "snapshot list -- /",
        "info STORE@a",
        "status --json=1 STORE",
        "fileset list STORE --shared",
        "failover STORE --yes",
        "peer STORE",
        "serve --config /etc/shadow",
        "mount STORE /mnt",
        "mount STORE /etc --snapshot=a",
        "drill mount STORE try /etc",
        "drill start STORE --mount=/etc",
        "drill end STORE try",
        "diverged release STORE a",
        "links --watch STORE",
    ],
)
def test_what_is_refused(store: str, given: str) -> None:
    with pytest.raises(NotPermitted, match="members of the socket's group may"):
        permitted(given.replace("STORE", store).split(), store)
