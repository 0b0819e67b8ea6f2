# SPDX-License-Identifier: Apache-2.0
"""What a saturated link carries, and that the scheduler carries just that."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.link.capacity import capacity
from fleet.link.parameters import LinkParameters
from fleet.link.scheduler import Scheduler
from fleet.link.transfer import reliable_events
from fleet.packet import Header


@pytest.mark.parametrize(("phy", "kbps"), [("1M", 585.6), ("2M", 780.8), ("500k", 195.2)])
def test_throughput_is_the_payloads_that_fit(phy, kbps):
    assert capacity(LinkParameters(phy=phy)).best_effort_bps == pytest.approx(kbps * 1000)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([7.5, 10.0, 30.0, 1000.0]),
    st.integers(1, 6),
    st.sampled_from(["1M", "2M", "500k"]),
    st.integers(20, 244),
)
def test_the_scheduler_carries_what_the_formula_says_and_spends_what_it_says(ci_ms, packets, phy, payload):
    link = LinkParameters(ci_ms=ci_ms, packets=packets, phy=phy, payload=payload)
    expected = capacity(link)
    scheduler = Scheduler(link, start=0.0)
    body = bytes(payload - 8)
    for n in range(20):
        scheduler.offer(n, 1, [Header(n, 1, 1, 0, 1).pack() + body] * 8)
        event = scheduler.event()
        assert event.air_us == pytest.approx(expected.air_us)
        assert event.energy_uj == pytest.approx(expected.energy_uj)
    arrived = scheduler.statistics.bytes_sent * 8 / (20 * link.ci_s)
    assert arrived == pytest.approx(expected.best_effort_bps)


def test_the_paper_s_acknowledgements_halve_the_bandwidth_of_reliable_transfers_only():
    link = LinkParameters(ci_ms=30)
    paper = capacity(link.replace(ack="next_event"))
    assert paper.best_effort_bps == capacity(link).best_effort_bps
    assert paper.reliable_bps == capacity(link).reliable_bps / 2


@pytest.mark.parametrize("ack", ["link_layer", "next_event"])
@pytest.mark.parametrize("loss", [0.0, 0.3])
@pytest.mark.parametrize("packets", [1, 4])
def test_a_long_reliable_transfer_takes_what_the_reliable_throughput_says(ack, loss, packets):
    link = LinkParameters(ci_ms=30, packets=packets, loss=loss, ack=ack)
    n_bytes = 2000 * 244
    expected = n_bytes * 8 / capacity(link).reliable_bps / link.ci_s
    assert reliable_events(n_bytes, link) == pytest.approx(expected, rel=0.05)


def test_a_real_controller_that_closes_events_carries_less():
    assert capacity(LinkParameters(loss=0.3)).closing_bps < capacity(LinkParameters(loss=0.3)).reliable_bps
    clean = capacity(LinkParameters())
    assert clean.closing_bps == clean.best_effort_bps


def test_without_encryption_packets_are_shorter():
    assert capacity(LinkParameters(), encrypted=False).air_us < capacity(LinkParameters()).air_us


def test_duty_cycle_and_power_follow_from_an_event():
    carried = capacity(LinkParameters(ci_ms=100))
    assert carried.duty_cycle == pytest.approx(carried.air_us / 100_000)
    assert carried.mean_power_uw == pytest.approx(carried.energy_uj * 10)
    assert carried.idle_power_uw < carried.mean_power_uw
