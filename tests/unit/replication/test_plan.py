"""Which change sets a standby needs, and what is in the way."""

from __future__ import annotations

import pytest

from idemfs.ids import Guid
from idemfs.replication import plan
from idemfs.replication.plan import Ahead, Apart, Conflict, Held, NoCommon, Plan, Side, Step, Unrelated, make_plan

FILES, OTHER_FILES = Guid(b"f" * 16), Guid(b"g" * 16)


def held(name: str) -> Held:
    return Held(Guid(name.encode().ljust(16)), name)


def side(names: str, base: str | None = None, fileset: Guid = FILES) -> Side:
    """One letter a snapshot, oldest first; the base of a standby is its newest unless it is named."""
    snapshots = [held(name) for name in names]
    at = base if base is not None else names[-1:]
    return Side(fileset, snapshots, held(at).guid if at else None)


def steps(pairs: str) -> tuple[Step, ...]:
    """``-a ab bc``: full, then two incremental ones."""
    return tuple(Step(None if pair[0] == "-" else held(pair[0]), held(pair[1])) for pair in pairs.split())


@pytest.mark.parametrize(
    ("primary", "standby", "common", "expected"),
    [
        ("", "", None, ""),
        ("a", "", None, "-a"),
        ("abc", "", None, "-a ab bc"),
        ("abc", "a", "a", "ab bc"),
        ("abc", "ab", "b", "bc"),
        ("abc", "abc", "c", ""),
        # Snapshots that were pruned on one side only.
        ("bc", "ab", "b", "bc"),
        ("ac", "a", "a", "ac"),
        ("ace", "abc", "c", "ce"),
        ("cde", "abc", "c", "cd de"),
    ],
)
def test_every_snapshot_that_is_missing_in_order(primary: str, standby: str, common: str | None, expected: str) -> None:
    assert make_plan(side(primary), side(standby)) == Plan(held(common) if common else None, steps(expected))


def test_what_a_former_primary_kept_of_its_own_is_in_nobodys_way() -> None:
    assert make_plan(side("abcd"), side("abx", base="b")) == Plan(held("b"), steps("bc cd"))


def test_a_standby_that_went_back_needs_what_it_once_had() -> None:
    assert make_plan(side("abc"), side("abc", base="a")) == Apart(held("c"), held("a"))


@pytest.mark.parametrize(
    ("primary", "standby", "expected"),
    [
        (side("a"), side("a", fileset=OTHER_FILES), Unrelated()),
        (side("a"), side("", fileset=OTHER_FILES), Unrelated()),
        (side(""), side("a"), NoCommon((held("a"),))),
        (side("cd"), side("ab"), NoCommon((held("a"), held("b")))),
        (side("ab"), side("abx"), Ahead(held("b"), (held("x"),))),
        (side("abc"), side("axy"), Ahead(held("a"), (held("x"), held("y")))),
        (side("abc"), side("ab", base="a"), Apart(held("b"), held("a"))),
    ],
)
def test_conflicts(primary: Side, standby: Side, expected: Conflict) -> None:
    conflict = make_plan(primary, standby)
    assert conflict == expected
    assert not isinstance(conflict, Plan)
    text = plan.explain(conflict)
    assert "\n" not in text and len(text) > 30
