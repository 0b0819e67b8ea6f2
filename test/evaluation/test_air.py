# SPDX-License-Identifier: Apache-2.0
"""The link on arrays says what the link on single packets says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.evaluation.air import Air
from fleet.link.airtime import NOTICE_OCTETS, ll_octets
from fleet.link.energy import event_energy_uj
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF5340


@given(
    phy=st.sampled_from(["1M", "2M", "500k", "125k"]),
    ci_ms=st.sampled_from([7.5, 30, 1000]),
    sizes=st.lists(st.integers(11, 244), max_size=4),
    notice=st.booleans(),
)
def test_an_event_costs_what_its_phases_cost(phy, ci_ms, sizes, notice):
    link = LinkParameters(ci_ms=ci_ms, phy=phy, payload=20, as_published=True)
    air = Air.at_phases(link, NRF5340, np.zeros(1))
    down = [NOTICE_OCTETS] if notice else []
    expected = event_energy_uj(NRF5340, phy, [ll_octets(n) for n in sizes], down, ci_ms=ci_ms)
    found = air.energy_uj(np.asarray([len(sizes)]), float(air.up_us[sizes].sum()), notice=notice)
    assert found[0] == pytest.approx(expected, rel=1e-12)


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 10), st.sampled_from([7.5, 8.75, 100]))
def test_the_first_event_from_a_time_on_is_the_first_that_is_due(phase, time, ci_ms):
    air = Air.at_phases(LinkParameters(ci_ms=ci_ms), NRF5340, np.asarray([phase]))
    event = int(air.event_from(np.asarray([time]))[0])
    assert air.time_of(event)[0] >= time
    assert event == 0 or air.time_of(event - 1)[0] < time


def test_an_event_that_is_due_at_the_very_time_is_in_time():
    air = Air.at_phases(LinkParameters(ci_ms=7.5), NRF5340, np.asarray([0.4]))
    due = air.time_of(np.arange(2000))
    np.testing.assert_array_equal([int(air.event_from(np.asarray([t]))[0]) for t in due], np.arange(2000))
