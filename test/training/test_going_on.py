# SPDX-License-Identifier: Apache-2.0
"""Exits that are trained on: from a bundle, with more channels, with a trunk that only the hub has."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from colour_images import write_colours
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fleet.backbones import build_backbone
from fleet.baselines.store import base_network
from fleet.bundle import Bundle
from fleet.cli import app
from fleet.errors import FleetError
from fleet.fusion import load_cloud
from fleet.runtime import DeviceNetwork
from fleet.training.config import DataConfig, ExitConfig, TrainingConfig
from fleet.training.data import load_training_sets
from fleet.training.exits import IMAGES_NOTE, ExitTraining, noted_images

EXITS = ExitConfig(
    channels=(2, 3), base=2, rungs=(2, 4, 6, 8), levels=8, steps=4, close_steps=1, batch=4, trunk_peak=0.01, ema=0.9
)
CONFIG = TrainingConfig(
    input_size=32, data=DataConfig(train=("train.tar.gz",), calibration=8, classes="classes.tsv"), exits=EXITS
)
YAML = """
input_size: 32
data: {train: [train.tar.gz], calibration: 8, classes: classes.tsv}
exits:
  channels: [3, 3]
  base: 2
  rungs: [2, 4, 6, 8]
  levels: 8
  steps: 2
  close_steps: 0
  batch: 4
  trunk_peak: 0.01
"""


def sets_of(colours):
    return load_training_sets(CONFIG.data, colours, size=32, cache=colours / "cache")


def begin(colours, output, **changes):
    config = dataclasses.replace(CONFIG, exits=dataclasses.replace(EXITS, **changes))
    torch.manual_seed(0)
    return ExitTraining(config, build_backbone("mobilenetv3", input_size=32, classes=4), *sets_of(colours), output)


def fleet(command, *arguments):
    threads = ("--threads", "1") if command == "train" else ()
    result = CliRunner().invoke(app, [command, *map(str, arguments), *threads])
    if isinstance(result.exception, FleetError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run whose hub has a trunk of its own, and its bundle."""
    folder = tmp_path_factory.mktemp("going_on")
    colours = write_colours(folder / "colours")
    begin(colours, folder / "first").run()
    fleet("export", folder / "first", "--output", folder / "bundle", "--data", colours,
          "--cache", colours / "cache", "--no-int8")  # fmt: skip
    return folder


@pytest.fixture
def bundle(first, tmp_path):
    """Of the first run, which is beside it; both may be changed."""
    shutil.copytree(first / "first", tmp_path / "first")
    shutil.copytree(first / "bundle", tmp_path / "bundle")
    return Bundle.load(tmp_path / "bundle")


def test_the_hub_s_trunk_learns_and_the_device_s_network_does_not(colours, tmp_path):
    training = begin(colours, tmp_path)
    before = {key: value.clone() for key, value in training.backbone.state_dict().items()}
    training.run()
    after = training.backbone.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    trunk = training.cloud.backbone.state_dict()
    moved = {key for key, value in before.items() if not torch.equal(trunk[key], value)}
    assert any(key.startswith("classifier") for key in moved)
    assert not any("running" in key for key in moved)  # one exit's batch is not what the others see


def test_an_interrupted_run_ends_with_the_same_averages(colours, tmp_path):
    whole = begin(colours, tmp_path / "whole")
    whole.run()
    broken = begin(colours, tmp_path / "broken")

    def interrupt(now):
        if now.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.run(interrupt, save_every_s=-1)
    resumed = begin(colours, tmp_path / "broken")
    resumed.resume()
    resumed.run()
    for key, value in whole.trained.state_dict().items():
        assert torch.equal(value, resumed.trained.state_dict()[key]), key


def test_a_bundle_keeps_both_networks_apart(bundle, colours, tmp_path):
    base = base_network(bundle)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = base(images)
        assert not torch.allclose(load_cloud(bundle).backbone(images), expected, atol=1e-3)
    network = DeviceNetwork(bundle)
    features = images[:1].numpy()
    for n in network.stage_numbers:
        features = network.run(n, features).features
    np.testing.assert_allclose(features.ravel(), expected[0].numpy(), atol=0.02)


@pytest.mark.parametrize("channels", [(2, 3), (4, 5)])
def test_exits_go_on_as_they_were_whether_or_not_more_channels_travel(bundle, colours, tmp_path, channels):
    there = begin(colours, tmp_path / "first")
    there.resume()
    training = begin(colours, tmp_path / "second", channels=channels)
    training.backbone.load_state_dict(there.backbone.state_dict())
    training.start_from(bundle)
    for n in (1, 2):
        found, expected = (t.logits(there.calibration, n) for t in (training, there))
        # Weights were shipped in half precision, so a coefficient in a thousand may round the other way.
        assert np.median(np.abs(found - expected)) < 0.02 * np.ptp(expected)
    training.run()
    assert training.began_with.startswith(bundle.name)


