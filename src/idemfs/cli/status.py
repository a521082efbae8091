"""``idemfs status STORE``: reads last committed groups, and takes no lock."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.plans import counted
from idemfs.cli.render import Column, format_size, listing, show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.cli.render import Json
    from idemfs.failover.status import StoreStatus


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)


def run(options: Namespace) -> None:
    from dataclasses import asdict

    from idemfs.failover.places import open_stage
    from idemfs.failover.status import status
    from idemfs.node.connecting import connecting_for

    with open_stage(options.store, readonly=True, connect=connecting_for(options.store)) as stage:
        found = status(stage)
    columns = [
        Column("path", "STORE"),
        Column("role"),
        Column("epoch", right=True),
        Column("newest", "NEWEST SNAPSHOT"),
        Column("common"),
        Column("behind_snapshots", "BEHIND", right=True),
        Column("behind_bytes", "BYTES", show_size, right=True),
        Column("remarks"),
    ]
    rows: list[dict[str, Json]] = [{**asdict(each), "remarks": "; ".join(_remarks(each))} for each in found]
    listing(rows, columns, json=options.json)


def _remarks(row: StoreStatus) -> list[str]:
    remarks = []
    if not row.is_reachable:
        remarks.append(f"not reachable: {row.reason}")
    if row.seen_epoch is not None and row.epoch is not None and row.seen_epoch > row.epoch:
        remarks.append(f"has seen epoch {row.seen_epoch}")
    if row.switchover_begun:
        remarks.append("switchover not finished")
    if row.has_changed:
        remarks.append("changes since its newest snapshot")
    if row.half_received:
        remarks.append("a change set is half received")
    if row.diverged_snapshots or row.diverged_changes:
        remarks.append("has what the primary has not: run failback")
    if row.unreleased_snapshots:
        count = counted(row.unreleased_snapshots, "snapshot")
        size = format_size(row.unreleased_bytes or 0)
        remarks.append(f"{count} diverged, {size}: {_where(row.path)} shows what")
    return remarks


def _where(path: str) -> str:
    """That command takes stores of this machine."""
    from idemfs.failover.addresses import is_remote

    return "'idemfs diverged list' there" if is_remote(path) else f"'idemfs diverged list {path}'"
