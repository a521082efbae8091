"""Requests about attributes, plain and extended, and about the file system as a whole.

Threads: any.
"""

from __future__ import annotations

import errno

from idemfs.ids import Ino
from idemfs.limits import TIME_NS_MAX, TIME_NS_MIN
from idemfs.mount import wire
from idemfs.mount.gone import Gone
from idemfs.mount.nodes import Nodes, kind_of
from idemfs.mount.server import Handler, Reply
from idemfs.mount.wire import Opcode, Request, Valid
from idemfs.vfs import acl
from idemfs.vfs.reader import posix
from idemfs.vfs.tree import XattrFlag

_SECOND_NS = 1_000_000_000
_TRUSTED = b"trusted."
_LIST_SIZE_MAX = 65536


class AttributeRequests:
    """Handlers by operation."""

    def __init__(self, nodes: Nodes, gone: Gone) -> None:
        self._nodes = nodes
        self._gone = gone
        self._tree = nodes.tree

    def handlers(self) -> dict[Opcode, Handler]:
        return {
            Opcode.GETATTR: self.getattr,
            Opcode.SETATTR: self.setattr,
            Opcode.GETXATTR: self.getxattr,
            Opcode.SETXATTR: self.setxattr,
            Opcode.LISTXATTR: self.listxattr,
            Opcode.REMOVEXATTR: self.removexattr,
            Opcode.STATFS: self.statfs,
        }

    def getattr(self, request: Request) -> Reply:
        try:
            return self._nodes.attr(request.node)
        except FileNotFoundError:
            kept = self._gone.get(request.node)
            if kept is None:
                raise
            return wire.attr_out(0, kept)

    def setattr(self, request: Request) -> Reply:
        fields = wire.SETATTR_IN.unpack_from(request.body)
        valid, size = fields[0], fields[1]
        ino = self._nodes.changing(request.node)
        with self._tree.store.lock:
            if valid & Valid.SIZE:
                self._tree.drop_capability(ino)
                if valid & Valid.KILL_SUIDGID:
                    self._tree.clear_set_id(ino)
                self._tree.truncate(ino, size)
            self._set(ino, valid, fields)
        return self.getattr(request)

    def _set(self, ino: Ino, valid: int, fields: tuple[int, ...]) -> None:
        _, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid = fields
        now = self._tree.store.clock.now_ns()
        new_atime = new_mtime = None
        if valid & (Valid.ATIME | Valid.ATIME_NOW):
            new_atime = now if valid & Valid.ATIME_NOW else _time_ns(atime, atime_ns)
        if valid & (Valid.MTIME | Valid.MTIME_NOW):
            new_mtime = now if valid & Valid.MTIME_NOW else _time_ns(mtime, mtime_ns)
        others = Valid.MODE | Valid.UID | Valid.GID
        if valid & Valid.SIZE and new_atime is None and new_mtime is None and not valid & others:
            return
        self._tree.set_attributes(
            ino,
            mode=mode & 0o7777 if valid & Valid.MODE else None,
            uid=uid if valid & Valid.UID else None,
            gid=gid if valid & Valid.GID else None,
            atime_ns=new_atime,
            mtime_ns=new_mtime,
        )

    def getxattr(self, request: Request) -> Reply:
        (size,) = wire.GETXATTR_IN.unpack_from(request.body)
        if kind_of(request.node) or self._nodes.is_empty(request.node):
            raise posix(errno.ENODATA)
        reader, ino = self._nodes.place(request.node)
        return _sized(reader.xattr(ino, request.name(wire.GETXATTR_IN.size)), size)

    def listxattr(self, request: Request) -> Reply:
        (size,) = wire.GETXATTR_IN.unpack_from(request.body)
        if kind_of(request.node) or self._nodes.is_empty(request.node):
            return _sized(b"", size)
        reader, ino = self._nodes.place(request.node)
        names = reader.xattr_names(ino)
        if request.uid:
            names = [name for name in names if not name.startswith(_TRUSTED)]
        value = b"".join(name + b"\0" for name in names)
        if len(value) > _LIST_SIZE_MAX:
            raise posix(errno.E2BIG)
        return _sized(value, size)

    def setxattr(self, request: Request) -> Reply:
        size, flags, more_flags, _ = wire.SETXATTR_IN.unpack_from(request.body)
        name = request.name(wire.SETXATTR_IN.size)
        start = wire.SETXATTR_IN.size + len(name) + 1
        value = bytes(request.body[start : start + size])
        ino = self._nodes.changing(request.node)
        if name == acl.ACCESS:
            self._tree.set_acl(ino, value, clears_setgid=bool(more_flags & wire.SETXATTR_KILL_SETGID))
        else:
            self._tree.set_xattr(ino, name, value, XattrFlag(flags))
        return b""

    def removexattr(self, request: Request) -> Reply:
        self._tree.remove_xattr(self._nodes.changing(request.node), request.name())
        return b""

    def statfs(self, request: Request) -> Reply:
        is_active = self._nodes.shows_active and not kind_of(request.node)
        found = self._tree.statfs(self._nodes.place(request.node)[1] if is_active else None)
        return wire.STATFS_OUT.pack(
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
            found.f_files,
            found.f_ffree,
            found.f_bsize,
            found.f_namemax,
            found.f_frsize,
        )


def _time_ns(seconds: int, nanoseconds: int) -> int:
    """The nearest time that can be kept, as every file system of the kernel's has it."""
    return max(TIME_NS_MIN, min(TIME_NS_MAX, seconds * _SECOND_NS + nanoseconds))


def _sized(value: bytes, size: int) -> bytes:
    """The value, or only its size if that is asked. Raises ``OSError`` (ERANGE)."""
    if not size:
        return wire.GETXATTR_OUT.pack(len(value))
    if len(value) > size:
        raise posix(errno.ERANGE)
    return value
