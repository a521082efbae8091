"""The kernel's device, and the mount that it serves.

Root mounts by itself; anybody else through ``fusermount3``, which is set-uid root and hands the open
device over a socket. Threads: any; each request is read by one thread, and its reply is one write.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import re
import select
import socket
import stat
import subprocess
from threading import RLock
from time import monotonic_ns

from idemfs.mount.awake import LULL_MS, Awake, chosen
from idemfs.mount.wire import REPLY, REPLY_SIZE

_LIBC = ctypes.CDLL(None, use_errno=True)
_READONLY, _NOSUID, _NODEV, _REMOUNT, _NOATIME = 1, 2, 4, 32, 1024
_MOUNT_FLAGS = {"ro": _READONLY, "nosuid": _NOSUID, "nodev": _NODEV, "noexec": 8, "noatime": _NOATIME, "sync": 16}
_DETACH = 2
FUSERMOUNT = "fusermount3"
_LOOKING_NS = 100_000
"""How long the next request is looked for before a thread sleeps."""


class Channel:
    """An open device with its mount. ``receive`` and ``reply`` raise ``OSError`` (ENODEV) once it is unmounted.

    So does ``receive`` after ``end``, though the kernel still has open files of a mount that was detached.
    """

    def __init__(self, fd: int, directory: str, awake: Awake) -> None:
        """``fd`` and ``awake`` are the channel's from now on, which closes them."""
        self.fd = fd
        self.directory = directory
        self._awake = awake
        self.is_ending = False
        self._closing = RLock()
        """Whoever tells that it ends must not write into what took the number of a descriptor that was closed."""
        self._waking = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        os.set_blocking(fd, False)
        self._arrival = select.poll()
        self._arrival.register(fd, select.POLLIN)
        self._arrival.register(self._waking, select.POLLIN)

    def end(self) -> None:
        """Whoever waits for a request, and comes later to do so, is told that there are no more."""
        self.is_ending = True
        with self._closing:
            if self._waking >= 0:
                os.eventfd_write(self._waking, 1)

    def receive(self, buffer: bytearray) -> int:
        """The size of the next request, which is put into ``buffer``.

        Programs ask for one thing after another, so the next request mostly comes within microseconds, and to sleep
        and be woken takes longer than to answer it: it is looked for a while before this thread sleeps.
        """
        buffers, until = (buffer,), 0
        while True:
            try:
                size = os.readv(self.fd, buffers)
            except BlockingIOError:
                if self.is_ending:
                    raise OSError(errno.ENODEV, "the mount has ended") from None
                now = monotonic_ns()
                if not until:
                    until = now + _LOOKING_NS
                elif now > until:
                    self._sleep()
                    until = 0
            except OSError as error:
                # ENOENT: the request was taken back before it was read.
                if error.errno not in (errno.EINTR, errno.ENOENT):
                    raise
            else:
                self._awake.came()
                return size

    def _sleep(self) -> None:
        """Until there is something to receive, or ``end`` was called."""
        if not self._arrival.poll(LULL_MS):
            self._awake.ended()
            self._arrival.poll()

    def reply(self, unique: int, body: bytes | memoryview) -> None:
        size = len(body)
        if size > 4096:
            self._write((REPLY.pack(REPLY_SIZE + size, 0, unique), body))
        else:
            self._write((REPLY.pack(REPLY_SIZE + size, 0, unique) + body,))

    def fail(self, unique: int, number: int) -> None:
        self._write((REPLY.pack(REPLY_SIZE, -number, unique),))

    def notify(self, code: int, body: bytes) -> None:
        """Tell the kernel to forget something. That it did not know it is no error."""
        self._write((REPLY.pack(REPLY_SIZE + len(body), code, 0), body))

    def _write(self, parts: tuple[bytes | memoryview, ...]) -> None:
        try:
            os.writev(self.fd, parts)
        except OSError as error:
            # The caller was killed meanwhile, or the kernel had forgotten already.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise

    def close(self) -> None:
        with self._closing:
            fds = (self.fd, self._waking)
            self.fd = self._waking = -1
        self._awake.close()
        for fd in fds:
            if fd >= 0:
                os.close(fd)


