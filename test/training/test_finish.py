# SPDX-License-Identifier: Apache-2.0
"""``fleet export`` ends with a bundle that runs in float and in int8."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from colour_images import picture, write_colours
from typer.testing import CliRunner

from fleet.backbones.stage import Backbone
from fleet.bundle import Bundle
from fleet.cli import app
from fleet.errors import FleetError
from fleet.packet import LOCAL_ANSWER_STAGE
from fleet.runtime import DeviceNetwork
from fleet.training.base import BaseTraining
from fleet.training.config import AugmentConfig, DataConfig, ExitConfig, OptimiserConfig, Phase, TrainingConfig
from fleet.training.data import load_training_sets
from fleet.training.exits import ExitTraining

CONFIG = TrainingConfig(
    backbone="mobilenetv3",
    input_size=32,
    data=DataConfig(train=("train.tar.gz",), calibration=20, classes="classes.tsv"),
    phases=(Phase(32, 2),),
    augment=AugmentConfig(padding=2, jitter=0.1, cutmix=0.5),
    optimiser=OptimiserConfig(peak=0.02, batch=4),
    exits=ExitConfig(channels=(2, 2), base=2, rungs=(2, 4, 6, 8), steps=2, close_steps=1, batch=4),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: ten steps of a base network, two of two exits."""
    folder = tmp_path_factory.mktemp("finish")
    colours = write_colours(folder / "colours")
    output = folder / "run"
    sets = load_training_sets(CONFIG.data, colours, size=32, cache=colours / "cache")
    base = BaseTraining(CONFIG, *sets, output)
    base.run()
    assert isinstance(base.ema.model, Backbone)
    ExitTraining(CONFIG, base.ema.model, *sets, output).run()
    return output


@pytest.fixture
def run(finished, tmp_path):
    """The finished run, to be changed."""
    return shutil.copytree(finished, tmp_path / "run")


def export(run, colours, output, *options):
    arguments = ("export", run, "--output", output, "--data", colours, "--cache", colours / "cache", *options)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, FleetError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_becomes_a_bundle_with_stages_in_both_precisions(run, colours, tmp_path, capfd):
    said = export(run, colours, tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.identity.hex() in said
    assert capfd.readouterr().err == ""
    assert {"licence", "data", "training"} <= set(bundle.notes)
    assert set(bundle.decider.temperatures) == {1, 2, LOCAL_ANSWER_STAGE}
    answers = []
    for precision in ("float", "int8"):
        network = DeviceNetwork(bundle, precision=precision)
        features = network.prepare(picture("cat", 99))
        for n in network.stage_numbers:
            features = network.run(n, features).features
        answers.append(features.ravel())
    np.testing.assert_allclose(*answers, atol=0.25 * np.ptp(answers[0]) + 0.05)


def test_int8_stages_can_be_left_out(run, colours, tmp_path):
    export(run, colours, tmp_path / "bundle", "--no-int8")
    assert all(set(stage.files) == {"float"} for stage in Bundle.load(tmp_path / "bundle").stages)
    assert not list((tmp_path / "bundle").glob("*int8*"))


def test_a_run_without_exits_is_refused(run, colours, tmp_path):
    (run / "exits.pt").unlink()
    with pytest.raises(FleetError, match=r"exits\.pt"):
        export(run, colours, tmp_path / "bundle")


def test_a_folder_that_cannot_be_written_is_one_line(run, colours):
    with pytest.raises(FleetError, match="cannot write the bundle") as problem:
        export(run, colours, "/dev/null/bundle")
    assert "\n" not in str(problem.value)
