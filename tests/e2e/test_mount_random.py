"""Random changes of one file by every call that a mount supports, against the same bytes in memory.

Snapshots are taken meanwhile, and compared at the end. The long run is that of the issue: 500,000 changes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from random import Random

import pytest

from tests.conformance.mounted import idemfs, missing, mounted

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

SIZE_MAX = 700_000
_LIBC = ctypes.CDLL(None, use_errno=True)
_KEEP_SIZE, _PUNCH, _ZERO = 1, 2, 16


class Exerciser:
    """One open file and what it should hold."""

    def __init__(self, path: Path, rng: Random) -> None:
        self.path = path
        self.rng = rng
        self.model = bytearray()
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)

    def place(self) -> tuple[int, int]:
        rng = self.rng
        size = rng.choice((1, 100, 4096, rng.randrange(1, 20_000), rng.randrange(1, 150_000)))
        start = rng.choice((0, len(self.model), rng.randrange(SIZE_MAX), rng.randrange(len(self.model) + 1)))
        start = min(start, SIZE_MAX - size)
        return (start & ~4095 if rng.randrange(4) == 0 else start), size

    def put(self, start: int, data: bytes) -> None:
        self.model.extend(bytes(max(0, start - len(self.model))))
        self.model[start : start + len(data)] = data

    def write(self) -> None:
        start, size = self.place()
        data = self.rng.randbytes(size) if self.rng.randrange(5) else bytes(size)
        assert os.pwrite(self.fd, data, start) == size
        self.put(start, data)

    def read(self) -> None:
        start, size = self.place()
        assert os.pread(self.fd, size, start) == self.model[start : start + size]

    def truncate(self) -> None:
        size = self.place()[0]
        os.ftruncate(self.fd, size)
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def _fallocate(self, mode: int, start: int, size: int) -> None:
        if _LIBC.fallocate(self.fd, mode, ctypes.c_long(start), ctypes.c_long(size)):
            raise OSError(ctypes.get_errno(), "fallocate")

    def punch(self) -> None:
        start, size = self.place()
        self._fallocate(_PUNCH | _KEEP_SIZE, start, size)
        inside = max(0, min(size, len(self.model) - start))
        if inside:
            self.put(start, bytes(inside))

    def zero(self) -> None:
        start, size = self.place()
        self._fallocate(_ZERO, start, size)
        self.put(start, bytes(size))

    def extend(self) -> None:
        start, size = self.place()
        self._fallocate(0, start, size)
        self.model.extend(bytes(max(0, start + size - len(self.model))))

    def write_mapped(self) -> None:
        start, size = self.place()
        size = min(size, len(self.model) - start)
        if size > 0:
            data = self.rng.randbytes(size)
            with mmap.mmap(self.fd, len(self.model)) as mapped:
                mapped[start : start + size] = data
                mapped.flush()
            self.put(start, data)

    def read_mapped(self) -> None:
        if self.model:
            with mmap.mmap(self.fd, len(self.model), prot=mmap.PROT_READ) as mapped:
                start, size = self.place()
                assert mapped[start : start + size] == self.model[start : start + size]

    def copy(self) -> None:
        start, size = self.place()
        target = self.place()[0]
        size = min(size, len(self.model) - start, SIZE_MAX - target)
        if size > 0 and not start - size < target < start + size:
            done = os.copy_file_range(self.fd, self.fd, size, start, target)
            self.put(target, bytes(self.model[start : start + done]))

    def reopen(self) -> None:
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)

    def sync(self) -> None:
        os.fsync(self.fd)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def holes(self) -> None:
        """What the file says is a hole holds nothing but zeros."""
        end = 0
        while end < len(self.model):
            try:
                start = os.lseek(self.fd, end, os.SEEK_DATA)
            except OSError:
                start = len(self.model)
            assert not any(self.model[end:start])
            end = os.lseek(self.fd, start, os.SEEK_HOLE) if start < len(self.model) else start

    def step(self) -> None:
        common = (self.write, self.read, self.truncate, self.punch, self.zero, self.write_mapped, self.read_mapped)
        rare = (self.extend, self.copy, self.reopen, self.sync, self.holes)
        self.rng.choice(common * 3 + rare)()
        assert os.fstat(self.fd).st_size == len(self.model)


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(3_000, id="short"),
        pytest.param(500_000, id="long", marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_random_changes(tmp_path: Path, seed: int, count: int) -> None:
    idemfs("init", tmp_path / "store")
    kept: dict[str, bytes] = {}
    with mounted(tmp_path / "store", tmp_path / "mount") as at:
        exerciser = Exerciser(at / "f", Random(seed))
        try:
            for number in range(count):
                exerciser.step()
                if number % (count // 500 if count > 100_000 else 200) == 0:
                    name = f"s{number}"
                    os.mkdir(at / ".snapshots" / name)
                    kept[name] = bytes(exerciser.model)
                    if len(kept) > 50:
                        gone = exerciser.rng.choice(sorted(kept))
                        assert (at / ".snapshots" / gone / "f").read_bytes() == kept.pop(gone)
                        os.rmdir(at / ".snapshots" / gone)
            assert (at / "f").read_bytes() == exerciser.model
        finally:
            os.close(exerciser.fd)
        for name, content in kept.items():
            assert (at / ".snapshots" / name / "f").read_bytes() == content, name
    with mounted(tmp_path / "store", tmp_path / "mount") as at:
        assert (at / "f").read_bytes() == exerciser.model
        for name, content in kept.items():
            assert (at / ".snapshots" / name / "f").read_bytes() == content, name
