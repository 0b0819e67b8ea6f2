# SPDX-License-Identifier: Apache-2.0
"""What a run tells: lines, a summary, and JSON with the fields that the design names."""

import json
import math
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import FleetError
from fleet.runlog import FrameRecord, RunLog, check_writable

FRAME = FrameRecord(
    id=65535,
    label="pet",
    class_name="tabby",
    truth="pet",
    confidence=0.875,
    source="hub",
    exit_stage=3,
    stages_run=4,
    packets=7,
    packets_lost=1,
    bytes=1234,
    events=3,
    latency_ms=41.5,
    compute_ms=41.5,
    energy_mj=6.25,
    radio_energy_mj=0.25,
    name="pet/1.jpg",
)
OWN = replace(
    FRAME, id=0, label="none", truth="animal", source="device", exit_stage=None, stages_run=18, latency_ms=80.5
)
SILENT = replace(
    FRAME,
    id=1,
    truth=None,
    packets=None,
    packets_lost=None,
    bytes=None,
    events=None,
    energy_mj=None,
    radio_energy_mj=None,
)
# Design section 13, "JSON: `fleet up --json` writes ...".
DESIGNED = [
    "id",
    "label",
    "truth",
    "confidence",
    "source",
    "exit_stage",
    "stages_run",
    "packets",
    "bytes",
    "latency_ms",
]
DESIGNED += ["energy_mj"]


def log(*frames, **conditions):
    return RunLog(conditions, list(frames))


