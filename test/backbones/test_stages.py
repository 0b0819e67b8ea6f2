# SPDX-License-Identifier: Apache-2.0
"""Backbones as lists of stages: sizes, multiply-accumulates, and that the list is the network."""

import functools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fleet.backbones import BACKBONES, Backbone, Macs, build_backbone
from fleet.errors import FleetError

SIZES = (224, 64, 32)


@functools.cache
def blank(name: str, size: int) -> Backbone:
    """A network of shapes without values: nothing is computed, so even 224 pixels cost nothing."""
    with torch.device("meta"):
        return build_backbone(name, input_size=size, classes=100).eval()


@functools.cache
def real(name: str) -> Backbone:
    return build_backbone(name, input_size=32, classes=7).eval()


def macs(name: str, size: int, n: int) -> Macs:
    return blank(name, size).stage_specs[n - 1].macs


@pytest.mark.parametrize(
    ("name", "size", "maps"),
    [
        ("mobilenetv3", 224, [112, 112, 56, 56, 28, 28, 28, 14, 14, 14, 14, 14, 14, 7, 7, 7, 7, 1]),
        ("mobilenetv3", 64, [32, 32, 16, 16, 16, 16, 16, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4, 1]),
        ("mobilenetv3", 32, [16, 16, 16, 16, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 1]),
        ("resnet34", 224, [56] * 4 + [28] * 4 + [14] * 6 + [7] * 3 + [1]),
        ("resnet34", 64, [32] * 4 + [16] * 4 + [8] * 6 + [4] * 3 + [1]),
        ("resnet34", 32, [32] * 4 + [16] * 4 + [8] * 6 + [4] * 3 + [1]),
        ("inceptionv3", 224, [111, 109, 54, 54, 25, 25, 25, 25, 12, 12, 12, 12, 12, 5, 5, 5, 1]),
        ("inceptionv3", 64, [31, 29, 29, 29, 13, 13, 13, 13, 6, 6, 6, 6, 6, 2, 2, 2, 1]),
        ("inceptionv3", 32, [15, 13, 13, 13, 11, 11, 11, 11, 5, 5, 5, 5, 5, 2, 2, 2, 1]),
    ],
)
def test_the_maps_of_every_variant_have_the_expected_sizes(name: str, size: int, maps: list[int]) -> None:
    backbone = blank(name, size)
    assert [stage.size for stage in backbone.stage_specs] == maps
    assert [stage.n for stage in backbone.stage_specs] == list(range(1, len(maps) + 1))
    assert backbone.stage_specs[-1].channels == 100


def test_the_device_offers_eight_stages_of_mobilenet_and_five_of_the_others() -> None:
    exits = {name: blank(name, 32).exit_stages for name in BACKBONES}
    assert exits == {"mobilenetv3": 8, "resnet34": 5, "inceptionv3": 5}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", BACKBONES)
def test_the_multiply_accumulates_are_those_an_independent_counter_finds(name: str, size: int) -> None:
    backbone = blank(name, size)
    with FlopCounterMode(display=False) as counter:
        backbone(torch.empty(1, 3, size, size, device="meta"))
    assert 2 * sum(stage.macs.total for stage in backbone.stage_specs) == counter.get_total_flops()


def test_mobilenets_stages_cost_what_a_hand_count_says() -> None:
    assert macs("mobilenetv3", 64, 1) == Macs(conv=32 * 32 * 16 * 27)
    assert macs("mobilenetv3", 64, 2) == Macs(conv=32 * 32 * 16 * 16, depthwise=32 * 32 * 16 * 9)
    assert macs("mobilenetv3", 64, 3) == Macs(conv=32 * 32 * 16 * 64 + 16 * 16 * 64 * 24, depthwise=16 * 16 * 64 * 9)
    gates = 2 * 72 * 24
    assert macs("mobilenetv3", 64, 5) == Macs(
        conv=16 * 16 * 24 * 72 + gates + 16 * 16 * 72 * 40, depthwise=16 * 16 * 72 * 25
    )
    assert macs("mobilenetv3", 64, 18) == Macs(linear=960 * 1280 + 1280 * 100)


def test_resnets_stages_cost_what_a_hand_count_says() -> None:
    assert macs("resnet34", 224, 1) == Macs(conv=112 * 112 * 64 * 3 * 49)
    assert macs("resnet34", 224, 2) == Macs(conv=2 * 56 * 56 * 64 * 64 * 9)
    assert macs("resnet34", 224, 5) == Macs(conv=28 * 28 * 128 * (64 * 9 + 128 * 9 + 64))
    assert macs("resnet34", 224, 18) == Macs(linear=512 * 100)


def test_inceptions_stages_cost_what_a_hand_count_says() -> None:
    assert macs("inceptionv3", 224, 1) == Macs(conv=111 * 111 * 32 * 27)
    assert macs("inceptionv3", 224, 3) == Macs(conv=109 * 109 * 64 * 32 * 9)
    branches = 192 * 64 + 192 * 48 + 48 * 64 * 25 + 192 * 64 + 64 * 96 * 9 + 96 * 96 * 9 + 192 * 32
    assert macs("inceptionv3", 224, 6) == Macs(conv=25 * 25 * branches)


@pytest.mark.parametrize("name", BACKBONES)
def test_running_stage_by_stage_gives_the_networks_own_answer(name: str) -> None:
    backbone = real(name)
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        features, halfway = image, image
        for stage, told in zip(backbone.stages, backbone.stage_specs, strict=False):
            features = stage(features)
            assert features.shape == (1, told.channels, told.size, told.size)
            if told.n == backbone.exit_stages:
                halfway = features
        whole = backbone(image)
        torch.testing.assert_close(backbone.head(features), whole, rtol=0, atol=0)
        torch.testing.assert_close(backbone.from_stage(backbone.exit_stages, halfway), whole, rtol=0, atol=0)


@pytest.mark.parametrize("name", BACKBONES)
def test_stages_and_head_own_every_parameter_but_the_side_classifiers(name: str) -> None:
    backbone = blank(name, 32)
    used = {id(parameter) for stage in backbone.stages for parameter in stage.parameters()}
    rest = {key.split(".")[0] for key, parameter in backbone.named_parameters() if id(parameter) not in used}
    assert rest <= {"AuxLogits", "fc", "classifier"}


def test_counting_leaves_the_network_in_the_mode_it_was_in() -> None:
    backbone = build_backbone("mobilenetv3", input_size=32, classes=7).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert backbone.stage_specs
    assert all(module.training for module in backbone.modules())
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("name", "size", "classes", "cure"),
    [("vgg", 64, 10, "choose one of"), ("resnet34", 99, 10, "224, 64, 32"), ("resnet34", 64, 1, "two classes")],
)
def test_what_cannot_be_built_is_refused_with_the_choices(name: str, size: int, classes: int, cure: str) -> None:
    with pytest.raises(FleetError, match=cure):
        build_backbone(name, input_size=size, classes=classes)
