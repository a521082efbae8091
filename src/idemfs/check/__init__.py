"""Find what is wrong with a store, and say what and where. Nothing is changed.

Each module checks one subject in one pass over sorted records, so that memory does not grow
with the store; ``whole`` runs them all. A record that is damaged is reported once, by whoever
decodes it, and left out of what is counted afterwards, which may then not add up.

Threads: ``find`` keeps the store from changing until its iterator has ended.
"""

from __future__ import annotations

from idemfs.check.findings import Finding, Kind
from idemfs.check.whole import find

__all__ = ["Finding", "Kind", "find"]
