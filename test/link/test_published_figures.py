# SPDX-License-Identifier: Apache-2.0
"""The model against what manufacturers and others have published."""

import pytest

from fleet.link.published import energy_figures, timing_figures


def test_there_are_twenty_nine_timing_figures():
    figures = timing_figures()
    assert len(figures) == 29
    assert len({figure.what for figure in figures}) == 29


@pytest.mark.parametrize("figure", timing_figures(), ids=lambda figure: figure.what)
def test_timing_is_within_one_and_a_half_percent_of_what_was_published(figure):
    assert abs(figure.residual) <= 0.015, f"{figure.computed:.4g} {figure.unit}, published {figure.published:g}"


def test_most_timing_figures_are_met_to_a_tenth_of_a_percent():
    assert sum(abs(figure.residual) <= 0.001 for figure in timing_figures()) >= 20


@pytest.mark.parametrize("figure", energy_figures(), ids=lambda figure: figure.what)
def test_energy_is_within_fifteen_percent_of_what_was_published(figure):
    assert abs(figure.residual) <= 0.15, f"{figure.computed:.4g} {figure.unit}, published {figure.published:g}"
