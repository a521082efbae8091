"""``idemfs ls STORE[@SNAPSHOT] PATH``."""

from __future__ import annotations

import os
import posixpath
import stat
import sys

from idemfs.cli.names import exact_name
from idemfs.cli.parser import add_json, add_target
from idemfs.cli.render import Column, format_time_ns, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.api.view import TreeView
    from idemfs.cli.render import Json

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def arguments(parser: ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("path", metavar="PATH", nargs="?", default="/", help="a directory or file (default: /)")
    parser.add_argument("-l", dest="long", action="store_true", help="mode, links, owner, size, time and target too")
    parser.add_argument("-a", dest="all", action="store_true", help="names that begin with a dot too")
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs.cli.opening import view_of

    with view_of(options.target) as view:
        if view.is_dir(options.path):
            names = [name for name in view.listdir(options.path) if options.all or not name.startswith(".")]
            found = [(name, posixpath.join(options.path, name)) for name in names]
        else:
            view.lstat(options.path)
            found = [(options.path, options.path)]
        if not options.long and not options.json:
            for name, _ in found:
                sys.stdout.write(exact_name(name) + "\n")
            return
        columns = [
            Column("permissions", "MODE"),
            Column("links", right=True),
            Column("uid", "OWNER", right=True),
            Column("gid", "GROUP", right=True),
            Column("size", right=True),
            Column("modified"),
            Column("shown", "NAME"),
        ]
        rows = [_row(view, name, path) for name, path in found]
    if options.json:
        rows = [{key: value for key, value in row.items() if key != "shown"} for row in rows]
    listing(rows, columns, json=options.json)


def _row(view: TreeView, name: str, path: str) -> dict[str, Json]:
    status = view.lstat(path)
    target = view.readlink(path) if stat.S_ISLNK(status.st_mode) else None
    is_dynamic = target is not None and view.is_dynamic_link(path)
    return {
        "name": name,
        "type": "dynamic link" if is_dynamic else _TYPES.get(stat.S_IFMT(status.st_mode), "unknown"),
        "permissions": stat.filemode(status.st_mode),
        "mode": stat.S_IMODE(status.st_mode),
        "links": status.st_nlink,
        "uid": status.st_uid,
        "gid": status.st_gid,
        "size": status.st_size,
        "modified": format_time_ns(status.st_mtime_ns),
        "mtime_ns": status.st_mtime_ns,
        "inode": status.st_ino,
        "device": [os.major(status.st_rdev), os.minor(status.st_rdev)] if status.st_rdev else None,
        "target": target,
        "shown": name if target is None else f"{name} -> {target}",
    }
