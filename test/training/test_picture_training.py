# SPDX-License-Identifier: Apache-2.0
"""Training of stage 0: it changes nothing else, an interruption leaves no trace, and its bundle runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fleet.baselines.store import base_network
from fleet.bundle import Bundle
from fleet.errors import FleetError
from fleet.export import untrained_bundle
from fleet.fusion import load_cloud
from fleet.runtime import DeviceNetwork
from fleet.training import picture
from fleet.training.checkpoint import load_checkpoint, save_checkpoint
from fleet.training.config import DataConfig, PictureConfig, TrainingConfig
from fleet.training.data import load_training_sets
from fleet.training.picture import PictureTraining
from fleet.training.picture_export import export_picture_run
from fleet.training.steps import StepProgress

CONFIG = TrainingConfig(
    input_size=32,
    data=DataConfig(train=("train.tar.gz",), calibration=8, classes="classes.tsv"),
    picture=PictureConfig(
        grid=4, luma=4, chroma=1, levels=32, bytes=20, stages=3, steps=6, batch=4, peak=0.01, rate_steps=20
    ),
)


def sets_of(colours: Path, config: TrainingConfig = CONFIG):
    return load_training_sets(config.data, colours, size=32, cache=colours / "cache")


@pytest.fixture
def bundle(colours: Path, tmp_path: Path) -> Bundle:
    """An untrained bundle of the colours' classes."""
    classes = sets_of(colours)[0].table.classes()
    return untrained_bundle(tmp_path / "plain", classes=classes, seed=2, input_size=32)


def begin(colours: Path, bundle: Bundle, output: Path, config: TrainingConfig = CONFIG) -> PictureTraining:
    sets = sets_of(colours, config)
    training = PictureTraining(config, base_network(bundle), load_cloud(bundle).backbone, *sets, output)
    training.start_from(bundle)
    return training


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    colours: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "ROW_EVERY", 2)
    whole = begin(colours, bundle, tmp_path / "whole")
    whole.run()

    def interrupt(now: StepProgress) -> None:
        if now.step == 3:
            raise KeyboardInterrupt

    broken = begin(colours, bundle, tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        broken.run(interrupt, save_every_s=-1)
    resumed = begin(colours, bundle, tmp_path / "broken")
    resumed.resume()
    assert resumed.step == 3
    resumed.run()
    for key, value in whole.trained.state_dict().items():
        assert torch.equal(value, resumed.trained.state_dict()[key]), key
    assert resumed.rows == whole.rows
    assert resumed.settled


def test_a_checkpoint_of_another_picture_is_refused(colours: Path, bundle: Bundle, tmp_path: Path) -> None:
    begin(colours, bundle, tmp_path).save()
    assert CONFIG.picture is not None
    other = dataclasses.replace(CONFIG, picture=dataclasses.replace(CONFIG.picture, bytes=21))
    with pytest.raises(FleetError, match="another configuration"):
        begin(colours, bundle, tmp_path, other).resume()


def test_nothing_but_the_picture_s_own_weights_is_trained(colours: Path, bundle: Bundle, tmp_path: Path) -> None:
    training = begin(colours, bundle, tmp_path)
    kept = {**training.base.state_dict(), **{f"trunk.{k}": v for k, v in training.trunk.state_dict().items()}}
    before = {key: value.clone() for key, value in kept.items()}
    own = {key: value.clone() for key, value in training.trained.state_dict().items()}
    training.run()
    assert all(torch.equal(value, before[key]) for key, value in kept.items())
    moved = {key for key, value in training.trained.state_dict().items() if not torch.equal(value, own[key])}
    assert {key.split(".")[1] for key in moved} == {
        "brightness",
        "colour",
        "rows",
        "columns",
        "chroma",
        "low",
        "log_step",
        "look",
        "paint",
        "stages",
    }


def test_a_share_of_the_weights_that_it_began_with_is_kept(colours: Path, bundle: Bundle, tmp_path: Path) -> None:
    assert CONFIG.picture is not None
    ends = {}
    for keep in (0.0, 0.25):
        plan = dataclasses.replace(CONFIG.picture, keep=keep)
        training = begin(colours, bundle, tmp_path / str(keep), dataclasses.replace(CONFIG, picture=plan))
        began = {key: value.detach().clone() for key, value in training._averaged().items()}
        training.start = began  # as if it had begun with a finished picture
        training.run()
        ends[keep] = training._averaged()
    for key, value in ends[0.25].items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * ends[0.0][key] + 0.25 * began[key])
    assert any(not torch.equal(value, began[key]) for key, value in ends[0.0].items())


