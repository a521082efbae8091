"""What a command that moves data or roles is going to do, made of facts alone. Pure.

Invariants, which ``tests/sim`` holds against every interruption:

- a store becomes primary only in an epoch above every epoch that it and all reachable stores have seen;
- before a primary's state is taken back or passed over, a snapshot holds it;
- of a state that a command leaves behind when it is interrupted, the same command, or the one that the
  refusal names, makes a plan that leads to the same end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from idemfs.errors import Fenced, NotPrimary, NotStandby, PeerError, RoleError
from idemfs.failover.facts import (
    AwaitLease,
    Decision,
    Demote,
    DropPartial,
    Freeze,
    GoBack,
    Held,
    Introduce,
    Part,
    Peer,
    Plan,
    Promote,
    Refusal,
    Risk,
    Send,
    Side,
    Step,
    TakeSnapshot,
    Tell,
    Unreachable,
)
from idemfs.failover.lease import waits
from idemfs.failover.purged import told
from idemfs.ids import Guid

_KEPT = "is kept there in snapshots, and not sent"


def common_snapshot(source: Side | Part, target: Side | Part) -> Held | None:
    """The newest snapshot of a fileset (of a side: of its root fileset) that ``target`` has too."""
    there = {held.guid for held in target.snapshots}
    return next((held for held in reversed(source.snapshots) if held.guid in there), None)


def pairs(one: Side, other: Side) -> list[tuple[Part, Part]]:
    """The filesets that both have."""
    there = {part.fileset: part for part in other.parts}
    return [(part, there[part.fileset]) for part in one.parts if part.fileset in there]


def _of(part: Part) -> str:
    return f" of fileset {part.name!r}" if part.name else ""


def newer(side: Side | Part, common: Held | None) -> tuple[Held, ...]:
    """The snapshots of ``side`` that are newer than ``common``; all of them without one."""
    guids = [held.guid for held in side.snapshots]
    return side.snapshots[guids.index(common.guid) + 1 :] if common else side.snapshots


def sides(peers: Sequence[Peer]) -> list[Side]:
    return [peer for peer in peers if isinstance(peer, Side)]


def unreachable(peers: Sequence[Peer]) -> list[Unreachable]:
    return [peer for peer in peers if isinstance(peer, Unreachable)]


def next_epoch(store: Guid, me: Side, peers: Sequence[Peer]) -> int:
    """The first epoch for ``store`` above all that reachable stores have seen.

    Stores that know each other deal epochs out among them in turn, the first one to the first, so that two which take
    over unseen by each other never have the same. Should they not agree on who is there, ``Side.outranks`` tells
    two apart.
    """
    first = 1 + max(side.role.seen_epoch for side in [me, *sides(peers)])
    return first + (me.members.index(store) + 1 - first) % len(me.members)


def acting_primary(me: Side, peers: Sequence[Peer]) -> Side | None:
    """The reachable primary whose right to write is above all others', and above that of ``me``, if there is one."""
    best: Side | None = None
    for peer in sides(peers):
        if peer.outranks(me) and (best is None or peer.outranks(best)):
            best = peer
    return best


# -- replicate -----------------------------------------------------------------------------------------


def replicate(me: Side, peers: Sequence[Peer]) -> Decision:
    """Bring every reachable standby up to date."""
    refusal = _not_writing(me, "replicate") or _unknown(me, peers)
    if refusal:
        return refusal
    fenced = _fenced_by(me, peers, "replicate")
    if fenced:
        return fenced
    if not peers:
        return Refusal(error=_no_standby(me))
    steps: list[Step] = []
    sends: list[Step] = []
    left_out = [f"{peer.path} is not reachable ({peer.reason})" for peer in unreachable(peers)]
    for peer in sides(peers):
        if peer.is_standby:
            found = _bring_up(me, peer)
            if isinstance(found, str):
                left_out.append(found)
            else:
                sends += [*found, Introduce(store=peer.guid)]
        else:
            if peer.is_primary:
                steps.append(Tell(store=peer.guid, epoch=me.role.epoch))
            left_out.append(f"{peer.path} was primary before and has not come back: run 'idemfs failback {peer.path}'")
    standbys = [peer for peer in sides(peers) if peer.is_standby]
    return Plan(
        command="replicate",
        source=me.path,
        target=", ".join(peer.path for peer in standbys),
        common=common_snapshot(me, told(me, standbys[0])[0]) if len(standbys) == 1 else None,
        steps=(*steps, *([TakeSnapshot(store=me.guid), *sends] if sends else ())),
        then=PeerError("; ".join(left_out)) if left_out else None,
    )


