# SPDX-License-Identifier: Apache-2.0
"""Trains stage 0, the picture itself, and its exit for a finished bundle (design section 12.4).

Nothing that the bundle has changes: the base network teaches, the hub's trunk behind the exit's own stages is shared
with the other exits and stays as it is. Every step draws how much of the picture had arrived, as in
:mod:`fleet.training.exits`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from fleet.backbones import Backbone
from fleet.bundle import Bundle
from fleet.codec import StageLayout
from fleet.errors import FleetError
from fleet.exits import softmax
from fleet.export import picture_layout
from fleet.fusion import load_cloud
from fleet.manifest import layout_from_manifest, layout_to_manifest
from fleet.packet import PICTURE
from fleet.picture import PictureEncoder, PictureExit
from fleet.training.augment import augment, normalise
from fleet.training.calibrate import begun_shares
from fleet.training.checkpoint import Ema, load_checkpoint, save_checkpoint
from fleet.training.config import TrainingConfig
from fleet.training.data import ImageSet
from fleet.training.exits import noted_number
from fleet.training.latents import received_part
from fleet.training.parts import begun_part, first_part
from fleet.training.rate import ConditionalRate
from fleet.training.schedule import one_cycle, step_seed
from fleet.training.scores import accuracies, class_and_group_loss, group_matrix, smoothed_targets
from fleet.training.steps import ROW_EVERY, StepProgress, run_steps, write_log

CHECKPOINT = "picture.pt"
PICTURE_NOTE, PICTURE_IMAGES_NOTE = "picture", "images of the picture"
"""Under which a bundle says how its stage 0 was trained, and on how many images in all."""
LOG = "picture.csv"
RATE_PEAK = 0.01
"""Highest learning rate of the rate's model."""
_DRAW, _AUGMENT, _PARTS = 6 << 20, 7 << 20, 8 << 20  # random streams, apart from those of the other trainings


