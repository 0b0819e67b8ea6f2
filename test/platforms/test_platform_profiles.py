# SPDX-License-Identifier: Apache-2.0
"""Platform profiles: the numbers of the paper come out, and a bad file is refused in one line."""

import contextlib
import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import FleetError
from fleet.platforms import LAYER_TYPES, PlatformProfile, available, load_profile, to_yaml
from fleet.platforms.calibration import CIFAR_CHANNELS, CIFAR_MACS_TO_STAGE, local_exit_macs
from fleet.platforms.loading import parse

MACS = {"conv": 1_000_000, "depthwise": 200_000, "linear": 3_000}
counts = st.fixed_dictionaries({kind: st.integers(0, 10**9) for kind in LAYER_TYPES})


def one_line(caught: pytest.ExceptionInfo[FleetError]) -> str:
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def refused(text: str) -> str:
    with pytest.raises(FleetError) as caught:
        parse(text, where="yard.yaml", name="yard")
    message = one_line(caught)
    assert message.startswith("yard.yaml")
    return message


def test_all_platforms_of_the_design_are_there_and_say_where_they_come_from():
    names = available()

    frequencies = [f"cortex-a77-{mhz}" for mhz in range(200, 1501, 100)]
    assert sorted(names) == sorted(["cortex-m33-64", "gap8-175", "native", *frequencies])
    for name in names:
        profile = load_profile(name)
        assert profile.name == name
        assert profile.source


def test_native_is_not_paced_and_its_energy_is_unknown():
    native = load_profile("native")

    assert not native.paced
    assert native.seconds(MACS, 1) is None
    assert math.isnan(native.energy_mj(0.1))


def test_cortex_a77_at_500_mhz_takes_the_published_time_to_layer_5():
    profile = load_profile("cortex-a77-500")

    seconds = profile.seconds({"conv": 51_866_624}, 5)  # MobileNetV3-Large at 224x224

    assert seconds == pytest.approx(0.0786, rel=0.02)


def test_cortex_a77_power_is_published_at_both_ends_and_a_line_between():
    power = [load_profile(f"cortex-a77-{mhz}").power_mw for mhz in range(200, 1501, 100)]

    assert power[0] == pytest.approx(40)
    assert power[-1] == pytest.approx(750)
    steps = [b - a for a, b in itertools.pairwise(power)]
    assert steps == pytest.approx([710 / 13] * 13)


def test_gap8_is_as_fast_as_a_cortex_a77_at_300_mhz_for_less_power():
    gap8, a77 = load_profile("gap8-175"), load_profile("cortex-a77-300")

    assert gap8.seconds(MACS, 1) == a77.seconds(MACS, 1)
    assert gap8.power_mw == 16.4


def test_cortex_m33_spends_the_published_energy_on_the_local_exit():
    profile = load_profile("cortex-m33-64")

    busy = profile.seconds({"conv": local_exit_macs(13)}, 13)

    assert profile.energy_mj(busy) == pytest.approx(4.04)


def test_the_m33_calibration_leaves_layer_5_below_the_published_cost_of_model_partition():
    profile = load_profile("cortex-m33-64")
    to_layer_5 = {
        exit_stage: CIFAR_MACS_TO_STAGE[5] / local_exit_macs(exit_stage) * 4.04 for exit_stage in (5, 8, 11, 13)
    }

    assert [stage for stage, energy in to_layer_5.items() if energy <= 1.25] == [13]
    assert profile.energy_mj(profile.seconds({"conv": CIFAR_MACS_TO_STAGE[5]}, 5)) < 1.25


def test_the_m33_calibration_counts_what_the_backbone_counts():
    pytest.importorskip("torch", reason="the backbones need torch")
    backbones = pytest.importorskip("fleet.backbones", reason="no backbones in this tree")
    if not hasattr(backbones, "build_backbone"):
        pytest.skip("no backbones in this tree")
    specs = backbones.build_backbone("mobilenetv3", input_size=32, classes=100).stage_specs

    for stage, macs in CIFAR_MACS_TO_STAGE.items():
        assert sum(spec.macs.total for spec in specs[:stage]) == macs
        assert specs[stage - 1].channels == CIFAR_CHANNELS[stage]


def test_calibrating_on_a_stage_without_an_exit_names_those_that_have_one():
    with pytest.raises(FleetError, match="5, 8, 11, 13"):
        local_exit_macs(4)


@given(macs=counts, scale=st.floats(0.01, 100))
def test_time_scale_multiplies_every_time_and_nothing_else(macs, scale):
    plain = load_profile("gap8-175")
    scaled = load_profile("gap8-175", time_scale=scale)

    assert scaled.seconds(macs, 3) == pytest.approx(plain.seconds(macs, 3) * scale)
    assert scaled.energy_mj(0.5) == plain.energy_mj(0.5)


def test_a_local_exit_costs_by_the_rates_or_by_what_its_stage_was_measured_at():
    rates = PlatformProfile("r", 1.0, "test", macs_per_second={"conv": 1e6, "linear": 1e3}, time_scale=2.0)
    assert rates.local_exit_seconds({"linear": 500}, 3, MACS) == pytest.approx(1.0)
    both = PlatformProfile("b", 1.0, "test", macs_per_second={"linear": 1e3}, stage_seconds={3: 9.0})
    assert both.local_exit_seconds({"linear": 500}, 3, MACS) == pytest.approx(0.5)
    measured = PlatformProfile("m", 1.0, "test", stage_seconds={3: 1.203}, time_scale=2.0)
    assert measured.local_exit_seconds({"linear": 1000}, 3, MACS) == pytest.approx(0.002)
    assert PlatformProfile("native", None, "test").local_exit_seconds({"linear": 1000}, 3, MACS) is None


