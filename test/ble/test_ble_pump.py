# SPDX-License-Identifier: Apache-2.0
"""Guessing when the radio wakes, and losses from sequence numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.ble.gaps import GapCounter
from fleet.ble.phase import DRIFT, TRUSTED_S, EventPhase

CI = 0.1
EARLY = 0.005


def seen(times, ci=CI):
    phase = EventPhase()
    for time in times:
        phase.saw(time, ci, early_s=EARLY)
    return phase


def test_before_anything_was_seen_nothing_is_known():
    phase = EventPhase()
    assert not phase.known(0.0)
    with pytest.raises(ValueError, match="no connection event"):
        phase.first_after(0.0, CI)


def test_the_next_event_comes_a_whole_number_of_intervals_after_the_one_that_was_seen():
    phase = seen([10.0])
    assert phase.first_after(10.0, CI) == pytest.approx(10.1)
    assert phase.first_after(10.55, CI) == pytest.approx(10.6)


@given(st.lists(st.floats(0.0, 0.085), min_size=20, max_size=60), st.floats(-50e-6, 50e-6))
def test_late_traces_and_a_drifting_clock_leave_the_guess_within_a_millisecond(offsets, drift):
    # Every tenth event is heard at its very beginning; the others as late as traffic makes them.
    anchors = [5.0 + k * CI * (1 + drift) for k in range(len(offsets))]
    late = [0.0001 if k % 10 == 0 else offset for k, offset in enumerate(offsets)]
    times = [anchor + offset for anchor, offset in zip(anchors, late, strict=True)]
    phase = seen(times)
    truth = anchors[-1] + CI * (1 + drift)
    guess = phase.first_after(anchors[-1] + CI / 2, CI)
    assert abs(guess - truth) < 0.001 + 10 * CI * 2 * DRIFT


def test_a_trace_of_long_ago_is_not_trusted():
    phase = seen([10.0])
    assert phase.known(10.0 + TRUSTED_S)
    assert not phase.known(10.1 + TRUSTED_S)
    phase.saw(100.03, CI, early_s=EARLY)
    assert phase.first_after(100.05, CI) == pytest.approx(100.13)


def test_another_interval_makes_the_phase_unknown():
    phase = seen([10.0])
    phase.forget()
    assert not phase.known(10.0)


@given(st.lists(st.integers(0, 254), min_size=1, max_size=200), st.integers(0, 255))
def test_gaps_are_what_is_missing(skips, first):
    gaps, sequence, missing = GapCounter(), first, 0
    gaps.count(sequence)
    for skip in skips:
        sequence = (sequence + 1 + skip) % 256
        missing += skip
        assert gaps.count(sequence) == skip
    assert (gaps.received, gaps.lost, gaps.gaps) == (len(skips) + 1, missing, sum(skip > 0 for skip in skips))


def test_a_new_connection_leaves_no_gap():
    gaps = GapCounter()
    gaps.count(250)
    gaps.restart()
    assert gaps.count(3) == 0
    assert gaps.lost == 0


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=63), min_size=1, max_size=6))
def test_numbered_packets_that_are_missing_before_another_are_counted(pictures):
    gaps, heard, missing = GapCounter(), 0, 0
    for inference_id, packets in enumerate(pictures):
        numbers = [n for n, arrives in enumerate(packets, 1) if arrives]
        for n in numbers:
            gaps.count_numbered(inference_id, n)
        heard += len(numbers)
        missing += numbers[-1] - len(numbers) if numbers else 0
    assert (gaps.received, gaps.lost) == (heard, missing)


def test_a_picture_that_is_shown_again_is_no_gap():
    gaps = GapCounter()
    assert [gaps.count_numbered(9, n) for n in (1, 3, 3, 1, 2)] == [0, 1, 0, 0, 0]
    assert (gaps.received, gaps.lost) == (4, 1)
