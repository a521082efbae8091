"""Questions about a batch that every metadata engine asks."""

from __future__ import annotations

from idemfs.engines.kv.api import Batch, Precondition
from idemfs.errors import Fenced
from idemfs.limits import KEY_SIZE_MAX, RECORD_SIZE_MAX


def measure(batch: Batch) -> tuple[int, int]:
    """Records and bytes of values in the batch; asserts that each is within the limits."""
    record_count = value_bytes = 0
    for records in batch.values():
        if not records:
            continue
        sizes = [len(value) for value in records.values() if value is not None]
        assert min(map(len, records)) > 0
        assert max(map(len, records)) <= KEY_SIZE_MAX
        assert max(sizes, default=0) <= RECORD_SIZE_MAX
        record_count += len(records)
        value_bytes += sum(sizes)
    return record_count, value_bytes


def fenced(path: str, precondition: Precondition) -> Fenced:
    return Fenced(f"{path}: another owner has taken over ({precondition.key!r} has changed); this one writes no more")
