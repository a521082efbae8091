"""What the processes that own stores share, ``mount`` and ``serve``: how they carry out the commands of others."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.node.owner import Commands

_CHANGES_ROLES = {("failover",), ("failback",), ("switchover",)}
_CHANGES_FILES = {("put",), ("receive",)} | _CHANGES_ROLES
_CHANGES_SNAPSHOTS = {("snapshot", each) for each in ("restore", "delete", "write", "refresh", "purge")}
_CHANGES_SNAPSHOTS |= {("diverged", "release")}
_CHANGES_FILESETS = {("fileset", each) for each in ("create", "attach", "delete", "promote")} | {("drill", "end")}
"""Commands after which the kernel's names and contents may be old, whatever came of them."""


def commands() -> Commands:
    from idemfs.node.owner import Commands

    return Commands(_run, _stales, _stales_others)


def _run(command: list[str]) -> int:
    from idemfs.cli.main import main

    # Two owners that handed each other a command would do so for ever.
    return main(command, forwards=False)


def _stales(command: list[str]) -> bool:
    return tuple(command[:1]) in _CHANGES_FILES or tuple(command[:2]) in _CHANGES_SNAPSHOTS | _CHANGES_FILESETS


def _stales_others(command: list[str]) -> bool:
    return tuple(command[:1]) in _CHANGES_ROLES
