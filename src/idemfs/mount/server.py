"""Threads that take requests from the kernel, have them handled, and reply.

A request that fails is answered with its errno; one that fails in a way nobody expected is logged with its
operation and answered with EIO, and the mount lives on.

Threads: one leads: it takes a request, answers it, and takes the next, which spares waking another one for each.
Before a request that may take long, as ``syncfs`` does, it hands the lead to another thread, or the handler does when
it comes to that, as for ``fsync``. Each has a buffer of its own. Who answers holds no lock of the store.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Mapping

from idemfs.mount import wire
from idemfs.mount.channel import Channel
from idemfs.mount.wire import Feature, Opcode, Request, Valid
from idemfs.node.log import about

Reply = bytes | memoryview | None
"""The body of a reply; None: the kernel expects none."""
Handler = Callable[[Request], Reply]

log = logging.getLogger("idemfs.mount")

THREAD_COUNT = 4
_JOIN_SECONDS_MAX = 2.0
_LONG = frozenset((Opcode.FSYNCDIR, Opcode.SYNCFS, Opcode.FALLOCATE))
"""They wait for the disk."""
_FOLDER_CHANGES = frozenset((Opcode.MKDIR, Opcode.RMDIR))
_MADE_UP = 1 << 63
"""From here on numbers are of snapshots, and of their folder: a directory made or removed there is a snapshot."""
UNMOUNTED = (errno.ENODEV, errno.EBADF)
_WANTED = (
    Feature.ASYNC_READ
    | Feature.ATOMIC_O_TRUNC
    | Feature.EXPORT_SUPPORT
    | Feature.BIG_WRITES
    | Feature.DONT_MASK
    | Feature.DO_READDIRPLUS
    | Feature.READDIRPLUS_AUTO
    | Feature.PARALLEL_DIROPS
    | Feature.POSIX_ACL
    | Feature.MAX_PAGES
    | Feature.EXPLICIT_INVAL_DATA
    | Feature.HANDLE_KILLPRIV_V2
    | Feature.SETXATTR_EXT
    | Feature.INIT_EXT
)


class _Lead:
    """One thread's part in who leads."""

    __slots__ = ("_lock", "is_mine")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self.is_mine = False

    def take(self) -> None:
        self._lock.acquire()
        self.is_mine = True

    def hand_over(self) -> None:
        if self.is_mine:
            self.is_mine = False
            self._lock.release()


class Server:
    """Serves ``channel`` with ``handlers`` until it is unmounted."""

    def __init__(
        self,
        channel: Channel,
        handlers: Mapping[Opcode, Handler],
        thread_count: int = THREAD_COUNT,
        store: str | None = None,
    ) -> None:
        """``store``: its name, in what is logged."""
        self.channel = channel
        self.ended = threading.Event()
        self.kernel_minor = 0
        self._handlers = {int(opcode): handler for opcode, handler in handlers.items()}
        self._lead = threading.Lock()
        self._store = store
        self._threads = [
            threading.Thread(target=self._serve, name=f"idemfs-mount-{number}", daemon=True)
            for number in range(thread_count)
        ]

    def greet(self) -> None:
        """Answer the kernel's first request: which version and features are spoken."""
        buffer = bytearray(wire.BUFFER_SIZE)
        request = Request()
        while True:
            request.parse(memoryview(buffer), self.channel.receive(buffer))
            if request.opcode == Opcode.INIT:
                break
            self.channel.fail(request.unique, errno.EIO)
        _, self.kernel_minor, readahead, flags = wire.INIT_IN.unpack_from(request.body)
        self.channel.reply(
            request.unique,
            wire.INIT_OUT.pack(
                wire.MAJOR,
                min(wire.MINOR, self.kernel_minor),
                readahead,
                _WANTED & flags,
                64,
                48,
                wire.WRITE_SIZE_MAX,
                1,
                wire.PAGE_COUNT_MAX,
                0,
                0,
            ),
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> bool:
        """Wait a while for the threads; whether all have ended. One may wait for the kernel for ever."""
        until = time.monotonic() + _JOIN_SECONDS_MAX
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        with about(store=self._store):
            self._serve_requests()

    def _serve_requests(self) -> None:
        buffer = bytearray(wire.BUFFER_SIZE)
        view = memoryview(buffer)
        request = Request()
        lead = _Lead(self._lead)
        request.hand_over = lead.hand_over
        try:
            while True:
                lead.take()
                try:
                    while lead.is_mine:
                        if self.channel.is_ending:
                            return
                        request.parse(view, self.channel.receive(buffer))
                        if _is_long(request):
                            lead.hand_over()
                        self._answer(request)
                finally:
                    lead.hand_over()
        except OSError as error:
            if error.errno not in UNMOUNTED:
                log.exception("the kernel's device failed")
        except Exception:
            log.exception("a thread of the mount ended")
        finally:
            self.ended.set()

    def _answer(self, request: Request) -> None:
        unique = request.unique
        handler = self._handlers.get(request.opcode)
        if handler is None:
            self.channel.fail(unique, errno.ENOSYS)
            return
        try:
            reply = handler(request)
        except Exception as error:
            self.channel.fail(unique, self._number_of(error, request))
        else:
            if reply is not None:
                self.channel.reply(unique, reply)

    def _number_of(self, error: Exception, request: Request) -> int:
        """The errno that answers this error. Those that are not the caller's are logged."""
        if isinstance(error, OSError) and error.errno is not None and 0 < error.errno < 512:
            if error.errno == errno.EIO:
                log.error("%s of inode %d: %s", _name(request.opcode), request.node, error)
            return error.errno
        log.error("%s of inode %d failed", _name(request.opcode), request.node, exc_info=error)
        return errno.EIO


def _is_long(request: Request) -> bool:
    """Whether others should be served meanwhile. Reading and writing hold the store's lock, so nobody could be."""
    if request.opcode == Opcode.SETATTR:
        # A file that becomes shorter may give up much.
        return bool(wire.SETATTR_IN.unpack_from(request.body)[0] & Valid.SIZE)
    if request.opcode in _FOLDER_CHANGES:
        return request.node >= _MADE_UP
    return request.opcode in _LONG


def _name(opcode: int) -> str:
    try:
        return Opcode(opcode).name
    except ValueError:
        return f"operation {opcode}"
