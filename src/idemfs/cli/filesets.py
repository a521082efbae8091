"""The fileset that a command is about.

A command without a fileset is about the root one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idemfs.api import FileSystem, Snapshots


def add_fileset(parser: ArgumentParser) -> None:
    """``options.fileset: str | None``."""
    parser.add_argument("fileset", metavar="FILESET", nargs="?", help="the fileset (default: the root one)")


def snapshots_of(fs: FileSystem, name: str | None) -> Snapshots:
    """The snapshots of the fileset of this name. Raises ``FilesetMissing``."""
    return fs.snapshots if name is None else fs.filesets[name].snapshots
