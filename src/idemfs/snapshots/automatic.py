"""Take the snapshots that are due, and delete those that no rule keeps: the planning of ``schedule`` and ``retention``
carried out on a store.

How far the schedule has come is written with the group of the snapshot that it took, so that a crash
neither takes one twice nor forgets one. A standby takes none, and deletes by its own policy; a fenced store does
neither.

Threads: any, also several at once: who comes second finds that it is done. The store's lock is held to plan and for
one step of a deletion at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

from idemfs.errors import FormatError, HookFailed, NoSpace, SnapshotError, SnapshotExists
from idemfs.format import keys, role
from idemfs.format.role import Role
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, FilesetId, SnapshotId
from idemfs.limits import SCAN_COUNT
from idemfs.snapshots import delete, diverged, freed, manage, measure, policy, received, retention, schedule
from idemfs.snapshots.hooks import Hooks, hooks_of, no_hooks
from idemfs.snapshots.policy import Policy
from idemfs.snapshots.retention import Candidate, Verdict
from idemfs.snapshots.schedule import Due
from idemfs.store.store import Store
from idemfs.versions.active import Active

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.snapshots.hooks import Quiesce

_RECORD_SIZE = 16_000
"""More than a policy's record can have."""


class Run(NamedTuple):
    """What was done for one fileset."""

    fileset: FilesetId
    taken: Snapshot | None
    reason: str
    deleted: list[Verdict]
    failure: str = ""
    """What hook failed: one before, and none was taken, or one after."""


# -- policies ----------------------------------------------------------------------------------------


def policy_of(store: Store, fileset: FilesetId) -> Policy:
    """What the fileset has, or rules that do nothing. Raises ``FormatTooNew``, ``Damaged``."""
    with store.lock:
        return policy.unpack(store.small.get(keys.policy(fileset)))


def set_policy(store: Store, fileset: FilesetId, wanted: Policy) -> None:
    """Durable on return. Rules of when to take one begin anew if they are others than before: nothing is due then.

    Raises ``BadPolicy``, ``NoSpace``, ``CommitFailed``. What was there before need not be readable.
    """
    schedule.check_policy(wanted)
    with store.lock:
        store.admit(2, _RECORD_SIZE)
        if not schedule.takes(wanted):
            store.small.put(keys.schedule_state(fileset), None)
        elif not _takes_at_same_times(store, fileset, wanted):
            _put_done(store, fileset, store.clock.now_ns())
        store.small.put(keys.policy(fileset), None if wanted == Policy() else policy.pack(wanted))
        store.commit()


def take_over_policy(store: Store, fileset: FilesetId, record: bytes) -> None:
    """A store that becomes primary goes on with the policy that the last one had; nothing is due at once.

    Part of the open group; the caller has admitted two records.
    """
    store.small.put(keys.policy(fileset), record)
    _put_done(store, fileset, store.clock.now_ns())


def _takes_at_same_times(store: Store, fileset: FilesetId, wanted: Policy) -> bool:
    if store.small.get(keys.schedule_state(fileset)) is None:
        return False
    try:
        return schedule.when(policy_of(store, fileset)) == schedule.when(wanted)
    except FormatError:
        return False


def _done_ns(store: Store, fileset: FilesetId) -> int:
    value = store.small.get(keys.schedule_state(fileset))
    return store.clock.now_ns() if value is None else policy.unpack_done(value)


def _put_done(store: Store, fileset: FilesetId, done_ns: int) -> None:
    store.small.put(keys.schedule_state(fileset), policy.pack_done(done_ns))


# -- taking ------------------------------------------------------------------------------------------


def next_due_ns(store: Store, fileset: FilesetId) -> int | None:
    """When the clock makes the next snapshot due, which may be past; None: never."""
    with store.lock:
        rules = policy_of(store, fileset)
        if not schedule.takes(rules) or _role(store) is not Role.PRIMARY:
            return None
        done_ns = schedule.settled(_done_ns(store, fileset), store.clock.now_ns())
        return schedule.next_due_ns(rules, done_ns, policy.zone_of(rules.zone))


def find_due(active: Active, fileset: FilesetId) -> Due | None:
    """The snapshot that is to be taken now, if one is."""
    store = active.store
    with store.lock:
        rules = policy_of(store, fileset)
        if not schedule.takes(rules) or _role(store) is not Role.PRIMARY:
            return None
        newest = store.catalog.newest(fileset)
        found = _due_now(store, fileset, rules, is_full=False)
    if found is not None or not rules.after_bytes:
        return found
    # Measuring may take long, so it is done only when the clock does not ask for a snapshot anyway.
    is_full = measure.reaches(active, fileset, newest.id if newest else None, rules.after_bytes)
    with store.lock:
        return _due_now(store, fileset, rules, is_full=is_full)


