# SPDX-License-Identifier: Apache-2.0
"""Trains encoders and exits on a finished base network (FLEET sections 3.2 to 3.4, eq. 8).

The backbone stays frozen, because the device's own answers hang on it: its stages run once a batch without
gradients. The shared trunk is the same network; with a learning rate of its own (``trunk_peak``) it is a copy that only
the hub has, and learns what rebuilt features look like. Its norms keep the base network's statistics, for a batch is of
one exit and the trunk serves all. Every step draws exits and, for each, how much of its two
stages had arrived: a rung, the tail of the packets dropped, or packets lost at random. One model thus
serves every budget, and earlier channels learn to carry more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fleet.backbones import Backbone
from fleet.bundle import Bundle
from fleet.codec import StageLayout
from fleet.errors import FleetError
from fleet.exits import softmax
from fleet.fusion import has_own_trunk
from fleet.manifest import layout_from_manifest, layout_to_manifest
from fleet.training.augment import augment, normalise
from fleet.training.checkpoint import Ema, load_checkpoint, save_checkpoint
from fleet.training.config import TrainingConfig
from fleet.training.data import ImageSet
from fleet.training.exit_model import ExitModel
from fleet.training.figure import draw_exits
from fleet.training.parts import random_part, size_part
from fleet.training.schedule import one_cycle, step_seed
from fleet.training.scores import accuracies, class_and_group_loss, group_matrix, smoothed_targets
from fleet.training.steps import ROW_EVERY, StepProgress, run_steps, write_log
from fleet.training.transplant import transplant

CHECKPOINT = "exits.pt"
LOG = "exits.csv"
IMAGES_NOTE = "images of the exits"
"""Under which a bundle says how many images its encoders and exits were trained on."""
FIGURE = "exits.png"
_DRAW, _AUGMENT, _PARTS = 3 << 20, 4 << 20, 5 << 20  # random streams, apart from those of the base training


def noted_images(notes: Mapping[str, str], otherwise: int) -> int:
    """What a bundle says of :data:`IMAGES_NOTE`."""
    return noted_number(notes, IMAGES_NOTE, otherwise)


def noted_number(notes: Mapping[str, str], name: str, otherwise: int) -> int:
    """A number that a bundle notes; notes are free text, so anything but a number says nothing."""
    said = notes.get(name, "")
    return int(said) if said.isdecimal() else otherwise


class ExitTraining(ExitModel):
    """One run over encoders and exits; a checkpoint holds all of its state.

    Args:
        config: with its ``exits`` section.
        backbone: the trained base network; frozen here.
        train: training images.
        calibration: images for the accuracies in the log.
        output: folder for checkpoint and log.
        device: ``cpu`` or ``cuda``.

    Raises:
        FleetError: the configuration has no ``exits`` section.
    """

    def __init__(
        self,
        config: TrainingConfig,
        backbone: Backbone,
        train: ImageSet,
        calibration: ImageSet,
        output: Path,
        device: str = "cpu",
    ) -> None:
        if config.exits is None:
            raise FleetError("this training configuration has no exits section")
        self.config = config
        self.train, self.calibration, self.output = train, calibration, output
        torch.manual_seed(config.seed)
        super().__init__(config.exits, backbone, device)
        self.groups = group_matrix(train.table).to(self.device) if train.table.groups else None
        self._begin_quantisers()
        self.layouts = self.make_layouts()
        new = [*self.encoders.parameters(), *self.cloud.exits.parameters()]
        groups: list[dict[str, Any]] = [{"params": new, "peak": self.plan.peak}]
        if self.own_trunk:
            trunk = self.cloud.backbone
            groups.append({"params": list(trunk.requires_grad_(True).parameters()), "peak": self.plan.trunk_peak})
        self.optimiser = torch.optim.AdamW(groups, lr=self.plan.peak, weight_decay=0.01)
        self.ema: Ema | None = None  # begins with the first step, whatever the weights begin with
        self.began_with = ""
        self.notes_before: dict[str, str] = {}  # of the bundle that it began with
        self.step = 0
        self.loss = self.bits = 0.0  # running means; bits a coefficient, estimated
        self.rows: list[dict[str, float]] = []

    @property
    def images_seen(self) -> int:
        """Images that encoders and exits were trained on so far."""
        return noted_images(self.notes_before, 0) + self.step * self.plan.batch

    @property
    def settled(self) -> bool:
        """Whether the run's last step is done and its result, averages included, is what the weights are."""
        last = self.rows[-1] if self.rows else {"bits": 0.0}
        return self.step >= self.plan.steps and "bits" not in last and last["step"] == self.step

    def begin_behind(self, bundle: Bundle) -> None:
        """Note whose base network this is; encoders and exits are new."""
        self.began_with = f"{bundle.name} ({bundle.identity.hex()[:16]}), of which only the base network"
        self.notes_before = {key: note for key, note in bundle.notes.items() if key != IMAGES_NOTE}

    def start_from(self, bundle: Bundle) -> None:
        """Begin with a bundle's encoders, exits and trunk; where more channels travel now, the new ones start silent.

        Raises:
            FleetError: other stages, grids or levels, fewer channels, or another network than here.
        """
        if self.cloud.backbone is self.backbone and has_own_trunk(bundle):
            raise FleetError(f"the hub of {bundle.path} has a trunk of its own: give exits.trunk_peak above 0")
        bundle = bundle.without_picture()  # its exit hangs on the trunk that is trained here
        transplant(bundle, self.encoders, self.cloud)
        self.began_with = f"{bundle.name} ({bundle.identity.hex()[:16]})"
        self.notes_before = dict(bundle.notes)
        for n, layout in bundle.layouts.items():
            there = layout.channels
            low, step = (torch.tensor(v, device=self.device) for v in (layout.quantiser.low, layout.quantiser.step))
            self.means[n][:there] = low + step * torch.tensor(layout.mean_levels, device=self.device)
        self.layouts = self.make_layouts()

    # Steps ------------------------------------------------------------------------------------------------
    def train_step(self) -> float:
        """One update; returns the loss."""
        draw = torch.Generator().manual_seed(step_seed(self.config.seed, _DRAW, self.step))
        chosen = np.sort(torch.randint(len(self.train), (self.plan.batch,), generator=draw).numpy())
        random = torch.Generator().manual_seed(step_seed(self.config.seed, _AUGMENT, self.step))
        images = torch.from_numpy(self.train.images[chosen]).to(self.device)
        labels = torch.from_numpy(self.train.labels[chosen]).to(self.device)
        inputs = augment(images, self.config.augment, size=self.config.input_size, smallest_crop=0.6, random=random)
        whole = self.step >= self.plan.close_steps
        maps, teacher = self.frozen_maps(inputs, whole=whole)
        drawn = torch.randperm(len(self.stages), generator=draw) + 1
        exits = [int(n) for n in drawn[: self.plan.exits_a_step if whole else None]]
        parts = torch.Generator().manual_seed(step_seed(self.config.seed, _PARTS, self.step))
        self.cloud.exits.train()
        self.encoders.train()
        for group in self.optimiser.param_groups:
            group["lr"] = one_cycle(self.step, self.plan.steps, peak=group["peak"], warm_up=0.05)
        losses = [self._exit_loss(n, maps, labels, teacher, parts) for n in exits]
        loss = torch.stack(losses).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(
            [p for group in self.optimiser.param_groups for p in group["params"]], max_norm=2.0
        )
        self.optimiser.step()
        if self.plan.ema > 0:
            self.ema = self.ema or Ema(self.trained, self.plan.ema)
            self.ema.update(self.trained)
        self._track_means(maps, exits)
        self.step += 1
        return float(loss.detach())

    def _exit_loss(
        self, n: int, maps: Mapping[int, Tensor], labels: Tensor, teacher: Tensor | None, random: torch.Generator
    ) -> Tensor:
        fused = self.cloud.fused[n]
        received = []
        for stage in fused:
            have = self._arrived(self.layouts[stage], len(labels), random, newest=stage == n).to(self.device)
            features, cost = self.receive(stage, maps[stage], have)
            received.append(features)
        spent = float(cost.detach())
        self.bits = self.bits + 0.02 * (spent - self.bits) if self.bits else spent
        block = self.cloud.exits[str(n)]
        rebuilt = block(received)  # (B, C_n, H_n, W_n)
        scale = maps[n].pow(2).mean().clamp_min(1e-6)
        close: Tensor = (rebuilt - maps[n]).pow(2).mean() / scale
        bits = self.plan.rate * cost  # the exit's own stage is the last one received
        if teacher is None:
            return close + bits
        logits = self.cloud.backbone.from_stage(n, rebuilt)
        targets = smoothed_targets(labels, logits.shape[1], self.config.label_smoothing)
        hard = class_and_group_loss(logits, targets, self.groups, self.config.group_weight)
        soft = F.kl_div(logits.log_softmax(1), teacher.softmax(1), reduction="batchmean")
        total: Tensor = self.plan.hard * hard + self.plan.soft * soft + self.plan.close * close + bits
        return total

    def _arrived(self, layout: StageLayout, count: int, random: torch.Generator, *, newest: bool) -> Tensor:
        """What training lets arrive of a stage."""
        if self.plan.arrival == "sizes":
            return size_part(layout, count, random, together=self.plan.combinations)
        return random_part(layout, count, random, newest=newest)

    @torch.no_grad()
    def _track_means(self, maps: Mapping[int, Tensor], exits: list[int]) -> None:
        """Running channel means; every hundredth step the layouts take them up with the moved quantisers."""
        for n in exits:
            mean = self.encoder(n)(maps[n]).mean((0, 2, 3))
            self.means[n].lerp_(mean, 0.05)
        if self.step % 100 == 0:
            self.layouts = self.make_layouts()

    @torch.no_grad()
    def _begin_quantisers(self) -> None:
        """Ranges and means from the first training images, so that rounding starts in the right place."""
        sample = torch.from_numpy(np.array(self.train.images[: min(256, len(self.train))])).to(self.device)
        maps, _ = self.frozen_maps(normalise(sample), whole=False)
        for n in self.stages:
            latent = self.encoder(n)(maps[n])
            self.encoder(n).calibrate(latent.cpu())
            self.means[n].copy_(latent.mean((0, 2, 3)))

    # The run ----------------------------------------------------------------------------------------------
    def run(self, listen: Callable[[StepProgress], None] = lambda _: None, *, save_every_s: float = 180.0) -> None:
        """Train to the end.

        Args:
            listen: called after every step; what it raises ends the run.
            save_every_s: seconds between checkpoints.
        """
        run_steps(self, listen, save_every_s=save_every_s, row_every=ROW_EVERY)
        if not self.settled:
            if self.ema is not None:
                self.trained.load_state_dict(self.ema.model.state_dict())
            self.layouts = self.make_layouts()
            self.rows.append({"step": float(self.step), "loss": self.loss} | self.evaluate())
            self.save()

    def running(self) -> dict[str, float]:
        """See :class:`fleet.training.steps.Stepwise`."""
        return {"bits": self.bits}

    def evaluate(self) -> dict[str, float]:
        """Accuracies of every exit with its full ladder, on the calibration split."""
        row: dict[str, float] = {}
        for n in self.stages:
            probabilities = softmax(self.logits(self.calibration, n).astype(np.float64)).astype(np.float32)
            found = accuracies(probabilities, self.calibration.labels, self.calibration.table)
            row |= {f"exit_{n}_{key}": value for key, value in found.items()}
        return row

    def save(self) -> None:
        """Write the checkpoint and the log."""
        self.output.mkdir(parents=True, exist_ok=True)
        state = {
            "config": self.config.to_dict(),
            "backbone": self.backbone.state_dict(),
            "encoders": self.encoders.state_dict(),
            "exits": self.cloud.exits.state_dict(),
            "trunk": self.cloud.backbone.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "began_with": self.began_with,
            "notes_before": self.notes_before,
            "means": {str(n): mean for n, mean in self.means.items()},
            "optimiser": self.optimiser.state_dict(),
            # The layouts follow the means and quantisers only now and then.
            "layouts": {str(n): layout_to_manifest(layout) for n, layout in self.layouts.items()},
            "step": self.step,
            "loss": self.loss,
            "bits": self.bits,
            "rows": self.rows,
        }
        save_checkpoint(self.output / CHECKPOINT, state)
        if self.rows:
            write_log(self.output / LOG, self.rows)
            draw_exits(self.rows, self.output / FIGURE)

    def resume(self) -> None:
        """Go on from the checkpoint in the output folder.

        Raises:
            FleetError: none there, a damaged one, or one of another configuration.
        """
        path = self.output / CHECKPOINT
        state = load_checkpoint(path)
        try:
            self._take_up(state, path)
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as err:
            raise FleetError(f"{path} is damaged or of another network; delete it and start again") from err

    def _take_up(self, state: Mapping[str, Any], path: Path) -> None:
        if state["config"] != self.config.to_dict():
            raise FleetError(f"{path} belongs to another configuration; use that one or another --output")
        self.backbone.load_state_dict(state["backbone"])
        self.encoders.load_state_dict(state["encoders"])
        self.cloud.exits.load_state_dict(state["exits"])
        self.cloud.backbone.load_state_dict(state["trunk"])
        if state["ema"] is not None:
            self.ema = Ema(self.trained, self.plan.ema)
            self.ema.load_state_dict(state["ema"])
        self.began_with, self.notes_before = state["began_with"], state["notes_before"]
        for n, mean in state["means"].items():
            self.means[int(n)].copy_(mean)
        self.optimiser.load_state_dict(state["optimiser"])
        self.layouts = {int(n): layout_from_manifest(int(n), layout) for n, layout in state["layouts"].items()}
        self.step, self.loss, self.bits, self.rows = (state[key] for key in ("step", "loss", "bits", "rows"))
        if not isinstance(self.step, int) or not all(isinstance(row, dict) for row in self.rows):
            raise TypeError("a step and rows of a log")
