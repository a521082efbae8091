"""Consent of whoever runs ``standby add``: to filling a store as one line of several, or to filling a standby anew.

A link never does these by itself where anything might be lost, or filled by mistake.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from idemfs.errors import PeerError
from idemfs.failover import addresses
from idemfs.failover.party import Party
from idemfs.failover.places import open_store
from idemfs.failover.standbys import lodge
from idemfs.format.role import Role
from idemfs.ids import Guid
from idemfs.node import joining, link_round
from idemfs.replication import follow, link, plan
from idemfs.snapshots import lines
from idemfs.vfs.tree import Tree

T = TypeVar("T")


def add_host(path: str, address: str, own_address: str | None = None) -> str:
    """The store at ``address`` takes in the filesets of the one at ``path``, and is the one that a link to it fills;
    its address as links name it. Raises as ``standbys.lodge``."""
    with joining.place_at(path, address, own_address) as (place, _):
        lodge(path, place)
        address = place.address

    def note(tree: Tree, party: Party) -> None:
        link_round.note_filled(tree, address, party.guid)

    _with_party(path, address, note)
    return address


def begin_anew(path: str, address: str, *, dry_run: bool = False) -> list[str]:
    """Filesets that have no snapshot in common with those of the store at ``path`` put aside what they have there, so
    that the next update fills them with all there is; their names here. Raises ``PeerError`` when there is none, and
    for a store that is no standby."""

    def begin(tree: Tree, party: Party) -> list[str]:
        receiver = party.receiver()
        if receiver.stand().role.role is not Role.STANDBY:
            raise PeerError(_in_the_way(path, address))
        with tree.store.lock:
            numbers = follow.numbers_of(tree.store, [Guid(each.guid) for each in lines.own_filesets(tree.store)])
        presents = {each.fileset: link.side_there(each) for each in receiver.look() if each.fileset in numbers}
        plans = {guid: plan.make_plan(link.side_of(tree, numbers[guid]), there) for guid, there in presents.items()}
        found = [guid for guid, made in plans.items() if isinstance(made, plan.NoCommon)]
        if not found:
            raise PeerError(
                f"{address}: each fileset has a snapshot in common with {path}, or waits for its first one: there is "
                "nothing to begin anew; a link or 'idemfs replicate' goes on with it"
            )
        if not dry_run:
            receiver.begin_anew(found)
            link_round.note_filled(tree, address, party.guid)
        return [tree.store.catalog.filesets[numbers[guid]].name for guid in found]

    return _with_party(path, address, begin)


def _in_the_way(path: str, address: str) -> str:
    if addresses.is_remote(address):
        move = "on its machine, move its directory away"
    else:
        move = f"'mv {address} {address}.old'"
    return (
        f"{address}: is no standby, so nothing in it can be put aside while it stays what it is: 'idemfs failback' "
        f"makes one of an old primary; where that finds nothing in common, {move}, and 'idemfs standby add {path} "
        f"{address}' makes a new one"
    )


def _with_party(path: str, address: str, act: Callable[[Tree, Party], T]) -> T:
    """Raises ``PeerError`` where no store is, and as ``Peer.reached``."""
    with ExitStack() as stack:
        tree = Tree(open_store(stack, path))
        peer = link_round.Peer(tree, addresses.absolute(address))
        stack.callback(peer.close)
        party = stack.enter_context(peer.reached())
        if party is None:
            raise PeerError(f"{address}: no store is there; 'idemfs standby add {path} {address}' makes a standby")
        return act(tree, party)
