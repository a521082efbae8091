"""Inodes as ``os.stat_result``.

Threads: any.
"""

from __future__ import annotations

import os

from idemfs.format.inode import Inode
from idemfs.ids import Ino
from idemfs.limits import SECTOR_SIZE

_SECOND_NS = 1_000_000_000
_STAT_BLOCK = 512


def status(ino: Ino, node: Inode, size: int, device: int, block_size: int) -> os.stat_result:
    """What ``stat(2)`` says of an inode of this size; times are exact in the fields that end in ``_ns``."""
    atime, mtime, ctime = node.atime, node.mtime, node.ctime
    return os.stat_result(
        (
            node.mode,
            ino,
            device,
            node.nlink,
            node.uid,
            node.gid,
            size,
            atime // _SECOND_NS,
            mtime // _SECOND_NS,
            ctime // _SECOND_NS,
        ),
        {
            "st_atime": atime / _SECOND_NS,
            "st_mtime": mtime / _SECOND_NS,
            "st_ctime": ctime / _SECOND_NS,
            "st_atime_ns": atime,
            "st_mtime_ns": mtime,
            "st_ctime_ns": ctime,
            "st_blksize": block_size,
            "st_blocks": node.sectors * (SECTOR_SIZE // _STAT_BLOCK),
            "st_rdev": node.rdev,
        },
    )