def _bring_up(source: Side, target: Side) -> list[Step] | str:
    """The steps that make a standby follow ``source``, whatever it followed before; or why it cannot."""
    steps: list[Step] = []
    back: list[Step] = []
    if target.role.seen_epoch < source.role.epoch:
        steps.append(Tell(store=target.guid, epoch=source.role.epoch))
    target, purging = told(source, target)
    steps += purging
    for ours, theirs in pairs(source, target):
        common = common_snapshot(ours, theirs)
        if common is None and theirs.snapshots:
            return (
                f"{target.path} has snapshots{_of(theirs)}, but none that {source.path} has: they are not related any "
                f"more; 'idemfs standby add {source.path} {target.path} --anew' keeps them aside and fills it again"
            )
        if common is not None and theirs.base != common.guid:
            back.append(GoBack(store=target.guid, snapshot=common.guid))
    if back:
        steps += [DropPartial(store=target.guid), *back]
    return [*steps, Send(source=source.guid, target=target.guid)]


# -- failover ------------------------------------------------------------------------------------------


def failover(me: Side, peers: Sequence[Peer], claimed: int | None = None) -> Decision:
    """Make a standby the primary, without its old primary's consent. ``claimed``: the epoch that it may use."""
    if me.is_primary:
        return Refusal(error=NotStandby(f"{me.path}: is primary already, of epoch {me.role.epoch}"))
    received = me.held(me.base) if me.is_standby else me.newest
    if received is None and me.is_standby:
        return Refusal(
            error=RoleError(f"{me.path}: never received a complete snapshot, so there is nothing to continue from")
        )
    if not me.is_standby:
        refusal = _fenced_may_not(me, peers)
        if refusal:
            return refusal
    writing = [peer for peer in sides(peers) if peer.is_primary]
    epoch = next_epoch(me.guid, me, peers) if claimed is None else claimed
    if epoch <= max(side.role.seen_epoch for side in [me, *sides(peers)]):
        return Refusal(error=RoleError(f"{me.path}: epoch {epoch} was claimed, and others have seen it since"))
    # This store hears of the epoch first: what it tells others it has seen itself, also when it is interrupted. And all
    # hear of it before it begins: whoever takes over next without asking, and has heard of it, takes a higher one.
    steps: list[Step] = [Tell(store=side.guid, epoch=epoch) for side in [me, *sides(peers)]]
    if me.half_received:
        steps.append(DropPartial(store=me.guid))
    if me.granted_ns is not None:
        steps.append(AwaitLease(store=me.guid, left_ns=me.granted_ns))
    steps.append(Promote(store=me.guid, epoch=epoch))
    risks = [risk for peer in sides(peers) for risk in _left_behind(peer, me)]
    risks += [_not_known(peer, received) for peer in unreachable(peers)]
    source = writing[0].path if writing else next((peer.path for peer in peers), "-")
    return Plan(
        command="failover",
        source=source,
        target=me.path,
        common=received,
        steps=tuple(steps),
        risks=tuple(risks),
        warning=_not_lost(peers),
        notes=tuple(_lease_notes(me, peers)),
    )


def _lease_notes(me: Side, peers: Sequence[Peer]) -> list[str]:
    """What is waited for, and where a lease protects nobody."""
    notes = [waits(me.path, me.granted_ns)] if me.granted_ns else []
    if me.needs_lease and me.granted_epoch != me.role.seen_epoch and unreachable(peers):
        notes.append(
            f"{me.path} was not asked for a write lease in epoch {me.role.seen_epoch}: a primary that cannot be "
            "reached may write until it hears of the new epoch"
        )
    return notes


def _not_lost(peers: Sequence[Peer]) -> str | None:
    """Why a failover is not what is wanted: a primary that can be asked, or a store that somebody works with."""
    for peer in peers:
        if isinstance(peer, Side) and peer.is_primary:
            why = "is reachable"
        elif isinstance(peer, Unreachable) and peer.is_alive:
            why = f"is not lost, but {peer.reason}"
        else:
            continue
        return (
            f"{peer.path} {why}: 'idemfs switchover {peer.path}' exchanges the roles and loses nothing; "
            "a failover leaves behind what was not replicated"
        )
    return None


