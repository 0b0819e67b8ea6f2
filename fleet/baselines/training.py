# SPDX-License-Identifier: Apache-2.0
"""One loop for all baselines: the base network's data and augmentation, AdamW on one cycle, averaged weights.

As in the base training every random number follows from seed, epoch and step, so an interrupted run goes on as if it
had not been interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fleet.baselines.config import Budget
from fleet.errors import FleetError
from fleet.training.augment import augment
from fleet.training.checkpoint import Ema, load_checkpoint, save_checkpoint
from fleet.training.config import Phase, TrainingConfig
from fleet.training.data import ImageSet
from fleet.training.saving import Saving
from fleet.training.schedule import epoch_batches, list_epochs, one_cycle, step_seed
from fleet.training.scores import class_and_group_loss, group_matrix, smoothed_targets

WARM_UP = 0.1
_DRAWS = 6 << 20  # random stream, apart from those of the base training and the exits


@dataclass(frozen=True)
class Batch:
    """What one step trains on.

    Attributes:
        images: RGB bytes as they are stored, shape (B, H, W, 3).
        labels: shape (B,).
        random: source of everything random in this step.
        progress: share of the run that is done, 0..1.
    """

    images: Tensor
    labels: Tensor
    random: torch.Generator
    progress: float


class Recipe(Protocol):
    """What a scheme brings to the loop.

    Attributes:
        name: of the scheme or of its part.
        model: everything that has weights, trained or not.
        trained: in words, which parts are trained and how.
    """

    name: str
    model: nn.Module
    trained: str

    def parameters(self) -> tuple[Sequence[nn.Parameter], Sequence[nn.Parameter]]:
        """Weights that were trained before, and weights that begin at random."""
        ...

    def set_training(self) -> None:
        """Put the model into training mode; frozen parts stay as they are used."""
        ...

    def loss(self, batch: Batch, task: Task) -> Tensor:
        """Loss of one step."""
        ...


@dataclass(frozen=True)
class Task:
    """The base network's data, augmentation and loss: the same for every scheme.

    Attributes:
        config: of the base network's training.
        train: training images.
        smallest_crop: least share of an image's area in a random crop.
    """

    config: TrainingConfig
    train: ImageSet
    smallest_crop: float

    def augmented(self, batch: Batch) -> Tensor:
        """Normalised images (B, 3, H, W), changed at random."""
        size = self.config.input_size
        return augment(
            batch.images, self.config.augment, size=size, smallest_crop=self.smallest_crop, random=batch.random
        )

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Classes and groups, as in the base training."""
        groups = group_matrix(self.train.table) if self.train.table.groups else None
        targets = smoothed_targets(labels, len(self.train.table.names), self.config.label_smoothing)
        return class_and_group_loss(logits, targets, groups, self.config.group_weight)


@dataclass(frozen=True)
class Moment:
    """What a listener hears after every step.

    Attributes:
        name: of the recipe.
        step: steps done.
        steps: of the whole run.
        loss: running mean.
    """

    name: str
    step: int
    steps: int
    loss: float