def strictly(text):
    """JSON as other languages read it: they have no NaN."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


# JSON ---------------------------------------------------------------------------------------------------------
def test_a_frame_has_the_fields_of_the_design_and_ours():
    (frame,) = log(FRAME).as_json(1.0)["frames"]
    assert set(DESIGNED) <= set(frame)
    assert set(frame) - set(DESIGNED) == {
        "class_name",
        "packets_lost",
        "events",
        "compute_ms",
        "radio_energy_mj",
        "name",
        "local_stage",
    }
    assert {key: frame[key] for key in DESIGNED} == {
        "id": 65535,
        "label": "pet",
        "truth": "pet",
        "confidence": 0.875,
        "source": "hub",
        "exit_stage": 3,
        "stages_run": 4,
        "packets": 7,
        "bytes": 1234,
        "latency_ms": 41.5,
        "energy_mj": 6.25,
    }


def test_the_document_has_conditions_summary_and_frames_in_their_order():
    document = log(FRAME, OWN, SILENT, link={"ci_ms": 10.0}, source="photos").as_json(2.0)
    assert list(document) == ["conditions", "summary", "frames"]
    assert document["conditions"] == {"link": {"ci_ms": 10.0}, "source": "photos"}
    assert [f["id"] for f in document["frames"]] == [65535, 0, 1]


numbers = st.floats(allow_nan=True, allow_infinity=True)
frames = st.builds(
    replace,
    st.sampled_from([FRAME, OWN, SILENT]),
    confidence=numbers,
    latency_ms=numbers,
    compute_ms=numbers,
    energy_mj=numbers | st.none(),
    radio_energy_mj=numbers | st.none(),
)


@given(frames=st.lists(frames, max_size=4), seconds=numbers, condition=numbers)
def test_no_number_that_json_lacks_reaches_the_file(tmp_path_factory, frames, seconds, condition):
    path = tmp_path_factory.getbasetemp() / "numbers.json"
    run = log(*frames, scale=condition, link={"loss": [condition]})
    run.write(path, seconds)
    document = strictly(path.read_text())
    assert len(document["frames"]) == document["summary"]["frames"] == len(frames)
    run.summary_lines(seconds)


def test_an_unknown_energy_is_null_and_does_not_spoil_the_mean():
    document = log(FRAME, replace(FRAME, energy_mj=math.nan)).as_json(1.0)
    assert [f["energy_mj"] for f in document["frames"]] == [6.25, None]
    assert document["summary"]["energy_mj_mean"] == 6.25


# Summary ------------------------------------------------------------------------------------------------------
def test_the_summary_counts_what_there_was():
    run = log(FRAME, replace(FRAME, latency_ms=61.5, packets=9, bytes=1000), OWN, SILENT)
    run.labels.update({"hub": 3, "device": 1})
    run.repeated_labels = 2
    assert run.summary(1.5) == {
        "frames": 4,
        "frames_left_out": 0,
        "seconds": 1.5,
        "frames_per_second": 2.0,
        "answered_by_hub": 3,
        "answered_by_device": 1,
        "exits": {"3": 3, "device": 1},
        "labels": {"hub": 3, "device": 1},
        "repeated_labels": 2,
        "packets_mean": 7.6667,
        "bytes_mean": 1156.0,
        "latency_ms": {"p50": 51.5, "p95": pytest.approx(77.65)},
        "energy_mj_mean": 6.25,
        "frames_with_truth": 3,
        "accuracy_groups": 0.6667,
    }


def test_a_camera_that_runs_for_months_fills_no_memory():
    run = RunLog({}, kept=10)
    for k in range(25):
        run.add(replace(FRAME, id=k))
    assert [f.id for f in run.frames] == list(range(15, 25))
    summary = run.summary(12.0)
    assert (summary["frames"], summary["frames_left_out"], summary["frames_per_second"]) == (25, 15, 2.0)


def test_an_empty_run_has_a_summary_too(tmp_path):
    summary = log().summary(0.0)
    assert (summary["frames"], summary["exits"]) == (0, {})
    for key in ("frames_per_second", "packets_mean", "bytes_mean", "latency_ms", "energy_mj_mean", "accuracy_groups"):
        assert summary[key] is None
    assert log().summary_lines(0.0) == ["no frame was processed"]
    log().write(tmp_path / "out.json", 0.0)
    assert strictly((tmp_path / "out.json").read_text())["frames"] == []


def test_one_frame_has_no_rate():
    assert log(FRAME).summary(5.0)["frames_per_second"] is None


@pytest.mark.parametrize(("seconds", "took"), [(0.0003, "in less than 0.1 s;"), (0.4, "in 0.4 s;")])
def test_a_run_too_short_to_have_a_rate_has_none(seconds, took):
    run = log(FRAME, OWN)
    assert run.summary(seconds)["frames_per_second"] is None
    (first, *_) = run.summary_lines(seconds)
    assert took in first
    assert "frames/s" not in first


def test_the_terminal_s_summary_leaves_out_what_is_not_known():
    whole = "\n".join(log(FRAME, OWN).summary_lines(2.0))
    for words in (
        "2 frames in 2.0 s",
        "by the hub 1",
        "by the device 1",
        "exit 3: 1, device: 1",
        "7.0 packets",
        "50.0%",
    ):
        assert words in whole
    bare = "\n".join(log(replace(SILENT, energy_mj=None)).summary_lines(0.0))
    for words in ("packets", "energy", "right", "frames/s"):
        assert words not in bare


def test_exits_are_listed_in_the_order_of_their_stages():
    run = log(*(replace(FRAME, exit_stage=stage) for stage in (8, 2, 10, None, 1)))
    assert list(run.summary(1.0)["exits"]) == ["1", "2", "8", "10", "device"]


# Lines --------------------------------------------------------------------------------------------------------
def test_a_line_says_label_confidence_exit_packets_and_latency():
    line = FRAME.line()
    for words in ("pet", "88%", "tabby", "exit 3", "7 packets", "1234 B", "41.5 ms", "right"):
        assert words in line
    assert "is animal" in OWN.line()
    assert "device" in OWN.line()
    assert "radio unknown" in SILENT.line()
    assert "right" not in SILENT.line()


@given(frames)
def test_every_frame_has_one_line(frame):
    assert len(frame.line().splitlines()) == 1


# Writing ------------------------------------------------------------------------------------------------------
def test_a_reader_never_sees_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    log(FRAME).write(path, 1.0)
    before = path.read_text()
    replaced = []
    monkeypatch.setattr(os, "replace", lambda part, whole: replaced.append((path.read_text(), part.read_text())))
    log(FRAME, OWN).write(path, 1.0)
    ((seen, written),) = replaced
    assert seen == before
    assert len(strictly(written)["frames"]) == 2


def test_nothing_is_left_behind_but_the_file(tmp_path):
    log(FRAME).write(tmp_path / "out.json", 1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_a_file_that_cannot_be_written_is_one_clear_line_and_the_old_one_stays(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    path.write_text("old")

    def full(_part, _path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FleetError, match=r"cannot write .*out\.json: No space left on device"):
        log(FRAME).write(path, 1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    assert path.read_text() == "old"


def test_a_directory_that_went_away_is_one_clear_line(tmp_path):
    with pytest.raises(FleetError, match="No such file or directory"):
        log(FRAME).write(tmp_path / "gone" / "out.json", 1.0)


def test_what_is_no_plain_file_is_written_into_and_not_replaced(tmp_path):
    """`--json /dev/stdout`, as root: the device must still be one afterwards."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    log(FRAME).write(pipe, 1.0)
    reader.join(10)
    assert len(strictly(read[0])["frames"]) == 1
    assert pipe.is_fifo()

    target, link = tmp_path / "target.json", tmp_path / "link.json"
    link.symlink_to(target)
    log(FRAME).write(link, 1.0)
    assert link.is_symlink()
    assert len(strictly(target.read_text())["frames"]) == 1


# Before a run -------------------------------------------------------------------------------------------------
def test_looking_whether_a_file_can_be_written_leaves_everything_as_it_was(tmp_path):
    (tmp_path / "there.json").write_text("old")
    for name in ("there.json", "new.json"):
        check_writable(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["there.json"]
    assert (tmp_path / "there.json").read_text() == "old"


def test_a_link_to_an_open_pipe_can_be_written():
    reading, writing = os.pipe()  # as /dev/stdout is in `fleet up ... | jq`
    try:
        check_writable(Path(f"/proc/self/fd/{writing}"))
    finally:
        os.close(reading)
        os.close(writing)


def test_what_cannot_be_written_is_found_out_before_the_run(tmp_path, monkeypatch):
    with pytest.raises(FleetError, match="it is a directory"):
        check_writable(tmp_path)
    with pytest.raises(FleetError, match="its directory is not there"):
        check_writable(tmp_path / "a" / "b.json")
    with pytest.raises(FleetError, match=r"cannot write /proc/out\.json"):
        check_writable(Path("/proc/out.json"))
    check_writable(Path("/dev/null"))
