# SPDX-License-Identifier: Apache-2.0
"""How many channels travel follows the time there is to send them."""

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.depths import most_bytes, stage_depths
from fleet.errors import FleetError
from fleet.platforms import load_profile

LINK = {"ci_s": 0.0075, "packets": 4, "payload": 244}


def test_the_paper_s_example_of_eq_1():
    """Section 3.2: ten milliseconds, packets of 251 bytes, four of them an event."""
    assert most_bytes(0.030, ci_s=0.010, packets=4, payload=251) == 251 * 4 * 3
    assert most_bytes(0.004, ci_s=0.010, packets=4, payload=251) == 251 * 4


def test_the_paper_s_example_of_depth():
    """Section 4.1: a third layer of 3.6 times the second's time gives the second 3.6 times the first's depth."""
    depths = stage_depths({2: 1.0, 3: 3.6}, {1: 4, 2: 4}, first=5, bits=8, ci_s=0.01, packets=4, payload=244)
    assert depths == {1: 5, 2: 18}


@given(
    st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=9),
    st.integers(1, 8),
    st.floats(0.5, 8.0),
    st.sampled_from([4, 8, 16]),
)
def test_no_stage_sends_more_than_eq_1_allows(times, first, bits, side):
    seconds = dict(enumerate(times, start=1))
    grids = dict.fromkeys(range(1, len(times)), side)
    for n, depth in stage_depths(seconds, grids, first=first, bits=bits, **LINK).items():
        assert depth >= 1
        assert depth * side * side * bits / 8 <= most_bytes(seconds[n + 1], **LINK)


@pytest.mark.parametrize("seconds", [{}, {2: 0.0}, {2: float("nan")}])
def test_a_platform_without_times_is_refused(seconds):
    with pytest.raises(FleetError, match="how long every stage takes"):
        stage_depths(seconds, {1: 4}, first=2, bits=8, **LINK)


def test_a_map_that_does_not_fit_at_all_is_refused():
    with pytest.raises(FleetError, match="not one channel of 64x64"):
        stage_depths({2: 0.001}, {1: 64}, first=2, bits=8, **LINK)


@pytest.mark.parametrize(("name", "size"), [("mobilenetv3", 64), ("resnet34", 64), ("inceptionv3", 64)])
def test_every_backbone_gets_its_depths(name, size):
    pytest.importorskip("torch", reason="torch is not installed")
    from fleet.backbones import build_backbone  # noqa: PLC0415
    from fleet.training.config import ExitConfig  # noqa: PLC0415
    from fleet.training.exit_model import channels_of  # noqa: PLC0415

    backbone = build_backbone(name, input_size=size, classes=10)
    depths = channels_of(ExitConfig(base=4, rungs=(6, 8, 16)), backbone)
    assert sorted(depths) == list(range(1, backbone.exit_stages + 1))
    times = [load_profile("cortex-a77-200").seconds(asdict(s.macs), s.n) for s in backbone.stage_specs]
    slowest = max(depths, key=lambda n: times[n])  # times[n] is the next stage's
    assert depths[slowest] >= depths[1]
