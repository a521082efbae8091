"""What commands share that read or change the files of a store: opening it, and what ``STORE@SNAPSHOT`` shows.

Reading commands take the store's lock too: without it, another process could change what they are in the
middle of. What lists records alone does without (``snapshot list``, ``info``).
"""

from __future__ import annotations

from contextlib import contextmanager

from idemfs import api
from idemfs.cli.operands import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from idemfs.api.view import TreeView


@contextmanager
def view_of(target: Target) -> Iterator[TreeView]:
    """The active file system, on a standby what it received last; or a snapshot."""
    with api.open(target.store) as fs:
        yield fs if target.snapshot is None else fs.snapshots[target.snapshot]
