# SPDX-License-Identifier: Apache-2.0
"""Training of encoders and exits: it sees exactly what a hub would, and an interruption leaves no trace."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fleet.backbones import build_backbone
from fleet.coders import coder_named, view
from fleet.encoder import StageEncoder
from fleet.errors import FleetError
from fleet.export import stage_layouts
from fleet.ladder import Ladder
from fleet.training import exits
from fleet.training.config import DataConfig, ExitConfig, TrainingConfig
from fleet.training.data import load_training_sets
from fleet.training.exits import ExitTraining, channels_of
from fleet.training.latents import coding_cost, merge, received_part, split
from fleet.training.steps import StepProgress

CONFIG = TrainingConfig(
    input_size=32,
    data=DataConfig(train=("train.tar.gz",), calibration=8, classes="classes.tsv"),
    exits=ExitConfig(channels=(2, 3), base=2, rungs=(2, 4, 6, 8), levels=8, rate=0.05, steps=6, close_steps=3, batch=4),
)
LADDER = Ladder(2, 2)


def begin(colours: Path, output: Path, config: TrainingConfig = CONFIG) -> ExitTraining:
    sets = load_training_sets(config.data, colours, size=32, cache=colours / "cache")
    torch.manual_seed(0)
    return ExitTraining(config, build_backbone("mobilenetv3", input_size=32, classes=4), *sets, output)


def weights(training: ExitTraining) -> dict[str, torch.Tensor]:
    parts = {"encoders": training.encoders, "exits": training.cloud.exits}
    return {f"{k}.{key}": v for k, part in parts.items() for key, v in part.state_dict().items()}


@pytest.mark.parametrize("stop", [2, 4])  # while only features are trained, and after
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    colours: Path, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "ROW_EVERY", 2)
    whole = begin(colours, tmp_path / "whole")
    whole.run()

    def interrupt(now: StepProgress) -> None:
        if now.step == stop + 1:
            raise KeyboardInterrupt

    broken = begin(colours, tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        broken.run(interrupt, save_every_s=-1)
    resumed = begin(colours, tmp_path / "broken")
    resumed.resume()
    assert resumed.step == stop
    resumed.run()
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[key]), key
    assert resumed.rows == whole.rows
    assert [row["step"] for row in whole.rows] == [2, 4, 6, 6]
    with (tmp_path / "broken" / "exits.csv").open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [float(row["bits"]) > 0 for row in written[:3]] == [True] * 3
    assert 0 <= float(written[3]["exit_2_accuracy_groups"]) <= 1
    assert (tmp_path / "broken" / "exits.png").stat().st_size > 1000
    resumed.run()  # nothing is left to do, and nothing is written twice
    assert len(resumed.rows) == 4


def test_a_checkpoint_of_other_exits_is_refused(colours: Path, tmp_path: Path) -> None:
    begin(colours, tmp_path).save()
    assert CONFIG.exits is not None
    other = dataclasses.replace(CONFIG, exits=dataclasses.replace(CONFIG.exits, levels=4))
    with pytest.raises(FleetError, match="another configuration"):
        begin(colours, tmp_path, other).resume()


def test_the_backbone_is_not_touched(colours: Path, tmp_path: Path) -> None:
    training = begin(colours, tmp_path)
    before = {key: value.clone() for key, value in training.backbone.state_dict().items()}
    training.run()
    assert all(torch.equal(value, before[key]) for key, value in training.backbone.state_dict().items())


def test_channels_that_the_network_has_no_stages_for_are_refused() -> None:
    backbone = build_backbone("mobilenetv3", input_size=32, classes=4)
    with pytest.raises(FleetError, match=r"exits\.channels"):
        channels_of(ExitConfig(base=2, rungs=(8,), channels=(1,) * 30), backbone)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_training_sees_what_a_hub_makes_of_the_same_coefficients(share: float) -> None:
    torch.manual_seed(0)
    encoder = StageEncoder(5, 3, grid=8, levels=8)
    latent = torch.randn(6, 3, 8, 8) * 1.5
    encoder.calibrate(latent)
    layout = stage_layouts({1: encoder}, {1: latent.mean((0, 2, 3))}, base=2, rungs=(2, 6, 8), order="centre")[1]
    have = torch.rand(6, 3, LADDER.count) < share
    mean = torch.tensor(layout.mean_levels, dtype=torch.float32)
    with torch.no_grad():
        seen, _ = received_part(latent, have, encoder, LADDER, mean)
    coder = coder_named("fleet")
    values = coder.coefficients(layout, latent.numpy())
    arrived = have.reshape(6, -1).numpy()[:, layout.spread_order]
    expected = view(coder, layout, values, arrived)
    # A guess of exactly half a level may be rounded either way, which moves a base cell by one level.
    close = np.abs(seen.numpy() - expected) < 1e-4
    assert close.mean() > 0.99


def test_the_gradient_reaches_the_encoder_through_whatever_arrived() -> None:
    torch.manual_seed(0)
    encoder = StageEncoder(5, 3, grid=8, levels=8)
    latent = encoder(torch.randn(2, 5, 8, 8))
    have = torch.rand(2, 3, LADDER.count) < 0.5
    seen, cost = received_part(latent, have, encoder, LADDER, torch.full((3,), 4.0))
    (seen[:, :3].pow(2).mean() + cost).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_cost_of_coding_is_close_to_the_entropy_of_laplace_distributed_coefficients() -> None:
    torch.manual_seed(0)
    ladder = Ladder(4, 0)
    for scale in (2.0, 8.0):
        values = torch.distributions.Laplace(0.0, scale).sample((4000, 1, 16))
        _, counts = values.round().unique(return_counts=True)
        p = counts / counts.sum()
        entropy = float(-(p * p.log2()).sum())
        assert float(coding_cost(values, ladder)) == pytest.approx(entropy, abs=0.2)


def test_wider_steps_cost_fewer_bits() -> None:
    torch.manual_seed(0)
    grid = torch.randn(4, 2, 8, 8) * 4
    costs = [float(coding_cost(split(grid / step, LADDER), LADDER)) for step in (0.5, 1.0, 2.0, 1e6)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == pytest.approx(0, abs=1e-3)


def test_the_ladder_of_tensors_is_that_of_arrays() -> None:
    random = np.random.default_rng(0)
    grid = random.integers(0, 16, (3, 8, 8)).astype(np.int32)
    coefficients = LADDER.split(grid)
    np.testing.assert_array_equal(split(torch.from_numpy(grid), LADDER).numpy(), coefficients)
    np.testing.assert_array_equal(merge(torch.from_numpy(coefficients), LADDER).numpy(), grid)


def test_thresholds_are_chosen_on_begun_stages_as_well_as_on_complete_ones(colours: Path, tmp_path: Path) -> None:
    training = begin(colours, tmp_path)
    training.run()
    whole = training.logits(training.calibration, 2)
    partly = training.logits(training.calibration, 2, partial=True)
    np.testing.assert_array_equal(partly[::2], whole[::2])
    assert (np.abs(partly[1::2] - whole[1::2]).max(axis=1) > 0).all()
