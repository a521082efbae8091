"""What threads that work in turns wait for."""

from __future__ import annotations

import threading

from idemfs.node.bell import Bell

PATIENCE_SECONDS = 30.0


def waits(bell: Bell, seconds: float | None) -> threading.Thread:
    thread = threading.Thread(target=bell.wait, args=(seconds,))
    thread.start()
    return thread


def test_it_ends_a_wait_and_is_heard_once_also_by_who_comes_later() -> None:
    bell = Bell()
    bell.ring()
    bell.wait(None)
    thread = waits(bell, None)
    thread.join(0.05)
    assert thread.is_alive(), "what was heard is over"
    bell.ring()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive() and not bell.is_over


def test_after_the_end_nobody_waits() -> None:
    bell = Bell()
    thread = waits(bell, None)
    bell.end()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive() and bell.is_over
    bell.wait(None)


def test_without_it_the_time_passes() -> None:
    bell = Bell()
    bell.wait(0.0)
    bell.wait(0.01)
    assert not bell.is_over
