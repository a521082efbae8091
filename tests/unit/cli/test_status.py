"""What commands say of a store tells what to do, and where."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from idemfs.cli import node_status, status
from idemfs.cli.failures import Refused
from idemfs.errors import StoreMissing
from idemfs.failover.status import StoreStatus as StoreRow
from idemfs.node.node import StoreStatus
from idemfs.store.files import create_files
from idemfs.store.peek import read_superblock


def asked_of(tmp_path: Path, path: Path) -> str:
    config = tmp_path / "idemfs.toml"
    config.write_text(f'[[store]]\nname = "data"\npath = "{path}"\n')
    with pytest.raises(Refused) as caught:
        node_status.run(Namespace(config=str(config), json=False))
    return str(caught.value)


def test_a_node_without_a_store_that_is_open_says_what_keeps_each(tmp_path: Path) -> None:
    assert f"'idemfs init {tmp_path / 'data'}' makes one" in asked_of(tmp_path, tmp_path / "data")
    create_files(str(tmp_path / "data"))
    assert f"{tmp_path / 'data'}: nobody serves it" in asked_of(tmp_path, tmp_path / "data")


def test_a_fenced_store_is_told_how_to_come_back() -> None:
    fenced = StoreStatus(name="data", path="/srv/data", is_served=True, role="fenced", epoch=2, seen_epoch=3)
    (remark,) = node_status._remarks(fenced)
    assert "epoch 3" in remark and "'idemfs failback /srv/data'" in remark


def test_an_address_is_no_place_for_a_new_store() -> None:
    with pytest.raises(StoreMissing, match="on that machine") as caught:
        read_superblock("https://b:7443/data")
    assert "init" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "what"), [("/srv/data", "'idemfs diverged list /srv/data'"), ("https://b:7443/data", "list' there")]
)
def test_what_diverged_is_looked_at_where_the_store_is(path: str, what: str) -> None:
    row = StoreRow(path=path, guid="", is_reachable=True, unreleased_snapshots=1, unreleased_bytes=5)
    (remark,) = status._remarks(row)
    assert what in remark and "1 snapshot diverged" in remark
