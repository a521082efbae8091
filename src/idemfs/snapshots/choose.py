"""Which snapshots are meant by ``FILESET@NAME``, where the fileset may be a pattern.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterable

from idemfs.errors import FilesetMissing
from idemfs.format.tables import Fileset
from idemfs.ids import ROOT_FILESET, FilesetId
from idemfs.store.catalog import Catalog

PATTERN = frozenset("*?[")
"""Characters that mean more than themselves in a pattern; no fileset has them in its name."""


def filesets(catalog: Catalog, pattern: str, excluded: Iterable[str] = ()) -> list[Fileset]:
    """Those whose names match, as file names do in a shell, without those that match one of ``excluded``.

    Raises ``FilesetMissing`` when nothing matches.
    """
    from fnmatch import fnmatchcase

    if PATTERN.isdisjoint(pattern):
        return [catalog.fileset_named(pattern)]
    left_out = list(excluded)
    found = [
        fileset
        for fileset in catalog.listed_filesets()
        if fnmatchcase(fileset.name, pattern) and not any(fnmatchcase(fileset.name, each) for each in left_out)
    ]
    if not found:
        raise FilesetMissing(f"no fileset matches {pattern!r}; 'idemfs fileset list STORE' shows those there are")
    return found


def places(
    catalog: Catalog, operands: Iterable[str], excluded: Iterable[str] = (), fileset: FilesetId = ROOT_FILESET
) -> list[tuple[FilesetId, str]]:
    """Fileset and name of each snapshot that is meant, each once.

    ``NAME`` is one of ``fileset``, ``@NAME`` one of the root fileset. Raises ``FilesetMissing``, also when there is
    none of what is excluded: by a mistyped name, what was to be left out would be taken.
    """
    left_out = list(excluded)
    if left_out:
        _refuse_missing(catalog, left_out)
    found: dict[tuple[FilesetId, str], None] = {}
    for operand in operands:
        pattern, _, name = operand.rpartition("@")
        if PATTERN.isdisjoint(pattern):
            found[catalog.snapshot_place(operand, fileset)] = None
        else:
            found |= {(each.number, name): None for each in filesets(catalog, pattern, left_out)}
    return list(found)


def _refuse_missing(catalog: Catalog, excluded: Iterable[str]) -> None:
    from fnmatch import fnmatchcase

    names = [fileset.name for fileset in catalog.listed_filesets()]
    for pattern in excluded:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise FilesetMissing(
                f"no fileset matches what is excluded, {pattern!r}; 'idemfs fileset list STORE' shows those there are"
            )
