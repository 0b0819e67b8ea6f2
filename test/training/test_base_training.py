# SPDX-License-Identifier: Apache-2.0
"""A training run: it learns, and an interruption at any step leaves no trace in its weights."""

from __future__ import annotations

import csv
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
import yaml
from colour_images import write_colours
from typer.testing import CliRunner

from fleet.backbones import save_weights
from fleet.cli import app
from fleet.errors import FleetError
from fleet.training.base import BaseTraining, Progress, load_network, predict
from fleet.training.checkpoint import Ema, load_checkpoint, only_writer, save_checkpoint
from fleet.training.config import AugmentConfig, DataConfig, OptimiserConfig, Phase, TrainingConfig
from fleet.training.data import load_training_sets

CONFIG = TrainingConfig(
    backbone="mobilenetv3",
    input_size=32,
    data=DataConfig(train=("train.tar.gz",), calibration=8, classes="classes.tsv"),
    phases=(Phase(16, 1), Phase(32, 1)),
    augment=AugmentConfig(padding=2, jitter=0.1, cutmix=0.5),
    optimiser=OptimiserConfig(peak=0.02, batch=8),
    group_weight=0.3,
)
STEPS = 8  # two epochs of 32 images


class InterruptedRunError(Exception):
    pass


def begin(colours: Path, output: Path, config: TrainingConfig = CONFIG) -> BaseTraining:
    return BaseTraining(config, *load_training_sets(config.data, colours, size=32, cache=colours / "cache"), output)


def weights(training: BaseTraining) -> dict[str, torch.Tensor]:
    ours = {f"model.{key}": value for key, value in training.model.state_dict().items()}
    return ours | {f"ema.{key}": value for key, value in training.ema.model.state_dict().items()}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BaseTraining]:
    """The data of a run, and the run."""
    folder = tmp_path_factory.mktemp("whole")
    data = write_colours(folder / "colours")
    training = begin(data, folder / "run")
    training.run()
    return data, training


@pytest.fixture
def uninterrupted(whole_run: tuple[Path, BaseTraining]) -> BaseTraining:
    """Not to be changed."""
    return whole_run[1]


# 4 is the end of an epoch, 2 is within one.
@pytest.mark.parametrize(("kind", "stop"), [("sgd", 4), ("adamw", 2)])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    colours: Path, tmp_path: Path, kind: str, stop: int
) -> None:
    optimiser = dataclasses.replace(CONFIG.optimiser, kind=kind, peak=0.002)
    config = dataclasses.replace(CONFIG, optimiser=optimiser)
    whole = begin(colours, tmp_path / "whole", config)
    whole.run()

    def interrupt(now: Progress) -> None:
        if now.step == stop + 1:  # one step after the last checkpoint, which is lost
            raise InterruptedRunError

    broken = begin(colours, tmp_path / "broken", config)
    with pytest.raises(InterruptedRunError):
        broken.run(interrupt, save_every_s=-1)
    resumed = begin(colours, tmp_path / "broken", config)
    resumed.resume()
    assert resumed.step == stop
    resumed.run()
    expected = weights(whole)
    assert all(torch.equal(value, expected[key]) for key, value in weights(resumed).items())
    untimed = [{k: v for k, v in row.items() if k not in ("time_s", "images_per_s")} for row in resumed.rows]
    assert untimed == [{k: v for k, v in row.items() if k in untimed[0]} for row in whole.rows]


KILLED = """
import os, signal, sys
from pathlib import Path
from typing import IO
sys.path[:0] = [{tests!r}, {root!r}]
import torch
torch.set_num_threads(1)
from test_base_training import begin
def kill(now):
    if now.step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
begin(Path({colours!r}), Path({output!r})).run(kill, save_every_s=-1)
"""


def test_a_killed_process_leaves_a_checkpoint_that_ends_in_the_same_weights(
    colours: Path, tmp_path: Path, uninterrupted: BaseTraining
) -> None:
    tests = Path(__file__).parent
    script = KILLED.format(
        tests=str(tests), root=str(tests.parents[1]), colours=str(colours), output=str(tmp_path / "killed")
    )
    ended = subprocess.run([sys.executable, "-c", script], env=dict(os.environ), timeout=100, check=False)
    assert ended.returncode == -signal.SIGKILL
    resumed = begin(colours, tmp_path / "killed")
    resumed.resume()
    assert resumed.step == 5
    resumed.run()
    expected = weights(uninterrupted)
    assert all(torch.equal(value, expected[key]) for key, value in weights(resumed).items())


def test_the_calibration_images_are_never_drawn(colours: Path, tmp_path: Path, monkeypatch) -> None:
    training = begin(colours, tmp_path / "run")
    drawn: set[int] = set()
    real = BaseTraining.train_step

    def watch(self, epoch, step, chosen):
        drawn.update(chosen.tolist())
        return real(self, epoch, step, chosen)

    monkeypatch.setattr(BaseTraining, "train_step", watch)
    training.run()
    assert drawn == set(range(32))
    assert len(training.train) == 32
    shown = {image.tobytes() for image in training.train.images}
    assert not shown & {image.tobytes() for image in training.calibration.images}


