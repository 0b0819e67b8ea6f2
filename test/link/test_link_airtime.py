# SPDX-License-Identifier: Apache-2.0
"""Air time and how much of it fits between two connection events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import FleetError
from fleet.link.airtime import (
    GENERIC,
    NO_GUARD,
    PHYS,
    SOFTDEVICE,
    air_us,
    check_phy,
    exchange_ends_us,
    largest_payload,
    ll_octets,
    pair_us,
    payloads_that_fit,
    smallest_ci_ms,
)

phys = st.sampled_from(PHYS)
payloads = st.integers(20, 244)
intervals = st.integers(6, 3200).map(lambda n: n * 1.25)
controllers = st.sampled_from([GENERIC, SOFTDEVICE, NO_GUARD])


@pytest.mark.parametrize(
    ("phy", "octets", "expected"), [("1M", 251, 2500), ("2M", 251, 1408), ("500k", 251, 5304), ("125k", 27, 3724)]
)
def test_data_and_acknowledgement_take_what_the_specification_says(phy, octets, expected):
    assert pair_us(phy, octets) == expected


@pytest.mark.parametrize(("ci_ms", "expected"), [(7.5, 2), (10.0, 3), (12.5, 4)])
def test_full_payloads_that_fit_at_1m(ci_ms, expected):
    assert payloads_that_fit(ci_ms, "1M", 244) == expected


@given(intervals, phys, payloads, controllers)
def test_what_fits_really_fits_and_one_more_does_not(ci_ms, phy, payload, controller):
    octets = ll_octets(payload)
    room = ci_ms * 1000 - controller.guard_us
    fit = payloads_that_fit(ci_ms, phy, payload, controller=controller)
    started = 0
    while room >= pair_us(phy, octets, octets if controller.reserves_full_reply else 0):
        room -= pair_us(phy, octets)
        started += 1
    assert fit == started


@given(phys, payloads, controllers)
def test_the_smallest_interval_carries_one_payload_and_the_one_below_it_none(phy, payload, controller):
    ci_ms = smallest_ci_ms(phy, payload, controller=controller)
    assert ci_ms % 1.25 == 0
    assert payloads_that_fit(ci_ms, phy, payload, controller=controller) >= 1
    assert ci_ms == 7.5 or payloads_that_fit(ci_ms - 1.25, phy, payload, controller=controller) == 0


@given(intervals, phys)
def test_the_largest_payload_fits_and_one_byte_more_does_not(ci_ms, phy):
    largest = largest_payload(ci_ms, phy)
    assert largest is not None
    assert payloads_that_fit(ci_ms, phy, largest) >= 1
    assert largest == 244 or payloads_that_fit(ci_ms, phy, largest + 1) == 0


def test_an_event_without_data_is_one_poll_and_one_empty_reply():
    down, up = exchange_ends_us("1M", [])
    assert down == [80.0]
    assert up == [80.0 + 150.0 + 80.0]


@given(phys, st.lists(st.integers(1, 251), max_size=8), st.lists(st.integers(1, 251), max_size=3), st.booleans())
def test_packets_of_an_event_follow_each_other_by_an_inter_frame_space(phy, up, down, encrypted):
    down_ends, up_ends = exchange_ends_us(phy, up, down, encrypted=encrypted)
    n = max(1, len(up), len(down))
    assert len(down_ends) == len(up_ends) == n
    on_air = sum(air_us(phy, k, encrypted) for k in up + down) + (2 * n - len(up) - len(down)) * air_us(phy, 0)
    assert up_ends[-1] == pytest.approx(on_air + (2 * n - 1) * 150)
    ends = [t for pair in zip(down_ends, up_ends, strict=True) for t in pair]
    assert ends == sorted(ends)


def test_an_unknown_phy_is_named_with_the_known_ones():
    with pytest.raises(FleetError, match=r"no PHY is called '3M': choose one of 1M, 2M, 500k, 125k"):
        check_phy("3M")