def mount(source: str, directory: str, options: list[str]) -> Channel:
    """Mount on ``directory``; the kernel's first request waits. Raises ``OSError``, also as ``awake.chosen``."""
    awake, options = chosen(options)
    try:
        return Channel(_mounted(source, directory, options), directory, awake)
    except BaseException:
        awake.close()
        raise


def _mounted(source: str, directory: str, options: list[str]) -> int:
    """The open device."""
    flags = 0
    rest = []
    for option in options:
        if option in _MOUNT_FLAGS:
            flags |= _MOUNT_FLAGS[option]
        else:
            rest.append(option)
    if os.geteuid():
        return _through_helper(source, directory, options)
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    mode = stat.S_IFMT(os.stat(directory).st_mode)
    data = ",".join([f"fd={fd},rootmode={mode:o},user_id=0,group_id=0", *rest])
    if _LIBC.mount(os.fsencode(source), os.fsencode(directory), b"fuse.idemfs", flags, data.encode()):
        number = ctypes.get_errno()
        os.close(fd)
        raise OSError(number, f"cannot mount: {os.strerror(number)}", directory)
    return fd


def remount(directory: str, options: list[str]) -> None:
    """Give the mount on ``directory`` these of the kernel's own options, and no others. Raises ``OSError``."""
    flags = _REMOUNT
    for option in options:
        flags |= _MOUNT_FLAGS.get(option, 0)
    if _LIBC.mount(None, os.fsencode(directory), None, flags, None):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot remount: {os.strerror(number)}", directory)


def mounts() -> list[tuple[str, str]]:
    """Store and directory of each mount of this kind that can be seen, oldest first."""
    found = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            left, _, right = line.partition(b" - ")
            kind, source, *_ = right.split(b" ")
            if kind == b"fuse.idemfs":
                found.append((_unescaped(source), _unescaped(left.split(b" ")[4])))
    return found


def _unescaped(field: bytes) -> str:
    """Blanks and backslashes stand there as octal numbers."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field))


def _through_helper(source: str, directory: str, options: list[str]) -> int:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        text = ",".join([*options, "fsname=" + source.replace("\\", "\\\\").replace(",", "\\,"), "subtype=idemfs"])
        environment = {**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}
        try:
            ended = subprocess.run(
                [FUSERMOUNT, "-o", text, "--", directory],
                env=environment,
                pass_fds=(theirs.fileno(),),
                stderr=subprocess.PIPE,
                check=False,
            )
        except FileNotFoundError:
            raise OSError(errno.ENOENT, f"{FUSERMOUNT} is missing; as root: apt-get install fuse3") from None
        if ended.returncode:
            raise OSError(errno.EPERM, ended.stderr.decode(errors="replace").strip() or "cannot mount", directory)
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fd = array.array("i", data[:4])[0]
            os.set_inheritable(fd, False)
            return fd
    raise OSError(errno.EIO, f"{FUSERMOUNT} sent no device", directory)


def unmount(directory: str, *, detach: bool = False) -> None:
    """Raises ``OSError``: EBUSY if somebody uses it and ``detach`` is not set, EINVAL if nothing is mounted there."""
    if not os.geteuid():
        if _LIBC.umount2(os.fsencode(directory), _DETACH if detach else 0):
            number = ctypes.get_errno()
            raise OSError(number, f"cannot unmount: {os.strerror(number)}", directory)
        return
    command = [FUSERMOUNT, "-u", *(["-z"] if detach else []), "--", directory]
    ended = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    if ended.returncode:
        text = ended.stderr.decode(errors="replace").strip()
        raise OSError(errno.EBUSY if "busy" in text else errno.EINVAL, text, directory)
