"""Trees of the host with every kind of thing in them, and their description, to compare."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

BLOCK = 4096


def build(root: Path) -> None:
    """Every kind of file, with odd names, modes, owners, times, links, attributes and holes."""
    top = os.fsencode(root)
    os.makedirs(top + b"/dir/deep/deeper", exist_ok=True)
    os.mkdir(top + b"/empty", 0o700)
    write(top + b"/empty-file", b"")
    write(top + b"/small", b"small")
    write(top + b"/dir/inline-end", b"x" * 1536)
    write(top + b"/dir/past-inline", b"y" * 1537)
    write(top + b"/dir/blocks", os.urandom(3 * BLOCK))
    write(top + b"/dir/deep/large", os.urandom(1_234_567))
    write(top + b"/dir/deep/deeper/zeros", bytes(50_000))
    write(top + b"/\xff not utf-8\n", b"odd")
    write(top + b"/" + b"n" * 255, b"long")
    os.symlink(b"small", top + b"/link")
    os.symlink(b"/no\xffwhere", top + b"/dir/dangling")
    os.symlink(b"dir", top + b"/link-to-dir")
    for name in (b"/dir/hard-1", b"/empty/hard-2", b"/hard-0"):
        os.link(top + b"/small", top + name)
    write(top + b"/dir/pair", os.urandom(30_000))
    os.link(top + b"/dir/pair", top + b"/dir/pair-2")
    os.mkfifo(top + b"/fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(top, os.O_RDONLY)
        bound.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    if os.geteuid() == 0:
        os.mknod(top + b"/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(top + b"/disk", stat.S_IFBLK | 0o660, os.makedev(259, 70_000))
        os.link(top + b"/null", top + b"/null-2")
        os.chown(top + b"/dir/blocks", 1001, 1002)
        os.chown(top + b"/link", 1003, 1004, follow_symlinks=False)
        os.chown(top + b"/dir/deep", 1005, 1006)
        os.setxattr(top + b"/link", b"trusted.of-link", b"1", follow_symlinks=False)
    sparse(top + b"/sparse")
    with open(top + b"/all-hole", "wb") as file:
        file.truncate(10_000_000)
    os.chmod(top + b"/dir/past-inline", 0o6711)
    os.chmod(top + b"/dir/deep/large", 0o000)
    os.chmod(top + b"/dir/deep/deeper", 0o1555)
    if has_xattrs(root):
        os.setxattr(top + b"/small", b"user.one", b"\0\xff")
        os.setxattr(top + b"/small", b"user.empty", b"")
        os.setxattr(top + b"/dir", b"user.large", os.urandom(2000))
    stamp(top)


def has_xattrs(path: Path) -> bool:
    """Whether the host keeps attributes of users there."""
    try:
        os.setxattr(path, "user.probe", b"1")
    except OSError as error:
        assert error.errno == errno.ENOTSUP
        return False
    os.removexattr(path, "user.probe")
    return True


def sparse(path: bytes) -> None:
    """Data, hole, data, hole."""
    with open(path, "wb") as file:
        file.write(b"a" * 70_000)
        file.seek(3_000_000)
        file.write(b"b" * 5_000)
        file.truncate(7_000_001)


def write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def stamp(top: bytes) -> None:
    """Times that are all different, with odd nanoseconds, some before 1970; directories last."""
    index = 0
    for at, directories, files in os.walk(top, topdown=False):
        for name in [*files, *(name for name in directories if os.path.islink(os.path.join(at, name)))]:
            index += 1
            time = (index - 5) * 1_000_000_007
            os.utime(os.path.join(at, name), ns=(time + 1, time), follow_symlinks=False)
        os.utime(at, ns=(index * 17, index * 1_000_000_000_019))


def describe(top: Path, *, owners: bool = True) -> dict[str, dict[str, Any]]:
    """Everything that a copy keeps of a tree, by path. Hard links: the least path of the same file."""
    root = os.fsencode(top)
    first: dict[tuple[int, int], str] = {}
    found: dict[str, dict[str, Any]] = {}
    paths = [root]
    for at, directories, files in os.walk(root):
        directories.sort()
        paths += [os.path.join(at, name) for name in sorted([*directories, *files])]
    for path in sorted(paths):
        status = os.lstat(path)
        name = os.fsdecode(path[len(root) :]) or "/"
        what: dict[str, Any] = {
            "mode": oct(status.st_mode),
            "mtime": status.st_mtime_ns,
            "rdev": status.st_rdev,
            "xattrs": xattrs(path),
        }
        if owners:
            what["owner"] = (status.st_uid, status.st_gid)
        if not stat.S_ISDIR(status.st_mode):
            what["links"] = status.st_nlink
            what["same as"] = first.setdefault((status.st_dev, status.st_ino), name)
        if stat.S_ISLNK(status.st_mode):
            what["target"] = os.readlink(path)
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                what["content"] = file.read()
            what["holes"] = holes(path)
        found[name] = what
    return found


def xattrs(path: bytes) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        assert error.errno == errno.ENOTSUP
        return {}
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def holes(path: bytes) -> bool:
    """Whether the file takes at least 64 KiB less than its size."""
    status = os.stat(path)
    return status.st_size - status.st_blocks * 512 >= 65536


def difference(one: dict[str, dict[str, Any]], two: dict[str, dict[str, Any]]) -> list[str]:
    """What differs, without the contents, in lines that can be read."""
    lines = [f"only in the first: {name!r}" for name in one.keys() - two.keys()]
    lines += [f"only in the second: {name!r}" for name in two.keys() - one.keys()]
    for name in one.keys() & two.keys():
        for key in one[name].keys() | two[name].keys():
            here, there = one[name].get(key), two[name].get(key)
            if here != there:
                lines.append(f"{name!r} {key}: {str(here)[:60]} and {str(there)[:60]}")
    return sorted(lines)
