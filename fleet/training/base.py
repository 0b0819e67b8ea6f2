# SPDX-License-Identifier: Apache-2.0
"""Trains a backbone on classes, before any exit is added."""

from __future__ import annotations

import csv
import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fleet.backbones import Backbone, build_backbone, load_weights
from fleet.bundle import sha256_of
from fleet.errors import FleetError
from fleet.training.augment import augment, mix, normalise
from fleet.training.checkpoint import Ema, load_checkpoint, save_checkpoint
from fleet.training.config import OptimiserConfig, Phase, TrainingConfig, parse_config
from fleet.training.data import ImageSet
from fleet.training.figure import draw_run
from fleet.training.saving import Saving
from fleet.training.schedule import Epoch, epoch_batches, list_epochs, one_cycle, step_seed
from fleet.training.scores import accuracies, class_and_group_loss, group_matrix, smoothed_targets

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"
FIGURE = "log.png"
_AUGMENT, _NETWORK = 1 << 20, 2 << 20  # random streams, far from the epochs' numbers


@dataclass(frozen=True)
class Progress:
    """What a listener hears after every step.

    Attributes:
        epoch: the running epoch.
        step: steps done in the run.
        steps: steps of the whole run.
        loss: mean loss of this epoch so far.
        images_per_s: of this epoch so far.
    """

    epoch: Epoch
    step: int
    steps: int
    loss: float
    images_per_s: float


Listener: TypeAlias = Callable[[Progress], None]


