"""``idemfs mount STORE DIR``, and as ``mount.fuse.idemfs`` what ``mount(8)`` and ``/etc/fstab`` call."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import NamedTuple

from idemfs.cli.failures import UsageError
from idemfs.cli.parser import add_store

_OF_FSTAB = frozenset(("auto", "noauto", "user", "nouser", "users", "defaults", "nofail", "_netdev"))
_DEFAULTS = frozenset(("rw", "suid", "dev", "exec", "atime", "async", "relatime", "norelatime", "strictatime"))
_IGNORED = _OF_FSTAB | _DEFAULTS | {"default_permissions"}
_IGNORED_PREFIXES = ("x-", "user=", "fsname=", "subtype=", "comment=")
"""What mount(8) passes on, and what is so anyway."""


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("directory", metavar="DIR", help="where it appears")
    parser.add_argument("--foreground", action="store_true", help="stay until it is unmounted; log to standard error")
    parser.add_argument("--allow-other", action="store_true", help="let other users in (for root: the default)")
    parser.add_argument("--read-only", action="store_true", help="refuse changes")
    parser.add_argument("--snapshot", metavar="NAME", help="show this snapshot, or FILESET@NAME, and nothing else")
    parser.add_argument("--fileset", metavar="NAME", help="show this fileset, and what appears in it, and nothing else")
    parser.add_argument("--writable", action="store_true", help="with --snapshot: let it be changed in place")
    parser.add_argument(
        "-o", metavar="OPTIONS", default="", help="as for mount(8), and snapshot=NAME, writable, fileset=NAME"
    )


def run(options: Namespace) -> int:
    from idemfs.cli.mounting import detached, tell_service_manager

    store, directory = os.path.realpath(options.store), os.path.realpath(options.directory)
    wanted = _options(options)

    def serve(ready: Callable[[], None]) -> None:
        from idemfs.cli.serving import commands
        from idemfs.mount.owner import serve_store

        serve_store(
            store,
            directory,
            wanted.options,
            wanted.snapshot,
            ready,
            commands=commands(),
            writable=wanted.writable,
            fileset=wanted.fileset,
        )

    if options.foreground:

        def mounted() -> None:
            print(f"mounted {store} on {directory}", flush=True)
            tell_service_manager("READY=1")

        serve(mounted)
        return 0
    return detached(serve, log_path=os.path.join(store, "mount.log"))


class _Wanted(NamedTuple):
    """What the mount is to show, and its options."""

    options: list[str]
    snapshot: str | None
    fileset: str | None
    writable: bool


def _options(options: Namespace) -> _Wanted:
    """Raises ``UsageError``."""
    wanted: list[str] = []
    snapshot: str | None = options.snapshot
    fileset: str | None = options.fileset
    writable = options.writable
    given = [each for each in options.o.split(",") if each]
    if options.allow_other:
        wanted.append("allow_other")
    for each in given:
        if each.startswith("snapshot="):
            snapshot = each.removeprefix("snapshot=")
        elif each.startswith("fileset="):
            fileset = each.removeprefix("fileset=")
        elif each == "writable":
            writable = True
        elif each in _IGNORED or each.startswith(_IGNORED_PREFIXES):
            continue
        elif each not in wanted:
            wanted.append(each)
    if writable and (snapshot is None or options.read_only):
        raise UsageError("--writable goes with --snapshot NAME, and not with --read-only")
    if fileset is not None and snapshot is not None:
        raise UsageError("--fileset shows a fileset as it is now; '--snapshot FILESET@NAME' shows a snapshot of it")
    if (options.read_only or (snapshot is not None and not writable)) and "ro" not in wanted:
        wanted.append("ro")
    return _Wanted(wanted, snapshot, fileset, writable)


def helper() -> int:
    """``mount.fuse.idemfs STORE DIR [-sfnv] [-o OPTIONS]``, as ``mount(8)`` calls it. It is told what it needs not."""
    from idemfs.cli.main import main

    given = sys.argv[1:]
    kept: list[str] = []
    while given:
        each = given.pop(0)
        if each == "-o" and given:
            kept += ["-o", given.pop(0)]
        elif each in ("-t", "-N") and given:
            given.pop(0)
        elif not each.startswith("-") or each == "-":
            kept.append(each)
        elif "f" in each.lstrip("-") and not each.startswith("--"):
            return 0
    options = [option for word in kept[1:] for option in word.split(",") if word != "-o"]
    if "remount" in options:
        return _remount(kept[1], options)
    return main(["mount", *kept])


def _remount(directory: str, options: list[str]) -> int:
    """``mount -o remount``: the kernel alone is told, which refuses changes or does not from then on."""
    from idemfs.mount.channel import remount

    try:
        remount(directory, options)
    except OSError as error:
        print(f"idemfs: {directory}: {error.strerror}", file=sys.stderr)
        return 1
    return 0