def test_a_bundle_that_sends_more_than_is_wanted_is_refused(bundle, colours, tmp_path):
    with pytest.raises(FleetError, match="would lose some"):
        begin(colours, tmp_path / "second", channels=(2, 2)).start_from(bundle)


def test_other_levels_are_refused(bundle, colours, tmp_path):
    with pytest.raises(FleetError, match="other levels"):
        begin(colours, tmp_path / "second", levels=4).start_from(bundle)


def test_the_command_goes_on_from_a_bundle_and_writes_another(bundle, colours, tmp_path):
    (tmp_path / "on.yaml").write_text(YAML)
    options = ("--bundle", bundle.path, "--data", colours, "--cache", colours / "cache", "--output", tmp_path / "on")
    fleet("train", tmp_path / "on.yaml", *options)
    with pytest.raises(FleetError, match="already holds a run"):
        fleet("train", tmp_path / "on.yaml", *options)
    fleet("train", tmp_path / "on.yaml", *options, "--resume")  # nothing is left to do
    fleet("export", tmp_path / "on", "--output", tmp_path / "more", "--data", colours,
          "--cache", colours / "cache", "--no-int8")  # fmt: skip
    more = Bundle.load(tmp_path / "more")
    assert [layout.channels for layout in more.layouts.values()] == [3, 3]
    assert bundle.identity.hex()[:16] in more.notes["training"]
    assert "then 4 steps" in more.notes["training"]  # of the bundle before
    assert (bundle.notes[IMAGES_NOTE], more.notes[IMAGES_NOTE]) == ("16", "24")


def test_a_bundle_of_other_classes_is_refused(tiny_bundle, colours, tmp_path):
    (tmp_path / "on.yaml").write_text(YAML)
    with pytest.raises(FleetError, match="other classes"):
        fleet("train", tmp_path / "on.yaml", "--bundle", tiny_bundle.path, "--data", colours,
              "--cache", colours / "cache", "--output", tmp_path / "on")  # fmt: skip


def test_a_trunk_of_its_own_does_not_become_the_device_s_network(bundle, colours, tmp_path):
    with pytest.raises(FleetError, match=r"exits\.trunk_peak above 0"):
        begin(colours, tmp_path / "second", trunk_peak=0.0).start_from(bundle)


def test_runs_with_and_without_a_bundle_do_not_share_a_folder(bundle, colours, tmp_path):
    (tmp_path / "on.yaml").write_text(YAML)
    options = ("--data", colours, "--cache", colours / "cache", "--output", tmp_path / "on")
    fleet("train", tmp_path / "on.yaml", "--bundle", bundle.path, *options)
    for more in ((), ("--resume",)):
        with pytest.raises(FleetError, match="begun with --bundle"):
            fleet("train", tmp_path / "on.yaml", *options, *more)
    (tmp_path / "on" / "checkpoint.pt").touch()
    with pytest.raises(FleetError, match="begun without --bundle"):
        fleet("train", tmp_path / "on.yaml", "--bundle", bundle.path, *options, "--resume")


def test_options_of_the_base_training_are_refused_beside_a_bundle(bundle, tmp_path):
    (tmp_path / "on.yaml").write_text(YAML)
    with pytest.raises(FleetError, match="neither --weights"):
        fleet("train", tmp_path / "on.yaml", "--bundle", bundle.path, "--budget-minutes", 5)


def test_a_run_that_died_before_its_averages_were_taken_is_not_exported(colours, tmp_path):
    training = begin(colours, tmp_path / "run")
    for _ in range(EXITS.steps):
        training.train_step()
    training.save()
    with pytest.raises(FleetError, match="--resume first"):
        fleet("export", tmp_path / "run", "--output", tmp_path / "out", "--data", colours, "--cache", colours / "cache")


def test_notes_that_are_no_number_count_for_nothing():
    assert noted_images({IMAGES_NOTE: "96,000 or so"}, 7) == 7
    assert noted_images({IMAGES_NOTE: "96000"}, 7) == 96000


def test_a_bundle_whose_hub_lacks_an_exit_is_refused_in_one_line(bundle, colours, tmp_path):
    state = {key: value for key, value in load_file(bundle.cloud_path).items() if not key.startswith("exits.2")}
    save_file(state, bundle.cloud_path)
    with pytest.raises(FleetError, match="another network"):
        begin(colours, tmp_path / "second").start_from(bundle)
