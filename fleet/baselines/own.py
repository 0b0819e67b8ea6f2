# SPDX-License-Identifier: Apache-2.0
"""Our own local exits, for the race against the radio (design 12.7): small heads on the frozen base network.

They learn from the labels and from the whole network's answers, which cost nothing more than running it to its end.

What a linear classifier cannot see in a pooled map two pointwise convolutions can, for a tenth of what the rest of the
network takes. They are no rival: they belong to FLEET, and are trained by the rivals' loop on the same data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fleet.backbones import Backbone
from fleet.baselines.exit_network import ExitNetwork
from fleet.baselines.shallow_deep import ClassifiersOnly
from fleet.baselines.training import Batch, Task, distillation

NAME = "local-exits"
STAGES = (8, 11, 13, 15)
WIDTH = 192
_DROP = 0.1


class ConvHead(nn.Module):
    """A classifier behind a stage: wider, half as fine, wider once more, pooled.

    Args:
        channels: of the stage's map.
        size: cells a side of the stage's map.
        classes: number of outputs.
        width: channels inside.
    """

    def __init__(self, channels: int, *, size: int, classes: int, width: int = WIDTH) -> None:
        super().__init__()
        stride = 2 if size >= 2 else 1
        self.features = nn.Sequential(
            *_block(nn.Conv2d(channels, width, 1, bias=False)),
            *_block(nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width, bias=False)),
            *_block(nn.Conv2d(width, width, 1, bias=False)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(_DROP),
        )
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from a stage's map (B, channels, H, W)."""
        logits: Tensor = self.linear(self.features(features))
        return logits


def _block(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.Hardswish(inplace=True)


def build(backbone: Backbone) -> ExitNetwork:
    """The base network with untrained heads."""
    specs = {spec.n: spec for spec in backbone.stage_specs}
    return ExitNetwork(
        backbone,
        {n: ConvHead(specs[n].channels, size=specs[n].size, classes=backbone.classes) for n in STAGES},
    )


class OwnExits(ClassifiersOnly):
    """Training of the heads (see :class:`fleet.baselines.training.Recipe`)."""

    name = NAME
    trained = "our own local exits, the base network frozen and their teacher"

    @staticmethod
    def build(backbone: Backbone) -> ExitNetwork:
        """The network with untrained heads."""
        return build(backbone)

    def loss(self, batch: Batch, task: Task) -> Tensor:
        """Each head's loss on the labels and its distance from the whole network's answer, summed over the heads."""
        features = task.augmented(batch)
        at_exits = {}
        with torch.no_grad():
            for n, stage in enumerate(self.network.backbone.stages, start=1):
                features = stage(features)
                if n in self.network.exit_stages:
                    at_exits[n] = features.clone()  # later stages may work in place
            teacher = self.network.backbone.run_head(features)
        logits = [self.network.heads[str(n)](found) for n, found in at_exits.items()]
        losses = [task.loss(one, batch.labels) + distillation(one, teacher) for one in logits]
        return torch.stack(losses).sum()