def _due_now(store: Store, fileset: FilesetId, rules: Policy, *, is_full: bool) -> Due | None:
    now_ns = store.clock.now_ns()
    done_ns = schedule.settled(_done_ns(store, fileset), now_ns)
    return schedule.due(rules, done_ns, now_ns, policy.zone_of(rules.zone), is_full=is_full)


def take_due(
    active: Active, fileset: FilesetId, quiesce: Quiesce = no_hooks, failures: list[str] | None = None
) -> tuple[Snapshot | None, str]:
    """Take the snapshot that is due, if one is; and why. Raises as ``manage.create``.

    The hooks of the fileset are run by ``quiesce``; what is said of one that failed is added to ``failures``. Where
    that was one before the snapshot, none is taken until the next one is due.
    """
    store = active.store
    _follow_clock(store, fileset)
    due = find_due(active, fileset)
    if due is None:
        return None, ""
    with store.lock:
        name = manage.unique_name(store, fileset, schedule.name_of(due.at_ns))

    def joined(snapshot: Snapshot) -> bool:
        rules = policy_of(store, fileset)
        if _done_ns(store, fileset) >= due.at_ns or not schedule.takes(rules):
            return False
        _put_done(store, fileset, due.at_ns)
        if rules.lock_seconds:
            until_ns = store.clock.now_ns() + rules.lock_seconds * schedule.SECOND_NS
            store.small.put(keys.lock(snapshot.id), until_ns.to_bytes(8, "little"))
        return True

    taken: Snapshot | None = None
    try:
        hooks = hooks_of(store, fileset)
        with quiesce(hooks, _operand(store, fileset, name)) if hooks != Hooks() else nullcontext():
            taken = manage.create(store, fileset, name, joined=joined)
        return taken, due.reason
    except HookFailed as failure:
        if failures is not None:
            failures.append(str(failure))
        if taken is None:
            _pass_over(store, fileset, due)
        return taken, due.reason if taken else ""
    except SnapshotExists:
        if find_due(active, fileset) is None:
            # Somebody else was there first.
            return None, ""
        raise


def _operand(store: Store, fileset: FilesetId, name: str) -> str:
    return name if fileset == ROOT_FILESET else f"{store.catalog.filesets[fileset].name}@{name}"


def _pass_over(store: Store, fileset: FilesetId, due: Due) -> None:
    """No snapshot is taken for this due time."""
    with store.lock:
        if store.small.get(keys.schedule_state(fileset)) is not None and _done_ns(store, fileset) < due.at_ns:
            store.admit(1, 100)
            _put_done(store, fileset, due.at_ns)
            store.commit()


def _follow_clock(store: Store, fileset: FilesetId) -> None:
    """If the clock was set back far, the schedule goes on from what it says now."""
    with store.lock:
        value = store.small.get(keys.schedule_state(fileset))
        if value is None or _role(store) is not Role.PRIMARY:
            return
        done_ns = policy.unpack_done(value)
        settled_ns = schedule.settled(done_ns, store.clock.now_ns())
        if settled_ns != done_ns:
            store.admit(1, 100)
            _put_done(store, fileset, settled_ns)
            store.commit()


def _role(store: Store) -> Role:
    with store.lock:
        return role.unpack(store.small.get(role.KEY)).role


# -- retention ---------------------------------------------------------------------------------------


def plan_retention(active: Active, fileset: FilesetId, rules: Policy | None = None) -> list[Verdict]:
    """What is to become of each snapshot, oldest first, by the fileset's policy or by ``rules``."""
    store = active.store
    with store.lock:
        if not store.readonly:
            # What moves into the newest snapshot is counted when its group is sealed.
            active.settle()
        rules = policy_of(store, fileset) if rules is None else rules
        now_ns = store.clock.now_ns()
        return retention.plan(
            rules,
            candidates(store, fileset, now_ns),
            now_ns=now_ns,
            zone=policy.zone_of(rules.zone),
            free_bytes=store.blocks.free_bytes(),
        )


def bytes_freed(active: Active, fileset: FilesetId, verdicts: list[Verdict]) -> int:
    """What the host gets back when these verdicts are carried out."""
    gone = {SnapshotId(each.snapshot.id) for each in verdicts if not each.keeps}
    with active.store.lock:
        return freed.bytes_freed(active, {fileset: gone})


