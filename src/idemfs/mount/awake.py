"""Processors are kept awake while requests follow each other.

A program that waits for an answer leaves its processor idle. Linux sends an idle one to sleep, which in a virtual
machine means to give it back to the host, and then waking it takes longer than the answer. So while requests come one
upon the other, a mount asks for the kernel's CPU latency QoS: as long as somebody holds ``/dev/cpu_dma_latency`` with 0
in it, idle processors look for work instead. The kernel forgets that when the file is closed, also for who is killed.

Source: ``Documentation/power/pm_qos_interface.rst`` of Linux.
"""

from __future__ import annotations

import logging
import os
from struct import pack
from threading import Event, Lock, Thread
from time import sleep

log = logging.getLogger("idemfs.mount")

DEVICE = "/dev/cpu_dma_latency"
_CPUINFO = "/proc/cpuinfo"
_ALWAYS, _NEVER = "awake", "noawake"
_LOOK_FOR_WORK, _AS_USUAL = pack("=i", 0), pack("=i", 2_000_000_000)
"""Microseconds that leaving idleness may take."""
CPU_COUNT_MAX = 8
"""All of the machine's processors look for work, so by itself this is done where they are few."""
STREAK_COUNT = 16
"""So many requests in a row are the beginning of more."""
LULL_MS = 1
"""With no request for that long they have ended."""
STUCK_SECONDS = 0.1
"""So long may nobody look for the next request; who should is answering one."""


class Awake:
    """One mount's request to the kernel. ``fd``: of ``DEVICE``, which ``close`` closes; -1: there is nobody to ask.

    Threads: ``came`` by one at a time, the others by any. One of its own, from the first burst on, sees to it that no
    burst outlasts its requests, whatever became of who should notice.
    """

    def __init__(self, fd: int = -1) -> None:
        self.is_asked = False
        self._fd = fd
        self._count = 0
        self._lock = Lock()
        self._news = Event()
        self._watcher: Thread | None = None

    def came(self) -> None:
        """A request came, and not long after the last one."""
        self._count += 1
        if self._count == STREAK_COUNT and self._fd >= 0:
            self._begin()

    def _begin(self) -> None:
        with self._lock:
            self.is_asked = self._tell(_LOOK_FOR_WORK)
        if self._watcher is None:
            self._watcher = Thread(target=self._watch, name="idemfs-awake", daemon=True)
            self._watcher.start()
        self._news.set()

    def ended(self) -> None:
        """No request came for a while."""
        self._count = 0
        if self.is_asked:
            with self._lock:
                self.is_asked = False
                self._tell(_AS_USUAL)

    def _tell(self, value: bytes) -> bool:
        """Whether the kernel took it. Without it all goes on, only slower."""
        if self._fd < 0:
            return False
        try:
            os.write(self._fd, value)
        except OSError as error:
            log.warning("%s: %s; processors are not kept awake any more", DEVICE, error.strerror)
            # The kernel forgets what it was told before, too.
            self._let_go()
            return False
        return True

    def _watch(self) -> None:
        while self._news.wait():
            self._news.clear()
            if self._fd < 0:
                return
            count = -1
            while self.is_asked:
                if count == self._count:
                    self.ended()
                count = self._count
                sleep(STUCK_SECONDS)

    def close(self) -> None:
        with self._lock:
            self.is_asked = False
            self._let_go()
        self._news.set()

    def _let_go(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def chosen(options: list[str]) -> tuple[Awake, list[str]]:
    """What ``awake`` and ``noawake`` among a mount's options ask for, and the other options.

    With neither, it is tried in a virtual machine of few processors. Raises ``OSError`` for ``awake`` where the kernel
    cannot be asked.
    """
    others = [option for option in options if option not in (_ALWAYS, _NEVER)]
    if _NEVER in options or (_ALWAYS not in options and not _pays()):
        return Awake(), others
    try:
        return Awake(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)), others
    except OSError as error:
        if _ALWAYS in options:
            raise OSError(
                error.errno, f"{error.strerror}; the option 'awake' needs root: leave it out, or mount as root", DEVICE
            ) from None
        return Awake(), others


def _pays() -> bool:
    """Whether this is a virtual machine, where waking a processor is dear, and one whose idle ones are not many."""
    if (os.cpu_count() or 1) > CPU_COUNT_MAX:
        return False
    try:
        with open(_CPUINFO, "rb") as file:
            return any(line.startswith(b"flags") and b" hypervisor" in line for line in file)
    except OSError:
        return False
