# SPDX-License-Identifier: Apache-2.0
"""Connection events come when they are due, after a million of them, too."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.link.clock import EventClock

intervals = st.integers(6, 3200).map(lambda n: n * 1.25)


@pytest.mark.parametrize("start", [0.003, 1.7e9 + 0.123])
def test_a_million_events_do_not_drift(start):
    clock = EventClock(start, 7.5)
    for _ in range(1_000_000):
        clock.advance()
    exact = Fraction(start) + 1_000_000 * Fraction(75, 10_000)
    assert clock.index == 1_000_000
    assert abs(Fraction(clock.next) - exact) < Fraction(1, 10**6)


@given(intervals, st.integers(0, 10**7), st.floats(0, 1e6))
def test_going_past_many_events_at_once_is_going_past_each(ci_ms, events, start):
    clock = EventClock(start, ci_ms)
    clock.advance(events)
    assert clock.index == events
    assert clock.next == pytest.approx(start + events * ci_ms / 1000, rel=1e-12)


@given(intervals, st.floats(-10, 1e5))
def test_after_passing_over_what_is_overdue_the_newest_due_event_is_next(ci_ms, now):
    clock = EventClock(0.0, ci_ms)
    clock.advance(clock.overdue(now))
    if now >= 0.0:
        assert clock.next <= now
        following = EventClock(0.0, ci_ms)
        following.advance(clock.index + 1)
        assert following.next > now
    else:
        assert clock.next == 0.0
    assert clock.overdue(now) == 0


def test_an_event_that_is_late_by_less_than_an_interval_is_not_overdue():
    clock = EventClock(0.0, 10.0)
    assert clock.overdue(0.0099) == 0
    assert clock.overdue(0.010) == 1


def test_another_interval_counts_from_the_last_event():
    clock = EventClock(1.0, 10.0)
    clock.advance(3)
    clock.change_interval(100.0)
    assert clock.next == pytest.approx(1.02 + 0.1)
    clock.advance()
    assert clock.next == pytest.approx(1.02 + 0.2)
    assert clock.index == 4


def test_another_interval_before_the_first_event_leaves_it_where_it_is():
    clock = EventClock(1.0, 10.0)
    clock.change_interval(4000.0)
    assert clock.next == 1.0
    clock.advance()
    assert clock.next == pytest.approx(5.0)


def test_the_same_interval_again_changes_nothing():
    clock = EventClock(0.1, 7.5)
    clock.advance(12345)
    before = clock.next
    clock.change_interval(7.5)
    assert clock.next == before


@pytest.mark.parametrize("time", [float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(time):
    with pytest.raises(ValueError, match="due at"):
        EventClock(time, 10.0)
    with pytest.raises(ValueError, match="due at"):
        EventClock(0.0, 10.0).overdue(time)


@given(intervals, st.integers(0, 100), st.floats(0, 1e5))
def test_an_aligned_clock_counts_on_and_goes_on_from_the_new_phase(ci_ms, events, time):
    clock = EventClock(0.0, ci_ms)
    clock.advance(events)
    clock.align(time)
    assert (clock.index, clock.next) == (events, time)
    clock.advance()
    assert (clock.index, clock.next) == (events + 1, pytest.approx(time + ci_ms / 1000))
    clock.change_interval(500.0)
    assert clock.next == pytest.approx(time + 0.5)


def test_no_event_can_be_due_at_no_time():
    with pytest.raises(ValueError, match="nan"):
        EventClock(0.0, 7.5).align(float("nan"))
