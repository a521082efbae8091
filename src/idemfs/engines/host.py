"""What both engines ask of the host's file system beyond ``os``: space that is really there, and the way back.

A host that cannot reserve (EOPNOTSUPP) is asked how much is free instead; that is a
promise no longer, but the best to be had. glibc's ``posix_fallocate`` is not used: on
such hosts it writes into the file, which races with whoever else writes there.

Threads: every function may be called from any thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable

from idemfs.errors import NoSpace

KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})

# From linux/fs.h: read and change a file's attributes; the one that chattr calls C.
_GETFLAGS, _SETFLAGS, _NOCOW = 0x80086601, 0x40086602, 0x00800000
_FLAGS = struct.Struct("i")

_WRITE_OUT = 2
"""SYNC_FILE_RANGE_WRITE"""

_fallocate: Callable[[int, int, int, int], int] | None = None
_sync_file_range: Callable[[int, int, int, int], int] | None = None


def is_full(number: int) -> bool:
    """Whether this errno says that the host has no more room for us."""
    return number in _NO_ROOM


def no_space(path: str) -> NoSpace:
    return NoSpace(f"{path}: the host file system is full; free some space there")


def reserve(fd: int, path: str, offset: int, size: int, *, keep_size: bool) -> None:
    """Back these bytes of the file with real space. Raises ``NoSpace``; a part may be backed then."""
    try:
        fallocate(fd, KEEP_SIZE if keep_size else 0, offset, size)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            host = os.fstatvfs(fd)
            if host.f_bavail * host.f_frsize < size:
                raise no_space(path) from error
        elif error.errno is not None and is_full(error.errno):
            raise no_space(path) from error
        else:
            raise


def give_back(fd: int, offset: int, size: int) -> bool:
    """Free the space under these bytes. False on a host that cannot."""
    try:
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, size)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def fallocate(fd: int, mode: int, offset: int, size: int) -> None:
    """``fallocate(2)``, which ``os`` lacks. Raises ``OSError``."""
    global _fallocate
    # Late, since reading commands never need it and it is slow to import.
    import ctypes

    if _fallocate is None:
        function = ctypes.CDLL(None, use_errno=True).fallocate
        function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        function.restype = ctypes.c_int
        _fallocate = function
    while _fallocate(fd, mode, offset, size):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def start_writing(fd: int, offset: int, size: int) -> None:
    """Have the host begin to write these bytes to its disk, without waiting (``sync_file_range(2)``).

    They are no safer for it, but a sync that comes later has less to wait for. A host that cannot is no error.
    """
    global _sync_file_range
    import ctypes

    if _sync_file_range is None:
        function = ctypes.CDLL(None).sync_file_range
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
        _sync_file_range = function
    _sync_file_range(fd, offset, size, _WRITE_OUT)


def overwrite_in_place(path: str) -> None:
    """Let files that are made in this directory from now on be overwritten where they are, if the host can choose.

    btrfs otherwise writes to new space each time, so that nothing could be reserved; and storing
    through a map, as LMDB does in its lock file, ends in SIGBUS when there is none. The price is that btrfs
    keeps no checksums of these files.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        (flags,) = _FLAGS.unpack(fcntl.ioctl(fd, _GETFLAGS, bytes(_FLAGS.size)))
        fcntl.ioctl(fd, _SETFLAGS, _FLAGS.pack(flags | _NOCOW))
    except OSError as error:
        # Whoever does not know the attribute says so in one of these ways.
        if error.errno not in _UNSUPPORTED | {errno.ENOTTY, errno.EINVAL, errno.EPERM}:
            raise
    finally:
        os.close(fd)


def sync_directory(path: str) -> None:
    """Make the names in this directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # crash: a file is lost with all that was synced in it, unless its name is durable too.
        os.fsync(fd)
    finally:
        os.close(fd)