def _fenced_may_not(me: Side, peers: Sequence[Peer]) -> Refusal | None:
    """A fenced store takes its right back only when whoever could have the better one cannot be asked."""
    primary = acting_primary(me, peers)
    if primary:
        return Refusal(error=_run_failback(me, primary.role.epoch))
    if me.frozen and any(peer.guid == me.frozen.peer for peer in sides(peers)):
        return Refusal(
            error=Fenced(f"{me.path}: a switchover was interrupted: run 'idemfs switchover {me.path}' to finish it")
        )
    return None


def _left_behind(old: Side, new: Side) -> list[Risk]:
    """What another store has, and the one that takes over has not."""
    there = {part.fileset: part for part in told(old, new)[0].parts}
    risks = []
    for part in old.parts:
        common = common_snapshot(part, there[part.fileset]) if part.fileset in there else None
        newer_there = newer(part, common)
        unsaved = not old.is_standby and not part.is_kept
        if newer_there or unsaved:
            risks.append(_risk(old, part, common, "stays there, in snapshots", newer_there, unsaved))
    return risks


def _risk(
    side: Side, part: Part, since: Held | None, why: str, snapshots: tuple[Held, ...], unsaved_changes: bool
) -> Risk:
    return Risk(
        path=side.path,
        store=side.guid,
        why=why,
        fileset=part.fileset if part.name else None,
        fileset_name=part.name,
        since=since,
        snapshots=snapshots,
        unsaved_changes=unsaved_changes,
    )


def _not_known(peer: Unreachable, received: Held | None) -> Risk:
    after = f" after {received.name}" if received else ""
    why = f"is not reachable ({peer.reason}); what was written there{after} is not here"
    return Risk(path=peer.path, store=peer.guid, why=why, since=received, is_known=False)


# -- failback ------------------------------------------------------------------------------------------


def failback(me: Side, peers: Sequence[Peer]) -> Decision:
    """Make an old primary the standby of the one that took over."""
    primary = acting_primary(me, peers)
    if primary is None:
        return Refusal(error=_nobody_took_over(me, peers))
    refusal = _unknown(me, [primary])
    if refusal:
        return refusal
    # What was purged here, and never told, is purged there, too: from the snapshots that both have, and no others.
    found_here = me
    primary, purging_there = told(me, primary, is_writing=True)
    me, purging = told(primary, me)
    commons: dict[Guid, Held] = {}
    for theirs, ours in pairs(primary, me):
        found = common_snapshot(theirs, ours)
        if found is not None:
            commons[ours.fileset] = found
        elif not me.is_standby or not ours.name:
            return Refusal(
                error=PeerError(
                    f"{me.path}: has no snapshot{_of(ours)} in common with {primary.path}, so it cannot become its "
                    "standby; copy out of it what is needed, and add a new standby"
                )
            )
    steps: list[Step] = [*purging_there]
    risks: list[Risk] = []
    if me.is_standby:
        bring = _bring_up(primary, found_here)
        if isinstance(bring, str):
            return Refusal(error=PeerError(bring))
        steps += [step for step in bring if not isinstance(step, Send)]
    else:
        giving_up = _give_up(me, primary, commons)
        # When it writes no more, so that its active state goes along.
        at = sum(isinstance(step, Tell) for step in giving_up)
        steps += [*giving_up[:at], *purging, *giving_up[at:]]
        risks = _diverged(me, commons)
    steps += [TakeSnapshot(store=primary.guid), Send(source=primary.guid, target=me.guid)]
    return Plan(
        command="failback",
        source=primary.path,
        target=me.path,
        common=commons[me.fileset],
        steps=tuple(steps),
        risks=tuple(risks),
    )


def _give_up(me: Side, primary: Side, commons: Mapping[Guid, Held]) -> list[Step]:
    """From an old primary, whatever it wrote, to a standby at the common snapshots."""
    steps: list[Step] = []
    if me.is_primary or me.role.seen_epoch < primary.role.epoch:
        steps.append(Tell(store=me.guid, epoch=primary.role.epoch))
    if me.half_received:
        # It was going back to what a purge had left, when it was interrupted.
        steps.append(DropPartial(store=me.guid))
    if not me.is_kept:
        steps.append(TakeSnapshot(store=me.guid, name=f"diverged-{me.role.epoch}"))
    for part in me.parts:
        common = commons.get(part.fileset)
        if common is not None and part.digest != common.digest:
            steps.append(GoBack(store=me.guid, snapshot=common.guid))
    return [*steps, _demote(me, primary.role.epoch, commons)]


