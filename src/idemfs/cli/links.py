"""``idemfs links STORE``: what the process that serves the store says of its links."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, format_size, format_time_ns, listing, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.cli.render import Json
    from idemfs.node.progress import LinkStatus, TransferStatus

COLUMNS = ("to", "state", "lag", "behind", "common", "now")
"""Of a table of links, whose rows ``row`` makes."""
_CLEAR = "\x1b[H\x1b[J"


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)
    parser.add_argument("--watch", action="store_true", help="show it again each second, until interrupted")


def run(options: Namespace) -> None:
    links = _asked(options.store)
    if options.json:
        from msgspec import to_builtins

        listing([to_builtins(each) for each in links], [], json=True)
        return
    if not options.watch:
        _show(links)
        return
    from time import sleep

    while True:
        if sys.stdout.isatty():
            sys.stdout.write(_CLEAR)
        _show(links)
        sys.stdout.flush()
        sleep(1.0)
        links = _asked(options.store)


def _show(links: list[LinkStatus]) -> None:
    if not links:
        print("no links")
        return
    columns = [Column(each) for each in COLUMNS]
    for line in table([row(each) for each in links], columns, terminal=sys.stdout.isatty()):
        print(line)


def _asked(path: str) -> list[LinkStatus]:
    """Raises ``Refused``, ``StoreMissing``, and ``StoreInUse`` where a command may ask its owner and a question not."""
    from os import getpid

    from msgspec import ValidationError, convert

    from idemfs.cli.failures import Refused
    from idemfs.engines.lock import owner
    from idemfs.errors import StoreInUse
    from idemfs.node.local_socket import LINKS, inquire
    from idemfs.node.progress import LinkStatus
    from idemfs.store.peek import read_superblock

    read_superblock(path)
    try:
        return convert(inquire(path, LINKS), list[LinkStatus])
    except ValidationError:
        pid = owner(path)
        if pid is not None and pid != getpid():
            raise StoreInUse(path, pid) from None
        raise Refused(f"{path}: no process answers that runs its links; 'idemfs serve' does") from None


def row(link: LinkStatus) -> dict[str, Json]:
    return {
        "to": link.to,
        "state": link.state,
        "lag": None if link.lag_seconds is None else f"{link.lag_seconds:.1f} s",
        "behind": None if link.lag_bytes is None else format_size(link.lag_bytes),
        "common": link.common,
        "now": _now(link),
    }


def _now(link: LinkStatus) -> str | None:
    if link.transfer is not None:
        return _transfer(link.transfer)
    text = link.reason or ""
    if link.next_ns is not None and link.state in ("failed", "waiting for its window"):
        text += f"{'; ' if text else ''}goes on at {format_time_ns(link.next_ns)}"
    return text or None


def _transfer(transfer: TransferStatus) -> str:
    """``home@monday: 1.5 GiB of 4 GiB, 80 MiB/s, 32 s left``."""
    name = transfer.snapshot if transfer.fileset == "root" else f"{transfer.fileset}@{transfer.snapshot}"
    text = f"{name}: {format_size(transfer.bytes_sent)}"
    if transfer.bytes_total is not None:
        text += f" of {format_size(transfer.bytes_total)}"
    text += f", {format_size(round(transfer.bytes_per_second))}/s"
    if transfer.remaining_seconds is not None:
        text += f", {transfer.remaining_seconds:.0f} s left"
    return text