@given(a=counts, b=counts)
def test_time_adds_up_over_work(a, b):
    profile = PlatformProfile("x", 1.0, "here", {"conv": 1e9, "depthwise": 2e8, "linear": 5e8})
    both = {kind: a[kind] + b[kind] for kind in LAYER_TYPES}

    assert profile.seconds(both, 1) == pytest.approx(profile.seconds(a, 1) + profile.seconds(b, 1))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_time_scale_that_is_no_scale_is_refused(scale):
    with pytest.raises(FleetError, match="time_scale"):
        load_profile("native", time_scale=scale)


def test_an_unknown_name_lists_the_valid_ones_closest_first():
    with pytest.raises(FleetError) as caught:
        load_profile("cortex-m33")

    message = one_line(caught)
    assert message.startswith("unknown platform 'cortex-m33': use cortex-m33-64,")
    assert all(name in message for name in available())


def test_a_users_file_gives_measured_stage_times_and_rates_for_the_rest(tmp_path: Path):
    path = tmp_path / "yard.yaml"
    path.write_text(
        "source: my bench\npower_mw: 12\nstage_seconds: {1: 0.01, 2: 0}\n"
        "macs_per_second: {conv: 1e8, depthwise: 2.0e+7, linear: 1000000}\n"
    )

    profile = load_profile(str(path), time_scale=2.0)

    assert profile.name == "yard"
    assert profile.seconds(MACS, 1) == pytest.approx(0.02)
    assert profile.seconds(MACS, 2) == 0.0
    assert profile.seconds(MACS, 3) == pytest.approx(2 * (0.01 + 0.01 + 0.003))
    assert profile.energy_mj(0.5) == pytest.approx(6.0)


def test_one_rate_stands_for_all_layer_types():
    (profile,) = parse("source: s\npower_mw: 1\nmacs_per_second: 1e9\n", where="x", name="x")

    assert profile.seconds(MACS, 1) == pytest.approx(sum(MACS.values()) / 1e9)


def test_a_stage_that_was_not_measured_is_named():
    profile = PlatformProfile("yard", 1.0, "here", stage_seconds={1: 0.1})

    with pytest.raises(FleetError, match="no time for stage 7"):
        profile.seconds(MACS, 7)


def test_a_layer_type_without_a_rate_is_named_unless_there_is_none_of_it():
    profile = PlatformProfile("yard", 1.0, "here", macs_per_second={"conv": 1e9})

    assert profile.seconds({"conv": 10, "linear": 0}, 1) == pytest.approx(1e-8)
    with pytest.raises(FleetError, match="no rate for linear"):
        profile.seconds({"linear": 10}, 1)


@pytest.mark.parametrize("name", ["native", "cortex-m33-64"])
def test_a_written_profile_reads_back_as_it_was(name):
    profile = load_profile(name)

    assert parse(to_yaml(profile), where="x", name="other") == [profile]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("power_mw: [1", "not valid YAML in line"),
        ("", "must hold keys and values"),
        ("- 1\n- 2\n", "must hold keys and values"),
        ("power_mw: 1\nmacs_per_second: 1e9\n", "no source"),
        ("source: s\nmacs_per_second: 1e9\n", "no power_mw"),
        ("source: s\npower_mw: 1\n", "must have one of"),
        ("source: s\npower_mw: 1\nnative: true\nmacs_per_second: 1\n", "must have one of"),
        ("source: s\npower_mw: -1\nmacs_per_second: 1\n", "number above 0 for power_mw, not -1"),
        ("source: s\npower_mw: much\nmacs_per_second: 1\n", "power_mw, not 'much'"),
        ("source: s\npower_mw: true\nmacs_per_second: 1\n", "power_mw, not True"),
        ("source: s\npower_mw: 1\nmacs_per_second: 0\n", "macs_per_second"),
        ("source: s\npower_mw: 1\nmacs_per_second: .inf\n", "macs_per_second"),
        ("source: s\npower_mw: 1\nmacs_per_second: {}\n", "no rate"),
        ("source: s\npower_mw: 1\nmacs_per_second: {pool: 1}\n", "pool layers"),
        ("source: s\npower_mw: 1\nmacs_per_second: {conv: -5}\n", "macs_per_second.conv"),
        ("source: s\npower_mw: 1\nstage_seconds: {1: -0.1}\n", "stage_seconds.1"),
        ("source: s\npower_mw: 1\nstage_seconds: {one: 0.1}\n", "no stage number"),
        ("source: s\npower_mw: 1\nstage_seconds: 3\n", "keys and values under stage_seconds"),
        ("source: s\npower_mw: 1\nmacs_per_cycle: 1\n", "no mhz"),
        ("source: s\npower_mw: null\ncalibrate: {energy_mj: 1, exit_stage: 13}\n", "power_mw is known"),
        ("source: s\npower_mw: 1\ncalibrate: {exit_stage: 13}\n", "no calibrate.energy_mj"),
        ("source: s\npowr_mw: 1\n", "did you mean power_mw?"),
        ("source: s\nfamily: {first_mhz: 200}\n", "no family.last_mhz"),
    ],
)
def test_a_bad_profile_is_refused_in_one_line_that_names_the_fault(text, said):
    assert said in refused(text)


def test_a_platform_file_that_is_not_there_or_not_text_is_one_line(tmp_path: Path):
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")

    for path, said in ((tmp_path / "no.yaml", "no platform file"), (tmp_path, "is a directory"), (binary, "not text")):
        with pytest.raises(FleetError) as caught:
            load_profile(f"{path.parent}/{path.name}")
        assert said in one_line(caught)


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_raise_anything_but_a_fleet_error(text):
    with contextlib.suppress(FleetError):
        parse(text, where="x", name="x")
