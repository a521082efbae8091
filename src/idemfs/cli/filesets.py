"""The fileset that a command is about.

A command without a fileset is about the root one.
"""

from __future__ import annotations

from idemfs.cli.failures import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idemfs.api import FileSystem


def add_fileset(parser: ArgumentParser) -> None:
    """``options.fileset: str | None``."""
    parser.add_argument("fileset", metavar="FILESET", nargs="?", help="the fileset (default: the root one)")


def check_fileset(fs: FileSystem, name: str | None) -> None:
    """Raises ``Refused`` for a name that the fileset of ``fs`` does not have."""
    known = fs.tree.store.catalog.filesets[fs.tree.fileset].name
    if name is not None and name != known:
        raise Refused(f"no fileset named {name!r}; there is {known!r}")
