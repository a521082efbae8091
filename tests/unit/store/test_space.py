"""The allocator against a model that knows the owner of every sector, through groups, full hosts and crashes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.engines.kv.api import Table
from idemfs.engines.kv.memory import MemoryKV
from idemfs.errors import NoSpace
from idemfs.format import address as addresses
from idemfs.format import keys
from idemfs.ids import Address
from idemfs.limits import SECTOR_SIZE
from idemfs.store.records import Records
from idemfs.store.space import Space

CAPACITY = 2100
SPARE = 5
"""Sectors in a row that are left for who frees more than it takes."""
Extents = dict[int, tuple[int, int]]
"""First sector: how many sectors, how many references."""


class Host(MemoryBlocks):
    """A host that knows which sectors were claimed."""

    def __init__(self) -> None:
        super().__init__(CAPACITY)
        self.claimed: set[int] = set()

    def reserve(self, sector: int, count: int) -> None:
        super().reserve(sector, count)
        self.claimed.update(range(sector, sector + count))

    def discard(self, runs: Sequence[tuple[int, int]]) -> None:
        super().discard(runs)
        for sector, count in runs:
            self.claimed.difference_update(range(sector, sector + count))


def runs_of(sectors: set[int], count: int) -> list[int]:
    """Where ``count`` of the sectors begin in a row, without overlapping."""
    found: list[int] = []
    for sector in sorted(sectors):
        if (not found or sector >= found[-1] + count) and sectors.issuperset(range(sector, sector + count)):
            found.append(sector)
    return found


def extent(sector: int, count: int) -> Address:
    return addresses.make(sector, count * SECTOR_SIZE, False)


def sectors_of(extents: Extents) -> set[int]:
    return {sector for start, (count, _) in extents.items() for sector in range(start, start + count)}


class SpaceMachine(RuleBasedStateMachine):
    """``owned`` is what records name now, ``sealed`` and ``durable`` what they named in those groups."""

    @initialize()
    def begin(self) -> None:
        self.kv = MemoryKV()
        self.durable: Extents = {}
        self.durable_sector_count = 1
        self.host = Host()
        self.reopen()

    def reopen(self) -> None:
        self.small = Records(self.kv, Table.SMALL)
        self.space = Space(self.host, self.small, self.durable_sector_count, SPARE)
        self.can_spare = False
        self.owned = dict(self.durable)
        self.sealed: Extents | None = None
        self.fresh: set[int] = set()

    @rule(count=st.sampled_from([1, 1, 2, 5, 32, 700]))
    def allocate(self, count: int) -> None:
        self.try_to_allocate(count)

    @rule()
    def fill(self) -> None:
        for count in (700, 60, 7, 1):
            while self.try_to_allocate(count):
                """Until there is no more room."""

    def try_to_allocate(self, count: int) -> bool:
        taken = sectors_of(self.owned) | sectors_of(self.durable) | sectors_of(self.sealed or {})
        try:
            sector = self.space.allocate(count)
        except NoSpace:
            # The host gives no more: of what was claimed before nothing is long enough, but for the spare sectors.
            free = (self.host.claimed - taken) & set(range(1, self.space.sector_count))
            if self.space._spare is None:
                assert not runs_of(free, SPARE)
            else:
                first, spare_count = self.space._spare
                assert not runs_of(free - set(range(first, first + spare_count)), count)
            return False
        got = set(range(sector, sector + count))
        assert min(got) > 0
        assert not got & taken
        assert got <= self.host.claimed
        self.owned[sector] = (count, 1)
        self.fresh.add(sector)
        self.can_spare = True
        return True

    @precondition(lambda self: self.can_spare)
    @rule()
    def take_the_spare_sectors(self) -> None:
        """After an allocation there are some, once in a group, however full the host is."""
        taken = sectors_of(self.owned) | sectors_of(self.durable) | sectors_of(self.sealed or {})
        sector = self.space.allocate(SPARE, frees=True)
        got = set(range(sector, sector + SPARE))
        assert not got & taken
        assert got <= self.host.claimed
        self.owned[sector] = (SPARE, 1)
        self.fresh.add(sector)
        self.can_spare = False

    @precondition(lambda self: self.fresh)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        sector = data.draw(st.sampled_from(sorted(self.fresh)))
        count, references = self.owned[sector]
        used = data.draw(st.integers(0, count)) if references == 1 else count
        self.space.give_back(sector, count, used)
        if used:
            self.owned[sector] = (used, references)
        else:
            del self.owned[sector]
            self.fresh.discard(sector)

    @precondition(lambda self: self.owned)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        sector = data.draw(st.sampled_from(sorted(self.owned)))
        count, references = self.owned[sector]
        self.space.free(extent(sector, count))
        if references > 1:
            self.owned[sector] = (count, references - 1)
        else:
            del self.owned[sector]
            self.fresh.discard(sector)

    @precondition(lambda self: self.owned)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        sector = data.draw(st.sampled_from(sorted(self.owned)))
        count, references = self.owned[sector]
        assert self.space.reference_count(extent(sector, count)) == references
        self.space.share(extent(sector, count))
        self.owned[sector] = (count, references + 1)

    @precondition(lambda self: self.sealed is None)
    @rule()
    def seal(self) -> None:
        self.sealed_sector_count = self.space.sector_count
        self.space.seal()
        self.batch = self.small.seal()
        self.sealed = dict(self.owned)
        self.fresh.clear()
        self.can_spare = False

    @precondition(lambda self: self.sealed is not None)
    @rule()
    def commit(self) -> None:
        assert self.sealed is not None
        self.kv.commit({Table.SMALL: self.batch})
        self.durable, self.durable_sector_count = self.sealed, self.sealed_sector_count
        self.space.discard()
        assert not sectors_of(self.durable) - self.host.claimed
        self.small.drop_sealed()
        self.space.release()
        self.sealed = None

    @rule(is_written=st.booleans())
    def crash(self, is_written: bool) -> None:
        if is_written and self.sealed is not None:
            self.kv.commit({Table.SMALL: self.batch})
            self.durable, self.durable_sector_count = self.sealed, self.sealed_sector_count
        self.reopen()

    @invariant()
    def the_durable_free_table_is_what_the_state_does_not_name(self) -> None:
        free: list[int] = []
        for key, value in self.kv.scan(Table.SMALL, *keys.prefix_range(b"R"), 10_000):
            start = int.from_bytes(key[1:], "big")
            free += range(start, start + int.from_bytes(value, "little"))
        assert len(free) == len(set(free)), "a sector is free twice"
        assert set(free) == set(range(1, self.durable_sector_count)) - sectors_of(self.durable)

    @invariant()
    def no_sector_is_lost(self) -> None:
        pending = sectors_of(self.durable) | sectors_of(self.sealed or {})
        unnamed = set(range(1, self.space.sector_count)) - sectors_of(self.owned)
        assert len(unnamed - pending) <= self.space.free_sectors() <= len(unnamed)
        if self.sealed is None and self.durable == self.owned:
            assert self.space.free_sectors() == len(unnamed)


TestSpaceMachine = SpaceMachine.TestCase
TestSpaceMachine.settings = settings(stateful_step_count=40, max_examples=50)


def space_with(kv: MemoryKV, sector_count: int) -> tuple[Space, Records]:
    small = Records(kv, Table.SMALL)
    return Space(MemoryBlocks(), small, sector_count), small


def commit(space: Space, small: Records, kv: MemoryKV) -> None:
    space.seal()
    kv.commit({Table.SMALL: small.seal()})
    small.drop_sealed()
    space.release()


def test_a_run_that_joins_the_one_before_it_leaves_no_record_of_its_own() -> None:
    kv = MemoryKV()
    space, small = space_with(kv, 1)
    first, second = space.allocate(4), space.allocate(4)
    space.allocate(4)
    commit(space, small, kv)
    space.free(extent(first, 4))
    commit(space, small, kv)
    space.free(extent(second, 4))
    commit(space, small, kv)
    space.allocate(1)
    commit(space, small, kv)
    again, _ = space_with(kv, space.sector_count)
    assert again.free_sectors() == space.free_sectors()


def test_what_a_group_frees_is_handed_out_when_that_group_is_durable_and_not_before() -> None:
    kv = MemoryKV()
    space, small = space_with(kv, 1)
    whole = [space.allocate(512) for _ in range(4)]
    end = whole[-1] + 512
    commit(space, small, kv)
    for sector in whole:
        space.free(extent(sector, 512))
    assert space.allocate(1) >= end
    space.seal()
    kv.commit({Table.SMALL: small.seal()})
    assert space.allocate(1) >= end
    small.drop_sealed()
    space.release()
    assert space.allocate(2048) == whole[0]


def test_neighbours_are_joined_so_that_a_large_extent_fits_again() -> None:
    kv = MemoryKV()
    space, small = space_with(kv, 1)
    parts = [space.allocate(8) for _ in range(256)]
    commit(space, small, kv)
    for sector in parts[::2] + parts[1::2]:
        space.free(extent(sector, 8))
    commit(space, small, kv)
    sector_count = space.sector_count
    assert space.allocate(2048) == parts[0]
    assert space.sector_count == sector_count


def test_freeing_one_extent_twice_is_noticed_before_it_is_committed() -> None:
    from idemfs.errors import Damaged

    space, small = space_with(MemoryKV(), 1)
    sector = space.allocate(3)
    space.seal()
    small.seal()
    small.drop_sealed()
    space.release()
    space.free(extent(sector, 3))
    space.free(extent(sector, 3))
    with pytest.raises(Damaged, match="twice"):
        space.seal()
