"""Who owns an extent: asked when something is wrong with it, answered in one more pass over all records.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from idemfs.check.context import Context
from idemfs.check.findings import Finding, Kind
from idemfs.check.scans import pairs, versions
from idemfs.errors import Damaged
from idemfs.format import indirect, keys
from idemfs.ids import Ino, SnapshotId, fileset_of
from idemfs.limits import INDIRECT_ENTRY_COUNT

QUESTION_COUNT_MAX = 1000
_OWNER_COUNT_MAX = 16
_NAME_COUNT_MAX = 10


class Owner(NamedTuple):
    """A record that names an extent: the block of a file, as the active state (None) or a snapshot has it."""

    ino: Ino
    number: int
    snapshot: SnapshotId | None


class _Question(NamedTuple):
    kind: Kind
    found: list[int]
    what: str


class Questions:
    """What is wrong with which addresses; the owners are looked up together."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._questions: list[_Question] = []
        self._more = 0

    def ask(self, kind: Kind, found: list[int], what: str) -> None:
        """Something is wrong with these addresses."""
        if len(self._questions) < QUESTION_COUNT_MAX:
            self._questions.append(_Question(kind, found, what))
        else:
            self._more += 1

    def answers(self) -> Iterator[Finding]:
        if not self._questions:
            return
        owners = find_owners(self._context, {address for question in self._questions for address in question.found})
        for question in self._questions:
            owned_by = [owner for address in question.found for owner in owners.get(address, ())]
            where = " and ".join(self._place(owner) for owner in owned_by)
            what = question.what
            if question.kind is Kind.DATA:
                what += "; " + self._seen_by(owned_by)
            yield Finding(question.kind, where, what)
        if self._more:
            yield Finding(self._questions[-1].kind, "store", f"and {self._more} more, of these kinds")

    def _place(self, owner: Owner) -> str:
        text = f"{self._context.path(owner.ino)}, block {owner.number}"
        if owner.snapshot is not None:
            text += " in " + self._context.snapshot(fileset_of(owner.ino), owner.snapshot)
        return text

    def _seen_by(self, owned_by: list[Owner]) -> str:
        """In which states the block is damaged."""
        names: dict[str, None] = {}
        for owner in owned_by:
            timeline = self._context.timelines[fileset_of(owner.ino)]
            for position in positions_that_see(self._context, owner):
                is_active = position == len(timeline.ids)
                names["the active file system" if is_active else timeline.snapshots[position].name] = None
        text = ", ".join(list(names)[:_NAME_COUNT_MAX]) or "nobody"
        more = len(names) - _NAME_COUNT_MAX
        return f"seen by {text}" + (f" and {more} more" if more > 0 else "")


def find_owners(context: Context, wanted: set[int]) -> dict[int, list[Owner]]:
    """Records that name these addresses; of each address so many that one can go and look."""
    found: dict[int, list[Owner]] = {address: [] for address in wanted}
    store = context.store
    for key, value in pairs(store.active):
        if keys.kind_of(key) == keys.BLOCK:
            _look(found, wanted, key, None, value)
    for key, owned in versions(store.shadow):
        if keys.kind_of(key) == keys.BLOCK:
            for owner, value in owned:
                _look(found, wanted, key, owner, value)
    return found


def _look(
    found: dict[int, list[Owner]], wanted: set[int], key: bytes, snapshot: SnapshotId | None, value: bytes
) -> None:
    try:
        block = indirect.unpack_own(value) if snapshot is None else indirect.unpack_shadow(value)
    except Damaged:
        return
    for entry, address, _ in block.real_entries():
        if address in wanted and len(found[address]) < _OWNER_COUNT_MAX:
            number = keys.index_of(key) * INDIRECT_ENTRY_COUNT + entry
            found[address].append(Owner(keys.ino_of(key), number, snapshot))


def positions_that_see(context: Context, owner: Owner) -> list[int]:
    """The positions of the timeline whose file has this block from this record."""
    timeline = context.timelines[fileset_of(owner.ino)]
    index, entry = divmod(owner.number, INDIRECT_ENTRY_COUNT)
    last = len(timeline.ids) if owner.snapshot is None else timeline.position(owner.snapshot)
    if last is None:
        return []
    start = 0
    for _, owned in versions(context.store.shadow, *keys.shadow_range(keys.block(owner.ino, index), SnapshotId(0))):
        for snapshot, value in owned:
            position = timeline.position(snapshot)
            if position is None or position >= last:
                continue
            try:
                if entry in indirect.unpack_shadow(value).entries:
                    start = position + 1
            except Damaged:
                continue
    seen: list[int] = []
    for span in context.spans(owner.ino):
        node = span.node
        if node.is_file and not node.is_inline and owner.number * context.store.block_size < node.size:
            seen.extend(range(max(start, span.start), min(last + 1, span.end)))
    return seen
