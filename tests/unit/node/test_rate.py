"""The bucket that limits how fast a link sends, over simulated time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from idemfs.node.rate import BURST_SECONDS, Bucket


def test_without_a_limit_nobody_waits() -> None:
    bucket = Bucket(0, 0.0)
    assert bucket.take(10**12, 0.0) == 0.0 == bucket.wait(1.0)


def test_what_was_sent_is_paid_for_by_waiting() -> None:
    bucket = Bucket(1000, 0.0)
    assert bucket.take(1000, 0.0) == 1.0
    assert bucket.wait(0.5) == 0.5
    assert bucket.take(500, 0.5) == 1.0
    assert bucket.wait(1.5) == 0.0


def test_what_is_not_used_is_kept_for_a_short_time_only() -> None:
    bucket = Bucket(1000, 0.0)
    assert bucket.take(int(1000 * BURST_SECONDS), 3600.0) == 0.0
    assert bucket.take(1000, 3600.0) == 1.0


def test_another_rate_holds_at_once() -> None:
    bucket = Bucket(1000, 0.0)
    bucket.take(4000, 0.0)
    bucket.set_rate(4000, 0.0)
    assert bucket.wait(0.0) == 1.0
    bucket.set_rate(0, 0.0)
    assert bucket.wait(0.0) == 0.0
    bucket.set_rate(100, 5.0)
    assert bucket.take(100, 5.0) == 1.0


def test_a_clock_that_goes_back_fills_nothing_and_stops_nobody() -> None:
    bucket = Bucket(1000, 100.0)
    bucket.take(1000, 100.0)
    assert bucket.wait(50.0) == 1.0
    assert bucket.wait(51.0) == 0.0


@given(
    st.integers(1, 10**9),
    st.lists(st.tuples(st.integers(0, 4 << 20), st.floats(0, 10)), min_size=1, max_size=50),
)
def test_no_time_sends_more_than_its_rate_a_burst_and_a_message(rate: int, drawn: list[tuple[int, float]]) -> None:
    bucket, now = Bucket(rate, 0.0), 0.0
    sent: list[tuple[float, int]] = []
    for size, idle in drawn:
        now += idle
        sent.append((now, size))
        now += bucket.take(size, now)
    for first in range(len(sent)):
        total = 0
        for at, size in sent[first:]:
            # The last message is not paid for yet.
            most = rate * (at - sent[first][0] + BURST_SECONDS)
            assert total <= most * (1 + 1e-9) + 1e-6
            total += size


@given(st.integers(1, 10**9), st.integers(1, 100), st.integers(1, 4 << 20))
def test_who_always_has_something_to_send_gets_the_whole_rate(rate: int, count: int, size: int) -> None:
    bucket, now = Bucket(rate, 0.0), 0.0
    for _ in range(count):
        now += bucket.take(size, now)
    assert abs(now - count * size / rate) <= 1e-6 * max(1.0, now)
