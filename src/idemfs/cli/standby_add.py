"""``idemfs standby add STORE PEER``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_dry_run, add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.failover.standbys import Joined


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "peer",
        metavar="PEER",
        help="path of the standby, or ssh://HOST/PATH, or https://HOST:PORT/NAME; made when there is nothing yet",
    )
    parser.add_argument(
        "--own-address",
        metavar="ADDRESS",
        help="where the standby finds this store (if not said: with ssh, this host's name and its path; "
        "with https, the node's url and the name of the store)",
    )
    add_dry_run(parser)


def run(options: Namespace) -> None:
    from idemfs.failover.standbys import add_standby
    from idemfs.node.joining import place_at

    with place_at(options.store, options.peer, options.own_address) as (place, own_address):
        joined = add_standby(options.store, place, own_address=own_address, dry_run=options.dry_run)
    if options.dry_run:
        _show(options.store, joined)
        return
    store, path, name = show_name(options.store), show_name(joined.path), show_name(joined.name)
    print(f"{path} is a standby of {store}, by the name of {name}")


def _show(store: str, joined: Joined) -> None:
    from idemfs.cli.plans import show_held, show_rows
    from idemfs.failover.standbys import Arrival

    first = {
        Arrival.NEW: f"make a store at {joined.path}, with the block size of {store}",
        Arrival.EMPTY: f"make the empty store at {joined.path} a standby",
        Arrival.STANDBY: f"keep {joined.path} as the standby that it is",
    }
    show_rows(
        [
            ("would", "standby add"),
            ("from", store),
            ("to", joined.path),
            ("common", show_held(joined.common) if joined.common else "none"),
            ("at risk", "nothing"),
            ("step 1", first[joined.arrival]),
            ("step 2", "tell each store where the other is"),
        ]
    )
