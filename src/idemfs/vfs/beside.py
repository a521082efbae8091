"""A file system of a store that another one of this process has open: what is the store's own, it has from that one.

Threads: as in ``namespace``.
"""

from __future__ import annotations

from collections.abc import Callable

from idemfs.format.role import RoleRecord
from idemfs.vfs.tree import Tree
from idemfs.vfs.write_lease import WriteLease


class Beside(Tree):
    """Shows something else of the store of ``base``, which owns it, and recovers what a crash left."""

    base: Tree

    @property
    def role(self) -> RoleRecord:  # type: ignore[override]
        return self.base.role

    @property
    def write_lease(self) -> WriteLease | None:  # type: ignore[override]
        return self.base.write_lease

    @property
    def granted_until_ns(self) -> int:  # type: ignore[override]
        return self.base.granted_until_ns

    @property
    def is_taking_over(self) -> bool:  # type: ignore[override]
        return self.base.is_taking_over

    @property
    def watchers(self) -> list[Callable[[], None]]:  # type: ignore[override]
        return self.base.watchers

    @property
    def moves(self) -> int:
        return self.base.moves

    @moves.setter
    def moves(self, count: int) -> None:
        self.base.moves = count

    def reload_role(self) -> None:
        self.base.reload_role()

    def note_current(self, age_seconds: float) -> None:
        self.base.note_current(age_seconds)

    def current_age(self) -> float | None:
        return self.base.current_age()
