# SPDX-License-Identifier: Apache-2.0
"""The paper's numbers are the paper's: compared with its text where that lies beside the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.evaluation.report import paper

TEXT = Path(__file__).resolve().parents[3] / "shared" / "paper" / "fleet-mobicom23.txt"


@pytest.fixture(scope="module")
def text():
    if not TEXT.is_file():
        pytest.skip("the paper's text is not beside the repository")
    return TEXT.read_text()


@pytest.fixture(scope="module")
def lines(text):
    """Cells of every tab-separated line, without the spaces inside of them."""
    return [[cell.replace(" ", "") for cell in line.split("\t")] for line in text.splitlines() if "\t" in line]


def printed(r):
    if r is None:
        return ["-", "-"]
    last = "4s" if r.last_ms == 4000 else f"{r.last_ms:g}"
    return [f"{r.first_ms:g}-{last}", f"{r.low:g}-{r.high:.1f}x" if r.low == 1 else f"{r.low:.1f}-{r.high:.1f}x"]


@pytest.mark.parametrize("line", paper.TABLE_3, ids=lambda line: line.label)
def test_a_row_of_table_3_is_the_paper_s(lines, line):
    label = line.label.replace(" packets", "").replace(" ", "")
    found = next(cells for cells in lines if cells[0] == label and len(cells) == 9)
    expected = [text for family in ("local", "partition", "jpeg", "all") for text in printed(line.cells[family])]
    assert [cell.replace("_", "-") for cell in found[1:]] == expected


def test_the_energies_of_table_4_are_the_paper_s(text):
    for cell in paper.TABLE_4:
        fleet = f"{cell.fleet_mj[0]:g} - {cell.fleet_mj[1]:g}"
        assert fleet in text
        first, last = cell.baseline_mj
        baseline = f"{first:g}" if first == last else f"{first:.2f} - {last:.2f}"
        assert baseline in text, baseline
        assert f"{cell.efficiency[0]:g} - {cell.efficiency[1]:g}x" in text


def test_the_numbers_of_the_text_are_the_paper_s(text):
    assert f"accuracy of detecting visual wake-up is {100 * paper.WAKE_ACCURACY:.2f}%" in text
    assert f"average latency is {paper.WAKE_FLEET_MS:g}ms, {paper.WAKE_SPEED_UP:g}× less" in text
    assert f"which takes {paper.WAKE_LOCAL_MS:g}ms for the same accuracy" in text
    shares = [f"{share:.0%}" for _, _, share in paper.LOSS_AT]
    assert f"upto {shares[0]} packetloss" in text
    assert f"upto {shares[1]} error rate" in text
    assert f"upto {shares[2]} error rate" in text
    assert f"larger than {paper.FIGURE_1A_THRESHOLD:g}" in text
    assert "3.3× speedup on more the more powerful GAP8" in text
    assert paper.CI_100["gap8-175"] == 3.3


def test_the_slips_are_in_the_paper(text):
    assert "0.125 - 2 0.125 - 2 0.5 - 2\t1.57 - 1.08 1.41 - 8.11" in text
    two = next(line for line in text.splitlines() if line.startswith("2\t"))
    assert "25.5" in two
    assert two.split("\t")[7] == "7.5 - 75"
    assert "increments of 1.5ms" in text
