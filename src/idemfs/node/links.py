"""The links of one store: a thread each, that keeps another store, or an archive, up to date.

Each round of a link takes a snapshot if something has changed, and sends what the other side lacks. A round that took
longer than the link's interval is followed by the next one at once, and that by the next due time: nothing piles up.

A round ends early, and goes on where it was, when its window closes, when a command wants the store for itself, or when
the process ends. Another bandwidth or schedule holds from the next frame on.

Threads: one a link; all public methods are for any thread. Links of one store share its claim.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import tzinfo

from idemfs.errors import IdemfsError
from idemfs.format.role import Role
from idemfs.format.tables import Snapshot
from idemfs.ids import FilesetId, Guid
from idemfs.node import link_round, link_schedule, link_status, progress
from idemfs.node.bell import Bell
from idemfs.node.config import LinkConfig, StoreConfig
from idemfs.node.link_decisions import Rest
from idemfs.node.link_history import LinkHistory
from idemfs.node.link_round import ARCHIVE, ArchiveTarget, NotNow, Outcome, StoreTarget, Target
from idemfs.node.link_schedule import State, Times, Turn, Window
from idemfs.node.log import about
from idemfs.node.owner import OwnedStore, Part, PartFactory, describe
from idemfs.node.peer import interruptible
from idemfs.node.progress import LinkStatus, Meter
from idemfs.node.rate import Bucket
from idemfs.snapshots.policy import Policy, zone_of
from idemfs.vfs.tree import Tree

CONTACT_SECONDS = 30.0
"""Without anything to send, the other side is asked this often whether it is still what it was."""
LINGER_SECONDS = 5.0
"""For how long a connection over ssh may wait for the next round. Starting one takes half a second; but the other end
has its store open, and is in the way of whoever wants to serve it there."""
_LOOK_SECONDS = 1.0
_PAUSE_SECONDS = 0.5
_RENEW_SECONDS = 3600.0
_LAG_SECONDS = 5.0
"""How long a measured lag is told again, at least."""
_LAG_SHARE = 20
"""And at least this many times as long as measuring it took."""

log = logging.getLogger("idemfs.link")


def linking(url: str | None = None) -> PartFactory:
    """Makes the links of a store. ``url``: how other nodes reach this one."""

    def factory(owner: OwnedStore) -> Part | None:
        return LinkRunner(owner, url) if owner.config.links else None

    return factory


class Shared:
    """What the links of one store have in common."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._lock = threading.Lock()
        self._count = 0
        self._claimed = ExitStack()
        self.taking = threading.Lock()
        """Held to take a snapshot, and to let go of those that links took."""

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Whether no command has the store, or wants it; it is then the links' until the last of them is done."""
        claim = self._tree.store.claim
        with self._lock:
            is_free = not claim.is_wanted
            if is_free and not self._count:
                is_free = self._claimed.enter_context(claim.background())
                if not is_free:
                    self._claimed.close()
            self._count += is_free
        try:
            yield is_free
        finally:
            with self._lock:
                self._count -= is_free
                if is_free and not self._count:
                    self._claimed.close()


class LinkRunner:
    """All links of a store."""

    def __init__(self, owner: OwnedStore, url: str | None = None) -> None:
        self._owner = owner
        self._url = url
        self._shared = Shared(owner.tree)
        self._links: dict[str, Link] = {}
        self._configs = owner.config.links

    def start(self) -> None:
        for config in self._configs:
            self._begin(config)

    def _begin(self, config: LinkConfig) -> None:
        link = Link(self._owner, config, self._shared, self._url)
        self._links[config.to] = link
        link.start()

    def wake(self) -> None:
        for link in list(self._links.values()):
            link.wake()

    def close(self) -> None:
        for link in list(self._links.values()):
            link.end()
        for link in list(self._links.values()):
            link.close()

    def configure(self, config: StoreConfig) -> bool:
        wanted = {each.to: each for each in config.links}
        kept = {to for to, each in wanted.items() if to in self._links and self._links[to].leads_as(each)}
        for to in set(self._links) - kept:
            link = self._links.pop(to)
            link.end()
            link.close()
        for to, each in wanted.items():
            if to in self._links:
                self._links[to].configure(each)
            else:
                self._begin(each)
        self._configs = config.links
        return bool(wanted)

    def links(self) -> list[LinkStatus]:
        """In the order of the configuration."""
        links = dict(self._links)
        return [links[each.to].status() for each in self._configs if each.to in links]


