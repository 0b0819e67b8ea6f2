# SPDX-License-Identifier: Apache-2.0
"""What the real code carries over the virtual radio is what the formulas say."""

import numpy as np
import pytest

from fleet.link.airtime import payloads_that_fit
from fleet.link.parameters import LinkParameters
from fleet.link.transfer import payloads_with_closing
from fleet.packet import Header

PAYLOAD = 244
WORTH = 200  # packets offered at once


def saturate(world, seconds):
    """Keep the camera's queue full and return when what arrived."""
    end = world.now + seconds
    inference = 0
    while end - world.now > 1e-6:
        # The same stage again: what waits is replaced by packets that are the same to the radio.
        packets = [Header(inference, 1, 0, k, 7).pack() + bytes(PAYLOAD - 8) for k in range(WORTH)]
        world.camera.offer(inference, 1, packets)
        link = world.camera.state.link
        world.advance(min(end - world.now, link.ci_s * WORTH / 2 / link.effective_packets))


def joined(world, ci_ms, phy, packets):
    wish = LinkParameters(ci_ms=ci_ms, phy=phy, packets=packets, transport="bumble")
    world.air.packets = packets
    world.add_camera(wish=wish)
    world.add_hub()
    world.join()
    world.until(lambda: world.camera.state.link.ci_ms == ci_ms and world.camera.state.link.phy == phy)
    world.advance(3 * ci_ms / 1000)


@pytest.mark.parametrize("packets", [1, 4])
@pytest.mark.parametrize("phy", ["1M", "2M"])
@pytest.mark.parametrize("ci_ms", [7.5, 30.0, 100.0, 1000.0])
def test_throughput_is_the_formulas_within_two_percent(world, ci_ms, phy, packets):
    joined(world, ci_ms, phy, packets)
    effective = min(packets, payloads_that_fit(ci_ms, phy, PAYLOAD, encrypted=False))
    saturate(world, 4 * ci_ms / 1000)  # until the pipe is full
    before, events = len(world.packets), world.radio.events
    saturate(world, 60 * ci_ms / 1000)
    carried = (len(world.packets) - before) / (world.radio.events - events)
    assert carried == pytest.approx(effective, rel=0.02)
    assert all(len(packet) == PAYLOAD for _, packet in world.packets)


def expected_payloads(packets, loss):
    """Payloads an event, from a Markov chain of the event-closing rules (Core 5.4 Vol 6 Part B 4.5.6, 4.5.9).

    States: exchange 1..n of an event is about to begin. A poll or a reply that is not heard closes the event, and the
    next event begins with exchange 1; the packet is sent again. A reply that is heard is a payload delivered, and leads
    to the next exchange, or, after the last one, to the next event. The rate follows from the stationary distribution.
    """
    heard = (1.0 - loss) * (1.0 - loss)
    chain = np.zeros((packets, packets))
    for state in range(packets):
        chain[state, (state + 1) % packets] += heard
        chain[state, 0] += 1.0 - heard
    balance = np.vstack([chain.T - np.eye(packets), np.ones(packets)])
    share = np.linalg.lstsq(balance, np.append(np.zeros(packets), 1.0), rcond=None)[0]
    exchanges_an_event = 1.0 / share[0]  # every event begins with exchange 1
    return heard * exchanges_an_event


@pytest.mark.parametrize("packets", [1, 2, 4, 20])
@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3, 0.6])
def test_the_documented_formula_for_closing_events_is_the_chains(packets, loss):
    assert payloads_with_closing(packets, loss) == pytest.approx(expected_payloads(packets, loss))


@pytest.mark.parametrize(("loss", "events"), [(0.1, 2000), (0.3, 4000), (0.6, 9000)])
def test_throughput_under_loss_is_the_markov_chains_within_five_percent(make_world, loss, events):
    packets, ci_ms = 4, 30.0
    world = make_world(seed=4)
    joined(world, ci_ms, "2M", packets)
    world.until(lambda: world.radio.timeout_s >= 6)
    world.air.loss = loss
    saturate(world, 4 * ci_ms / 1000)
    before, first = len(world.packets), world.radio.events
    saturate(world, events * ci_ms / 1000)
    carried = (len(world.packets) - before) / (world.radio.events - first)
    assert carried == pytest.approx(expected_payloads(packets, loss), rel=0.05)
    assert world.hub.gaps.lost == 0  # a link layer repeats what was not heard: features come late, not never
