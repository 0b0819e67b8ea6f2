# SPDX-License-Identifier: Apache-2.0
"""Energy is a sum of phases, every radio says where its numbers come from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import FleetError
from fleet.link.energy import event_energy_uj, event_phases, mean_power_uw, window_widening_us
from fleet.link.radios import NRF5340, NRF52832, RADIOS, radio_profile

octets = st.lists(st.integers(27, 251), max_size=4)


@pytest.mark.parametrize("radio", RADIOS.values(), ids=RADIOS)
def test_a_profile_says_its_source_and_how_far_to_trust_it(radio):
    assert "Product Specification" in radio.source
    assert "assumed" in radio.note
    assert "calibrated" in radio.note
    assert "\n" not in radio.source + radio.note


def test_the_note_of_the_nrf5340_promises_no_more_than_fifteen_percent():
    assert "±15 % at best" in NRF5340.note
    assert "no nRF5340 measurement" in NRF5340.note


@given(octets, octets, st.sampled_from(["1M", "2M", "500k", "125k"]), st.integers(6, 3200))
def test_the_energy_of_an_event_is_the_sum_of_its_phases(up, down, phy, steps):
    ci_ms = steps * 1.25
    phases = event_phases(NRF5340, phy, up, down, ci_ms=ci_ms)
    names = [phase.name for phase in phases]
    assert names == [
        "pre-processing",
        "crystal ramp",
        "standby",
        "radio start",
        "receive",
        "transmit",
        "switch",
        "post-processing",
        "idle",
    ]
    total = sum(phase.duration_us * phase.current_ma for phase in phases) * 3.0 / 1000
    assert event_energy_uj(NRF5340, phy, up, down, ci_ms=ci_ms) == pytest.approx(total)
    assert all(phase.duration_us >= 0 for phase in phases)
    assert sum(phase.duration_us for phase in phases) >= ci_ms * 1000 - 1e-6


@given(octets, st.integers(27, 251))
def test_a_packet_more_costs_energy(up, more):
    ci_ms = 100.0
    assert event_energy_uj(NRF5340, "1M", [*up, more], ci_ms=ci_ms) > event_energy_uj(NRF5340, "1M", up, ci_ms=ci_ms)


def test_a_notice_on_its_way_down_costs_the_camera_reception():
    assert event_energy_uj(NRF5340, "1M", [], [13], ci_ms=10) > event_energy_uj(NRF5340, "1M", [], [], ci_ms=10)


def test_a_full_event_at_2m_costs_what_the_phases_by_hand_cost():
    fixed = 100 * 2.6 + 360 * 0.6 + 600 * 0.25 + 140 * 2.1 + 110 * 2.6
    receive = (2 * 44 + 10_000 * 40e-6 + 16) * 3.1
    transmit = 2 * 1064 * 3.4
    switch = 3 * 150 * 2.1
    busy_us = 1310 + 2 * 44 + 16.4 + 2 * 1064 + 450
    idle = (10_000 - busy_us) * 0.0015
    expected = (fixed + receive + transmit + switch + idle) * 3.0 / 1000
    assert event_energy_uj(NRF5340, "2M", [251, 251], ci_ms=10) == pytest.approx(expected)


def test_waiting_longer_widens_the_window():
    assert window_widening_us(1000) == pytest.approx(56.0)
    assert window_widening_us(4000) > window_widening_us(7.5)


def test_mean_power_is_energy_over_the_interval():
    assert mean_power_uw(50.0, 10.0) == pytest.approx(5000.0)


def test_a_radio_without_the_phy_says_which_it_has():
    with pytest.raises(FleetError, match="the nRF52832 has no 125k PHY: choose one of 1M, 2M"):
        event_energy_uj(NRF52832, "125k", ci_ms=10)


def test_radios_are_found_by_name_in_any_case():
    assert radio_profile("nrf5340") is NRF5340
    with pytest.raises(FleetError, match="no radio is called 'cc2340': choose one of nRF5340, nRF52840, nRF52832"):
        radio_profile("cc2340")