def test_what_is_above_the_wanted_bytes_is_pressed_down(colours: Path, bundle: Bundle, tmp_path: Path) -> None:
    assert CONFIG.picture is not None
    costs = {}
    for wanted in (4, 4000):
        plan = dataclasses.replace(CONFIG.picture, bytes=wanted, steps=25, peak=0.05)
        training = begin(colours, bundle, tmp_path / str(wanted), dataclasses.replace(CONFIG, picture=plan))
        training.run()
        step = training.encoder.step.detach()
        costs[wanted] = float((training.latents(training.calibration).std((0, 2, 3)) / step.numpy()).mean())
    assert costs[4] < costs[4000]


def test_the_run_s_bundle_answers_on_pictures_and_is_what_it_was_otherwise(
    colours: Path, bundle: Bundle, tmp_path: Path
) -> None:
    training = begin(colours, bundle, tmp_path / "run")
    training.save()
    with pytest.raises(FleetError, match="has done 0 of 6 steps"):
        export_picture_run(tmp_path / "run", bundle, tmp_path / "early", data=colours, cache=colours / "cache")
    training.run()
    made = export_picture_run(tmp_path / "run", bundle, tmp_path / "new", data=colours, cache=colours / "cache")
    assert made.without_picture().layouts == bundle.layouts
    assert {k: v for k, v in made.checksums.items() if k in bundle.checksums} == dict(bundle.checksums)
    network, cloud = DeviceNetwork(made), load_cloud(made)
    images = training.calibration
    with torch.no_grad():
        latents = np.stack([network.run_picture(network.prepare(np.asarray(image))) for image in images.images])
        levels = made.layouts[0].quantiser
        views = [np.concatenate([levels.dequantise(levels.quantise(x)), np.ones_like(x)]) for x in latents]
        found = cloud(0, [torch.from_numpy(np.stack(views))]).numpy()
    # The export keeps half precision and half a byte a weight of the exit's own stages.
    expected = training.logits(images)
    assert np.abs(found - expected).max() < 0.25 * np.abs(expected).max()
    assert "24 images" in made.notes["picture"]

    again = begin(colours, made, tmp_path / "again")
    np.testing.assert_allclose(again.logits(images), found, atol=0.05 * np.abs(found).max())
    assert "24 images" in again.began_with

    state = load_checkpoint(tmp_path / "run" / "picture.pt")
    state["beside"] = "0" * 64
    del state["format"]
    save_checkpoint(tmp_path / "run" / "picture.pt", state)
    with pytest.raises(FleetError, match="another hub's network"):
        export_picture_run(tmp_path / "run", bundle, tmp_path / "other", data=colours, cache=colours / "cache")


@pytest.mark.parametrize(
    ("change", "words"),
    [({"grid": 5}, "cannot be cut into 5 blocks"), ({"stages": 0}, "from 1 to 17"), ({"stages": 18}, "from 1 to 17")],
)
def test_a_plan_that_does_not_fit_the_network_is_refused(
    colours: Path, bundle: Bundle, tmp_path: Path, change: dict[str, int], words: str
) -> None:
    assert CONFIG.picture is not None
    plan = dataclasses.replace(CONFIG.picture, **change)
    with pytest.raises(FleetError, match=words):
        begin(colours, bundle, tmp_path, dataclasses.replace(CONFIG, picture=plan))
