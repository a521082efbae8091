"""Who owns a store: one process at a time, told apart from those that are long dead.

The truth is a lock that the kernel holds on the first byte of the store's lock file, and
drops when its owner ends, however that happens. The file's text (the owner's process id, and
when that process started, as in ``/proc/PID/stat``) only names the owner: a stale
file, or a process id that somebody else has by now, locks nobody out and is never reported.

The second byte is locked between taking the first and writing the text, and to read the text:
whoever finds the store locked reads the name of the one that locked it.

Locks are per open file description. So a second opening in the same process is refused like any other;
``exec`` closes the file; a child of ``os.fork`` closes its copy at once, and the
store stays its parent's alone.

Threads: any.
"""

from __future__ import annotations

import fcntl
import os
import struct

from idemfs.errors import StoreInUse, StoreMissing

LOCK_NAME = "lock"

_UNKNOWN_PID = 0
"""The owner runs where its process id means nothing to us, as in another container."""
_OWNER_BYTE, _TEXT_BYTE = 0, 1
_FLOCK = struct.Struct("hhqqi4x")
"""``struct flock``: type, whence, start, length, process id (0, as these locks ask)."""
_TEXT_SIZE_MAX = 64


class StoreLock:
    """The right to open the store at ``path``, from the moment this is made until ``close`` or the process ends."""

    def __init__(self, path: str) -> None:
        """Raises ``StoreInUse`` when somebody has it, ``StoreMissing`` when there is no such directory."""
        name = os.path.join(path, LOCK_NAME)
        try:
            self._fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreMissing(f"{path}: no store here") from error
        try:
            _lock(self._fd, _TEXT_BYTE, fcntl.F_WRLCK, wait=True)
            if not _lock(self._fd, _OWNER_BYTE, fcntl.F_WRLCK, wait=False):
                raise StoreInUse(path, _read_owner(self._fd))
            pid = os.getpid()
            text = f"{pid} {_start_time(pid) or 0}\n".encode()
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text, 0)
            _lock(self._fd, _TEXT_BYTE, fcntl.F_UNLCK, wait=False)
        except BaseException:
            os.close(self._fd)
            raise
        _held.add(self)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _held.discard(self)
            # The file stays: removing it would let two processes each lock a file of this name.
            os.close(fd)

    def __enter__(self) -> StoreLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def owner(path: str) -> int | None:
    """The process that owns the store at ``path``; None if nobody does, 0 if it cannot be named from here."""
    try:
        fd = os.open(os.path.join(path, LOCK_NAME), os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        _lock(fd, _TEXT_BYTE, fcntl.F_RDLCK, wait=True)
        return _read_owner(fd) if _is_locked(fd, _OWNER_BYTE) else None
    finally:
        os.close(fd)


def _lock(fd: int, byte: int, kind: int, *, wait: bool) -> bool:
    """Lock or unlock one byte of the file; False if somebody else has it."""
    request = _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, request)
    except BlockingIOError:
        return False
    return True


def _is_locked(fd: int, byte: int) -> bool:
    """Whether somebody has locked this byte. Asking takes no lock, and so stands in nobody's way."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    kind, *_ = _FLOCK.unpack(answer)
    return bool(kind != fcntl.F_UNLCK)


def _read_owner(fd: int) -> int:
    try:
        pid, started = map(int, os.pread(fd, _TEXT_SIZE_MAX, 0).split())
    except ValueError:
        return _UNKNOWN_PID
    return pid if started == (_start_time(pid) or 0) else _UNKNOWN_PID


def _start_time(pid: int) -> int | None:
    """When this process started, in the kernel's ticks since it booted. None if no such process can be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is the program's name in parentheses, and may hold anything; the 22nd is wanted.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


_held: set[StoreLock] = set()


def _drop_in_child() -> None:
    """A copy of the lock's file in a child would keep the store locked after the owner's end."""
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_drop_in_child)
