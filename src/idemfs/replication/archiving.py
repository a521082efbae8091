"""A store and an archive: bring the archive up to the store, and a store back from the archive.

An archive is like a standby in that the newest common snapshot is held on the source for it. Unlike a standby it has no
state of its own: a chain may begin from any snapshot that it has and the source still has, and where there is none, or
its chain is not whole any more, from nothing, with a full stream. What it had before stays restorable beside it.

A clone comes in full: each chain is of one fileset, so that each can be restored, and pruned, by itself.

Threads: as in ``send`` and ``apply``; nobody else writes to the archive meanwhile, who opened it has its lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import NamedTuple

from idemfs.clock import Clock
from idemfs.errors import ArchiveError, Fenced, PeerError
from idemfs.format.role import Role
from idemfs.format.tables import Fileset, Snapshot
from idemfs.ids import ROOT_FILESET, Guid
