"""What was purged on the source: named in the archive, written anew without it, and deleted there on demand."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from idemfs import FileSystem
from idemfs.node.link_round import ArchiveTarget
from idemfs.replication import archiving, manifest
from idemfs.snapshots.policy import Policy
from idemfs.testing.builders import make_file
from tests.unit.replication.test_archive import Archiving


@pytest.fixture
def purged(tmp_path: Path) -> Archiving:
    """Three points of each fileset; from the root of each of the first two ``/f`` was purged, and is no more."""
    made = Archiving(tmp_path)
    made.take("one", b"secret" * 900)
    made.fill()
    made.take("two", b"secret" * 950)
    made.fill()
    FileSystem(made.tree).snapshots.purge("/f", active=True, reason="a key was in it")
    return made


def names(made: Archiving, *, is_purged: bool) -> list[str]:
    return [each.operand for each in made.opened().manifest.points if each.is_purged == is_purged]


def test_points_are_named_and_nothing_new_begins_from_them(purged: Archiving) -> None:
    purged.fill()
    assert names(purged, is_purged=True) == ["one", "two"]
    roots = [each for each in purged.opened().manifest.points if each.fileset_name == "root"]
    assert [each.base is None for each in roots] == [True, False, True, False]
    purged.assert_restored("two")


def test_they_are_deleted_with_what_begins_from_them_and_the_rest_is_restored(purged: Archiving) -> None:
    purged.fill()
    files = purged.files()
    found = manifest.without_purged(purged.opened().manifest)
    assert [each.operand for each in found.gone] == ["one", "two"]
    archiving.carry_out(purged.opened(), found)
    assert names(purged, is_purged=True) == [] and len(purged.files()) == len(files) - 2
    purged.assert_restored("two")
    root = purged.tree.store.catalog.by_name(purged.tree.fileset, "one")
    store = purged.restored("one").store
    assert store.catalog.filesets[purged.tree.fileset].digest == root.digest
    store.close()
    make_file(purged.tree, purged.tree.root, b"f", b"again")
    purged.take("three", b"new" * 1000)
    purged.fill()
    purged.assert_restored("three")


def test_what_was_deleted_before_it_was_written_again_is_written_then(purged: Archiving) -> None:
    archive = purged.opened()
    archive.put(manifest.with_purged(archive.manifest, {each.snapshot for each in archive.manifest.points[:1]}))
    archiving.carry_out(archive, manifest.without_purged(archive.manifest))
    purged.fill()
    purged.assert_restored("two")


def test_a_link_says_so_once(purged: Archiving, caplog: pytest.LogCaptureFixture) -> None:
    target = ArchiveTarget(purged.tree, f"archive:{purged.path}", Policy())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            target.run()
    (line,) = [each for each in caplog.messages if "purged" in each]
    assert "one, two" in line and "idemfs archive purge" in line
