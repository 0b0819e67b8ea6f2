# SPDX-License-Identifier: Apache-2.0
"""Training of encoders and exits: it sees exactly what a hub would, and an interruption leaves no trace."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fleet.backbones import build_backbone
from fleet.codec import encode_stage
from fleet.coders import coder_named, view
from fleet.encoder import StageEncoder
from fleet.errors import FleetError
from fleet.export import stage_layouts
from fleet.fusion import load_cloud
from fleet.ladder import Ladder
from fleet.runtime import DeviceNetwork
from fleet.session import CloudSession, ExitTask
from fleet.training import exits
from fleet.training.config import DataConfig, ExitConfig, TrainingConfig
from fleet.training.data import load_training_sets
from fleet.training.exit_model import channels_of
from fleet.training.exits import ExitTraining
from fleet.training.finish import export_run
from fleet.training.latents import coding_cost, merge, received_part, split
from fleet.training.parts import first_part, size_part
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
        if now.step == stop:
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


@pytest.mark.parametrize("together", [True, False])
def test_as_published_whole_sizes_arrive_and_nothing_between(together: bool) -> None:
    layout = stage_layouts(
        {1: StageEncoder(4, 3, grid=8, levels=8)}, {1: torch.zeros(3)}, base=2, rungs=(2, 4, 8), order="centre"
    )[1]
    have = size_part(layout, 200, torch.Generator().manual_seed(1), together=together)
    assert have.shape == (200, 3, 64)
    assert torch.equal(have, have[:, :1].expand(-1, 3, -1))  # of every channel alike
    ends = have[:, 0].sum(1)
    assert torch.equal(have[:, 0], torch.arange(64) < ends[:, None])  # from the first one on
    assert set(ends.tolist()) <= {4, 16, 64}
    assert len(set(ends.tolist())) == (1 if together else 3)


@pytest.mark.parametrize("changes", [{"fuse": 1}, {"combinations": True, "arrival": "sizes"}, {"soft": 0.0}])
def test_what_is_measured_is_what_a_hub_would_answer(colours: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Of a run and of the bundle that is made of it."""
    assert CONFIG.exits is not None
    config = dataclasses.replace(CONFIG, exits=dataclasses.replace(CONFIG.exits, **changes))
    training = begin(colours, tmp_path / "run", config)
    training.run()
    states = {"all": lambda layout, count, _: first_part(layout, np.ones(count)),
              "half": lambda layout, count, _: first_part(layout, np.full(count, 0.5))}  # fmt: skip
    found = training.answers(training.calibration, states, batch=4)
    for n in training.stages:
        np.testing.assert_allclose(found["all"][n], training.logits(training.calibration, n), rtol=1e-4, atol=1e-4)
        assert not np.array_equal(found["all"][n], found["half"][n])
    bundle = export_run(
        tmp_path / "run", tmp_path / "bundle", name="tiny", data=colours, cache=colours / "cache", int8=False
    )
    cloud = load_cloud(bundle)
    assert (cloud.fuse, cloud.combinations) == (config.exits.fuse, config.exits.combinations)  # type: ignore[union-attr]
    network = DeviceNetwork(bundle)
    session = CloudSession(bundle, cloud.fused)
    features = network.prepare(np.array(training.calibration.images[0]))
    for n in training.stages:
        output = network.run(n, features)
        features = output.features
        assert output.latent is not None
        for packet in encode_stage(bundle.layouts[n], output.latent, inference_id=1, payload=60, coder=bundle.coder):
            session.take(packet)
        task = session.next_task()
        assert isinstance(task, ExitTask)
        with torch.inference_mode():
            heard = cloud(n, [torch.from_numpy(m)[None] for m in task.maps])
        np.testing.assert_allclose(heard[0].numpy(), found["all"][n][0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("fuse", [0, 3])
def test_more_stages_than_are_sent_cannot_be_fused(colours: Path, tmp_path: Path, fuse: int) -> None:
    assert CONFIG.exits is not None
    with pytest.raises(FleetError, match=f"fuse is {fuse}"):
        begin(colours, tmp_path, dataclasses.replace(CONFIG, exits=dataclasses.replace(CONFIG.exits, fuse=fuse)))


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