def prune(active: Active, fileset: FilesetId, stops: Callable[[], bool] = lambda: False) -> list[Verdict]:
    """Delete what the policy does not keep, oldest first; what was deleted. ``stops`` is asked before each.

    For want of space it goes on as long as that gives the host space back. Raises ``NoSpace``, ``CommitFailed``.
    """
    store = active.store
    deleted: list[Verdict] = []
    rules = policy_of(store, fileset)
    if not retention.deletes(rules) or _role(store) is Role.FENCED:
        return deleted
    _drop_expired_holds(store, fileset)
    while True:
        free_before = store.blocks.free_bytes()
        going = [each for each in plan_retention(active, fileset) if not each.keeps]
        for verdict in going:
            if stops():
                return deleted
            if _delete(active, fileset, verdict):
                deleted.append(verdict)
        if going and rules.keep_free_bytes:
            # The host has it back only when its group is durable.
            store.commit()
        if not going or not rules.keep_free_bytes or store.blocks.free_bytes() <= free_before:
            return deleted


def _delete(active: Active, fileset: FilesetId, verdict: Verdict, *, wait: bool = True) -> bool:
    store = active.store
    try:
        with store.lock:
            snapshot = store.catalog.snapshot(fileset, SnapshotId(verdict.snapshot.id))
            is_base = _role(store) is Role.STANDBY and received.base(store, fileset) is snapshot
        if is_base or snapshot.name != verdict.snapshot.name:
            # Needed since the plan was made, or renamed by somebody who wants it.
            return False
        delete.delete(active, snapshot, wait=wait)
    except SnapshotError:
        # Held, locked or deleted by somebody else since the plan was made.
        return False
    return True


def let_go(active: Active, fileset: FilesetId, going: Sequence[Candidate]) -> int:
    """Delete these but for what is needed since they were looked at; how many went. After a crash they may be there
    again, to be let go another time: nobody waits for the disk. Raises ``NoSpace``, ``CommitFailed``."""
    _drop_expired_holds(active.store, fileset)
    return sum(_delete(active, fileset, Verdict(each, False, ""), wait=False) for each in going)


def candidates(store: Store, fileset: FilesetId, now_ns: int) -> list[Candidate]:
    """All of a fileset, oldest first. Under the store's lock."""
    holders: dict[int, list[str]] = {}
    for key, expires_ns in _numbers(store, b"H"):
        if expires_ns > now_ns:
            holders.setdefault(int.from_bytes(key[1:9], "big"), []).append(key[9:].decode())
    locks = {int.from_bytes(key[1:9], "big"): until_ns for key, until_ns in _numbers(store, b"L")}
    base = received.base(store, fileset) if _role(store) is Role.STANDBY else None
    diverged_reasons = diverged.kept(store)
    return [
        Candidate(
            each.id,
            each.name,
            each.created_ns,
            each.owned_bytes,
            each.data_bytes,
            tuple(holders.get(each.id, ())),
            locks.get(each.id, 0),
            each is base,
            diverged_reasons.get(each.id, ""),
        )
        for each in store.catalog.snapshots(fileset)
    ]


def _numbers(store: Store, prefix: bytes) -> list[tuple[bytes, int]]:
    found: list[tuple[bytes, int]] = []
    start, end = keys.prefix_range(prefix)
    while pairs := store.small.scan(start, end, SCAN_COUNT):
        found += [(key, int.from_bytes(value, "little")) for key, value in pairs]
        start = pairs[-1][0] + b"\0"
    return found


def _drop_expired_holds(store: Store, fileset: FilesetId) -> None:
    """Part of the open group; those of the fileset's snapshots alone."""
    with store.lock:
        now_ns = store.clock.now_ns()
        known = {each.id for each in store.catalog.snapshots(fileset)}
        for key, expires_ns in _numbers(store, b"H"):
            if expires_ns <= now_ns and int.from_bytes(key[1:9], "big") in known:
                store.admit(1, 300, frees=True)
                store.small.put(key, None)


# -- both --------------------------------------------------------------------------------------------


def run_due(active: Active, stops: Callable[[], bool] = lambda: False, quiesce: Quiesce = no_hooks) -> list[Run]:
    """``run_due_of`` for each fileset that has a policy."""
    return [run_due_of(active, fileset, stops, quiesce) for fileset in planned_filesets(active.store)]


def run_due_of(
    active: Active, fileset: FilesetId, stops: Callable[[], bool] = lambda: False, quiesce: Quiesce = no_hooks
) -> Run:
    """Take what is due, then delete what need not be kept; without room for the one, the other comes first."""
    deleted: list[Verdict] = []
    failures: list[str] = []
    try:
        taken, reason = take_due(active, fileset, quiesce, failures)
    except NoSpace:
        deleted = prune(active, fileset, stops)
        # What that freed can be used when its group is durable.
        active.store.commit()
        taken, reason = take_due(active, fileset, quiesce, failures)
    return Run(fileset, taken, reason, deleted + prune(active, fileset, stops), "; ".join(failures))


def planned_filesets(store: Store) -> list[FilesetId]:
    """Those that have a policy."""
    with store.lock:
        filesets = store.catalog.listed_filesets()
        return [each.number for each in filesets if store.small.get(keys.policy(each.number)) is not None]
