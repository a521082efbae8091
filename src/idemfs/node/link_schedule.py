"""When a link is due, when it must wait, and when it must pause. Pure: the time is an argument, and so is chance.

Due times are those of ``snapshots.schedule``: all that were missed are made up for by one transfer. When a clock is set
back, a due time may come a second time: one transfer too many costs little, and one too few breaks a promise.

A transfer that failed is tried again after a while that grows with each
failure and is measured on a clock that never goes back; a transfer that failed or had to pause is owed, whatever the
schedule says.

*Windows* are times of day: a link with windows transfers only inside of them, as the clocks on the wall show it. So a
window that the change to summer time leaves out does not open that day, and one that is repeated is open twice.

Threads: any; everything here is values.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from enum import Enum
from typing import NamedTuple

from idemfs.snapshots import schedule
from idemfs.snapshots.policy import Policy
from idemfs.snapshots.schedule import SECOND_NS

CHECK_SECONDS = 60.0
"""A clock that was set, or a host that was suspended, is noticed after at most so long."""
RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 1.0, 30.0
"""A network, or a store that follows again, is not missed for longer: seconds matter to who has a short interval."""
_RETRY_SHARE = 0.5
"""How much of a pause after a failure is left to chance, so that links do not all come back at one moment."""
_MINUTE_NS = 60 * SECOND_NS
_SEARCH_MINUTES = 8 * 24 * 60
"""A window opens on each day but for those that the clocks leave out."""


class Window(NamedTuple):
    """Minutes of the day: from the first one to before the last one, over midnight if that is not later: two
    that are equal are the whole day."""

    begins: int
    ends: int

    def holds(self, minute: int) -> bool:
        if self.begins < self.ends:
            return self.begins <= minute < self.ends
        return minute >= self.begins or minute < self.ends


class Times(NamedTuple):
    """When a link transfers. With neither ``every_seconds`` nor ``cron`` it does so only when it is asked to."""

    every_seconds: int = 0
    cron: str = ""
    windows: tuple[Window, ...] = ()

    @property
    def policy(self) -> Policy:
        return Policy(every_seconds=self.every_seconds, cron=self.cron)


class State(NamedTuple):
    """How far a link has come: up to ``done_ns`` all that was due has been dealt with. The retry stands on the clock
    that never goes back."""

    done_ns: int
    is_owed: bool = True
    """A transfer is to be made although none is due: the first one, one that failed, paused or was asked for."""
    failure_count: int = 0
    retry_at_seconds: float = 0.0


class Turn(Enum):
    """What a link does now."""

    RUN = "run"
    WAIT_UNTIL_DUE = "idle"
    WAIT_FOR_WINDOW = "waiting"
    WAIT_TO_RETRY = "failed"


class Next(NamedTuple):
    """``seconds``: after which to ask again, 0 for ``RUN``. None: only when woken."""

    turn: Turn
    seconds: float | None


def settled(state: State, now_ns: int) -> State:
    """What is so after a clock was set back: it goes on from what it says now. To be asked before ``next_turn``."""
    return state._replace(done_ns=now_ns) if state.done_ns > now_ns else state


def next_turn(times: Times, state: State, now_ns: int, monotonic_seconds: float, zone: tzinfo) -> Next:
    """What to do now."""
    at_ns = schedule.next_due_ns(times.policy, state.done_ns, zone)
    if not state.is_owed and (at_ns is None or at_ns > now_ns):
        if at_ns is None:
            return Next(Turn.WAIT_UNTIL_DUE, None)
        return Next(Turn.WAIT_UNTIL_DUE, _at_most((at_ns - now_ns) / SECOND_NS))
    left = state.retry_at_seconds - monotonic_seconds
    if state.failure_count and left > 0:
        return Next(Turn.WAIT_TO_RETRY, _at_most(left))
    if not is_open(times.windows, now_ns, zone):
        # Windows and changes of the clocks begin with a minute, so nothing can happen in between.
        return Next(Turn.WAIT_FOR_WINDOW, (_MINUTE_NS - now_ns % _MINUTE_NS) / SECOND_NS)
    return Next(Turn.RUN, 0.0)


def _at_most(seconds: float) -> float:
    return min(max(seconds, 0.001), CHECK_SECONDS)


def begun(times: Times, state: State, now_ns: int, zone: tzinfo) -> State:
    """A transfer begins: it stands for all that was due until now."""
    due = schedule.due(times.policy, state.done_ns, now_ns, zone, is_full=False)
    return state._replace(done_ns=state.done_ns if due is None else due.at_ns, is_owed=False)


def succeeded(state: State) -> State:
    return state._replace(failure_count=0, retry_at_seconds=0.0)


def paused(state: State) -> State:
    """Its window closed, or it was stopped: what is left is owed, and nothing has failed."""
    return state._replace(is_owed=True)


def failed(state: State, monotonic_seconds: float, chance: float) -> State:
    """``chance``: 0 to 1."""
    count = state.failure_count + 1
    seconds = retry_seconds(count, chance)
    return state._replace(is_owed=True, failure_count=count, retry_at_seconds=monotonic_seconds + seconds)


def retry_seconds(failure_count: int, chance: float) -> float:
    """How long to wait after so many failures in a row: twice as long each time, and some of it by chance."""
    most = min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * 2.0 ** min(failure_count - 1, 30))
    return most * (1 - _RETRY_SHARE * chance)


# -- windows -------------------------------------------------------------------------------------------


def is_open(windows: Sequence[Window], now_ns: int, zone: tzinfo) -> bool:
    """Whether a link may transfer; without windows always. A running transfer pauses when this is not so any more."""
    if not windows:
        return True
    local = datetime.fromtimestamp(now_ns // SECOND_NS, zone)
    return any(window.holds(local.hour * 60 + local.minute) for window in windows)


def opens_ns(windows: Sequence[Window], now_ns: int, zone: tzinfo) -> int:
    """When a link may transfer again: now, or the beginning of a minute."""
    if is_open(windows, now_ns, zone):
        return now_ns
    at_ns = now_ns // _MINUTE_NS * _MINUTE_NS
    for _ in range(_SEARCH_MINUTES):
        at_ns += _MINUTE_NS
        if is_open(windows, at_ns, zone):
            break
    return at_ns
