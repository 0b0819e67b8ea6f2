# SPDX-License-Identifier: Apache-2.0
"""Transfers that need every byte, under both acknowledgement models."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import FleetError
from fleet.link.loss import GilbertElliott
from fleet.link.parameters import LinkParameters
from fleet.link.transfer import packet_sizes, payloads_with_closing, reliable_bursts, reliable_events


@given(st.integers(0, 50_000), st.integers(1, 8), st.integers(20, 244))
def test_without_loss_the_paper_s_model_takes_almost_twice_the_events(n_bytes, packets, payload):
    link = LinkParameters(ci_ms=100, packets=packets, payload=payload)
    expected = math.ceil(math.ceil(n_bytes / payload) / packets)
    assert reliable_events(n_bytes, link) == expected
    assert reliable_events(n_bytes, link.replace(ack="next_event")) == max(0, 2 * expected - 1)


@given(
    st.integers(1, 4000),
    st.integers(1, 4),
    st.sampled_from(["link_layer", "next_event"]),
    st.floats(0, 0.8),
    st.integers(0, 2**32),
)
def test_every_byte_travels_and_no_event_carries_more_than_fits(n_bytes, packets, ack, loss, seed):
    link = LinkParameters(ci_ms=50, packets=packets, ack=ack, loss=loss)
    events = reliable_bursts(n_bytes, link, rng=np.random.default_rng(seed))
    assert all(len(burst) <= link.effective_packets for burst in events)
    assert sum(map(sum, events)) >= n_bytes
    assert events[0]
    assert events[-1]
    if ack == "next_event":
        assert all(burst == () for burst in events[1::2])
        assert len(events) % 2 == 1


def mean_link_layer_events(packets, per_event, loss):
    """Expected events by dynamic programming over the packets that are left."""
    expected = [0.0] * (packets + 1)
    for left in range(1, packets + 1):
        k = min(left, per_event)
        arrive = [math.comb(k, s) * (1 - loss) ** s * loss ** (k - s) for s in range(k + 1)]
        expected[left] = (1 + sum(arrive[s] * expected[left - s] for s in range(1, k + 1))) / (1 - arrive[0])
    return expected[packets]


@pytest.mark.parametrize(("packets", "loss"), [(4, 0.1), (4, 0.6), (1, 0.3)])
def test_link_layer_transfers_take_on_average_what_the_recursion_says(packets, loss):
    link = LinkParameters(ci_ms=50, packets=packets, loss=loss)
    rng = np.random.default_rng(5)
    mean = np.mean([reliable_events(10 * 244, link, rng=rng) for _ in range(1500)])
    assert mean == pytest.approx(mean_link_layer_events(10, packets, loss), rel=0.03)


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_one_packet_by_the_paper_s_model_waits_two_events_for_every_try(loss):
    link = LinkParameters(ci_ms=50, packets=1, loss=loss, ack="next_event")
    rng = np.random.default_rng(6)
    mean = np.mean([reliable_events(100, link, rng=rng) for _ in range(4000)])
    assert mean == pytest.approx(2 / (1 - loss) - 1, rel=0.05)


def test_a_lost_acknowledgement_costs_the_paper_s_model_a_repeat_of_the_burst():
    heard = 0.7
    link = LinkParameters(ci_ms=50, packets=1, loss=1 - heard, ack="next_event")
    rng = np.random.default_rng(7)
    mean = np.mean([reliable_events(2 * 244, link, rng=rng) for _ in range(4000)])
    rounds_of_the_first = 1 / heard + (1 - heard) / heard  # until it arrives, then until that is known
    assert mean == pytest.approx(2 * rounds_of_the_first + 2 / heard - 1, rel=0.03)


def test_bursty_losses_can_be_used_too():
    link = LinkParameters(ci_ms=50)
    events = reliable_events(5000, link, rng=np.random.default_rng(1), loss=GilbertElliott.of(0.4, 6))
    assert events > reliable_events(5000, link)


def test_the_same_chance_gives_the_same_transfer():
    link = LinkParameters(ci_ms=50, loss=0.4)
    assert reliable_bursts(5000, link) == reliable_bursts(5000, link)


def test_a_link_that_loses_everything_is_refused():
    with pytest.raises(FleetError, match="never completes a transfer"):
        reliable_events(1, LinkParameters(loss=1.0))
    assert reliable_events(0, LinkParameters(loss=1.0)) == 0


def test_only_the_last_packet_is_short():
    assert packet_sizes(500, 244) == [244, 244, 12]
    assert packet_sizes(488, 244) == [244, 244]
    assert packet_sizes(0, 244) == []


@pytest.mark.parametrize(("packets", "loss"), [(1, 0.1), (4, 0.1), (4, 0.3), (4, 0.6)])
def test_closing_events_at_the_first_loss_leaves_what_a_walk_through_the_rule_leaves(packets, loss):
    rng = np.random.default_rng(2)
    events = 20_000
    arrived = 0
    for _ in range(events):
        for _ in range(packets):
            if rng.random() < loss or rng.random() < loss:  # the poll, then the answer
                break
            arrived += 1
    assert payloads_with_closing(packets, loss) == pytest.approx(arrived / events, rel=0.03)


def test_a_clean_link_closes_no_event_early():
    assert payloads_with_closing(4, 0.0) == 4.0
    assert payloads_with_closing(4, 1.0) == 0.0
