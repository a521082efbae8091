"""idemfs: a POSIX file system in user space with instant snapshots and a standby to fail over to and to come back from.

::

    import idemfs
    with idemfs.open("/srv/store") as fs:        # idemfs.create(path) makes one
        fs.makedirs("/data")
        fs.write_bytes("/data/a", b"1")
        fs.snapshots.create("monday")
        fs.snapshots["monday"].read_bytes("/data/a")

Names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs import errors as errors
    from idemfs.api import (
        Change,
        ChangeKind,
        Fileset,
        FilesetInfo,
        FileSystem,
        Policy,
        RestoreInfo,
        SnapshotInfo,
        SnapshotView,
        Version,
        create,
        open,
    )
    from idemfs.errors import IdemfsError

__all__ = [
    "Change",
    "ChangeKind",
    "FileSystem",
    "Fileset",
    "FilesetInfo",
    "IdemfsError",
    "Policy",
    "RestoreInfo",
    "SnapshotInfo",
    "SnapshotView",
    "Version",
    "create",
    "errors",
    "open",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'idemfs' has no attribute {name!r}")
    # Not importlib, which itself takes time to import.
    __import__("idemfs.api")
    __import__("idemfs.errors")
    import sys

    for module in ("idemfs.api", "idemfs.errors"):
        value: object = getattr(sys.modules[module], name, None)
        if value is not None:
            return value
    return sys.modules[f"idemfs.{name}"]


def __dir__() -> list[str]:
    return [*globals(), *__all__]
