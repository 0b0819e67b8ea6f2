# SPDX-License-Identifier: Apache-2.0
"""One frame's way, put together from what device, radio and hub say of it."""

from __future__ import annotations

import json
import math

import pytest

from fleet.link.airtime import exchange_ends_us, ll_octets
from fleet.link.parameters import LinkParameters
from fleet.view.journey import MOST_EVENTS, MOST_RUNS, Answer, ExitRun, Journey, RadioEvent, Report, StageDone
from fleet.view.journey import packet_ends_ms as ends_of

NOW = 1_000_000.0


def report(by="hub", latency=0.040, stage=4) -> Report:
    answer = Answer("pet", "tabby", 0.9, by, stage if by == "hub" else None)
    return Report(answer, latency, latency, 8.0, 0.2, 4, 9, 1, 1800, "cat.png", "pet")


def journey(**changes) -> Journey:
    values = {"exit_stages": 8, "wake_at": NOW + 0.003, "interval": 0.010}
    made = Journey(1, 77, "1.0", NOW, NOW + 0.001, **{**values, **changes})
    for n, at in ((1, 0.002), (2, 0.005), (3, 0.009)):
        made.add_stage(StageDone(n, NOW + at, 3, 600))
    return made


def blocks(made: Journey, now: float = NOW + 1) -> list[tuple]:
    return [(b["n"], b["begin"], b["end"], b["state"]) for b in made.as_json(now)["stages"]]


def test_a_stage_lasts_from_the_end_of_the_one_before_to_its_own():
    assert blocks(journey(), NOW + 0.009)[:3] == [
        (1, 0.0, pytest.approx(2.0, abs=1e-3), "done"),
        (2, pytest.approx(2.0, abs=1e-3), pytest.approx(5.0, abs=1e-3), "done"),
        (3, pytest.approx(5.0, abs=1e-3), pytest.approx(9.0, abs=1e-3), "done"),
    ]


def test_a_stage_that_runs_grows_with_time_until_the_answer_cuts_it_short():
    made = journey()
    assert blocks(made, NOW + 0.012)[-1] == (4, pytest.approx(9.0), pytest.approx(12.0, abs=1e-3), "running")
    made.heard = NOW + 0.011
    assert blocks(made)[-1] == (4, pytest.approx(9.0), pytest.approx(11.0, abs=1e-3), "cut")


def test_behind_the_last_stage_that_is_sent_comes_the_rest_of_the_network():
    made = journey(exit_stages=3)
    made.own = NOW + 0.030
    made.add_stage(StageDone(15, NOW + 0.030, 1, 11))
    assert blocks(made)[-1] == (15, pytest.approx(9.0), pytest.approx(30.0, abs=1e-3), "answered")


def test_an_answer_of_the_device_that_comes_after_the_hubs_ends_nothing():
    made = journey()
    made.heard, made.own = NOW + 0.011, NOW + 0.030
    assert blocks(made)[-1][3] == "cut"


def test_a_stage_that_is_offered_again_counts_once():
    made = journey()
    made.add_stage(StageDone(3, NOW + 0.020, 5, 100))
    assert [block["n"] for block in made.as_json(NOW)["stages"] if block["state"] == "done"] == [1, 2, 3]


def test_without_a_device_there_is_nothing_to_tell_of_it():
    made = Journey(1, 77, "1.0", NOW, NOW + 0.001)
    made.heard = NOW + 0.02
    assert made.as_json(NOW + 1)["stages"] == []


def test_the_answer_is_held_when_the_latency_says_it_even_if_the_notice_was_seen_earlier():
    made = journey()
    made.heard, made.report = NOW + 0.0385, report(latency=0.040)
    assert made.began == NOW
    assert made.as_json(NOW + 1)["held"] == pytest.approx(40.0, abs=1e-3)


@pytest.mark.parametrize("stamp", [NOW - 0.4, NOW - 3600.0, 12.0, NOW + 3600.0])
def test_a_picture_that_was_stamped_elsewhere_begins_when_the_latency_says(stamp):
    made = journey()
    made.captured = stamp
    made.heard, made.report = NOW + 0.040, report(latency=0.040)
    assert made.began == pytest.approx(NOW)


@pytest.mark.parametrize("stamp", [12.0, NOW + 3600.0, math.nan])
def test_before_the_report_a_stamp_of_another_clock_is_not_believed(stamp):
    made = journey()
    made.captured = stamp
    assert made.began == NOW + 0.002  # the end of the first stage that was heard of


def test_the_radio_wakes_up_at_whole_intervals_from_an_event_that_was_seen_before_or_after():
    for wake_at in (NOW + 0.003, NOW - 9.997, NOW + 5.003):
        made = journey(wake_at=wake_at)
        assert made.as_json(NOW)["wake"] == {"first": pytest.approx(3.0, abs=1e-3), "every": 10.0}
        assert made.wait() == pytest.approx(0.003, abs=1e-6)
    assert journey(wake_at=None).as_json(NOW)["wake"]["first"] is None
    assert journey(wake_at=None).wait() is None


def test_packets_of_an_event_end_when_their_air_time_is_over():
    link = LinkParameters(ci_ms=30.0, phy="1M")
    sizes = (244, 244, 40)
    ends_us = exchange_ends_us("1M", [ll_octets(n) for n in sizes])[1]
    assert ends_of(link, sizes, notice=False) == pytest.approx([end / 1000 for end in ends_us])
    # A notice is longer than the empty poll in its place.
    assert ends_of(link, sizes, notice=True)[0] > ends_of(link, sizes, notice=False)[0]
    assert ends_of(link, (), notice=True) == ()


def test_lost_packets_and_notices_are_told():
    made = journey()
    made.add_event(RadioEvent(NOW + 0.013, (2, 3), (244, 100), (False, True), (2.4, 3.5), "heard"))
    (event,) = made.as_json(NOW)["events"]
    assert event["at"] == pytest.approx(13.0, abs=1e-3)
    assert event["notice"] == "heard"
    assert [(p["stage"], p["bytes"], p["lost"], p["begin"], p["end"]) for p in event["packets"]] == [
        (2, 244, False, 0.0, 2.4),
        (3, 100, True, 2.4, 3.5),
    ]


def test_an_exit_is_told_with_what_it_needed_and_ends_no_later_than_its_answer():
    made = journey()
    made.decided = NOW + 0.020
    made.add_run(ExitRun(4, NOW + 0.0207, 0.006, 0.81, 0.58, "pet", "tabby", True))
    made.add_run(ExitRun(3, NOW + 0.014, 0.006, 0.41, math.inf, "none", "egg", False))
    last, first = made.as_json(NOW)["runs"]
    assert (last["end"], last["begin"]) == (pytest.approx(20.0, abs=1e-3), pytest.approx(14.0, abs=1e-3))
    assert (last["certainty"], last["threshold"], last["answered"]) == (0.81, 0.58, True)
    assert first["threshold"] is None  # an exit that never answers alone: JSON has no infinity


def test_whatever_is_told_of_a_frame_it_stays_small_and_is_json():
    made = journey()
    for k in range(3 * MOST_EVENTS):
        made.add_event(RadioEvent(NOW + k, (1,), (20,), (False,), (1.0,)))
        made.add_run(ExitRun(1, NOW + k, 0.001, math.nan, 0.5, "g", "c", False))
    told = made.as_json(NOW)
    assert (len(told["events"]), len(told["runs"])) == (MOST_EVENTS, MOST_RUNS)
    json.dumps(told, allow_nan=False)
