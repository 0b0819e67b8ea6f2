# SPDX-License-Identifier: Apache-2.0
"""Peak activation memory: two stages by hand, and what the report makes of them."""

from __future__ import annotations

import json

import pytest
import report_files

from fleet.evaluation.report.context import load_context
from fleet.evaluation.report.document import Table
from fleet.evaluation.report.sweeps import load_evidence

pytest.importorskip("torch", reason="torch is not installed")

from fleet.evaluation.report import memory


def test_the_stem_holds_the_image_and_its_output():
    stem = memory.stage_memory("mobilenetv3", 32, 10)[0]
    assert stem.values == 3 * 32 * 32 + 16 * 16 * 16
    assert stem.kilobytes(1) == stem.values / 1024
    assert stem.kilobytes(4) == 4 * stem.kilobytes(1)


def test_a_block_with_a_shortcut_holds_its_input_while_its_widest_layer_runs():
    # Stage 4 at 32 pixels: 16x16 cells, 24 channels widened to 72 and back, and the 24 kept for the sum.
    fourth = memory.stage_memory("mobilenetv3", 32, 10)[3]
    cells = 16 * 16
    assert fourth.values == cells * (72 + 72 + 24)


def test_the_last_exit_of_the_hub_is_the_eighth_stage_s():
    stages = memory.stage_memory("mobilenetv3", 32, 10)
    assert [s.sent for s in stages] == [True] * 8 + [False] * 10
    assert stages[-1].name == "head"


def test_the_report_marks_what_does_not_fit(tmp_path):
    (tmp_path / "model").mkdir()
    manifest = {"name": "backyard", "backbone": "mobilenetv3", "input": {"size": 224}, "classes": [{}] * 100}
    (tmp_path / "model" / "manifest.json").write_text(json.dumps(manifest))
    paths = report_files.write(tmp_path, few=report_files.document("few", [report_files.row()]))
    context = load_context(load_evidence(paths), tmp_path / "model", None)
    own = next(b for b in memory.section(context).blocks if isinstance(b, Table) and b.name == "memory-stages")
    lines = {str(row[0]): row for row in own.rows}
    stem = lines["stage 1"]
    kilobytes = (3 * 224 * 224 + 16 * 112 * 112) / 1024
    assert stem[2] == f"{kilobytes:.1f}"
    assert stem[3].text == f"{kilobytes / 512:.0%}"
    assert stem[5].text == f"{4 * kilobytes / 512:.0%}, too much"
    assert stem[5].tone == "bad"
