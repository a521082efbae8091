"""``idemfs automatic status STORE``: the write lease, who grants it, and what automatic failover waits for."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_json, add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.node.guard import GuardStatus


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs.cli.guarded import guard_of

    status = guard_of(options.store).status()
    if options.json:
        from msgspec import json

        print(json.encode(status).decode())
        return
    from idemfs.cli.plans import show_rows

    show_rows(_rows(status))


def _rows(status: GuardStatus) -> list[tuple[str, str]]:
    rows = [("role", f"{status.role} of epoch {status.epoch}")]
    if status.lease_left_seconds is not None:
        left = status.lease_left_seconds
        rows.append(("write lease", f"{left:.1f} s of {status.lease_seconds:g} s left" if left else "has run out"))
    else:
        rows.append(("granted", f"{status.granted_left_seconds:.1f} s of {status.lease_seconds:g} s left"))
    rows.append(("automatic", "no" if not status.is_automatic else "paused" if status.is_paused else "yes"))
    rows.append(("etcd", status.etcd))
    rows.append(("holder", status.holder or "nobody"))
    rows += [("granted by", name) for name in status.granted]
    rows += [("not by", f"{name}: {why}") for name, why in status.missing.items()]
    rows.append(("now", status.state))
    return rows
