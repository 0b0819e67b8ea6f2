# SPDX-License-Identifier: Apache-2.0
"""An exit on the picture waits for what was announced, never for long, and for nothing else; and what cannot be decoded
yet ends nothing."""

from dataclasses import replace

import numpy as np
import pytest

from fleet.codec import coder_named, encode_stage
from fleet.contexts import count_contexts
from fleet.hub import Hub
from fleet.inbox import Waiting
from fleet.packet import Header, LocalAnswer, stamp
from fleet.session import HOLD_S, CloudSession, Taken

FUSED = {0: (0,), 1: (1,), **{n: (n - 1, n) for n in range(2, 9)}}


@pytest.fixture(scope="session")
def chained_bundle(picture_bundle):
    """The bundle with a picture whose packets decode in their order only."""
    layout = picture_bundle.layouts[0]
    levels = np.random.default_rng(2).normal(8, 2, (200, 40, 4, 4)).round().clip(0, 15).astype(np.int32)
    chained = replace(layout, waves=(1,) * 40, contexts=count_contexts(levels, 16))
    return replace(picture_bundle, layouts={**picture_bundle.layouts, 0: chained}, coder=coder_named("fleet"))


def picture(bundle, inference_id, payload=60, event=99):
    """A picture's packets as they are on the air, so many to an event."""
    layout = bundle.layouts[0]
    levels = np.random.default_rng(inference_id).integers(4, 12, (layout.channels, 4, 4))
    packets = encode_stage(
        layout, layout.quantiser.dequantise(levels), inference_id=inference_id, payload=payload, coder=bundle.coder
    )
    last = len(packets) - 1
    return [
        stamp(p, age=k // event, sequence=k, more=k < last and k % event < event - 1) for k, p in enumerate(packets)
    ]


def feed(hub, *packets, now, camera="yard"):
    for packet in packets:
        hub.put(camera, Waiting(packet, now))
    return hub.next_batch(hub.collect(), now=now)


def test_an_exit_runs_once_the_announced_packets_are_there(picture_bundle):
    hub = Hub(picture_bundle, FUSED)
    first, second, *_ = picture(picture_bundle, 5, event=2)
    assert not feed(hub, first, now=1.0)
    assert hub.held_until == pytest.approx(1.0 + HOLD_S)
    batch = feed(hub, second, now=1.002)
    assert batch.tasks["yard"].stage == 0
    assert hub.held_until is None


def test_a_packet_that_was_announced_and_does_not_come_is_waited_for_a_little(picture_bundle):
    hub = Hub(picture_bundle, FUSED)
    assert not feed(hub, picture(picture_bundle, 5)[0], now=1.0)
    assert not hub.next_batch(now=1.0 + HOLD_S / 2)
    assert hub.next_batch(now=1.0 + HOLD_S).tasks


def test_noise_does_not_make_anybody_wait_for_longer(picture_bundle):
    hub = Hub(picture_bundle, FUSED)
    first, *_ = picture(picture_bundle, 5)
    assert not feed(hub, first, now=1.0)
    ran = [bool(feed(hub, b"noise", first, now=1.0 + k * HOLD_S / 4)) for k in range(1, 5)]
    assert ran == [False, False, False, True]


def test_a_complete_picture_waits_for_nothing(picture_bundle):
    hub = Hub(picture_bundle, FUSED)
    packets = picture(picture_bundle, 5)
    again = [stamp(p, age=0, sequence=k, more=True) for k, p in enumerate(packets)]
    assert feed(hub, *again, now=1.0).tasks["yard"].complete


def test_one_camera_s_exit_does_not_wait_for_another_s_packets(picture_bundle):
    hub = Hub(picture_bundle, FUSED)
    assert not feed(hub, picture(picture_bundle, 5)[0], now=1.0)
    batch = feed(hub, *picture(picture_bundle, 6), now=1.001, camera="drive")
    assert set(batch.tasks) == {"drive"}


def test_the_device_s_own_answer_is_not_held(picture_bundle):
    hub = Hub(picture_bundle, FUSED)
    first, second, *_ = picture(picture_bundle, 5)
    batch = feed(hub, first, LocalAnswer(5, 1, 0.9).pack(), second, now=1.0)
    assert batch.answers["yard"].is_local


def test_a_hub_that_is_told_not_to_wait_does_not(picture_bundle):
    hub = Hub(picture_bundle, FUSED, hold_s=0.0)
    assert feed(hub, picture(picture_bundle, 5)[0], now=1.0).tasks


def test_a_clock_that_jumps_back_frees_what_is_held(picture_bundle):
    hub = Hub(picture_bundle, FUSED)
    assert not feed(hub, picture(picture_bundle, 5)[0], now=1000.0)
    assert hub.next_batch(now=3.0).tasks


# What does not decode yet -------------------------------------------------------------------------------------
def test_a_packet_that_waits_does_not_end_the_inference_before_it(chained_bundle):
    session = CloudSession(chained_bundle, FUSED)
    first, second, *_ = picture(chained_bundle, 5)
    ahead = picture(chained_bundle, 6)
    assert session.take(first) is Taken.NEW
    assert session.take(ahead[1]) is Taken.EARLY
    assert session.current == 5
    assert session.take(second) is Taken.NEW
    assert session.take(ahead[0]) is Taken.NEW  # now it is known to be one
    assert session.current == 6
    assert session._buffers[0].received == Header.unpack(ahead[0]).count + Header.unpack(ahead[1]).count


def test_a_forged_packet_of_a_newer_inference_hides_nothing_in_a_hub(chained_bundle):
    hub = Hub(chained_bundle, FUSED)
    forged = Header(9, 0, chained_bundle.coder.number, 500, 3).pack() + b"\x55"
    batch = feed(hub, *picture(chained_bundle, 5), forged, now=1.0)
    assert batch.tasks["yard"].inference_id == 5


@pytest.mark.parametrize("body", [b"", b"\x55\0"])
def test_a_body_that_no_encoder_makes_is_malformed_even_before_its_turn(chained_bundle, body):
    session = CloudSession(chained_bundle, FUSED)
    assert session.take(Header(9, 0, chained_bundle.coder.number, 500, 3).pack() + body) is Taken.MALFORMED


def test_of_two_packets_with_one_place_the_later_counts(chained_bundle):
    session = CloudSession(chained_bundle, FUSED)
    first, second, *_ = picture(chained_bundle, 5)
    assert session.take(second[:5] + b"\x55") is Taken.EARLY
    session.take(second)
    session.take(first)
    assert session._buffers[0].received == Header.unpack(first).count + Header.unpack(second).count
