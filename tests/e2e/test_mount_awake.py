"""Processors that are kept awake while a mount is asked one thing after another."""

from __future__ import annotations

import os
import time
from pathlib import Path
from struct import unpack

import pytest

from idemfs.engines.lock import owner
from idemfs.mount.awake import DEVICE
from tests.conformance.mounted import idemfs, missing, mounted

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

PATIENCE_SECONDS = 30


@pytest.fixture
def store(tmp_path: Path) -> Path:
    idemfs("init", tmp_path / "store")
    return tmp_path / "store"


def device_files(store: Path) -> list[str]:
    """Descriptors of the kernel's device that the process of the mount has."""
    folder = Path(f"/proc/{owner(str(store))}/fd")
    return [each for each in os.listdir(folder) if os.readlink(folder / each) == DEVICE]


@pytest.mark.skipif(not os.access(DEVICE, os.W_OK), reason=f"{DEVICE} cannot be opened here")
def test_while_files_are_made_idle_processors_look_for_work(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "mount", "-o", "awake,noatime") as at, open(DEVICE, "rb", buffering=0) as device:
        assert len(device_files(store)) == 1
        until = time.monotonic() + PATIENCE_SECONDS
        while unpack("=i", os.pread(device.fileno(), 4, 0)) != (0,):
            assert time.monotonic() < until, "nobody asked the kernel"
            for number in range(50):
                (at / f"{number}").write_bytes(b"content")


def test_a_mount_that_is_told_not_to_does_not_ask(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "mount", "-o", "noawake") as at:
        (at / "f").write_bytes(b"content")
        assert device_files(store) == []
