# SPDX-License-Identifier: Apache-2.0
"""Latency and energy of rivals: by hand, and against the transfer that they are defined by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.evaluation.air import Air
from fleet.evaluation.certainty import Judged
from fleet.evaluation.outcomes import upload_outcomes
from fleet.evaluation.schemes.local import LocalExits, best_accuracy, choose_local, subsets
from fleet.evaluation.schemes.upload import Uploads
from fleet.link.airtime import NOTICE_OCTETS, air_us, exchange_ends_us, ll_octets
from fleet.link.energy import event_energy_uj
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF5340
from fleet.link.transfer import reliable_bursts
from fleet.platforms import PlatformProfile


@pytest.mark.parametrize(("ack", "last"), [("link_layer", 0.020), ("next_event", 0.030)])
def test_an_upload_by_hand(ack, last):
    """500 bytes are three packets, two an event; ready at 4 ms, events at 7, 17, 27 … ms.

    The second burst, 12 bytes, goes at 17 or 27 ms: a poll of 80 µs, 150 µs, 8 (10 + 19 + 4) µs. The hub answers 5 ms
    later, the notice leaves at the next event and takes 8 (10 + 13 + 4) µs.
    """
    link = LinkParameters(ci_ms=10, packets=2, ack=ack)
    air = Air.at_phases(link, NRF5340, np.asarray([0.3]))
    found = upload_outcomes(air, 0.004, np.asarray([500]), cloud_s=0.005)
    arrived = last - 0.003 + (80 + 150 + 264) * 1e-6
    assert found.hub_latency[0] == pytest.approx(arrived + 0.005, abs=1e-12)
    assert found.latency[0] == pytest.approx(last + 0.010 - 0.003 + 216e-6, abs=1e-12)
    assert found.busy[0] == 0.004
    assert (found.packets[0], found.sent_bytes[0]) == (3, 500)
    assert found.compute + found.wait + found.cloud + found.downlink == pytest.approx(found.latency)


@settings(max_examples=80)
@given(
    size=st.integers(1, 5000),
    packets=st.integers(1, 4),
    phy=st.sampled_from(["1M", "2M", "500k"]),
    ack=st.sampled_from(["link_layer", "next_event"]),
    ci_ms=st.sampled_from([7.5, 20, 100]),
    ready=st.floats(0, 0.2),
    phase=st.floats(0.001, 0.999),
)
def test_an_upload_takes_the_events_and_the_energy_of_its_bursts(size, packets, phy, ack, ci_ms, ready, phase):
    link = LinkParameters(ci_ms=ci_ms, packets=packets, phy=phy, ack=ack)
    air = Air.at_phases(link, NRF5340, np.asarray([phase]))
    found = upload_outcomes(air, ready, np.asarray([size]), cloud_s=0.003)
    bursts = reliable_bursts(size, link)
    first = int(air.event_from(np.asarray([ready]))[0])
    up = [ll_octets(n) for n in bursts[-1]]
    last = float(air.time_of(first + len(bursts) - 1)[0])
    answered = last + exchange_ends_us(phy, up)[1][-1] * 1e-6 + 0.003
    assert found.hub_latency[0] == pytest.approx(answered, abs=1e-9)
    noticed = int(air.event_from(np.asarray([answered]))[0])
    assert found.latency[0] == pytest.approx(float(air.time_of(noticed)[0]) + air_us(phy, NOTICE_OCTETS) * 1e-6)
    assert found.events[0] == noticed - first + 1
    contents = [([ll_octets(n) for n in burst], []) for burst in bursts]
    contents += [([], [])] * (noticed - first - len(bursts)) + [([], [NOTICE_OCTETS])]
    energy = sum(event_energy_uj(NRF5340, phy, u, d, ci_ms=ci_ms) for u, d in contents)
    assert found.radio_uj[0] == pytest.approx(energy)


def judged(random, rows, images, accuracy):
    certainty = random.random((rows, images))
    right = random.random((rows, images)) < np.asarray(accuracy)[:, None]
    return Judged(certainty, np.zeros((rows, images), np.int16), right)


@pytest.mark.parametrize("seed", range(12))
def test_no_upload_that_is_left_out_would_have_been_the_fastest(seed):
    random = np.random.default_rng(seed)
    points, images = 12, 30
    sizes = np.sort(random.integers(50, 3000, (points, 1))) + random.integers(0, 60, (points, images))
    ready = tuple(random.choice([0.002, 0.01, 0.05], points))
    uploads = Uploads(tuple(map(str, range(points))), ready, sizes, judged(random, points, images, [0.8] * points))
    worth = uploads.worth_trying(0.7)
    reach = [p for p in range(points) if uploads.accuracy(p) >= 0.7]
    for ci_ms, packets in ((7.5, 1), (20, 4), (400, 2)):
        air = Air.at_phases(LinkParameters(ci_ms=ci_ms, packets=packets), NRF5340, random.random(images))
        times = {p: uploads.end(p, air, cloud_s=0.005).latency.mean() for p in reach}
        assert min(times[p] for p in worth) == pytest.approx(min(times.values()))


def test_slices_that_follow_one_another_cost_all_their_bytes():
    macs = {"conv": 1_000_000, "depthwise": 0, "linear": 0}
    step = {"name": "stage 1", "macs": macs, "stage": 1, "activations": 0}
    uploads = [
        {"name": name, "row": row, "steps": [step], "after": after, "split": 1, "settings": {}}
        for row, (name, after) in enumerate((("narrow", None), ("wider", 0), ("widest", 1)))
    ]
    profile = PlatformProfile("fast", 1.0, "test", macs_per_second=dict.fromkeys(macs, 1e9), time_scale=3.0)
    rows = judged(np.random.default_rng(0), 3, 2, [1, 1, 1])
    found = Uploads.of({"uploads": uploads}, rows, np.asarray([[10, 20], [1, 2], [5, 5]]), profile)
    np.testing.assert_array_equal(found.sizes, [[10, 20], [11, 22], [16, 27]])
    assert found.ready_s == (0.003,) * 3


@pytest.fixture
def three_exits():
    random = np.random.default_rng(4)
    return LocalExits(
        ("early", "middle", "end"), judged(random, 3, 400, [0.6, 0.75, 0.9]), (0.01, 0.02, 0.05), (0.001, 0.001, 0.002)
    )


def test_an_exit_that_is_not_asked_costs_nothing_but_what_all_share(three_exits):
    np.testing.assert_allclose(three_exits.times((0, 1, 2)), [0.011, 0.032, 0.084])
    np.testing.assert_allclose(three_exits.times((2,)), [0.082])
    answered, right, who = three_exits.end((1,), (np.inf,))
    assert (answered == three_exits.times((1,))[0]).all()
    np.testing.assert_array_equal(right, three_exits.judged.right[1])
    assert set(who.tolist()) == {1}


def test_local_early_exit_is_given_its_best_subset_and_thresholds(three_exits):
    """No subset with any single threshold is both fast enough and right enough to beat the point that was chosen."""
    target = 0.8
    point = choose_local(three_exits, target)
    assert point.choice.score.accuracy >= target
    for asked in subsets(3):
        runs = three_exits.runs(asked)
        for level in np.linspace(0, 1, 21):
            score = runs.score(np.full(len(asked), level))
            assert score.accuracy < target or score.cost >= point.choice.score.cost - 1e-12
    assert best_accuracy(three_exits) >= three_exits.judged.right[2].mean()
