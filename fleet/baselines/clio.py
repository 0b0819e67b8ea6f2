# SPDX-License-Identifier: Apache-2.0
"""CLIO (Huang et al., MobiCom 2020) as FLEET compares with it: a split with channels that travel slice by slice.

The device runs the base network up to stage 5 and a 1x1 convolution to 28 ordered channels. The hub can stop at
any of the widths from 2 to 28; it has an adapter for each and shares the stages behind them. Features take a byte each
(FLEET section 4.1: "the different depths that we choose for CLIO are from 2 to 28").
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fleet.backbones import Backbone, Macs
from fleet.baselines.bytes8 import GZIP_OPERATIONS, ByteQuantiser, as_bytes, gzip_sizes
from fleet.baselines.cost import backbone_steps, step_of
from fleet.baselines.exit_network import as_input
from fleet.baselines.scheme import Answers, Images, Step, Upload
from fleet.baselines.training import Batch, Task, distillation
from fleet.fusion import ExitBlock

NAME = "clio"
NOTE = (
    "encoder, adapters and the hub's stages 6 to 13 trained, the rest frozen; taught by the base network, as our exits"
)
SPLIT: Final = 5
WIDTHS: Final = (2, 4, 6, 8, 12, 16, 20, 24, 28)
LAST_TRAINED: Final = 13
"""Stages behind it hold nine tenths of the weights and see what they always saw."""
_PARTS = 4


class ClioNetwork(nn.Module):
    """Both ends of CLIO.

    Args:
        backbone: its first stages run on the device; the hub's stages are copies.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        spec = backbone.stage_specs[SPLIT - 1]
        self.size = spec.size
        self.backbone = backbone
        # The norm makes every channel's range the same, and folds into the convolution.
        self.encoder = nn.Sequential(nn.Conv2d(spec.channels, WIDTHS[-1], 1), nn.BatchNorm2d(WIDTHS[-1], affine=False))
        self.quantiser = ByteQuantiser(WIDTHS[-1])
        self.adapters = nn.ModuleDict({str(w): ExitBlock([w], spec.channels, size=spec.size) for w in WIDTHS})
        self.trunk = nn.ModuleList(copy.deepcopy(stage) for stage in backbone.stages[SPLIT:LAST_TRAINED])

    @property
    def trained(self) -> nn.ModuleDict:
        """What is not the base network's own."""
        return nn.ModuleDict(
            {"encoder": self.encoder, "quantiser": self.quantiser, "adapters": self.adapters, "trunk": self.trunk}
        )

    def on_device(self, images: Tensor) -> Tensor:
        """Stage 5's map (B, C, H, W) of normalised images (B, 3, H, W)."""
        features = images
        for stage in self.backbone.stages[:SPLIT]:
            features = stage(features)
        return features

    def at_hub(self, received: Sequence[tuple[int, Tensor]]) -> Tensor:
        """Logits of several parts, one after another (sum B_i, classes).

        Args:
            received: width, and the dequantised slice of that width, shape (B_i, width, H, W).
        """
        features = torch.cat([self.adapters[str(width)]([part]) for width, part in received])
        for stage in self.trunk:
            features = stage(features)
        return self.backbone.from_stage(LAST_TRAINED, features)


class Progressive:
    """Training of all widths at once (see :class:`fleet.baselines.training.Recipe`).

    Every step serves the narrowest, the widest and two random widths, each with its part of the batch.
    """

    name = NAME
    trained = "encoder, adapters (new) and the hub's stages 6 to 13"

    def __init__(self, backbone: Backbone) -> None:
        self.network = ClioNetwork(backbone)
        self.network.backbone.requires_grad_(False)
        self.model: nn.Module = self.network.trained

    def parameters(self) -> tuple[Sequence[nn.Parameter], Sequence[nn.Parameter]]:
        """The hub's stages, and encoder and adapters."""
        network = self.network
        return list(network.trunk.parameters()), [*network.encoder.parameters(), *network.adapters.parameters()]

    def set_training(self) -> None:
        """The base network works as it will be used."""
        self.network.train()
        self.network.backbone.eval()

    def loss(self, batch: Batch, task: Task) -> Tensor:
        """The base network's loss, and the distance from its answers."""
        inputs = task.augmented(batch)
        with torch.no_grad():
            features = self.network.on_device(inputs)
            teacher = self.network.backbone.from_stage(SPLIT, features)
        sent = self.network.quantiser(self.network.encoder(features))  # (B, 28, H, W)
        drawn = [WIDTHS[i] for i in torch.randint(len(WIDTHS), (_PARTS - 2,), generator=batch.random).tolist()]
        parts = sent.chunk(_PARTS)
        widths = (WIDTHS[0], WIDTHS[-1], *drawn)[: len(parts)]
        logits = self.network.at_hub([(w, part[:, :w]) for w, part in zip(widths, parts, strict=True)])
        return 0.5 * task.loss(logits, batch.labels) + distillation(logits, teacher)


class Clio:
    """The trained scheme (see :class:`fleet.baselines.scheme.OffloadScheme`)."""

    kind: Literal["offload"] = "offload"

    def __init__(self, network: ClioNetwork, temperatures: tuple[float, ...], note: str = NOTE) -> None:
        self.name, self.note, self.temperatures = NAME, note, temperatures
        self.network = network.eval()
        self.rows = tuple(f"{w} channels" for w in WIDTHS)
        self.uploads = _uploads(network)

    @torch.inference_mode()
    def answer(self, images: Images) -> Answers:
        """Logits of all widths; each upload's bytes are what it adds to the one before."""
        network = self.network
        levels = network.quantiser.levels(network.encoder(network.on_device(as_input(images))))
        received = levels * network.quantiser.step[:, None, None] + network.quantiser.low[:, None, None]
        logits = [network.at_hub([(w, received[:, :w])]).numpy() for w in WIDTHS]
        values = as_bytes(levels)
        plain, packed = [], []
        for begin, end in zip((0, *WIDTHS[:-1]), WIDTHS, strict=True):
            part = np.ascontiguousarray(values[:, begin:end])
            plain.append([part[0].size] * len(images))
            packed.append(gzip_sizes(part))
        return Answers(np.stack(logits), np.asarray(plain + packed, np.int32))


def _uploads(network: ClioNetwork) -> tuple[Upload, ...]:
    """All widths as bytes, then all widths as gzip files."""
    spec = network.backbone.stage_specs[SPLIT - 1]
    encoder, _ = step_of("encoder", network.encoder, (spec.channels, spec.size, spec.size))
    stages = (*backbone_steps(network.backbone)[:SPLIT], encoder)
    cells = spec.size**2
    uploads: list[Upload] = []
    for packed in (0, 1):
        first = len(uploads)
        for row, width in enumerate(WIDTHS):
            added = (width - (WIDTHS[row - 1] if row else 0)) * cells
            quantise = Step("quantiser", Macs(conv=added * (1 + packed * GZIP_OPERATIONS)), None, 2 * added)
            uploads.append(
                Upload(
                    f"{width} channels{', gzip' if packed else ''}",
                    row,
                    steps=(*stages, quantise) if row == 0 else (quantise,),
                    after=first + row - 1 if row else None,
                    split=SPLIT,
                    settings={"width": width, "gzip": packed},
                )
            )
    return tuple(uploads)