def _demote(me: Side, epoch: int, commons: Mapping[Guid, Held]) -> Demote:
    others = tuple(held.guid for fileset, held in commons.items() if fileset != me.fileset)
    return Demote(store=me.guid, epoch=epoch, base=commons[me.fileset].guid, others=others)


def _diverged(me: Side, commons: Mapping[Guid, Held]) -> list[Risk]:
    risks = []
    for part in me.parts:
        common = commons.get(part.fileset)
        newer_here = newer(part, common)
        if newer_here or not part.is_kept:
            why = _KEPT if part.is_kept else f"{_KEPT}; unsaved changes as diverged-{me.role.epoch}"
            risks.append(_risk(me, part, common, why, newer_here, not part.is_kept))
    return risks


def _nobody_took_over(me: Side, peers: Sequence[Peer]) -> RoleError:
    missing = unreachable(peers)
    if me.is_primary and not missing:
        return RoleError(
            f"{me.path}: is primary, and no other store has taken over; nothing to come back from, "
            "unless one that it was sent to through a pipe has: the two do not know each other, and go separate ways"
        )
    if me.frozen and not missing:
        return RoleError(f"{me.path}: no other store has taken over; run 'idemfs switchover {me.path}' to finish it")
    if missing:
        names = "; ".join(f"{peer.path}: {peer.reason}" for peer in missing)
        return PeerError(f"{me.path}: failback needs the store that took over, and cannot reach it ({names})")
    if not peers:
        return PeerError(f"{me.path}: knows no other store; name one with 'idemfs standby add'")
    return PeerError(f"{me.path}: none of its other stores is primary; make one with 'idemfs failover'")


# -- switchover ----------------------------------------------------------------------------------------


def switchover(me: Side, peers: Sequence[Peer], to: Guid | None = None) -> Decision:
    """Exchange the roles of a primary and its standby; or go on with an exchange that was interrupted."""
    if me.is_standby:
        where = next((peer.path for peer in sides(peers) if peer.is_primary), "its primary")
        return Refusal(error=NotPrimary(f"{me.path}: is a standby: run switchover on {where}"))
    if not me.is_primary:
        return _finish_switchover(me, peers)
    refusal = _unknown(me, peers)
    if refusal:
        return refusal
    fenced = _fenced_by(me, peers, "switchover")
    if fenced:
        return fenced
    chosen = _choose(me, peers, to)
    if isinstance(chosen, Refusal):
        return chosen
    bring = _bring_up(me, chosen)
    if isinstance(bring, str):
        return Refusal(error=PeerError(bring))
    epoch = next_epoch(chosen.guid, me, peers)
    steps: list[Step] = [
        TakeSnapshot(store=me.guid),
        *bring,
        Freeze(store=me.guid, peer=chosen.guid, epoch=epoch),
    ]
    return Plan(
        command="switchover",
        source=me.path,
        target=chosen.path,
        common=common_snapshot(me, told(me, chosen)[0]),
        steps=(*steps, *_exchange(me, chosen, epoch)),
        notes=tuple(f"{peer.path} is not reachable ({peer.reason})" for peer in unreachable(peers)),
    )


def _exchange(me: Side, target: Side, epoch: int) -> list[Step]:
    """From a frozen primary on."""
    return [
        TakeSnapshot(store=me.guid),
        Send(source=me.guid, target=target.guid),
        Promote(store=target.guid, epoch=epoch, after=me.guid),
        Demote(store=me.guid, epoch=epoch),
    ]


