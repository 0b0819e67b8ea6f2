# SPDX-License-Identifier: Apache-2.0
"""What the live view knows of a camera: everything of the newest frames, sums of the others, and no more."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from told_frames import FACTS, LINK, STAGES, START, answer, live_through, picture

from fleet.platforms import load_profile
from fleet.view.journey import Answer, ExitRun, Report, StageDone
from fleet.view.pictures import Picture
from fleet.view.state import KEPT_FRAMES, LIVE_S, TOLD_S, CameraView, Facts


@pytest.fixture
def view() -> CameraView:
    made = CameraView(FACTS)
    made.on_link(LINK, connected=True)
    return made


def snapshot(view: CameraView, now: float = START + 100) -> dict:
    told = view.snapshot(now)
    json.dumps(told, allow_nan=False)
    return told


def test_before_the_first_frame_there_is_a_snapshot_all_the_same():
    for facts in (FACTS, Facts()):
        told = snapshot(CameraView(facts))
        assert told["frame"] is None
        assert told["comparison"]["frames"] == 0
        assert told["recent"] == told["events"] == []


def test_a_frame_is_shown_with_everything_that_was_said_of_it(view):
    key = live_through(view, 1, START)
    assert snapshot(view)["frame"]["picture"] is None  # a page would ask for it in vain
    view.on_picture(key, picture())
    told = snapshot(view)
    frame = told["frame"]
    assert frame["picture"] == key
    assert [block["n"] for block in frame["stages"]] == [1, 2, 3]
    assert frame["stages"][-1]["state"] == "cut"
    assert [len(event["packets"]) for event in frame["events"]] == [3, 0]
    assert [event["notice"] for event in frame["events"]] == ["", "heard"]
    assert [run["answered"] for run in frame["runs"]] == [True]
    assert frame["answer"] == {"group": "pet", "class": "tabby", "confidence": 0.9, "by": "hub", "stage": 2}
    assert frame["held"] == pytest.approx(20.0, abs=1e-2)
    assert told["totals"] | {"rate": None} == {
        "frames": 1, "rate": None, "by_hub": 1, "known": 1, "right": 1, "packets": 3, "lost": 1, "events": 1,
    }  # fmt: skip
    assert [event["group"] for event in told["events"]] == ["pet"]


def test_a_notice_that_the_air_lost_is_told_and_a_repeated_one_is_not(view):
    view.on_stage(7, "7.0", START, StageDone(1, START + 0.004, 3, 500))
    view.on_event(7, START + 0.010, [], [], [], (7, False))
    view.on_event(7, START + 0.020, [], [], [], (7, True))
    view.on_notice(7, START + 0.0205)
    view.on_event(7, START + 0.030, [], [], [], (7, False))
    assert [event["notice"] for event in snapshot(view)["frame"]["events"]] == ["lost", "heard"]


def test_the_histogram_counts_every_frame_once_by_who_answered_it(view):
    for k in range(6):
        live_through(view, k, START + k, answer(stage=1 + k % 2))
    live_through(view, 6, START + 6, answer(by="device"))
    view.on_label(6, "6.0", START + 6, answer(stage=3), START + 6.5)  # the hub's word, too late
    told = snapshot(view)["histogram"]
    assert told == {
        "exits": [{"stage": 1, "count": 3}, {"stage": 2, "count": 3}, {"stage": 3, "count": 0}],
        "device": 1,
    }


def test_where_no_device_reports_the_labels_are_counted():
    view = CameraView(Facts())
    for k in range(3):
        view.on_label(k, f"{k}.0", START + k, answer(stage=5), START + k + 0.1)
    told = snapshot(view)
    assert told["histogram"]["exits"][4] == {"stage": 5, "count": 3}
    assert told["totals"]["frames"] == 3
    assert told["frame"]["answer"]["stage"] == 5
    assert told["comparison"]["rows"]["fleet"]["latency_ms"] is None


def test_fleet_is_compared_on_the_same_frames_only(view):
    pictured = [live_through(view, k, START + k, latency=0.010 + 0.010 * (k % 2)) for k in range(10)]
    for key in pictured[::2]:  # of every second frame there is a picture, and only those were quick
        view.on_picture(key, picture())
    told = snapshot(view)["comparison"]
    assert told["frames"] == 5
    assert told["rows"]["fleet"]["latency_ms"]["p50"] == pytest.approx(10.0)
    assert told["rows"]["local"]["latency_ms"]["p50"] == pytest.approx(10.0)  # five stages of 2 ms
    # Three events from the frame's own wait on, and the answer in the fourth.
    assert told["rows"]["jpeg"]["latency_ms"]["p50"] > 30.0
    assert told["jpeg_bytes"] == 1500
    assert told["hub_ms"] == pytest.approx(4.0)


def test_a_picture_may_come_before_or_after_what_is_said_of_it(view):
    view.on_picture("1.0", picture())
    live_through(view, 1, START)
    live_through(view, 2, START + 1)
    view.on_picture("2.0", picture())
    told = snapshot(view)
    assert told["comparison"]["frames"] == 2
    assert all(set(entry["latency"]) == {"fleet", "local", "jpeg"} for entry in told["recent"])
    assert [event["snapshot"] for event in told["events"]] == ["1.0"]


def test_the_whole_network_on_a_machine_that_is_not_paced_is_what_it_took_there():
    view = CameraView(Facts(exit_stages=3, input_size=64, stages=STAGES, profile=load_profile("native")))
    view.on_link(LINK, connected=True)
    live_through(view, 1, START, answer(by="device"), latency=0.050, stages_run=4)  # not the whole of it
    assert snapshot(view)["comparison"]["rows"]["local"]["latency_ms"] is None
    live_through(view, 2, START + 1, answer(by="device"), latency=0.060, stages_run=len(STAGES))
    live_through(view, 3, START + 2)
    told = snapshot(view)["comparison"]
    assert told["local_measured"]
    assert snapshot(view)["recent"][-1]["latency"]["local"] == pytest.approx(60.0)


def test_an_unknown_energy_leaves_the_latency_known(view):
    live_through(view, 1, START, energy=math.nan)
    rows = snapshot(view)["comparison"]["rows"]
    assert rows["fleet"]["energy_mj"] is None
    assert rows["fleet"]["latency_ms"]["p50"] == pytest.approx(20.0)


def test_a_frame_that_takes_long_is_shown_while_it_is_under_way(view):
    live_through(view, 1, START)
    view.on_stage(2, "2.0", START + 1, StageDone(1, START + 1.5, 3, 500))
    assert not view.is_live(START + 1.5 + LIVE_S / 2)
    assert snapshot(view, START + 1.5 + LIVE_S / 2)["frame"]["id"] == 1
    assert view.is_live(START + 2.5)
    shown = snapshot(view, START + 2.5)["frame"]
    assert (shown["id"], shown["over"], shown["stages"][-1]["state"]) == (2, False, "running")


def test_a_frame_is_shown_once_the_device_has_reported_it_or_nobody_will(view):
    live_through(view, 1, START)
    view.on_label(2, "2.0", START + 1, answer(), START + 1.1)
    assert snapshot(view, START + 1.2)["frame"]["id"] == 1
    assert snapshot(view, START + 1.2 + TOLD_S)["frame"]["id"] == 2


def test_of_a_quick_camera_a_frame_with_a_picture_is_shown(view):
    for k in range(6):
        live_through(view, k, START + k / 10)
    view.on_picture("3.0", picture())
    assert snapshot(view)["frame"]["id"] == 3
    live_through(view, 6, START + 2)
    assert snapshot(view)["frame"]["id"] == 6  # that picture is too old by now


def test_an_id_that_comes_round_again_is_another_frame(view):
    live_through(view, 1, START)
    live_through(view, 65537, START + 8192)
    told = snapshot(view, START + 8193)
    assert told["frame"]["seq"] == 2
    assert told["frame"]["held"] == pytest.approx(20.0, abs=1e-2)


def test_another_interval_moves_the_wake_ups_once_an_event_was_seen(view):
    live_through(view, 1, START)
    view.on_link(LINK.replace(ci_ms=50.0), connected=True)
    view.on_stage(2, "2.0", START + 1, StageDone(1, START + 1.004, 3, 500))
    assert view.frame(2, START + 2)["wake"]["first"] is None
    view.on_event(2, START + 1.030, [1], [100], [False], None)
    assert view.frame(2, START + 2)["wake"] == {"first": pytest.approx(30.0, abs=1e-2), "every": 50.0}


def test_an_old_frame_can_be_looked_at_until_it_is_forgotten(view):
    for k in range(KEPT_FRAMES + 5):
        live_through(view, k, START + k)
    assert view.frame(1, START) is None
    assert view.frame(KEPT_FRAMES, START)["id"] == KEPT_FRAMES - 1


def test_days_of_frames_take_no_more_room_than_a_minute(view):
    def live(first: int, count: int) -> int:
        for k in range(first, first + count):
            key = live_through(view, k, START + k, answer(group=("pet", "vehicle", "none")[k // 10 % 3]))
            view.on_picture(key, Picture(bytes(2000), bytes(500), 1500))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early = live(0, 1500)
        late = live(1500, 3000)
    finally:
        tracemalloc.stop()
    assert late < early * 1.05 + 50_000
    assert len(view.pictures) == KEPT_FRAMES
    told = snapshot(view)
    assert told["totals"]["frames"] == 4500
    assert len(told["recent"]) == KEPT_FRAMES


_times = st.floats(START - 1e4, START + 1e4)
_ids = st.integers(0, 65535)
_numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(
    stages=st.lists(st.tuples(_ids, st.integers(0, 255), _times, st.floats(-1e9, 1e9)), max_size=8),
    events=st.lists(st.tuples(_ids, _times, st.lists(st.integers(0, 255), max_size=6), st.booleans()), max_size=8),
    runs=st.lists(st.tuples(_ids, _times, _numbers, _numbers, _numbers), max_size=8),
    reports=st.lists(st.tuples(_ids, _times, _numbers, _numbers, st.text(max_size=8)), max_size=8),
)
def test_whatever_is_said_in_whichever_order_there_is_a_snapshot_that_is_json(stages, events, runs, reports):
    view = CameraView(FACTS)
    view.on_link(LINK, connected=True)
    for inference_id, n, at, captured in stages:
        view.on_stage(inference_id, "k", captured, StageDone(n, at, 1, 20))
    for inference_id, at, sizes, flag in events:
        view.on_event(inference_id, at, sizes, sizes, [flag] * len(sizes), (inference_id, flag))
    for inference_id, at, duration, certainty, threshold in runs:
        view.on_run(inference_id, ExitRun(3, at, duration, certainty, threshold, "g", "c", True))
        view.on_notice(inference_id, at)
    for inference_id, at, latency, energy, text in reports:
        said = Answer(text, text, energy, "hub", 4)
        view.on_report(inference_id, "k", at, Report(said, latency, latency, energy, 0.0, 1, 1, 0, 1, text, text), at)
        view.on_label(inference_id, "k", at, said, at)
    snapshot(view, START)


def test_the_losses_that_jpeg_meets_come_from_the_seed():
    def latencies(seed: int) -> list[float]:
        view = CameraView(FACTS, seed=seed)
        view.on_link(LINK.replace(loss=0.4), connected=True)
        for k in range(30):
            view.on_picture(f"{k}.0", picture())
            live_through(view, k, START + k)
        return [entry["latency"]["jpeg"] for entry in snapshot(view)["recent"]]

    assert latencies(1) == latencies(1) != latencies(2)
    assert np.ptp(latencies(1)) >= 9.99
