# SPDX-License-Identifier: Apache-2.0
"""Whatever goes away in the middle of a frame: the frame gets its label, and nothing is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("domain")
@pytest.mark.parametrize("kinds", [("hub", "link"), ("bridge", "camera")])
def test_no_frame_is_lost_with_a_hub_a_link_or_a_camera(tiny_bundle, tmp_path, kinds):
    out = tmp_path / "failures.json"
    # The tiny network is quick: slowed down, a frame spans several connection events.
    options = ["--times", "1", "--model", str(tiny_bundle.path), "--time-scale", "6", "--json", str(out)]
    run = subprocess.run(
        [sys.executable, "benchmarks/failures.py", *kinds, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    result = json.loads(out.read_text())
    # How long it takes to come back says more about this machine.
    assert not [fault for fault in result["faults"] if "recovery took" not in fault], run.stdout
    assert len(result["kinds"]) == 2
    assert all(kind["frames"] > 3 and kind["by_hub"] > 0 for kind in result["kinds"]), result
    assert all(result["without_label"].values()), result["without_label"]
