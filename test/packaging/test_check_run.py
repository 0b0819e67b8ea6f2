# SPDX-License-Identifier: Apache-2.0
"""The check of a smoke run passes good reports and names what is wrong with bad ones."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "check_run.py"
specification = importlib.util.spec_from_file_location("check_run", SCRIPT)
check_run = importlib.util.module_from_spec(specification)
specification.loader.exec_module(check_run)

FRAME = {
    "id": 7,
    "label": "pet",
    "truth": None,
    "confidence": 0.9,
    "source": "hub",
    "exit_stage": 3,
    "stages_run": 3,
    "packets": 2,
    "bytes": 480,
    "latency_ms": 41.5,
    "energy_mj": None,
}
REPORT = {"conditions": {"source": "photos"}, "summary": {"frames": 6}, "frames": [FRAME] * 6}


@pytest.fixture
def report() -> dict[str, Any]:
    return copy.deepcopy(REPORT) | {"frames": [dict(FRAME) for _ in REPORT["frames"]]}


def test_a_complete_report_passes(report, tmp_path: Path, capsys):
    file = tmp_path / "run.json"
    file.write_text(json.dumps(report))
    assert check_run.main([str(file)]) == 0
    assert "6 frames, 6 answered by the hub" in capsys.readouterr().out


def test_a_frame_without_a_radio_report_passes(report):
    report["frames"][-1] |= {"packets": None, "bytes": None}
    assert list(check_run.problems(report)) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"label": ""}, "no label"),
        ({"source": "cloud"}, "source 'cloud'"),
        ({"confidence": 1.5}, "confidence 1.5"),
        ({"stages_run": 0}, "stages_run 0"),
        ({"latency_ms": 0.0}, "latency_ms 0.0"),
        ({"packets": None}, "None packets"),
    ],
)
def test_a_bad_frame_is_named(report, change: dict[str, Any], complaint: str):
    report["frames"][2] = FRAME | change
    (problem,) = check_run.problems(report)
    assert problem.startswith(f"frame 2: {complaint}")


def test_a_run_without_the_hub_fails(report):
    report["frames"] = [FRAME | {"source": "device", "exit_stage": None}] * 6
    assert any("hub answered no frame" in problem for problem in check_run.problems(report))


def test_a_silent_radio_fails(report):
    report["frames"] = [FRAME | {"packets": 0, "bytes": 0}] * 6
    assert any("no packet" in problem for problem in check_run.problems(report))


def test_too_few_frames_fail(report):
    assert any("10 are the least" in problem for problem in check_run.problems(report, 10))


def test_a_missing_field_is_named(report):
    del report["frames"][0]["bytes"]
    report["frames"] = report["frames"][:1] * 6
    assert "frame 0 lacks bytes" in list(check_run.problems(report))


@pytest.mark.parametrize("report", [[], {}, {"conditions": {}, "summary": {}, "frames": None}])
def test_something_else_is_no_report(report):
    (problem,) = check_run.problems(report)
    assert "conditions, summary and frames" in problem


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys):
    assert check_run.main([str(tmp_path / "none.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
