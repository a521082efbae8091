"""Signals are not missed, whichever thread is interrupted by them."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import signal, threading
from idemfs.node.signals import Signals

signals = Signals((signal.SIGHUP, signal.SIGTERM))
signal.signal(signal.SIGUSR1, lambda *_: None)

def strike():
    # To this very thread: the main one is not interrupted.
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        signal.pthread_kill(threading.get_ident(), number)
        done.acquire(timeout=0.2)

done = threading.Semaphore(0)
threading.Timer(0.3, strike).start()
while signals.wait() != signal.SIGTERM:
    print("HUP", flush=True)
    done.release()
print("TERM")
"""


def test_one_that_interrupts_another_thread_is_waited_for() -> None:
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=30)
    assert (ended.stdout.split(), ended.returncode) == (["HUP", "TERM"], 0), ended.stderr
