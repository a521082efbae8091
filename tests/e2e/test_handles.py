"""File handles, by which NFS servers find files again: also after the store was unmounted and mounted again."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.mounted import idemfs, missing, mounted

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _SIZE_MAX = -100, 128


def handle_of(path: Path) -> bytes:
    handle = ctypes.create_string_buffer(struct.pack("=Ii", _SIZE_MAX, 0), 8 + _SIZE_MAX)
    mount = ctypes.c_int()
    if _LIBC.name_to_handle_at(_AT_FDCWD, os.fsencode(path), handle, ctypes.byref(mount), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    return handle.raw[: 8 + struct.unpack_from("=I", handle)[0]]


@contextmanager
def opened(at: Path, handle: bytes, flags: int = os.O_RDONLY) -> Iterator[int]:
    mount = os.open(at, os.O_RDONLY)
    try:
        fd = _LIBC.open_by_handle_at(mount, handle, flags)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
    finally:
        os.close(mount)
    try:
        yield fd
    finally:
        os.close(fd)


def content(at: Path, handle: bytes) -> bytes:
    with opened(at, handle) as fd:
        return os.read(fd, 100)


def path_of(at: Path, handle: bytes) -> str:
    with opened(at, handle) as fd:
        return os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), at)


def test_handles_hold_after_a_remount(tmp_path: Path) -> None:
    store = tmp_path / "store"
    idemfs("init", store)
    with mounted(store, tmp_path / "mount") as at:
        os.makedirs(at / "a/b/c")
        for name in ("a/b/c/file", "a/moved", "a/gone"):
            (at / name).write_text(name)
        (at / "a/link").symlink_to("gone")
        os.mkdir(at / ".snapshots/one")
        (at / "a/b/c/file").write_text("changed")
        names = (
            "",
            "a/b/c",
            "a/b/c/file",
            "a/moved",
            "a/gone",
            ".snapshots/one/a/b/c/file",
            ".snapshots/one/a/b",
            ".snapshots/one",
            "a/link",
            ".snapshots/latest",
            ".snapshots/one/.snapshots",
        )
        handles = {name: handle_of(at / name) for name in names}
    with mounted(store, tmp_path / "mount") as at:
        assert content(at, handles["a/b/c/file"]) == b"changed"
        assert content(at, handles[".snapshots/one/a/b/c/file"]) == b"a/b/c/file"
        for link, target in ((".snapshots/latest", "one"), (".snapshots/one/.snapshots", ".."), ("a/link", "gone")):
            with opened(at, handles[link], os.O_PATH | os.O_NOFOLLOW) as fd:
                assert os.readlink("", dir_fd=fd) == target
    with mounted(store, tmp_path / "mount") as at:
        # Names of those that nobody looked up: the kernel asks for their parents.
        for name in ("a/b/c", ".snapshots/one/a/b", ".snapshots/one", ""):
            assert path_of(at, handles[name]) == (name or ".")
        with opened(at, handles["a/b/c"]) as fd:
            assert os.listdir(fd) == ["file"]
            assert os.stat("../../..", dir_fd=fd).st_ino == os.stat(at).st_ino
    with mounted(store, tmp_path / "mount") as at:
        os.rename(at / "a/moved", at / "a/b/moved")
        os.unlink(at / "a/gone")
        (at / "a/gone").write_text("another")
        assert content(at, handles["a/moved"]) == b"a/moved"
        with opened(at, handles["a/moved"], os.O_RDWR) as fd:
            os.pwrite(fd, b"A", 0)
        assert (at / "a/b/moved").read_text() == "A/moved"
        with pytest.raises(OSError) as caught:
            content(at, handles["a/gone"])
        assert caught.value.errno == errno.ESTALE
        os.rmdir(at / ".snapshots/one")
        with pytest.raises(OSError) as caught:
            content(at, handles[".snapshots/one/a/b/c/file"])
        assert caught.value.errno == errno.ESTALE
