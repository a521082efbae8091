"""Requests about names: look up, make, remove, rename, link.

Threads: any; what a request does is one operation of ``vfs``.
"""

from __future__ import annotations

import errno
import stat

from idemfs.ids import Ino
from idemfs.mount import wire
from idemfs.mount.gone import Gone
from idemfs.mount.nodes import FOLDER, FOLDER_NAME, LATEST, ROOT, UP, UP_TARGET, Nodes, kind_of, made_up
from idemfs.mount.server import Handler, Reply
from idemfs.mount.snapshot_folder import SnapshotFolder
from idemfs.mount.wire import Opcode, Request
from idemfs.vfs.reader import posix
from idemfs.vfs.tree import RenameFlag


class NameRequests:
    """Handlers by operation."""

    def __init__(self, nodes: Nodes, folder: SnapshotFolder, gone: Gone) -> None:
        self._nodes = nodes
        self._gone = gone
        self._tree = nodes.tree
        self._folder = folder

    def handlers(self) -> dict[Opcode, Handler]:
        return {
            Opcode.LOOKUP: self.lookup,
            Opcode.MKNOD: self.mknod,
            Opcode.MKDIR: self.mkdir,
            Opcode.SYMLINK: self.symlink,
            Opcode.READLINK: self.readlink,
            Opcode.UNLINK: self.unlink,
            Opcode.RMDIR: self.rmdir,
            Opcode.RENAME: self.rename,
            Opcode.RENAME2: self.rename2,
            Opcode.LINK: self.link,
        }

    def lookup(self, request: Request) -> Reply:
        name = bytes(request.body[:-1])
        node = request.node
        if name == FOLDER_NAME and (folder := self._nodes.folder_at(node)):
            return self._folder.entry(folder)
        if kind_of(node) == FOLDER:
            return self._folder.lookup(node, name)
        if name == b".":
            return self._itself(node)
        reader, directory = self._nodes.place(node)
        if name == FOLDER_NAME and directory == reader.root and reader.snapshot is not None:
            return self._folder.entry(made_up(reader.fileset, UP))
        if name == b".." and directory == reader.root and reader.snapshot is not None and node != ROOT:
            return self._folder.entry(made_up(reader.fileset, FOLDER))
        with reader.store.lock:
            return self._nodes.entry(reader, reader.lookup(directory, name))

    def _itself(self, node: int) -> Reply:
        """What a file handle names, a file as well: it outlives what the kernel knows, and even the mount."""
        if kind_of(node):
            return self._folder.entry(node)
        reader, ino = self._nodes.place(node)
        return self._nodes.entry(reader, ino)

    def _made(self, ino: Ino) -> Reply:
        return self._nodes.entry(self._tree.reader, ino)

    def _place(self, node: int, name: bytes) -> Ino:
        """The directory in which ``name`` is going to be changed."""
        if name == FOLDER_NAME and self._nodes.folder_at(node):
            raise posix(errno.EEXIST)
        return self._nodes.changing(node)

    def mknod(self, request: Request) -> Reply:
        mode, rdev, umask, _ = wire.MKNOD_IN.unpack_from(request.body)
        name = request.name(wire.MKNOD_IN.size)
        parent = self._place(request.node, name)
        return self._made(self._tree.create(parent, name, mode, request.uid, request.gid, rdev=rdev, umask=umask))

    def mkdir(self, request: Request) -> Reply:
        mode, umask = wire.MKDIR_IN.unpack_from(request.body)
        name = request.name(wire.MKDIR_IN.size)
        if kind_of(request.node) == FOLDER:
            return self._folder.create(request.node, name)
        parent = self._place(request.node, name)
        mode = stat.S_IFDIR | mode & 0o7777
        return self._made(self._tree.create(parent, name, mode, request.uid, request.gid, umask=umask))

    def symlink(self, request: Request) -> Reply:
        name, target, *_ = request.names()
        parent = self._place(request.node, name)
        return self._made(self._tree.create(parent, name, stat.S_IFLNK | 0o777, request.uid, request.gid, data=target))

    def readlink(self, request: Request) -> Reply:
        kind = kind_of(request.node)
        if kind == LATEST:
            return self._folder.latest(request.node)
        if kind == UP:
            return UP_TARGET
        reader, ino = self._nodes.place(request.node)
        return reader.readlink(ino)

    def unlink(self, request: Request) -> Reply:
        name = request.name()
        if kind_of(request.node) == FOLDER:
            raise posix(errno.EPERM)
        ino, inode = self._tree.unlink(self._place(request.node, name), name)
        if not inode.nlink and not inode.is_file:
            self._gone.add(int(ino), inode)
        return b""

    def rmdir(self, request: Request) -> Reply:
        name = request.name()
        if kind_of(request.node) == FOLDER:
            self._folder.delete(request.node, name)
        elif name == FOLDER_NAME and self._nodes.folder_at(request.node):
            raise posix(errno.EBUSY)
        else:
            self._gone.add(*self._tree.rmdir(self._nodes.changing(request.node), name))
        return b""

    def rename(self, request: Request) -> Reply:
        (new_parent,) = wire.RENAME_IN.unpack_from(request.body)
        return self._rename(request, new_parent, 0, wire.RENAME_IN.size)

    def rename2(self, request: Request) -> Reply:
        new_parent, flags = wire.RENAME2_IN.unpack_from(request.body)
        return self._rename(request, new_parent, flags, wire.RENAME2_IN.size)

    def _rename(self, request: Request, new_node: int, flags: int, start: int) -> Reply:
        name, new_name, *_ = request.names(start)
        if kind_of(request.node) == FOLDER and request.node == new_node:
            self._folder.rename(request.node, name, new_name)
            return b""
        if FOLDER in (kind_of(request.node), kind_of(new_node)):
            raise posix(errno.EXDEV)
        if flags & ~(RenameFlag.NOREPLACE | RenameFlag.EXCHANGE):
            raise posix(errno.EINVAL)
        if name == FOLDER_NAME and self._nodes.folder_at(request.node):
            raise posix(errno.EBUSY)
        parent, new_parent = self._nodes.changing(request.node), self._place(new_node, new_name)
        self._tree.rename(parent, name, new_parent, new_name, RenameFlag(flags))
        return b""

    def link(self, request: Request) -> Reply:
        (node,) = wire.LINK_IN.unpack_from(request.body)
        name = request.name(wire.LINK_IN.size)
        parent = self._place(request.node, name)
        ino = self._nodes.changing(node)
        self._tree.link(ino, parent, name)
        return self._made(ino)
