"""How far a standby is behind while its primary is overwritten all the time, and what that costs whoever writes."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import idemfs
from bench.far import PROGRAM
from bench.measure import Figure, Skipped, at_most, command

_SECONDS = 300
_BASE_SECONDS = 60
_RATE = 50e6
_BLOCK = 128 << 10
_FILE_BLOCKS = 8192
_STAMP_SECONDS = 0.05
_PATIENCE_SECONDS = 60


def held(directory: str) -> Iterator[Figure]:
    """Two serving processes, ``every = "1s"``, 50 MB/s of random overwrites: lag as the standby's readers see it."""
    path, standby = f"{directory}/primary", f"{directory}/standby"
    a, b = f"{directory}/a", f"{directory}/b"
    for mount in (a, b):
        os.mkdir(mount)
    with idemfs.create(path) as fs, fs.open("/file", "wb", buffering=0) as file:
        for _ in range(_FILE_BLOCKS):
            file.write(os.urandom(_BLOCK))
    command(PROGRAM, "standby", "add", path, standby)
    command(PROGRAM, "replicate", path)
    with _serving(directory, "b", standby, b):
        with _serving(directory, "a", path, a):
            alone = _write(a, _BASE_SECONDS)
        with _serving(directory, "a", path, a, link=standby):
            lags: list[float] = []
            ending = threading.Event()
            with ThreadPoolExecutor() as others:
                watching = others.submit(_stamp, a, ending), others.submit(_read_stamps, b, ending, lags)
                try:
                    time.sleep(5)
                    lags.clear()
                    replicated = _write(a, _SECONDS)
                finally:
                    ending.set()
                for each in watching:
                    each.result()
    lags.sort()
    worst = lags[int(len(lags) * 0.95)]
    details = (
        f"median {statistics.median(lags):.2f} s, longest {lags[-1]:.2f} s, {len(lags):,} looks in {_SECONDS} s at the "
        f"mounted standby; {replicated[0] / 1e6:.0f} MB/s written"
    )
    yield at_most("lag of a standby under 50 MB/s of random overwrites, 95th percentile", worst, 2.0, details, " s")
    details = (
        f"{replicated[0] / 1e6:.1f} MB/s against {alone[0] / 1e6:.1f} MB/s without a link, of 50 asked for; "
        f"a call {replicated[1] * 1e3:.2f} ms against {alone[1] * 1e3:.2f} ms"
    )
    yield at_most("time of whoever writes, against no replication", alone[0] / replicated[0], 1.1, details)


def _write(mount: str, seconds: float) -> tuple[float, float]:
    """Bytes a second that were written, of those asked for, and the mean time of a call."""
    rng, data = random.Random(7), os.urandom(_BLOCK)
    begun, written, busy = time.monotonic(), 0, 0.0
    with open(f"{mount}/file", "r+b", buffering=0) as file:
        for count in itertools.count():
            now = time.monotonic()
            if now - begun >= seconds:
                break
            file.seek(rng.randrange(_FILE_BLOCKS) * _BLOCK)
            file.write(count.to_bytes(8, "big") + data[8:])
            done = time.monotonic()
            busy += done - now
            written += _BLOCK
            ahead = begun + written / _RATE - done
            if ahead > 0:
                time.sleep(ahead)
    return written / (time.monotonic() - begun), busy / (written / _BLOCK)


def _stamp(mount: str, ending: threading.Event) -> None:
    """Writes the time to a file, over and over."""
    with open(f"{mount}/stamp", "wb", buffering=0) as file:
        while not ending.wait(_STAMP_SECONDS):
            os.pwrite(file.fileno(), repr(time.monotonic()).ljust(40).encode(), 0)


def _read_stamps(mount: str, ending: threading.Event, lags: list[float]) -> None:
    """What the standby's readers see of that, against the time it is then."""
    while not ending.wait(0.1):
        with suppress(FileNotFoundError, ValueError), open(f"{mount}/stamp", "rb") as file:
            lags.append(time.monotonic() - float(file.read().decode()))


@contextmanager
def _serving(directory: str, name: str, store: str, mount: str, link: str | None = None) -> Iterator[None]:
    """``idemfs serve`` of one store, mounted, with a link or without."""
    config = f"{directory}/{name}.toml"
    with open(config, "w") as file:
        file.write(f'[node]\nname = "{name}"\n[[store]]\nname = "data"\npath = "{store}"\nmount = "{mount}"\n')
        if link is not None:
            file.write(f'[[store.link]]\nto = "{link}"\nevery = "1s"\n')
    with open(f"{directory}/{name}.log", "a") as log:
        process = subprocess.Popen([PROGRAM, "serve", "--config", config], stderr=log, stdout=log)
    try:
        until = time.monotonic() + _PATIENCE_SECONDS
        while not os.path.ismount(mount):
            if time.monotonic() > until or process.poll() is not None:
                raise Skipped(f"serving {store} failed; {directory}/{name}.log says why")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()