class Link:
    """One link and its thread."""

    def __init__(self, owner: OwnedStore, config: LinkConfig, shared: Shared, url: str | None) -> None:
        self._owner = owner
        self._tree = owner.tree
        self._store = owner.tree.store
        self._clock = owner.tree.store.clock
        self._shared = shared
        self._config = config
        self._target = self._target_of(config, url)
        self._bucket = Bucket(config.bandwidth, self._clock.monotonic_seconds())
        self._bell = Bell()
        self._state = State(self._clock.now_ns())
        self._role = self._tree.role
        self._doing = progress.IDLE
        self._reason: str | None = None
        self._next_ns: int | None = None
        self._meter = Meter()
        self._looked_at = self._renewed_at = self._contact_at = 0.0
        self._sent: dict[FilesetId, Guid] = {}
        """The newest snapshot of each fileset that both sides have."""
        self._past = LinkHistory(owner.path, config.to)
        self._sent_bytes = self._sent_count = self._round_count = 0
        self._lag = float("-inf"), 0
        self._thread = threading.Thread(target=self._run, name="idemfs-link", daemon=True)

    def _target_of(self, config: LinkConfig, url: str | None) -> Target:
        keep = config.keep or Policy(zone=config.timezone)
        if config.to.startswith(ARCHIVE):
            return ArchiveTarget(self._tree, config.to, keep)
        own = f"{url.rstrip('/')}/{self._owner.name}" if url and config.to.startswith("https:") else None
        return StoreTarget(self._tree, self._owner.path, config.to, keep, own, config.guest_name)

    # -- from outside ------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """A command has ended. One that changed the role of the store changes what is to be done."""
        self._bell.ring()

    def end(self) -> None:
        """Stop at the next frame; ``close`` waits for it."""
        self._bell.end()
        self._target.interrupt()

    def close(self) -> None:
        if self._thread.is_alive():
            self._thread.join()
        self._target.close()
        self._past.flush()
        self._owner.report(f"link {self._config.to}", None)

    def leads_as(self, config: LinkConfig) -> bool:
        """Whether it fills the same filesets by this configuration."""
        return config.guest_name == self._config.guest_name

    def configure(self, config: LinkConfig) -> None:
        """Another schedule, bandwidth or retention, from now on; what is under way goes on."""
        with self._bell.lock:
            self._config = config
            self._target.keep = config.keep or Policy(zone=config.timezone)
            self._bucket.set_rate(config.bandwidth, self._clock.monotonic_seconds())
            self._bell.ring()

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        with about(store=self._owner.name, link=self._config.to):
            while not self._bell.is_over:
                seconds = self._turn()
                self._bell.wait(seconds)

    def _turn(self) -> float | None:
        """Do what is to be done now; after how many seconds to look again, None: when woken."""
        times, zone = _times(self._config), zone_of(self._config.timezone)
        now_ns, now = self._clock.now_ns(), self._clock.monotonic_seconds()
        if self._tree.role != self._role:
            self._role = self._tree.role
            self._state = self._state._replace(is_owed=True, failure_count=0)
        self._state = link_schedule.settled(self._state, now_ns)
        found = link_schedule.next_turn(times, self._state, now_ns, now, zone)
        if found.turn is not Turn.RUN:
            self._waits(found, now_ns, times, zone)
            return found.seconds
        with self._bell.lock:
            if self._bell.is_over:
                return None
            self._target.begin()
        # From before the claim is taken: whoever ends sessions to have it finds this one.
        with interruptible(self._owner.path, self._target.interrupt), self._shared.claimed() as is_free:
            if not is_free:
                self._target.rest()
                self._doing, self._reason = progress.PAUSED, "a command has the store for itself"
                return _PAUSE_SECONDS
            self._state = link_schedule.begun(times, self._state, now_ns, zone)
            return self._round()

    def _waits(self, found: link_schedule.Next, now_ns: int, times: Times, zone: tzinfo) -> None:
        if found.seconds is None or found.seconds > LINGER_SECONDS:
            self._target.rest()
        if found.turn is Turn.WAIT_FOR_WINDOW:
            self._doing, self._reason = progress.WINDOW, None
            self._next_ns = link_schedule.opens_ns(times.windows, now_ns, zone)
            return
        if found.turn is Turn.WAIT_UNTIL_DUE and self._doing != progress.RESTING:
            self._doing, self._reason = progress.IDLE, None
        self._next_ns = None if found.seconds is None else now_ns + round(found.seconds * 1e9)

    def _round(self) -> float:
        """One round, whose failure is told and tried again; after how many seconds to look again."""
        began = self._clock.monotonic_seconds()
        self._round_count += 1
        self._next_ns = None
        try:
            as_of = self._as_of(began)
            with self._shared.taking:
                # What is held for one that cannot be reached would pile up.
                is_held = not self._state.failure_count
                link_round.take(self._tree, self._config.to if is_held else None)
            if self._is_current() and began - self._contact_at < CONTACT_SECONDS:
                self._state = link_schedule.succeeded(self._state)
                if began - self._contact_at >= LINGER_SECONDS:
                    self._target.rest()
                return 0.0
            if self._doing == progress.PAUSED:
                self._reason = None
            if self._doing != progress.RESTING:
                self._doing = progress.CONNECTING
            outcome = self._target.run(self._progress, as_of=as_of)
            self._done(outcome, self._clock.monotonic_seconds() - began)
        except NotNow as early:
            self._paused(str(early))
            return _PAUSE_SECONDS
        except Exception as error:
            if self._bell.is_over:
                # What it waited for was ended with it.
                self._paused("the process ends")
                return 0.0
            self._failed(error)
        finally:
            self._meter.ended()
        return 0.0

    def _as_of(self, now: float) -> float | None:
        """Until when the snapshots have everything that are sent in a round that begins now; None: nobody knows."""
        if self._tree.role.role is Role.PRIMARY:
            return now
        age = self._tree.current_age()
        return None if age is None else now - age

    def _is_current(self) -> bool:
        newest = {number: Guid(each.guid) for number, each in link_status.newest_of_all(self._tree).items()}
        return newest == self._sent

    def _done(self, outcome: Outcome, seconds: float) -> None:
        self._contact_at = self._clock.monotonic_seconds()
        was_failing = self._state.failure_count > 0
        self._state = link_schedule.succeeded(self._state)
        self._owner.report(f"link {self._config.to}", None)
        if was_failing:
            log.info("goes on again")
        if isinstance(outcome.decision, Rest):
            if self._reason != outcome.decision.reason:
                log.info("rests: %s", outcome.decision.reason)
            self._doing, self._reason = progress.RESTING, outcome.decision.reason
            self._sent = {}
            self._target.rest()
            return
        report = outcome.report
        assert report is not None
        with self._shared.taking:
            count = link_round.let_go(self._tree)
        if count:
            self._owner.forget_snapshots()
        self._sent = {number: Guid(each.guid) for number, each in self._common().items()}
        self._sent_bytes += report.bytes
        self._sent_count += len(report.transfers)
        if report.transfers:
            is_full = any(each.base is None for each in report.transfers)
            last = report.transfers[-1]
            name = last.target if last.fileset == "root" else f"{last.fileset}@{last.target}"
            self._past.sent(name, report.bytes, seconds, self._contact_at, at_once=is_full or was_failing)
        self._doing, self._reason = progress.IDLE, None

    def _common(self) -> dict[FilesetId, Snapshot]:
        """The newest snapshots of both."""
        known = link_round.filled(self._tree, self._config.to)
        return {} if known is None else link_status.held_for(self._tree, known.store)

    def _paused(self, reason: str) -> None:
        self._state = link_schedule.paused(self._state)
        if (self._doing, self._reason) != (progress.PAUSED, reason):
            log.info("pauses: %s", reason)
        self._doing, self._reason = progress.PAUSED, reason

    def _failed(self, error: Exception) -> None:
        is_known = isinstance(error, IdemfsError | OSError)
        text = describe(error)
        chance = self._clock.random_bytes(1)[0] / 255
        now = self._clock.monotonic_seconds()
        self._state = link_schedule.failed(self._state, now, chance)
        self._doing, self._reason = progress.FAILED, text
        self._contact_at = 0.0
        self._sent = {}
        if not is_known:
            log.error("failed, and is tried again", exc_info=error)
        if self._state.failure_count == 1:
            self._past.failed(text)
        self._owner.report(f"link {self._config.to}", text)

    # -- while it sends ----------------------------------------------------------------------------

    def _progress(self, snapshot: Guid, size: int) -> None:
        """After each frame. Raises ``NotNow``."""
        now = self._clock.monotonic_seconds()
        self._doing = progress.SENDING
        added = self._meter.moved(snapshot, size, now)
        seconds = self._bucket.take(added, now)
        self._refuse_stopping(now)
        while seconds > 0:
            self._bell.wait(min(seconds, _LOOK_SECONDS))
            now = self._clock.monotonic_seconds()
            self._refuse_stopping(now)
            seconds = self._bucket.wait(now)

    def _refuse_stopping(self, now: float) -> None:
        if self._bell.is_over:
            raise NotNow("the process ends, or the link is gone from the configuration")
        if self._store.claim.is_wanted:
            raise NotNow("a command wants the store for itself")
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            config = self._config
            if not link_schedule.is_open(_windows(config), self._clock.now_ns(), zone_of(config.timezone)):
                raise NotNow("its window has closed")
        if now - self._renewed_at >= _RENEW_SECONDS:
            self._renewed_at = now
            link_round.renew(self._tree, self._config.to)

    # -- what it is doing --------------------------------------------------------------------------

    def status(self) -> LinkStatus:
        doing, reason, state = self._doing, self._reason, self._state
        now_ns, now = self._clock.now_ns(), self._clock.monotonic_seconds()
        common = self._common()
        lag = link_status.lag(self._tree, common, now_ns)
        is_sending = doing == progress.SENDING
        return LinkStatus(
            to=self._config.to,
            state=doing,
            reason=reason,
            failure_count=state.failure_count,
            next_ns=self._next_ns,
            common=None if lag is None else lag.common.name,
            common_ns=None if lag is None else lag.common.created_ns,
            lag_seconds=None if lag is None else lag.seconds,
            lag_bytes=None if lag is None else self._lag_bytes(common, now) if lag.seconds else 0,
            transfer=link_status.transfer(self._tree, self._meter, common, now) if is_sending else None,
            sent_bytes=self._sent_bytes,
            sent_count=self._sent_count,
            round_count=self._round_count,
        )

    def _lag_bytes(self, common: dict[FilesetId, Snapshot], now: float) -> int:
        again_at, size = self._lag
        if now >= again_at:
            size = link_status.lag_bytes(self._tree, common)
            ended = self._clock.monotonic_seconds()
            self._lag = ended + max(_LAG_SECONDS, _LAG_SHARE * (ended - now)), size
        return size


def _times(config: LinkConfig) -> Times:
    return Times(config.every_seconds, config.cron, _windows(config))


def _windows(config: LinkConfig) -> tuple[Window, ...]:
    return tuple(Window(each.start_minute, each.end_minute % 1440) for each in config.windows)