class BaseTraining:
    """One training run: everything that a checkpoint holds.

    Every random number follows from the seed, the epoch and the step, so the state is the weights, their
    average, the optimiser's memory and the number of steps done.

    Args:
        config: what to train.
        train: training images.
        calibration: images for the accuracies in the log; nothing is chosen on the test split.
        output: folder for checkpoint and log.
        device: ``cpu`` or ``cuda``.

    Attributes:
        began_with: which weights it started from, in words; empty for random ones.
    """

    def __init__(
        self, config: TrainingConfig, train: ImageSet, calibration: ImageSet, output: Path, device: str = "cpu"
    ) -> None:
        self.config = config
        self.train = train
        self.calibration = calibration
        self.output = output
        self.device = torch.device(device)
        torch.manual_seed(config.seed)
        classes = len(train.table.names)
        model = build_backbone(config.backbone, input_size=config.input_size, classes=classes)
        self.model: Backbone = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = Ema(self.model, config.optimiser.ema)
        self.optimiser = make_optimiser(self.model, config.optimiser)
        self.groups = group_matrix(train.table).to(self.device) if train.table.groups else None
        self.epochs = list_epochs(config.phases, len(train), config.optimiser.batch)
        self.step = 0
        self.began_with = ""
        self.rows: list[dict[str, float]] = []
        self.epoch_loss, self.epoch_images = 0.0, 0  # sums over the running epoch

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return sum(epoch.steps for epoch in self.epochs)

    @property
    def epochs_begun(self) -> int:
        """Epochs done, and the running one."""
        return sum(epoch.first_step < self.step for epoch in self.epochs)

    def replan(self, phases: tuple[Phase, ...]) -> None:
        """Change the epochs still ahead; the learning rate follows the new total from the next step on.

        Raises:
            FleetError: an epoch that is done or begun would have been another one.
        """
        epochs = list_epochs(phases, len(self.train), self.config.optimiser.batch)
        begun = self.epochs_begun
        before, after = (
            [(e.phase.size, e.phase.smallest_crop) for e in plan[:begun]] for plan in (self.epochs, epochs)
        )
        if before != after:
            msg = f"{begun} epochs are done or begun; only those ahead can change"
            raise FleetError(msg)
        self.config, self.epochs = dataclasses.replace(self.config, phases=phases), epochs

    def start_from(self, weights: Path) -> tuple[str, ...]:
        """Begin with weights from a file; returns what was left random (see ``load_weights``).

        Raises:
            FleetError: unreadable, or weights of another network.
        """
        left = load_weights(self.model, weights)
        self.began_with = f"{weights.name} (SHA-256 {sha256_of(weights)[:16]})"
        self.ema = Ema(self.model, self.config.optimiser.ema)
        return left

    def resume(self) -> None:
        """Go on from the checkpoint in the output folder, as if there had been no interruption.

        Raises:
            FleetError: no checkpoint, a damaged one, or one of another configuration.
        """
        path = self.output / CHECKPOINT
        state = load_checkpoint(path)
        if _base_part(state["config"]) != _base_part(self.config.to_dict()) or state["images"] != len(self.train):
            msg = f"{path} belongs to another configuration or data set; use that one or another --output"
            raise FleetError(msg)
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        self.began_with = state.get("began_with", "")
        self.rows = state["rows"]
        self.epoch_loss, self.epoch_images = state["epoch_loss"], state["epoch_images"]

    def save(self) -> None:
        """Write the checkpoint."""
        self.output.mkdir(parents=True, exist_ok=True)
        state = {
            "config": self.config.to_dict(),
            "images": len(self.train),
            "classes": list(self.train.table.names),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "began_with": self.began_with,
            "rows": self.rows,
            "epoch_loss": self.epoch_loss,
            "epoch_images": self.epoch_images,
        }
        save_checkpoint(self.output / CHECKPOINT, state)

    def write_log(self) -> None:
        """Write the log and its figure."""
        with (self.output / LOG).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self.rows[-1]))
            writer.writeheader()
            writer.writerows(self.rows)
        draw_run(self.rows, self.output / FIGURE)

    def run(self, listen: Listener = lambda _: None, *, save_every_s: float = 180.0) -> dict[str, float]:
        """Train to the end and return the last row of the log; at once where nothing is left to do.

        Args:
            listen: called after every step; what it raises ends the run.
            save_every_s: seconds between checkpoints; each epoch also ends with one.
        """
        with Saving(self.save, save_every_s) as saving:
            for epoch in self.epochs:
                if len(self.rows) < epoch.number:
                    self._run_epoch(epoch, listen, saving)
                    saving.now()
                    self.write_log()
        self.write_log()  # once more: the last time it may have been interrupted
        return self.rows[-1]

    def _run_epoch(self, epoch: Epoch, listen: Listener, saving: Saving) -> None:
        start, before, rate = time.monotonic(), self.epoch_images, math.nan  # no step may be left to do
        batch = self.config.optimiser.batch
        for step, chosen in epoch_batches(epoch, len(self.train), batch, self.config.seed):
            if step < self.step:
                continue
            with saving.step():
                self.epoch_loss += self.train_step(epoch, step, chosen) * len(chosen)
                self.epoch_images += len(chosen)
                self.step = step + 1
            rate = (self.epoch_images - before) / (time.monotonic() - start)
            listen(Progress(epoch, self.step, self.steps, self.epoch_loss / self.epoch_images, rate))
            saving.now_and_then()
        row: dict[str, float] = {"epoch": epoch.number, "step": self.step, "size": epoch.phase.size}
        row |= {"rate": self.rate(self.step - 1), "loss": self.epoch_loss / self.epoch_images}
        found = self.evaluate(epoch)
        with saving.step():
            self.rows.append(row | {"images_per_s": rate} | found | {"time_s": time.time()})
            self.epoch_loss, self.epoch_images = 0.0, 0

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        optimiser = self.config.optimiser
        return one_cycle(step, self.steps, peak=optimiser.peak, warm_up=optimiser.warm_up)

    def train_step(self, epoch: Epoch, step: int, chosen: Tensor) -> float:
        """One update on the chosen images (B,); returns the loss."""
        config = self.config
        random = torch.Generator().manual_seed(step_seed(config.seed, _AUGMENT, step))
        torch.manual_seed(step_seed(config.seed, _NETWORK, step))  # dropout
        index = np.sort(chosen.numpy())  # in file order: friendlier to a memory map, no matter to the loss
        images = torch.from_numpy(self.train.images[index]).to(self.device)
        labels = torch.from_numpy(self.train.labels[index]).to(self.device)
        phase = epoch.phase
        inputs = augment(images, config.augment, size=phase.size, smallest_crop=phase.smallest_crop, random=random)
        targets = smoothed_targets(labels, len(self.train.table.names), config.label_smoothing)
        inputs, targets = mix(inputs, targets, config.augment, random=random)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(step)
        self.model.train()
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            logits = self.model(inputs)  # (B, classes)
        loss = class_and_group_loss(logits.float(), targets, self.groups, config.group_weight)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.ema.update(self.model)
        return float(loss.detach())

    def evaluate(self, epoch: Epoch) -> dict[str, float]:
        """Accuracies of the averaged weights on the calibration split, or a quarter of it while images are small."""
        model = self.ema.model
        assert isinstance(model, Backbone)
        full = epoch.phase.size >= self.config.input_size
        images = self.calibration.part(0, len(self.calibration) // (1 if full else 4))
        return accuracies(predict(model, images), images.labels, images.table)


def _base_part(config: dict[str, Any]) -> dict[str, Any]:
    """What the base training depends on: how exits are trained behind it may change."""
    return {key: value for key, value in config.items() if key not in ("exits", "picture")}


@torch.no_grad()
def predict(model: Backbone, images: ImageSet, *, batch: int = 250) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Class probabilities (N, classes) of images at their stored size."""
    device = next(model.parameters()).device
    model.eval()
    found = []
    for start in range(0, len(images), batch):
        part = torch.from_numpy(np.array(images.images[start : start + batch])).to(device)
        found.append(model(normalise(part)).softmax(1).cpu().numpy())
    return np.concatenate(found)


def load_network(checkpoint: Path) -> Backbone:
    """The network of a base training's checkpoint, finished or not, with its averaged weights.

    Raises:
        FleetError: no checkpoint there, or a damaged one.
    """
    state = load_checkpoint(checkpoint)
    config = parse_config(state["config"], str(checkpoint))
    model = build_backbone(config.backbone, input_size=config.input_size, classes=len(state["classes"]))
    model.load_state_dict(state["ema"]["model"])
    return model.eval()


def make_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW; one-dimensional parameters are not decayed."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if config.kind == "adamw":
        return torch.optim.AdamW(groups, lr=config.peak)
    return torch.optim.SGD(groups, lr=config.peak, momentum=config.momentum, nesterov=True)


def measure_rates(training: BaseTraining, *, steps: int = 8) -> dict[int, float]:
    """Images per second at every size of the phases; the measured training is spoilt and to be thrown away."""
    rates: dict[int, float] = {}
    for size in sorted({phase.size for phase in training.config.phases}):
        epoch = next(e for e in training.epochs if e.phase.size == size)
        chosen = torch.arange(min(training.config.optimiser.batch, len(training.train)))
        training.train_step(epoch, 0, chosen)
        start = time.monotonic()
        for step in range(steps):
            training.train_step(epoch, step, chosen)
        rates[size] = steps * len(chosen) / (time.monotonic() - start)
    return rates