class PictureTraining:
    """One run over stage 0's encoder and exit; a checkpoint holds all of its state.

    Args:
        config: with its ``picture`` section.
        base: the bundle's base network, the teacher.
        trunk: the hub's trunk, which the exit joins.
        train: training images.
        calibration: images for the accuracies in the log.
        output: folder for checkpoint and log.
        device: ``cpu`` or ``cuda``.

    Raises:
        FleetError: the configuration has no ``picture`` section, or one that does not fit the network.
    """

    def __init__(
        self,
        config: TrainingConfig,
        base: Backbone,
        trunk: Backbone,
        train: ImageSet,
        calibration: ImageSet,
        output: Path,
        device: str = "cpu",
    ) -> None:
        if config.picture is None:
            raise FleetError("this training configuration has no picture section")
        self.config, self.plan = config, config.picture
        if config.input_size % self.plan.grid or config.input_size // self.plan.grid % 2:
            raise FleetError(f"{config.input_size} pixels cannot be cut into {self.plan.grid} blocks of an even side")
        if not 1 <= self.plan.stages <= len(base.stages):
            raise FleetError(f"picture.stages is from 1 to {len(base.stages)}, not {self.plan.stages}")
        self.train, self.calibration, self.output = train, calibration, output
        self.device = torch.device(device)
        torch.manual_seed(config.seed)
        self.base = base.to(self.device).eval().requires_grad_(False)
        self.trunk = trunk.to(self.device).eval().requires_grad_(False)
        self.encoder = PictureEncoder(
            config.input_size,
            grid=self.plan.grid,
            luma=self.plan.luma,
            chroma=self.plan.chroma,
            levels=self.plan.levels,
        )
        own = copy.deepcopy(list(trunk.stages[: self.plan.stages]))
        self.exit = PictureExit(self.encoder.channels, grid=self.plan.grid, block=self.encoder.block, stages=own)
        self.exit.start_as_inverse(self.encoder)
        self.encoder.to(self.device)
        self.exit.to(self.device).requires_grad_(True)
        self.exit.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.rate = ConditionalRate(self.encoder.channels, self.plan.grid).to(self.device)
        self.groups = group_matrix(train.table).to(self.device) if train.table.groups else None
        self.mean = torch.zeros(self.encoder.channels, device=self.device)
        self.layout = self.make_layout()
        own_weights = list(self.exit.stages.parameters())
        new = [*self.encoder.parameters(), *self.exit.look.parameters(), *self.exit.paint.parameters()]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": new, "peak": self.plan.peak},
                {"params": own_weights, "peak": self.plan.own_peak},
                {"params": list(self.rate.parameters()), "peak": RATE_PEAK},
            ],
            lr=self.plan.peak,
            weight_decay=0.01,
        )
        self.ema: Ema | None = None
        self.began_with = self.beside = ""  # the bundle, and the checksum of its hub's network
        self.images_before = 0  # that what it began with was trained on
        self.start: dict[str, Tensor] | None = None  # a finished picture's weights, where some of it is kept
        self.step = 0
        self.loss = self.bytes = 0.0  # running means; bytes are estimated
        self.rows: list[dict[str, float]] = []

    def start_from(self, bundle: Bundle) -> None:
        """Begin with a bundle's own picture, where it has one; the exit may get more stages of its own than it had.

        Raises:
            FleetError: other blocks, numbers or levels than here, or more stages of the exit's own.
        """
        self.began_with = f"{bundle.name} ({bundle.identity.hex()[:16]})"
        self.beside = bundle.checksums[bundle.cloud_file]
        if bundle.picture is not None:
            self._take_over(bundle)
        self.begin_rate()

    def _take_over(self, bundle: Bundle) -> None:
        assert bundle.picture is not None
        layout, said = bundle.layouts[PICTURE], bundle.path
        here = (self.encoder.channels, self.plan.grid, self.plan.levels)
        if (layout.channels, layout.ladder.finest, layout.quantiser.levels) != here:
            raise FleetError(
                f"the picture of {said} has other blocks, numbers or levels: train it anew, from a bundle without"
            )
        model = onnx.load(str(bundle.stage_path(bundle.picture, "float")))
        found = {t.name.removesuffix("_half"): numpy_helper.to_array(t) for t in model.graph.initializer}
        weights = {
            name: torch.from_numpy(found[name].copy()).float() for name in self.encoder.state_dict() if name in found
        }
        weights["low"], weights["log_step"] = (
            torch.tensor(layout.quantiser.low),
            torch.tensor(layout.quantiser.step).log(),
        )
        there = load_cloud(bundle).exits[str(PICTURE)]
        assert isinstance(there, PictureExit)
        if there.joins > self.exit.joins:
            raise FleetError(f"the picture's exit of {said} has {there.joins} stages of its own, not {self.exit.joins}")
        weights["order"] = self.encoder.order
        try:
            self.encoder.load_state_dict(weights)
            self.exit.load_state_dict(there.state_dict(), strict=False)
        except RuntimeError as err:
            raise FleetError(
                f"the picture of {said} has another transform: train it anew, from a bundle without"
            ) from err
        low, step = (torch.tensor(v, device=self.device) for v in (layout.quantiser.low, layout.quantiser.step))
        self.mean.copy_(low + step * torch.tensor(layout.mean_levels, device=self.device))
        self.layout = self.make_layout()
        self.began_with += f", whose picture: {bundle.notes.get(PICTURE_NOTE, 'not known')}"
        self.images_before = noted_number(bundle.notes, PICTURE_IMAGES_NOTE, 0)
        if self.plan.keep > 0:
            self.start = {key: value.detach().clone() for key, value in self._averaged().items()}

    @property
    def trained(self) -> nn.ModuleDict:
        """Everything that is averaged."""
        return nn.ModuleDict({"encoder": self.encoder, "exit": self.exit})

    @property
    def settled(self) -> bool:
        """Whether the run's last step is done and its result, averages included, is what the weights are."""
        last = self.rows[-1] if self.rows else {"bytes": 0.0}
        return self.step >= self.plan.steps and "bytes" not in last and last["step"] == self.step

    def _averaged(self) -> dict[str, Tensor]:
        return {**self.trained.state_dict(), "mean": self.mean}

    def _keep_some(self) -> None:
        """Go back to the start by as much as the plan says."""
        if self.start is None:
            return
        for key, value in self._averaged().items():
            if value.is_floating_point():
                value.lerp_(self.start[key].to(value), self.plan.keep)

    def make_layout(self) -> StageLayout:
        """The layout with the quantiser as it is now."""
        return picture_layout(self.encoder, self.mean)

    def begin_rate(self) -> None:
        """Learn what the numbers cost as they are, before they are asked to cost less."""
        steps = self.plan.rate_steps
        optimiser = torch.optim.Adam(self.rate.parameters(), lr=RATE_PEAK)
        with torch.no_grad():
            self.rate.zero.copy_(torch.tensor(self.layout.mean_levels))
        draw = torch.Generator().manual_seed(step_seed(self.config.seed, _DRAW, steps))
        for step in range(steps):
            chosen = np.sort(torch.randint(len(self.train), (self.plan.batch,), generator=draw).numpy())
            with torch.no_grad():
                latent = self.encoder(normalise(torch.from_numpy(self.train.images[chosen]).to(self.device)))
                levels = self.encoder.levels_of(latent)
            for group in optimiser.param_groups:
                group["lr"] = one_cycle(step, steps, peak=RATE_PEAK, warm_up=0.05)
            optimiser.zero_grad(set_to_none=True)
            self.rate(levels).mean().backward()
            optimiser.step()

    # Steps ------------------------------------------------------------------------------------------------
    def train_step(self) -> float:
        """One update; returns the loss."""
        draw = torch.Generator().manual_seed(step_seed(self.config.seed, _DRAW, self.step))
        chosen = np.sort(torch.randint(len(self.train), (self.plan.batch,), generator=draw).numpy())
        random = torch.Generator().manual_seed(step_seed(self.config.seed, _AUGMENT, self.step))
        images = torch.from_numpy(self.train.images[chosen]).to(self.device)
        labels = torch.from_numpy(self.train.labels[chosen]).to(self.device)
        inputs = augment(images, self.config.augment, size=self.config.input_size, smallest_crop=0.6, random=random)
        with torch.no_grad():
            teacher = self.base(inputs)
        parts = torch.Generator().manual_seed(step_seed(self.config.seed, _PARTS, self.step))
        have = begun_part(self.layout, len(labels), parts).to(self.device)
        self.exit.train()
        self.encoder.train()
        for group in self.optimiser.param_groups:
            group["lr"] = one_cycle(self.step, self.plan.steps, peak=group["peak"], warm_up=0.05)
        view, bits = self._receive(inputs, have)
        picture = self.exit.picture(view)
        features = picture
        for stage in self.exit.stages:
            features = stage(features)
        logits = self.trunk.from_stage(self.exit.joins, features)
        targets = smoothed_targets(labels, logits.shape[1], self.config.label_smoothing)
        hard = class_and_group_loss(logits, targets, self.groups, self.config.group_weight)
        soft = F.kl_div(logits.log_softmax(1), teacher.softmax(1), reduction="batchmean")
        close = (picture - inputs).pow(2).mean()
        cost = bits.mean() / 8  # bytes
        over = (cost / self.plan.bytes - 1).clamp_min(0)
        loss = self.plan.hard * hard + self.plan.soft * soft + self.plan.close * close + self.plan.rate * over
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(
            [p for group in self.optimiser.param_groups for p in group["params"]], max_norm=2.0
        )
        self.optimiser.step()
        if self.plan.ema > 0:
            self.ema = self.ema or Ema(self.trained, self.plan.ema)
            self.ema.update(self.trained)
        spent = float(cost.detach())
        self.bytes = self.bytes + 0.02 * (spent - self.bytes) if self.bytes else spent
        with torch.no_grad():
            self.mean.lerp_(self.encoder(inputs).mean((0, 2, 3)), 0.05)
        if self.step % 100 == 0:
            self.layout = self.make_layout()
        self.step += 1
        return float(loss.detach())

    def _receive(self, inputs: Tensor, have: Tensor) -> tuple[Tensor, Tensor]:
        """What exit 0 is given, and the bits of each whole picture."""
        mean = torch.tensor(self.layout.mean_levels, dtype=inputs.dtype, device=self.device)
        latent = self.encoder(inputs)
        view, _ = received_part(latent, have, self.encoder, self.layout.ladder, mean)
        return view, self.rate(self.encoder.levels_of(latent))

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
            self._keep_some()
            self.layout = self.make_layout()
            self.rows.append({"step": float(self.step), "loss": self.loss} | self.evaluate())
            self.save()

    @torch.no_grad()
    def logits(
        self, images: ImageSet, *, partial: bool = False, batch: int = 250
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Logits (N, classes) of exit 0 on quantised pictures.

        Args:
            images: with N of them.
            partial: of every second image, the picture has only begun to arrive
                (:func:`fleet.training.calibrate.begun_shares`); else everything has.
            batch: images at a time.
        """
        self.exit.eval()
        self.encoder.eval()
        found = []
        shares = begun_shares(len(images), newest=True, seed=PICTURE) if partial else np.ones(len(images))
        for start in range(0, len(images), batch):
            part = normalise(torch.from_numpy(np.array(images.images[start : start + batch])).to(self.device))
            have = first_part(self.layout, shares[start : start + batch]).to(self.device)
            view, _ = self._receive(part, have)
            found.append(self.trunk.from_stage(self.exit.joins, self.exit([view])).cpu().numpy())
        return np.concatenate(found)

    @torch.no_grad()
    def latents(self, images: ImageSet, *, batch: int = 250) -> np.ndarray[Any, np.dtype[np.float32]]:
        """What travels of images before quantisation, shape (N, channels, grid, grid)."""
        self.encoder.eval()
        starts = range(0, len(images), batch)
        parts = (torch.from_numpy(np.array(images.images[s : s + batch])).to(self.device) for s in starts)
        return np.concatenate([self.encoder(normalise(part)).cpu().numpy() for part in parts])

    def running(self) -> dict[str, float]:
        """See :class:`fleet.training.steps.Stepwise`."""
        return {"bytes": self.bytes}

    def evaluate(self) -> dict[str, float]:
        """Accuracies of exit 0 on whole pictures, on the calibration split."""
        probabilities = softmax(self.logits(self.calibration).astype(np.float64)).astype(np.float32)
        found = accuracies(probabilities, self.calibration.labels, self.calibration.table)
        return {f"exit_0_{key}": value for key, value in found.items()}

    def save(self) -> None:
        """Write the checkpoint and the log."""
        self.output.mkdir(parents=True, exist_ok=True)
        state = {
            "config": self.config.to_dict(),
            "encoder": self.encoder.state_dict(),
            "exit": self.exit.state_dict(),
            "rate": self.rate.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "began_with": self.began_with,
            "images_before": self.images_before,
            "start": self.start,
            "beside": self.beside,
            "mean": self.mean,
            # The layout follows the mean and the quantiser only now and then.
            "layout": layout_to_manifest(self.layout),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "loss": self.loss,
            "bytes": self.bytes,
            "rows": self.rows,
        }
        save_checkpoint(self.output / CHECKPOINT, state)
        if self.rows:
            write_log(self.output / LOG, self.rows)

    def resume(self) -> None:
        """Go on from the checkpoint in the output folder.

        Raises:
            FleetError: none there, a damaged one, or one of another configuration.
        """
        path = self.output / CHECKPOINT
        state = load_checkpoint(path)
        if state["config"] != self.config.to_dict():
            raise FleetError(f"{path} belongs to another configuration; use that one or another --output")
        try:
            self.encoder.load_state_dict(state["encoder"])
            self.exit.load_state_dict(state["exit"])
            self.rate.load_state_dict(state["rate"])
        except (RuntimeError, KeyError) as err:
            raise FleetError(f"{path} is of another version of stage 0: begin anew") from err
        if state["ema"] is not None:
            self.ema = Ema(self.trained, self.plan.ema)
            self.ema.load_state_dict(state["ema"])
        self.began_with, self.beside = state["began_with"], state["beside"]
        self.images_before, self.start = state["images_before"], state["start"]
        self.mean.copy_(state["mean"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.loss, self.bytes, self.rows = (state[key] for key in ("step", "loss", "bytes", "rows"))
        self.layout = layout_from_manifest(0, state["layout"])