class Run:
    """One recipe's training; a checkpoint holds all of its state.

    Args:
        recipe: what is trained.
        budget: what it may spend.
        config: of the base network's training.
        train: training images.
        output: folder of checkpoints, one file a recipe.
        before: what was spent on the weights that the recipe begins with (:meth:`spent`), if it is not the first
            training; the images are then drawn anew.
    """

    def __init__(
        self,
        recipe: Recipe,
        budget: Budget,
        config: TrainingConfig,
        train: ImageSet,
        output: Path,
        before: Mapping[str, Any] | None = None,
    ) -> None:
        self.recipe, self.budget, self.output, self.before = recipe, budget, output, dict(before or {})
        config = replace(config, seed=config.seed + int(self.before.get("steps", 0)))
        self.task = Task(config, train, budget.smallest_crop)
        self.epochs = list_epochs((Phase(config.input_size, budget.epochs),), len(train), budget.batch)
        self.steps = sum(epoch.steps for epoch in self.epochs)
        self.optimiser = _optimiser(recipe, budget)
        self.ema = Ema(recipe.model, budget.ema)
        self.step = 0
        self.loss = self.seconds = 0.0
        if self.checkpoint.is_file():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        """The file that holds the run's state."""
        return self.output / f"{self.recipe.name}.pt"

    def train(self, listen: Callable[[Moment], None] = lambda _: None, *, save_every_s: float = 120.0) -> nn.Module:
        """Train to the end, at once where nothing is left to do.

        Args:
            listen: called after every step; what it raises ends the run.
            save_every_s: seconds between checkpoints.

        Returns:
            The model with its averaged weights.
        """
        seed, begun_with = self.task.config.seed, self.step
        with Saving(self._save, save_every_s) as saving:
            for epoch in self.epochs:
                for step, chosen in epoch_batches(epoch, len(self.task.train), self.budget.batch, seed):
                    if step < self.step:
                        continue
                    with saving.step():
                        begun = time.monotonic()
                        value = self._train_step(step, chosen)
                        self.loss = value if step == 0 else self.loss + 0.02 * (value - self.loss)
                        self.step = step + 1
                        self.seconds += time.monotonic() - begun
                    listen(Moment(self.recipe.name, self.step, self.steps, self.loss))
                    saving.now_and_then()
            if self.step > begun_with:
                saving.now()
        return self.ema.model

    def _train_step(self, step: int, chosen: Tensor) -> float:
        seed = step_seed(self.task.config.seed, _DRAWS, step)
        torch.manual_seed(seed)  # dropout
        index = np.sort(chosen.numpy())
        batch = Batch(
            torch.from_numpy(self.task.train.images[index]),
            torch.from_numpy(self.task.train.labels[index]),
            torch.Generator().manual_seed(seed),
            step / self.steps,
        )
        for group in self.optimiser.param_groups:
            group["lr"] = one_cycle(step, self.steps, peak=group["peak"], warm_up=WARM_UP)
        self.recipe.set_training()
        loss = self.recipe.loss(batch, self.task)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], max_norm=2.0)
        self.optimiser.step()
        self.ema.update(self.recipe.model)
        return float(loss.detach())

    def _identity(self) -> dict[str, Any]:
        begun = {"before": self.before["steps"]} if self.before else {}
        return {
            "name": self.recipe.name, "steps": self.steps, "batch": self.budget.batch, "peak": self.budget.peak, **begun
        }  # fmt: skip

    def _save(self) -> None:
        self.output.mkdir(parents=True, exist_ok=True)
        state = {
            "run": self._identity(),
            "model": self.recipe.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "loss": self.loss,
            "seconds": self.seconds,
            "spent": self.spent(),
        }
        save_checkpoint(self.checkpoint, state)

    def _resume(self) -> None:
        state = load_checkpoint(self.checkpoint)
        if state.get("run") != self._identity():
            raise FleetError(f"{self.checkpoint} belongs to another configuration; use that one or another --output")
        try:
            self._take_up(state)
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as err:
            raise FleetError(f"{self.checkpoint} is damaged or of another network; delete it and start again") from err

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self.recipe.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.loss, self.seconds = state["step"], state["loss"], state["seconds"]

    def spent(self) -> dict[str, Any]:
        """What went into it, for the compute plan; with what went into it before."""
        old, new = self.recipe.parameters()
        now = {
            "epochs": self.budget.epochs,
            "images": self.step * self.budget.batch,
            "steps": self.step,
            "seconds": round(self.seconds),
        }
        return {
            "scheme": self.recipe.name,
            "trained": self.recipe.trained,
            "batch": self.budget.batch,
            **{key: value + self.before.get(key, 0) for key, value in now.items()},
            "weights_fine_tuned": sum(p.numel() for p in old),
            "weights_new": sum(p.numel() for p in new),
        }


def _optimiser(recipe: Recipe, budget: Budget) -> torch.optim.Optimizer:
    """AdamW with one group for each pair of (trained before or new) and (decayed or not)."""
    groups = []
    for parameters, peak in zip(recipe.parameters(), (budget.peak, budget.new_peak), strict=True):
        for decayed in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decayed]
            decay = budget.weight_decay if decayed else 0.0
            groups.append({"params": chosen, "weight_decay": decay, "peak": peak, "lr": peak})
    return torch.optim.AdamW(groups)


def distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Distance of answers (B, classes) from the whole network's, as FLEET's exits are trained with (design 12.8)."""
    return F.kl_div(logits.log_softmax(1), teacher.softmax(1), reduction="batchmean")
