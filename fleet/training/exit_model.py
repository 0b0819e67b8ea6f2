# SPDX-License-Identifier: Apache-2.0
"""Encoders and exits behind a frozen base network while they are trained: what arrives, and what is said of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fleet.backbones import Backbone
from fleet.codec import StageLayout
from fleet.depths import stage_depths
from fleet.encoder import StageEncoder
from fleet.errors import FleetError
from fleet.export import counted, new_encoders, stage_layouts
from fleet.fusion import CloudNetwork
from fleet.ladder import finest_grid
from fleet.platforms import load_profile
from fleet.training.augment import normalise
from fleet.training.calibrate import begun_shares
from fleet.training.config import ExitConfig
from fleet.training.data import ImageSet
from fleet.training.latents import received_part
from fleet.training.parts import first_part

Arrival = Callable[[StageLayout, int, torch.Generator], Tensor]
"""Which coefficients arrived of a stage for so many images, shape (images, channels, ladder.count), bool."""


def channels_of(plan: ExitConfig, backbone: Backbone) -> dict[int, int]:
    """Channels that travel, by stage: as listed, or by the time of the stages on a platform.

    Raises:
        FleetError: more stages than the network has, or a platform without times.
    """
    if plan.channels:
        if len(plan.channels) >= len(backbone.stage_specs) or min(plan.channels) < 1:
            raise FleetError(
                f"exits.channels must list 1 or more for each of at most {len(backbone.stage_specs) - 1} stages"
            )
        return dict(enumerate(plan.channels, start=1))
    profile = load_profile(plan.depth.platform)
    specs = {spec.n: spec for spec in backbone.stage_specs}
    times = {n: profile.seconds(asdict(spec.macs), n) or math.nan for n, spec in specs.items()}
    sent = range(1, backbone.exit_stages + 1)
    return stage_depths(
        times,
        {n: finest_grid(specs[n].size, plan.base, plan.rungs[-1]) for n in sent},
        first=plan.depth.first,
        bits=plan.depth.bits,
        ci_s=plan.depth.ci_ms / 1000,
        packets=plan.depth.packets,
        payload=plan.depth.payload,
    )


class ExitModel:
    """What is trained, and the layouts with which it sends.

    Args:
        plan: how many channels travel of which stages, and what the exits fuse.
        backbone: the trained base network; frozen here.
        device: ``cpu`` or ``cuda``.

    Raises:
        FleetError: the plan asks for more stages than the network has, or for exits that fuse more than there are.
    """

    layouts: dict[int, StageLayout]  # from the first images on

    def __init__(self, plan: ExitConfig, backbone: Backbone, device: str = "cpu") -> None:
        self.plan = plan
        self.device = torch.device(device)
        channels = channels_of(self.plan, backbone)
        self.backbone = backbone.to(self.device).eval().requires_grad_(False)
        self.encoders = new_encoders(
            backbone, channels, base=self.plan.base, largest=self.plan.rungs[-1], levels=self.plan.levels
        ).to(self.device)
        trunk = copy.deepcopy(self.backbone) if self.own_trunk else self.backbone
        if not 1 <= self.plan.fuse <= len(channels):
            raise FleetError(f"exits.fuse is {self.plan.fuse}; of {len(channels)} stages an exit fuses 1 or more")
        sizes = {n: [r for r in self.plan.rungs if r <= self.encoder(n).grid] for n in channels}
        self.cloud = CloudNetwork(
            trunk, channels, fuse=self.plan.fuse, sizes=sizes if self.plan.combinations else None
        ).to(self.device)
        self.cloud.exits.requires_grad_(True)
        self.means = {n: torch.zeros(c, device=self.device) for n, c in channels.items()}

    @property
    def own_trunk(self) -> bool:
        """Whether the hub's trunk is a copy that learns."""
        return self.plan.trunk_peak > 0

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages that are sent."""
        return tuple(sorted(self.means))

    def encoder(self, n: int) -> StageEncoder:
        """The encoder of stage n."""
        found = self.encoders[str(n)]
        assert isinstance(found, StageEncoder)
        return found

    def make_layouts(self) -> dict[int, StageLayout]:
        """Layouts with the encoders' quantisers as they are now."""
        encoders = {n: self.encoder(n).cpu() for n in self.stages}
        layouts = stage_layouts(
            encoders,
            {n: mean.cpu() for n, mean in self.means.items()},
            base=self.plan.base,
            rungs=self.plan.rungs,
            order=self.plan.order,
        )
        self.encoders.to(self.device)
        return layouts

    @property
    def trained(self) -> nn.ModuleDict:
        """Everything that is averaged."""
        return nn.ModuleDict({"encoders": self.encoders, "exits": self.cloud.exits, "trunk": self.cloud.backbone})

    @torch.no_grad()
    def frozen_maps(self, inputs: Tensor, *, whole: bool) -> tuple[dict[int, Tensor], Tensor | None]:
        """The maps of the stages that are sent and, if wanted, the whole network's logits."""
        features = inputs
        maps = {}
        for n in self.stages:
            features = self.backbone.stages[n - 1](features)
            maps[n] = features
        return maps, self.backbone.from_stage(self.stages[-1], features) if whole else None

    def receive(self, stage: int, features: Tensor, have: Tensor) -> tuple[Tensor, Tensor]:
        """What exits are given of a stage's maps where some coefficients arrived, and what those cost.

        Args:
            stage: its number.
            features: its maps, shape (B, C, H, W).
            have: which coefficients arrived, shape (B, channels, ladder.count), bool.

        Returns:
            Rebuilt maps with the mask of what is known, shape (B, 2 channels, grid, grid); bits a coefficient.
        """
        encoder = self.encoder(stage)
        mean = torch.tensor(self.layouts[stage].mean_levels, dtype=features.dtype, device=self.device)
        return received_part(encoder(features), have, encoder, self.layouts[stage].ladder, mean)

    @torch.no_grad()
    def logits(
        self, images: ImageSet, n: int, *, partial: bool = False, batch: int = 250
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Logits (N, classes) of exit n on quantised features.

        Args:
            images: with N of them.
            n: the exit.
            partial: of every second image, the stages have only begun to arrive
                (:func:`fleet.training.calibrate.begun_shares`); else everything has.
            batch: images at a time; even.
        """
        self.cloud.eval()
        self.encoders.eval()
        found = []
        shares = {m: begun_shares(len(images), newest=m == n, seed=m) for m in self.cloud.fused[n]}
        for start in range(0, len(images), batch):
            part = torch.from_numpy(np.array(images.images[start : start + batch])).to(self.device)
            maps, _ = self.frozen_maps(normalise(part), whole=False)
            received = [self._whole(m, maps[m]) for m in self.cloud.fused[n]]
            if partial:
                for k, m in enumerate(self.cloud.fused[n]):
                    have = first_part(self.layouts[m], shares[m][start : start + batch]).to(self.device)
                    received[k][1::2] = self.receive(m, maps[m], have)[0][1::2]
            found.append(self.cloud(n, received).cpu().numpy())
        return np.concatenate(found)

    @torch.no_grad()
    def answers(
        self, images: ImageSet, arrivals: Mapping[str, Arrival], *, batch: int = 125
    ) -> dict[str, dict[int, np.ndarray[Any, np.dtype[np.float32]]]]:
        """Logits (N, classes) of every exit in several states of its own stage, those before it complete.

        Args:
            images: with N of them.
            arrivals: by name of a state, what of a stage has arrived for so many images; all draw the same numbers.
            batch: images at a time.
        """
        self.cloud.eval()
        self.encoders.eval()
        found: dict[str, dict[int, list[np.ndarray[Any, np.dtype[np.float32]]]]] = {
            state: {n: [] for n in self.stages} for state in arrivals
        }
        for start in range(0, len(images), batch):
            part = torch.from_numpy(np.array(images.images[start : start + batch])).to(self.device)
            maps, _ = self.frozen_maps(normalise(part), whole=False)
            whole = {n: self._whole(n, maps[n]) for n in self.stages}
            for state, arrival in arrivals.items():
                random = torch.Generator().manual_seed(start)
                for n in self.stages:
                    have = arrival(self.layouts[n], len(part), random).to(self.device)
                    received = [*(whole[m] for m in self.cloud.fused[n][:-1]), self.receive(n, maps[n], have)[0]]
                    found[state][n].append(self.cloud(n, received).cpu().numpy())
        return {state: {n: np.concatenate(parts) for n, parts in of_state.items()} for state, of_state in found.items()}

    def _whole(self, n: int, features: Tensor) -> Tensor:
        """What exits are given of stage n where everything arrived."""
        quantised = self.encoder(n).quantise(self.encoder(n)(features))
        return torch.cat([quantised, torch.ones_like(quantised)], dim=1)

    @torch.no_grad()
    def counted_layouts(self, images: ImageSet, *, batch: int = 250) -> dict[int, StageLayout]:
        """The layouts with frequency tables counted on images."""
        self.encoders.eval()
        found: dict[int, list[np.ndarray[Any, np.dtype[np.float32]]]] = {n: [] for n in self.stages}
        for start in range(0, len(images), batch):
            part = torch.from_numpy(np.array(images.images[start : start + batch])).to(self.device)
            maps, _ = self.frozen_maps(normalise(part), whole=False)
            for n in self.stages:
                found[n].append(self.encoder(n)(maps[n]).cpu().numpy())
        return counted(self.make_layouts(), {n: np.concatenate(parts) for n, parts in found.items()})
