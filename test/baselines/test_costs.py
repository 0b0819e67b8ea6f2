# SPDX-License-Identifier: Apache-2.0
"""What a scheme's work costs on the device, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fleet.backbones import Backbone, Macs, build_backbone
from fleet.baselines import Step, first_sure, step_seconds, steps_until
from fleet.baselines.branchynet import BranchyNet, build, loss_weights
from fleet.baselines.cost import backbone_steps, step_of
from fleet.baselines.ensemble import Ensemble, build_members
from fleet.baselines.exit_network import EXIT_STAGES
from fleet.baselines.heads import PooledHead, ReductionHead
from fleet.baselines.shallow_deep import ShallowDeep
from fleet.baselines.shallow_deep import build as build_shallow_deep
from fleet.errors import FleetError
from fleet.platforms import PlatformProfile, load_profile

EIGHT = (1.0,) * 8


@pytest.mark.parametrize("name", ["mobilenetv3", "resnet34", "inceptionv3"])
def test_the_steps_of_a_network_add_up_to_its_stages(name: str) -> None:
    backbone = build_backbone(name, input_size=64, classes=5)
    steps = backbone_steps(backbone)
    assert [step.macs for step in steps] == [spec.macs for spec in backbone.stage_specs]
    assert [step.stage for step in steps] == [spec.n for spec in backbone.stage_specs]


def test_the_values_alive_in_a_stage_by_hand() -> None:
    steps = {s.stage: s for s in backbone_steps(build_backbone("mobilenetv3", input_size=64, classes=100))}
    assert steps[1].activations == 3 * 64 * 64 + 16 * 32 * 32
    # Stage 2 keeps its input for the shortcut while the second convolution reads one map and writes another.
    assert steps[2].activations == 3 * 16 * 32 * 32
    # Stage 3 widens to 64 channels at the larger size; its stride comes later.
    assert steps[3].activations == 16 * 32 * 32 + 64 * 32 * 32
    # Stage 4 holds 24 channels for its shortcut while 72 channels are filtered.
    assert steps[4].activations == (24 + 72 + 72) * 16 * 16


def test_a_measured_module_stays_in_its_mode() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module[1].eval()
    step, output = step_of("both", module.train(False), (3, 8, 8))
    assert step == Step("both", Macs(conv=3 * 9 * 4 * 36), None, 3 * 64 + 4 * 36)
    assert output.shape == (1, 4, 6, 6)
    module.train()
    step_of("both", module, (3, 8, 8))
    assert module[0].training
    assert module[1].training


def test_heads_cost_their_pooled_cells() -> None:
    pooled, _ = step_of("head", PooledHead(40, cells=4, classes=7), (40, 16, 16))
    assert pooled.macs == Macs(linear=40 * 16 * 7)
    reduced, _ = step_of("head", ReductionHead(40, size=16, classes=7), (40, 16, 16))
    assert reduced.macs == Macs(linear=40 * 16 * 7)
    small, _ = step_of("head", ReductionHead(40, size=2, classes=7), (40, 2, 2))
    assert small.macs == Macs(linear=40 * 4 * 7)


def test_an_image_pays_for_all_stages_and_only_the_heads_that_are_asked(base: Backbone) -> None:
    scheme = BranchyNet(build(base), EIGHT)
    specs = base.stage_specs
    heads = {n: exit_.own[0].macs.total for n, exit_ in zip(EXIT_STAGES, scheme.exits, strict=False)}
    at_eight = steps_until(scheme.exits, 4, asked=[1, 4])
    assert sum(s.macs.total for s in at_eight) == sum(s.macs.total for s in specs[:8]) + heads[2] + heads[8]
    to_the_end = steps_until(scheme.exits, 7, asked=[7])
    assert sum(s.macs.total for s in to_the_end) == sum(s.macs.total for s in specs)


def test_members_of_an_ensemble_share_nothing(base: Backbone) -> None:
    scheme = Ensemble(build_members(base), base, EIGHT)
    specs = base.stage_specs
    tried = steps_until(scheme.exits, 3, asked=[0, 3])
    head_1, head_5 = scheme.exits[0].own[-1].macs.total, scheme.exits[3].own[-1].macs.total
    one, five = specs[0].macs.total, sum(s.macs.total for s in specs[:5])
    assert sum(s.macs.total for s in tried) == one + head_1 + five + head_5


def test_a_step_takes_as_long_as_the_profile_says() -> None:
    profile = load_profile("cortex-a77-200", time_scale=2.0)
    step = Step("stage 3", Macs(conv=1_300_000, depthwise=1_300_000), 3, 0)
    assert step_seconds(profile, step) == pytest.approx(2.0 * 2_600_000 / (1.3 * 200e6))
    measured = PlatformProfile("measured", 1.0, "a test", stage_seconds={3: 0.25})
    assert step_seconds(measured, step) == 0.25
    with pytest.raises(FleetError, match="no time for stage -1"):
        step_seconds(measured, Step("head", Macs(linear=1), None, 0))


def test_weights_of_branchynets_losses() -> None:
    assert loss_weights(8) == (0.05, 0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4)
    assert sum(loss_weights(8)) == pytest.approx(1.0)


def test_the_last_exit_answers_what_no_other_is_sure_of() -> None:
    import numpy as np  # noqa: PLC0415

    certainty = np.array([[0.2, 0.9, 0.2], [0.8, 0.9, 0.3], [0.1, 0.1, 0.1]])
    assert first_sure(certainty, [0.5, 0.5, 1.0]).tolist() == [1, 0, 2]


@pytest.mark.parametrize("scheme", ["branchynet", "shallow-deep", "ensemble"])
def test_the_last_row_is_the_base_networks_own_answer(scheme: str, base: Backbone, pictures: object) -> None:
    import numpy as np  # noqa: PLC0415

    from fleet.training.augment import normalise  # noqa: PLC0415

    made = {
        "branchynet": lambda: BranchyNet(build(base), EIGHT),
        "shallow-deep": lambda: ShallowDeep(build_shallow_deep(base), EIGHT),
        "ensemble": lambda: Ensemble(build_members(base), base, EIGHT),
    }[scheme]()
    assert isinstance(pictures, np.ndarray)
    answers = made.answer(pictures)
    assert answers.logits.shape == (8, len(pictures), 4)
    assert answers.bytes.shape == (0, len(pictures))
    with torch.no_grad():
        whole = base(normalise(torch.from_numpy(pictures))).numpy()
    np.testing.assert_allclose(answers.logits[-1], whole, rtol=1e-4, atol=1e-5)
    alone = np.concatenate([made.answer(pictures[i : i + 1]).logits for i in range(len(pictures))], axis=1)
    np.testing.assert_allclose(alone, answers.logits, rtol=1e-3, atol=1e-4)
