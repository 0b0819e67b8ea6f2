# SPDX-License-Identifier: Apache-2.0
"""What the same frame would cost otherwise, by design: counted by hand, and held against the scheduler."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.bundle import StageFile
from fleet.link.airtime import NOTICE_OCTETS, air_us, exchange_ends_us, ll_octets
from fleet.link.energy import event_energy_uj
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF5340
from fleet.link.scheduler import Scheduler
from fleet.packet import ExitNotice, Header
from fleet.platforms import PlatformProfile, load_profile
from fleet.view.comparison import always_jpeg, always_local, measured_local, rate, spread

STAGES = tuple(StageFile(n, {"float": f"{n}.onnx"}, {"conv": 1_300_000}) for n in range(1, 6))
LINK = LinkParameters(ci_ms=10.0, packets=4, phy="1M")  # three packets fit


def jpeg(n_bytes=1500, link=LINK, wait_s=0.004, hub_s=0.006, seed=0):
    return always_jpeg(n_bytes, link, wait_s=wait_s, hub_s=hub_s, rng=np.random.default_rng(seed))


def test_always_local_is_every_stage_on_the_platform_and_no_radio():
    # 1.3 multiply-accumulates a cycle at 500 MHz: a stage takes 2 ms.
    profile = load_profile("cortex-a77-500")
    cost = always_local(STAGES, profile)
    assert cost.latency_ms == pytest.approx(10.0)
    assert cost.energy_mj == pytest.approx(profile.power_mw * 0.010)


def test_always_local_is_unknown_where_nobody_says_how_long_a_stage_takes():
    assert always_local(STAGES, load_profile("native")) is None
    assert always_local((), load_profile("cortex-a77-500")) is None


def test_an_unknown_power_is_no_energy_of_nothing():
    profile = PlatformProfile("mine", None, "a test", {"conv": 1e9})
    assert always_local(STAGES, profile).energy_mj is None
    assert measured_local(0.1, profile).energy_mj is None


def test_always_jpeg_counted_by_hand():
    # 1500 bytes are seven packets: three, three, one. The last one ends in the third event, the hub takes 6 ms of
    # the 10 between two events, and its answer comes with the fourth.
    cost = jpeg()
    notice_us = air_us("1M", NOTICE_OCTETS)
    assert cost.latency_ms == pytest.approx(4.0 + 3 * 10.0 + notice_us / 1000)
    full, rest = ll_octets(244), ll_octets(1500 - 6 * 244)
    events = [[full] * 3, [full] * 3, [rest]]
    energy = sum(event_energy_uj(NRF5340, "1M", up, ci_ms=10.0) for up in events)
    energy += event_energy_uj(NRF5340, "1M", [], [NOTICE_OCTETS], ci_ms=10.0)
    assert cost.energy_mj == pytest.approx(energy / 1000)


def test_a_slow_hub_costs_events_in_which_the_radio_wakes_up_for_nothing():
    slow, quick = jpeg(hub_s=0.035), jpeg(hub_s=0.006)
    assert slow.latency_ms == pytest.approx(quick.latency_ms + 30.0)
    idle = event_energy_uj(NRF5340, "1M", ci_ms=10.0) / 1000
    assert slow.energy_mj == pytest.approx(quick.energy_mj + 3 * idle)


def test_an_answer_is_as_late_as_the_scheduler_would_bring_it():
    # The transfer as a FLEET stage of seven packets: the very object that the bridge drives has the last word.
    scheduler = Scheduler(LINK, start=0.0, phase=0.004)
    sizes = [244] * 6 + [36]
    scheduler.offer(1, 1, [Header(1, 1, 0, 0, 0).pack() + bytes(n - 8) for n in sizes])
    arrived, energy = 0.0, 0.0
    for _ in range(3):
        event = scheduler.event()
        arrived, energy = event.arrivals[-1], energy + event.energy_uj
    scheduler.stop(ExitNotice(1, 0, 1, 0.9))
    assert arrived + 0.006 < scheduler.next_event
    answer = scheduler.event()
    cost = jpeg()
    assert cost.latency_ms == pytest.approx(answer.exit_at * 1000)
    assert cost.energy_mj == pytest.approx((energy + answer.energy_uj) / 1000)


def test_the_papers_acknowledgements_double_the_events():
    slow = jpeg(link=LINK.replace(ack="next_event"))
    assert slow.latency_ms == pytest.approx(jpeg().latency_ms + 20.0)


def test_a_link_that_loses_nearly_everything_never_brings_a_picture():
    assert jpeg(link=LINK.replace(loss=0.96)) is None
    assert jpeg(link=LINK.replace(loss=1.0)) is None


@given(
    n_bytes=st.integers(1, 20_000),
    more=st.integers(0, 5_000),
    ci=st.integers(8, 400),
    wait=st.floats(0, 0.5),
    hub=st.floats(0, 1),
)
def test_more_bytes_are_never_quicker_or_cheaper_and_nothing_is_quicker_than_the_link(n_bytes, more, ci, wait, hub):
    link = LINK.replace(ci_ms=ci * 1.25)
    small, large = jpeg(n_bytes, link, wait, hub), jpeg(n_bytes + more, link, wait, hub)
    assert small.latency_ms <= large.latency_ms + 1e-9
    assert small.energy_mj <= large.energy_mj + 1e-9
    assert small.latency_ms >= (wait + hub) * 1000 + link.ci_ms - 1e-6 - min(hub, link.ci_s) * 1000
    assert math.isfinite(large.energy_mj)


@given(loss=st.floats(0, 0.9), seed=st.integers(0, 1000))
def test_losses_cost_whole_intervals(loss, seed):
    lossy, clean = jpeg(link=LINK.replace(loss=loss), seed=seed), jpeg()
    late = (lossy.latency_ms - clean.latency_ms) / 10.0
    assert late == pytest.approx(round(late), abs=1e-6)
    assert late >= -1e-9


def test_an_empty_file_is_still_an_event_and_an_answer():
    assert jpeg(0).latency_ms > 4.0


def test_the_wait_for_the_event_is_part_of_the_latency():
    assert jpeg(wait_s=0.009).latency_ms == pytest.approx(jpeg(wait_s=0.001).latency_ms + 8.0)


def test_a_single_exchange_ends_as_the_air_time_says():
    cost = jpeg(10, hub_s=0.0)
    end = exchange_ends_us("1M", [], [NOTICE_OCTETS])[0][0]
    assert cost.latency_ms == pytest.approx(4.0 + 10.0 + end / 1000)


def test_summaries_of_nothing_are_nothing():
    assert spread([]) is None
    assert spread([1.0, 2.0, 9.0]) == {"mean": 4.0, "p50": 2.0, "p95": pytest.approx(8.3)}
    assert rate([]) is None
    assert rate([5.0]) is None
    assert rate([5.0, 4.0, 6.0]) == 1.0
