"""``idemfs standby remove STORE PEER``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_dry_run, add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.failover.standbys import Left


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("peer", metavar="PEER", help="name or path of the standby; its files stay")
    add_dry_run(parser)


def run(options: Namespace) -> None:
    from idemfs.failover.standbys import remove_standby
    from idemfs.node.connecting import connecting_for

    left = remove_standby(options.store, options.peer, dry_run=options.dry_run, connect=connecting_for(options.store))
    if options.dry_run:
        _show(options.store, left)
        return
    print(f"{show_name(options.store)} has forgotten {show_name(left.path)}")


def _show(store: str, left: Left) -> None:
    from idemfs.cli.plans import show_held, show_rows

    rows = [
        ("would", "standby remove"),
        ("from", store),
        ("to", left.path),
        ("common", show_held(left.common) if left.common else "none"),
        ("at risk", "no file; the snapshot that is held for it may then be deleted, and it cannot follow after that"),
        ("step 1", f"{store} forgets {left.path}"),
    ]
    if left.is_reachable:
        rows.append(("step 2", f"{left.path} forgets all other stores"))
    show_rows(rows)