def _finish_switchover(me: Side, peers: Sequence[Peer]) -> Decision:
    """What is left of an exchange whose first half was done: ``me`` is fenced."""
    primary = acting_primary(me, peers)
    if primary is not None:
        commons: dict[Guid, Held] = {}
        drop = [DropPartial(store=me.guid)] if me.half_received else []
        me, purging = told(primary, me)
        for theirs, ours in pairs(primary, me):
            common = common_snapshot(theirs, ours)
            if common is None or common.digest != ours.digest or newer(ours, common):
                return Refusal(error=_run_failback(me, primary.role.epoch))
            commons[ours.fileset] = common
        if me.fileset not in commons or len(commons) < len(me.parts):
            return Refusal(error=_run_failback(me, primary.role.epoch))
        step = _demote(me, primary.role.epoch, commons)
        held = commons[me.fileset]
        return Plan(
            command="switchover", source=me.path, target=primary.path, common=held, steps=(*purging, *drop, step)
        )
    if me.frozen is None:
        return Refusal(error=_run_failback(me, me.role.seen_epoch))
    target = next((peer for peer in peers if peer.guid == me.frozen.peer), None)
    if target is None:
        return Refusal(error=PeerError(f"{me.path}: the store that it was to be exchanged with is not known any more"))
    if isinstance(target, Unreachable):
        return Refusal(
            error=PeerError(
                f"{me.path}: is frozen for {target.path}, which is not reachable ({target.reason}); repeat when it is, "
                f"or run 'idemfs failover {me.path}' to take the right to write back"
            )
        )
    refusal = _unknown(me, [target])
    if refusal:
        return refusal
    bring = _bring_up(me, target)
    if isinstance(bring, str):
        return Refusal(error=PeerError(bring))
    epoch, refreeze = me.frozen.epoch, []
    if max(peer.role.seen_epoch for peer in sides(peers)) >= epoch or me.role.seen_epoch > epoch:
        # Others have taken over and been passed over since, or have begun to.
        epoch = next_epoch(target.guid, me, peers)
        refreeze = [Freeze(store=me.guid, peer=target.guid, epoch=epoch)]
    prepare = [step for step in bring if not isinstance(step, Send)]
    return Plan(
        command="switchover",
        source=me.path,
        target=target.path,
        common=common_snapshot(me, target),
        steps=(*refreeze, *prepare, *_exchange(me, target, epoch)),
    )


def _choose(me: Side, peers: Sequence[Peer], to: Guid | None) -> Side | Refusal:
    """The standby that is to become primary."""
    standbys = [peer for peer in sides(peers) if peer.is_standby and to in (None, peer.guid)]
    if len(standbys) == 1:
        return standbys[0]
    if standbys:
        names = ", ".join(peer.path for peer in standbys)
        return Refusal(error=PeerError(f"{me.path}: has several standbys ({names}); choose one with --to"))
    missing = [peer for peer in unreachable(peers) if to in (None, peer.guid)]
    if missing:
        names = "; ".join(f"{peer.path}: {peer.reason}" for peer in missing)
        return Refusal(error=PeerError(f"{me.path}: no standby is reachable ({names})"))
    former = [peer for peer in sides(peers) if to in (None, peer.guid)]
    if former:
        return Refusal(
            error=PeerError(
                f"{me.path}: {former[0].path} was primary before and has not come back: run 'idemfs failback "
                f"{former[0].path}'"
            )
        )
    return Refusal(error=_no_standby(me))


# -- common refusals -----------------------------------------------------------------------------------


def _not_writing(me: Side, command: str) -> Refusal | None:
    if me.is_primary:
        return None
    if me.is_standby:
        return Refusal(error=NotPrimary(f"{me.path}: is a standby: run {command} on its primary"))
    if me.frozen:
        return Refusal(
            error=Fenced(f"{me.path}: a switchover was interrupted: run 'idemfs switchover {me.path}' to finish it")
        )
    return Refusal(error=_run_failback(me, me.role.seen_epoch))


def _no_standby(me: Side) -> PeerError:
    return PeerError(f"{me.path}: has no standby; 'idemfs standby add {me.path} PEER' makes one")


def _run_failback(me: Side, epoch: int) -> Fenced:
    return Fenced(
        f"{me.path}: epoch {epoch} has ended this store's right to write: "
        f"run 'idemfs failback {me.path}' to make it a standby"
    )


def _fenced_by(me: Side, peers: Sequence[Peer], command: str) -> Plan | None:
    """A primary that finds out that its right has ended: it remembers that for good, and does nothing else."""
    primary = acting_primary(me, peers)
    seen = max((peer.role.seen_epoch for peer in sides(peers)), default=0)
    if primary is None and seen <= me.role.epoch:
        return None
    epoch = max(seen, primary.role.epoch if primary else 0)
    source = primary.path if primary else "-"
    step = Tell(store=me.guid, epoch=epoch)
    return Plan(command=command, source=source, target=me.path, steps=(step,), then=_run_failback(me, epoch))


def _unknown(me: Side, peers: Sequence[Peer]) -> Refusal | None:
    """Paths are only paths: what stands there now may be something else."""
    for peer in sides(peers):
        if peer.fileset != me.fileset:
            return Refusal(error=PeerError(f"{peer.path}: is a store of something else, not of what {me.path} holds"))
    return None
