"""The power goes at every write point while drills begin, are written to, and end, and replication and roles go on.

A drill that was begun is whole or not there; one that is there stays what it is, whatever is cut, and can be ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from idemfs.errors import DrillError
from idemfs.replication import applier, codec
from idemfs.snapshots import delete, drills, manage
from idemfs.testing.builders import assert_clean
from idemfs.vfs import drilling
from idemfs.vfs.fileset_tree import FilesetTree
from tests.crash import test_power_cut_filesets_pair as filesets_pair
from tests.crash.disk import BLOCK_SIZE, tighten
from tests.crash.dump import Dump, dump_of
from tests.crash.test_power_cut_filesets_pair import run, write
from tests.crash.test_power_cut_pair import Pair, Phase, fail_back, fail_over, replicate_a
from tests.crash.workload import Hands


def drill_of(pair: Pair, name: str) -> Dump:
    """What a drill of B has; nothing when there is none."""
    found = drills.find(pair.trees["B"].store, name)
    return {} if found is None else dump_of(FilesetTree(pair.trees["B"], found.filesets[0]).reader)


@pytest.fixture(autouse=True)
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch)
    monkeypatch.setattr(codec, "STREAM_BATCH_BYTES", 3000)
    monkeypatch.setattr(applier, "_STEP_RECORD_COUNT", 7)
    views_of = filesets_pair.views_of

    def with_drills(pair: Pair) -> dict[str, tuple[Dump, bool]]:
        """Also the drill, and whoever looks finds that its filesets came, and go, together."""
        found = views_of(pair)
        seen, is_standby = found["B"]
        drill = drill_of(pair, "test")
        return found | {"B": (seen | {f"drill {path}": what for path, what in drill.items()}, is_standby)}

    monkeypatch.setattr(filesets_pair, "views_of", with_drills)


def life(_seed: int) -> Iterator[Phase]:
    def user(turn: int) -> Phase:
        def act(pair: Pair) -> None:
            hands = Hands(pair.trees["A"], turn)
            write(hands, turn)
            hands.tree.store.commit()
            filesets = hands.tree.store.catalog.listed_filesets()
            manage.create_all(hands.tree.store, [(each.number, f"turn-{turn}") for each in filesets])

        return Phase(f"user of A, turn {turn}", act, is_command=False)

    yield user(0)
    yield Phase("replicate for the first time", replicate_a)
    yield Phase("begin", begin)
    yield Phase("write in the drill", write_there, is_command=False)
    yield user(1)
    yield Phase("replicate", replicate_a)
    yield Phase("delete what the drill rests on", delete_origins)
    yield user(2)
    yield Phase("replicate again", replicate_a)
    yield Phase("failover", fail_over)
    yield Phase("failback", fail_back)
    yield Phase("end", end)


def begin(pair: Pair) -> None:
    with suppress(DrillError):
        # After a cut it may be there.
        drilling.start(pair.trees["B"], "test")
    assert len(drilling.find(pair.trees["B"].store, "test").filesets) == 3


def write_there(pair: Pair) -> None:
    tree = pair.trees["B"]
    hands = Hands(FilesetTree(tree, drilling.find(tree.store, "test").filesets[0]), 9)
    for path in ("", "home/", "home/deep/"):
        hands.write(f"{path}file", 700, 3 * BLOCK_SIZE)
        hands.write(f"{path}mine", 0, 2 * BLOCK_SIZE)
    hands.unlink("small0")
    hands.tree.store.commit()


def delete_origins(pair: Pair) -> None:
    tree = pair.trees["B"]
    for name in ("root", "home", "deep"):
        fileset = tree.store.catalog.fileset_named(name)
        for snapshot in tree.store.catalog.snapshots(fileset.number)[:-1]:
            delete.delete(tree.active, snapshot)


def end(pair: Pair) -> None:
    with suppress(DrillError):
        # After a cut it may be gone.
        drilling.end(pair.trees["B"], "test")
    assert not drills.listed(pair.trees["B"].store)


def test_a_standby_with_drills_survives_power_cuts(seed: int) -> None:
    pair = run(seed, life)
    names = [each.name for each in pair.trees["B"].store.catalog.filesets.values()]
    assert names == ["root", "home", "deep", "late"]
    assert_clean(pair.trees["B"])


def test_a_drill_that_is_made_fileset_by_fileset_is_noticed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clone: Callable[..., object] = drilling._clone

    def made(*arguments: object) -> object:
        found = clone(*arguments)
        # crash: the rule that is broken here on purpose.
        arguments[0].store.commit()  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(drilling, "_clone", made)
    with pytest.raises(AssertionError):
        run(seed, life)
