"""What a mount asks of the kernel while requests follow each other."""

from __future__ import annotations

import os
import time
from pathlib import Path
from struct import iter_unpack

import pytest

from idemfs.mount import awake
from idemfs.mount.awake import STREAK_COUNT, Awake, chosen

PATIENCE_SECONDS = 30
WAKEFUL, AS_USUAL = 0, 2_000_000_000
VIRTUAL = "processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm\n"
REAL = "processor\t: 0\nflags\t\t: fpu vme lahf_lm\n"


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of the kernel's, which keeps all that is written to it."""
    path = tmp_path / "cpu_dma_latency"
    path.touch()
    monkeypatch.setattr(awake, "DEVICE", str(path))
    return path


def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, cpu_count: int) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(awake, "_CPUINFO", str(tmp_path / "cpuinfo"))
    monkeypatch.setattr(os, "cpu_count", lambda: cpu_count)


def asked(device: Path) -> list[int]:
    return [value for (value,) in iter_unpack("=i", device.read_bytes())]


def test_a_burst_keeps_processors_awake_until_it_ends(device: Path) -> None:
    mount, _ = chosen(["awake"])
    for _ in range(STREAK_COUNT - 1):
        mount.came()
    assert asked(device) == []
    for _ in range(100):
        mount.came()
    assert asked(device) == [WAKEFUL]
    mount.ended()
    mount.ended()
    assert asked(device) == [WAKEFUL, AS_USUAL]
    for _ in range(STREAK_COUNT):
        mount.came()
    assert asked(device) == [WAKEFUL, AS_USUAL, WAKEFUL]
    mount.close()


def test_requests_far_apart_ask_for_nothing(device: Path) -> None:
    mount, _ = chosen(["awake"])
    for _ in range(10 * STREAK_COUNT):
        mount.came()
        mount.ended()
    mount.close()
    assert asked(device) == []


@pytest.mark.parametrize(
    "options, text, cpu_count, asks",
    [
        ([], VIRTUAL, 2, True),
        ([], VIRTUAL, 64, False),
        ([], REAL, 2, False),
        (["awake"], REAL, 64, True),
        (["noawake"], VIRTUAL, 2, False),
    ],
)
def test_who_asks(
    device: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    text: str,
    cpu_count: int,
    asks: bool,
) -> None:
    machine(tmp_path, monkeypatch, text, cpu_count)
    mount, others = chosen(["ro", *options, "noexec"])
    assert others == ["ro", "noexec"]
    for _ in range(STREAK_COUNT):
        mount.came()
    mount.close()
    assert asked(device) == ([WAKEFUL] if asks else [])


def test_a_burst_ends_by_itself_when_nobody_looks_for_requests_any_more(device: Path) -> None:
    mount, _ = chosen(["awake"])
    for _ in range(STREAK_COUNT):
        mount.came()
    until = time.monotonic() + PATIENCE_SECONDS
    while asked(device) != [WAKEFUL, AS_USUAL]:
        assert time.monotonic() < until
        time.sleep(0.01)
    for _ in range(STREAK_COUNT):
        mount.came()
    assert asked(device) == [WAKEFUL, AS_USUAL, WAKEFUL]
    mount.close()


def test_a_kernel_that_fails_is_asked_no_more_and_the_mount_lives_on(
    device: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(awake, "DEVICE", "/dev/full")
    mount, _ = chosen(["awake"])
    for _ in range(3):
        for _ in range(STREAK_COUNT):
            mount.came()
        mount.ended()
    assert not mount.is_asked
    assert [record.message for record in caplog.records] == [
        "/dev/full: No space left on device; processors are not kept awake any more"
    ]
    mount.close()


def test_a_machine_that_does_not_say_what_it_is_is_left_alone(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awake, "_CPUINFO", str(tmp_path / "none"))
    mount, others = chosen(["ro"])
    for _ in range(STREAK_COUNT):
        mount.came()
    assert (asked(device), others) == ([], ["ro"])


def test_where_the_kernel_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, VIRTUAL, 2)
    monkeypatch.setattr(awake, "DEVICE", str(tmp_path / "none"))
    mount, _ = chosen([])
    for _ in range(STREAK_COUNT):
        mount.came()
    assert not mount.is_asked
    with pytest.raises(OSError, match="leave it out, or mount as root"):
        chosen(["awake"])


def test_closing_lets_the_kernel_forget(device: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    mount, _ = chosen(["awake"])
    for _ in range(STREAK_COUNT):
        mount.came()
    mount.close()
    mount.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert not Awake().is_asked