def test_it_learns_colours_within_seconds(colours: Path, tmp_path: Path) -> None:
    optimiser = dataclasses.replace(CONFIG.optimiser, peak=0.003, kind="adamw", ema=0.5)
    augment = AugmentConfig(padding=0, jitter=0.0)
    config = dataclasses.replace(CONFIG, phases=(Phase(32, 5),), optimiser=optimiser, augment=augment)
    training = begin(colours, tmp_path / "run", config)
    row = training.run()
    assert row["loss"] < training.rows[0]["loss"]
    right = predict(training.model, training.train).argmax(1) == training.train.labels
    assert right.mean() > 0.4  # four classes: chance is a quarter


def test_the_log_has_a_row_an_epoch_and_a_figure(uninterrupted: BaseTraining) -> None:
    with (uninterrupted.output / "log.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["size"] for row in rows] == ["16", "32"]
    assert {"loss", "accuracy_classes", "accuracy_groups", "accuracy_wake_words", "images_per_s"} <= set(rows[0])
    pytest.importorskip("matplotlib")
    assert (uninterrupted.output / "log.png").read_bytes().startswith(b"\x89PNG")


def test_the_averaged_weights_load_from_the_checkpoint_and_start_another_run(
    colours: Path, tmp_path: Path, uninterrupted: BaseTraining
) -> None:
    network = load_network(uninterrupted.output / "checkpoint.pt")
    expected = uninterrupted.ema.model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    save_weights(network, tmp_path / "base.safetensors")
    training = begin(colours, tmp_path / "tuned")
    assert training.start_from(tmp_path / "base.safetensors") == ()
    torch.testing.assert_close(
        weights(training)["ema.features.0.0.weight"], expected["features.0.0.weight"], rtol=1e-3, atol=1e-6
    )


def test_a_checkpoint_of_another_configuration_is_refused(colours: Path, uninterrupted: BaseTraining) -> None:
    other = begin(colours, uninterrupted.output, dataclasses.replace(CONFIG, seed=2))
    with pytest.raises(FleetError, match="another configuration"):
        other.resume()


def test_only_epochs_ahead_can_be_replanned(colours: Path, tmp_path: Path) -> None:
    training = begin(colours, tmp_path / "run")

    def stop(now: Progress) -> None:
        if now.step == 5:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        training.run(stop, save_every_s=-1)
    assert training.epochs_begun == 2
    with pytest.raises(FleetError, match="only those ahead"):
        training.replan((Phase(16, 2),))
    training.replan((Phase(16, 1), Phase(32, 2)))
    assert training.steps == 12
    training.run()
    assert [row["size"] for row in training.rows] == [16, 32, 32]


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(FleetError, match="without --resume"):
        load_checkpoint(path)
    save_checkpoint(path, {"step": 3})
    assert load_checkpoint(path)["step"] == 3
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FleetError, match="damaged"):
        load_checkpoint(path)
    torch.save({"step": 3}, path)
    with pytest.raises(FleetError, match="of this version"):
        load_checkpoint(path)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 3})

    def full(state: object, file: IO[bytes]) -> None:
        file.write(b"half of it")
        raise RuntimeError("no space left\nand more words")  # as torch says it

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FleetError) as caught:
        save_checkpoint(path, {"step": 4})
    assert "no space left" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load_checkpoint(path)["step"] == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "boom"),))

    torch.save({"format": 1, "step": Bomb()}, tmp_path / "checkpoint.pt")
    with pytest.raises(FleetError, match="damaged"):
        load_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "boom").exists()


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with only_writer(tmp_path / "run"):
        with pytest.raises(FleetError, match="another training is writing"), only_writer(tmp_path / "run"):
            pass
        with only_writer(tmp_path / "other"):
            pass
    with only_writer(tmp_path / "run"):
        pass


def test_the_average_forgets_the_random_start() -> None:
    model = torch.nn.BatchNorm1d(1)
    average = Ema(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(5.0)
        model.num_batches_tracked.fill_(7)
    for _ in range(60):
        average.update(model)
    assert float(average.model.weight) == pytest.approx(5.0, abs=0.05)
    assert int(average.model.num_batches_tracked) == 7


# The command -----------------------------------------------------------------------------------------------


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(CONFIG.to_dict()), encoding="utf-8")
    return path


def test_the_command_trains_refuses_to_overwrite_and_resumes(colours: Path, tmp_path: Path, config_file: Path) -> None:
    words = ["train", str(config_file), "--data", str(colours), "--cache", str(colours / "cache")]
    words += ["--output", str(tmp_path / "run"), "--threads", "1", "--device", "cpu"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    assert f"{STEPS} steps, 0 done" in " ".join(first.output.split())
    again = CliRunner().invoke(app, words)
    assert isinstance(again.exception, FleetError)
    assert "--resume" in str(again.exception)
    resumed = CliRunner().invoke(app, [*words, "--resume"])
    assert resumed.exit_code == 0, resumed.output
    assert f"{STEPS} steps, {STEPS} done" in " ".join(resumed.output.split())


@pytest.mark.parametrize(
    ("options", "says"),
    [([], "--data"), (["--data", "nowhere"], "--data"), (["--device", "abacus"], "--device cpu")],
)
def test_wrong_options_are_one_line_with_their_cure(
    tmp_path: Path, config_file: Path, options: list[str], says: str
) -> None:
    words = ["train", str(config_file), "--output", str(tmp_path / "run"), "--threads", "1", *options]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, FleetError)
    assert says in str(result.exception)


def test_predictions_are_probabilities_in_the_images_order(uninterrupted: BaseTraining) -> None:
    images = uninterrupted.calibration
    found = predict(uninterrupted.model, images, batch=3)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(found[5], predict(uninterrupted.model, images.part(5, 6))[0], rtol=1e-4)
