# SPDX-License-Identifier: Apache-2.0
"""Device, radio and hub in virtual time, against timelines worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.bundle import LocalExit
from fleet.inference import Device
from fleet.link.parameters import LinkParameters
from fleet.packet import LOCAL_ANSWER_STAGE
from fleet.platforms import PlatformProfile
from fleet.runtime import StageOutput
from fleet.session import CloudSession
from fleet.simulation import Simulation

SURE, UNSURE, OWN = [10.0, 0, 0, 0, 0], [0.3, 0.2, 0.1, 0, 0], [0, 0, 0, 5.0, 0]
FUSED = {1: (1,), **{n: (n - 1, n) for n in range(2, 9)}}
IMAGE = np.zeros((1, 3, 32, 32), np.float32)
STAGES = 10
LINK = LinkParameters(ci_ms=10, packets=1, payload=60, phy="1M")


class Network:
    stage_numbers = tuple(range(1, STAGES + 1))

    def __init__(self, bundle):
        self.bundle = bundle

    def run(self, n, features):
        if n == STAGES:
            return StageOutput(np.asarray([OWN], np.float32), None)
        layout = self.bundle.layouts.get(n)
        latent = np.full((layout.channels, 8, 8), 0.5, np.float32) if layout else None
        return StageOutput(features, latent)


def simulation(bundle, *, link=LINK, stage_s=0.004, exit_s=0.001, sure_at=4, seed=0):
    profile = PlatformProfile("paced", 100.0, "test", stage_seconds=dict.fromkeys(range(1, STAGES + 1), stage_s))
    device = Device(bundle, Network(bundle), profile)
    return Simulation(
        device,
        CloudSession(bundle, FUSED),
        lambda stage, _: np.asarray(SURE if stage >= sure_at else UNSURE, np.float32),
        link,
        exit_s=exit_s,
        seed=seed,
    )


def test_an_exit_by_hand(small_bundle):
    """Events at 10, 20 and 30 ms after the one before the frame; the frame is ready at 3 ms, a stage takes 4 ms.

    A packet of 60 bytes has 67 octets and a MIC: a poll of 80 µs, 150 µs, 8 (10 + 67 + 4) µs, so it ends 878 µs after
    the event's begin. At 10 ms stage 1 is there, at 20 ms stage 4; the hub is sure at 21.878 ms. The notice, 13 octets
    and a MIC, ends at 30.216 ms, while stage 7 runs.
    """
    frame = simulation(small_bundle).run(IMAGE, phase=0.3)
    assert frame.outcome.by_hub
    assert frame.outcome.stage == 4
    assert frame.outcome.stages_run == 6
    assert frame.outcome.latency == pytest.approx(0.030216 - 0.003, abs=1e-9)
    assert frame.hub is not None
    assert frame.hub[1] == pytest.approx(0.021878 - 0.003, abs=1e-9)
    assert frame.account is not None
    assert (frame.account.events, frame.account.packets_sent, frame.account.exit_delivered) == (3, 3, True)
    radio = frame.account.energy_uj * 1e-3
    assert frame.energy_mj(100.0) == pytest.approx(100.0 * (0.030216 - 0.003) + radio)


def test_a_radio_that_sleeps_too_long_leaves_the_answer_to_the_device(small_bundle):
    """Ten stages of 4 ms are over after 40 ms, before the radio wakes at 1 s; its packet is all that travels."""
    frame = simulation(small_bundle, link=replace(LINK, ci_ms=1000)).run(IMAGE, phase=0.1)
    assert not frame.outcome.by_hub
    assert frame.outcome.stage == LOCAL_ANSWER_STAGE
    assert frame.outcome.latency == pytest.approx(0.040)
    assert frame.account is not None
    assert (frame.account.events, frame.account.packets_sent) == (1, 1)


def test_in_a_race_the_local_exit_answers_before_a_radio_that_sleeps(small_bundle):
    """The local exit behind stage 4 costs as much as half a stage: 4 x 4 ms and 2 ms."""

    class Heads:
        def run_local(self, n, features):
            return np.asarray([OWN], np.float32)

    exits = {4: LocalExit(4, "local04.onnx", {"conv": 500_000}, 1.0, 0.8)}
    run = simulation(replace(small_bundle, local_exits=exits), link=replace(LINK, ci_ms=1000))
    assert run.run(IMAGE, phase=0.1).outcome.local_stage is None  # the same bundle without a race
    run.device = replace(run.device, race=Heads())
    frame = run.run(IMAGE, phase=0.1)
    assert (frame.outcome.stage, frame.outcome.local_stage) == (LOCAL_ANSWER_STAGE, 4)
    assert frame.outcome.latency == pytest.approx(0.018)
    run.radio.wait_until(run.radio.time + 0.1)
    (answer,) = (answer for answer, _ in run.radio.hub.answers.values())
    assert answer.is_local  # it travelled


def test_a_slow_hub_answers_on_what_was_newest_when_it_was_free(small_bundle):
    quick = simulation(small_bundle, sure_at=1).run(IMAGE, phase=0.3)
    slow = simulation(small_bundle, sure_at=1, exit_s=0.012).run(IMAGE, phase=0.3)
    assert (quick.outcome.stage, slow.outcome.stage) == (1, 1)
    # The answer at 11.878 ms goes with the event at 20 ms, that at 22.878 ms with the one at 30 ms.
    assert slow.outcome.latency - quick.outcome.latency == pytest.approx(0.010)


def test_the_same_seed_gives_the_same_frames_and_phases_are_spread(small_bundle):
    def latencies(seed):
        run = simulation(small_bundle, link=replace(LINK, loss=0.3), seed=seed)
        return [run.run(IMAGE).outcome.latency for _ in range(40)]

    assert latencies(1) == latencies(1)
    assert latencies(1) != latencies(2)
    assert np.ptp(latencies(1)) > 0.008


@settings(max_examples=30)
@given(
    ci_ms=st.sampled_from([7.5, 10, 30, 100, 400]),
    packets=st.integers(1, 4),
    loss=st.floats(0, 1),
    stage_s=st.floats(1e-4, 0.02),
    sure_at=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_every_frame_is_answered_and_the_radio_s_account_adds_up(
    small_bundle, ci_ms, packets, loss, stage_s, sure_at, seed
):
    link = LinkParameters(ci_ms=ci_ms, packets=packets, payload=60, phy="2M", loss=loss)
    run = simulation(small_bundle, link=link, stage_s=stage_s, sure_at=sure_at, seed=seed)
    ended = 0.0
    for _ in range(3):
        frame = run.run(IMAGE)
        assert frame.outcome.started >= ended
        assert 0 < frame.outcome.latency <= STAGES * stage_s + 1e-9
        ended = frame.outcome.ended
        assert frame.account is not None
        assert frame.account.packets_sent <= frame.account.events * packets
        assert frame.account.closed or frame.account.events >= 60
    totals = run.radio.scheduler.statistics
    assert totals.offered == totals.sent + totals.dropped + totals.pending
