"""Figures of replication: bytes on the wire, memory of a large transfer, time of a failover."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator

import idemfs
from bench import stores
from bench.measure import Figure, at_most, seconds

_TRANSFER = 10 << 30


def wire(directory: str) -> Iterator[Figure]:
    """Bytes of a change set of edits, appends, truncations and new files against bytes of the changed blocks."""
    from idemfs.replication.send import send

    rng = random.Random(3)
    with idemfs.create(f"{directory}/store") as fs:
        fs.makedirs("/d")
        for index in range(400):
            fs.write_bytes(f"/d/f{index}", rng.randbytes(rng.randrange(200, 600_000)))
        fs.snapshots.create("base")
        for index in range(0, 300, 3):
            with fs.open(f"/d/f{index}", "r+b") as file:
                file.seek(rng.randrange(100))
                file.write(rng.randbytes(50_000))
            with fs.open(f"/d/f{index + 1}", "ab") as file:
                file.write(rng.randbytes(30_000))
            fs.write_bytes(f"/d/new{index}", rng.randbytes(100_000))
        for index in range(300, 340):
            fs.truncate(f"/d/f{index}", 150)
            fs.rename(f"/d/f{index + 40}", f"/d/renamed{index}")
        fs.snapshots.create("target")
        catalog = fs.tree.store.catalog
        base, target = catalog.by_name(fs.tree.fileset, "base"), catalog.by_name(fs.tree.fileset, "target")
        sent = send(fs.tree, base, target, lambda _: None)
    details = f"{sent.bytes:,} bytes sent for {sent.block_bytes:,} bytes of changed blocks, uncompressed"
    yield at_most("bytes on the wire against bytes of changed blocks", sent.bytes / sent.block_bytes, 1.05, details)


def failover(directory: str) -> Iterator[Figure]:
    """Failover of a standby of 200,000 files that holds a half-received change set, as a whole command."""
    from idemfs.replication.apply import receive
    from idemfs.replication.send import send

    primary, standby = f"{directory}/primary", f"{directory}/standby"
    stores.build(primary, 200_000)
    program = os.path.join(os.path.dirname(sys.executable), "idemfs")
    subprocess.run([program, "standby", "add", primary, standby], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([program, "replicate", primary], check=True, stdout=subprocess.DEVNULL)
    stream = f"{directory}/stream"
    with idemfs.open(primary) as fs:
        catalog = fs.tree.store.catalog
        base = catalog.snapshots(fs.tree.fileset)[-1]
        stores.change(fs, 2000, 200_000, 7)
        fs.snapshots.create("next")
        with open(stream, "wb") as file:
            send(fs.tree, base, catalog.by_name(fs.tree.fileset, "next"), file.write)
    half = os.path.getsize(stream) // 2
    with idemfs.open(standby) as fs, open(stream, "rb") as received:
        left = [half]

        def read(size: int) -> bytes:
            data = received.read(min(size, left[0]))
            left[0] -= len(data)
            return data

        try:
            receive(fs.tree, read)
        except idemfs.errors.StreamInterrupted:
            fs.sync()
    took = seconds(
        lambda: subprocess.run([program, "failover", "--yes", standby], check=True, stdout=subprocess.DEVNULL)
    )
    details = "the whole command, 1,000 half-received files of 1 KiB rolled back"
    yield at_most("failover of a 200,000-file standby with a half-received change set", took, 1.0, details, " s")


def memory(directory: str) -> Iterator[Figure]:
    """Peak memory of both ends of a transfer of 10 GiB."""
    primary, standby = f"{directory}/primary", f"{directory}/standby"
    rng = random.Random(4)
    with idemfs.create(primary) as fs:
        for number in range(10):
            with fs.open(f"/f{number}", "wb", buffering=0) as file:
                for _ in range(_TRANSFER // 10 >> 20):
                    file.write(rng.randbytes(1 << 20))
        fs.sync()
        fs.snapshots.create("all")
    program = os.path.join(os.path.dirname(sys.executable), "idemfs")
    with (
        subprocess.Popen([program, "send", primary, "all"], stdout=subprocess.PIPE) as sender,
        subprocess.Popen([program, "receive", standby], stdin=sender.stdout, stdout=subprocess.DEVNULL) as receiver,
    ):
        assert sender.stdout is not None
        sender.stdout.close()
        took = seconds(lambda: (receiver.wait(), sender.wait()))
    assert sender.returncode == receiver.returncode == 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    details = f"the larger of sender and receiver; {_TRANSFER / took / 1e6:.0f} MB/s through a pipe"
    yield at_most("memory of a transfer of 10 GiB", peak, 300, details, " MB")
