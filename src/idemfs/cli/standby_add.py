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
    parser.add_argument(
        "--as",
        dest="guest_name",
        metavar="NAME",
        help="the standby takes in filesets of several stores: those of this one are NAME and NAME-FILESET there",
    )
    parser.add_argument(
        "--anew",
        action="store_true",
        help="the standby has no snapshot in common any more: put aside, in snapshots that stay until they are "
        "released, what its filesets have, and let the next update send everything",
    )
    add_dry_run(parser)


def run(options: Namespace) -> None:
    if options.anew:
        _begin_anew(options)
        return
    if options.guest_name is not None:
        _add_host(options)
        return
    from idemfs.failover.addresses import absolute
    from idemfs.failover.standbys import add_standby
    from idemfs.node.history import Event, record
    from idemfs.node.joining import place_at

    with place_at(options.store, options.peer, options.own_address) as (place, own_address):
        joined = add_standby(options.store, place, own_address=own_address, dry_run=options.dry_run)
    if options.dry_run:
        _show(options.store, joined)
        return
    record(options.store, Event(what="standby add", source=absolute(options.store), target=absolute(joined.path)))
    store, path, name = show_name(options.store), show_name(joined.path), show_name(joined.name)
    print(f"{path} is a standby of {store}, by the name of {name}")


def _begin_anew(options: Namespace) -> None:
    from idemfs.node.beginning import begin_anew
    from idemfs.node.connecting import hand_over

    hand_over(options.store, options.peer)
    for name in begin_anew(options.store, options.peer, dry_run=options.dry_run):
        word = "would put" if options.dry_run else "put"
        print(f"{word} aside what {show_name(options.peer)} has of fileset {show_name(name)}")
    if not options.dry_run:
        print(f"the next update sends everything; 'idemfs diverged list {show_name(options.peer)}' shows what is kept")


def _add_host(options: Namespace) -> None:
    from idemfs.cli.failures import UsageError
    from idemfs.errors import BadFilesetName
    from idemfs.node.beginning import add_host
    from idemfs.vfs.junctions import check_fileset_name

    try:
        check_fileset_name(options.guest_name)
    except BadFilesetName as bad:
        raise UsageError(str(bad)) from None
    if options.dry_run:
        raise UsageError("--dry-run has nothing to show with --as: nothing that is there is changed")
    address = add_host(options.store, options.peer, options.own_address)
    store, place = show_name(options.store), show_name(address)
    print(
        f'{place} takes in filesets of {store}: a link with to = "{place}" and as = "{options.guest_name}" sends them'
    )


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
