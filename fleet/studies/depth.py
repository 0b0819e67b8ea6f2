# SPDX-License-Identifier: Apache-2.0
"""Exits of several depths on the device (FLEET section 2.2, Figure 1b): what a hub's deep exits are there for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fleet.backbones import Backbone
from fleet.baselines.exit_network import EXIT_STAGES
from fleet.baselines.heads import DEEP_STAGE, PooledHead
from fleet.baselines.training import Batch, Task
from fleet.studies.config import DepthStudy

_SMALL = 8  # cells a side; a convolution of a larger map halves it


class DeepHead(nn.Module):
    """Convolutions, then mean pooling and one fully connected layer, as :class:`fleet.baselines.heads.PooledHead`.

    The paper does not say how wide its convolutions are or where they pool. Here each is 3x3 and halves a map of more
    than eight cells a side.

    Args:
        channels: of the stage's map.
        size: cells a side of the stage's map.
        convolutions: how many; none gives the fully connected layer alone.
        width: channels of each.
        cells: a side after pooling.
        classes: number of outputs.
    """

    def __init__(self, channels: int, *, size: int, convolutions: int, width: int, cells: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(convolutions):
            stride = 2 if size > _SMALL else 1
            layers += [
                nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.Hardswish(inplace=True),
            ]
            channels, size = width, size // stride
        self.convolutions = nn.Sequential(*layers)
        self.head = PooledHead(channels, cells=min(cells, size), classes=classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from a stage's map (B, channels, H, W)."""
        logits: Tensor = self.head(self.convolutions(features))
        return logits


class Depths:
    """Exits of every depth behind every stage, trained in one pass (see :class:`fleet.baselines.training.Recipe`).

    The base network is frozen, so one exit's loss does not touch another's: each is trained as if it were alone.

    Args:
        backbone: the trained base network.
        study: which depths.
        stages: behind which stages.
    """

    name = "depth"
    trained = "local exits of several depths only, the base network frozen"

    def __init__(self, backbone: Backbone, study: DepthStudy, stages: Sequence[int] = EXIT_STAGES) -> None:
        self.backbone = backbone.requires_grad_(False).eval()
        self.stages = tuple(stages)
        self.convolutions = study.convolutions
        torch.manual_seed(0)
        self.heads = nn.ModuleDict()
        for n in self.stages:
            spec = backbone.stage_specs[n - 1]
            for count in study.convolutions:
                self.heads[f"{n}-{count}"] = DeepHead(
                    spec.channels,
                    size=spec.size,
                    convolutions=count,
                    width=study.width,
                    cells=4 if n < DEEP_STAGE else 2,
                    classes=backbone.classes,
                )
        self.model: nn.Module = self.heads

    def parameters(self) -> tuple[Sequence[nn.Parameter], Sequence[nn.Parameter]]:
        """Only new weights."""
        return [], list(self.heads.parameters())

    def set_training(self) -> None:
        """The backbone works as it will be used."""
        self.backbone.eval()
        self.heads.train()

    def logits(self, heads: nn.ModuleDict, inputs: Tensor) -> dict[tuple[int, int], Tensor]:
        """Logits (B, classes) by stage and number of convolutions.

        Args:
            heads: :attr:`heads`, or their averaged weights.
            inputs: normalised images (B, 3, H, W).
        """
        found: dict[tuple[int, int], Tensor] = {}
        features = inputs
        for n, stage in enumerate(self.backbone.stages[: max(self.stages)], start=1):
            with torch.no_grad():
                features = stage(features)
            if n in self.stages:
                found |= {(n, count): heads[f"{n}-{count}"](features) for count in self.convolutions}
        return found

    def loss(self, batch: Batch, task: Task) -> Tensor:
        """Sum of all exits' losses."""
        found = self.logits(self.heads, task.augmented(batch))
        return torch.stack([task.loss(logits, batch.labels) for logits in found.values()]).sum()
