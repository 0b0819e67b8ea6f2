# SPDX-License-Identifier: Apache-2.0
"""Neurosurgeon (Kang et al., ASPLOS 2017) as FLEET compares with it: the best place to cut the network in two.

Any stage may be the last one on the device, from none (the image travels) to all. Features take a byte each. FLEET
augments it "to send features of different sizes by changing the spatial size": they are pooled to the rungs of the
ladder, and the hub enlarges them again with a small block a split. Which cut and size is best for a link is found by
trying all of them (:func:`best_split`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fleet.backbones import Backbone, Macs
from fleet.baselines.bytes8 import GZIP_OPERATIONS, ByteQuantiser, as_bytes, gzip_sizes
from fleet.baselines.cost import backbone_steps
from fleet.baselines.exit_network import as_input
from fleet.baselines.scheme import Answers, Images, Step, Upload
from fleet.baselines.training import Batch, Task, distillation
from fleet.errors import FleetError
from fleet.fusion import ExitBlock

NAME = "neurosurgeon"
NOTE = "blocks that enlarge pooled features trained, the base network frozen; taught by it as our exits are"
SIZES: Final = (6, 8, 10, 12, 14, 16)
_SPLITS_A_STEP = 3
_CLOSE = 0.3


class Enlarger(nn.Module):
    """Turns an enlarged map back into what the next stage expects; at first it changes nothing.

    Args:
        channels: of the map.
        size: cells a side of the stage's own map.
    """

    def __init__(self, channels: int, *, size: int) -> None:
        super().__init__()
        self.block = ExitBlock([channels], channels, size=size)
        norm = self.block.project[-1]
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.zeros_(norm.weight)

    def forward(self, pooled: Tensor) -> Tensor:
        """The map (B, C, size, size) of a pooled one (B, C, s, s)."""
        size = self.block.size
        enlarged = F.interpolate(pooled, size=(size, size), mode="bilinear", align_corners=False)
        result: Tensor = enlarged + self.block([enlarged])
        return result


class SplitNetwork(nn.Module):
    """The base network with a cut behind any stage.

    Args:
        backbone: shared by both ends, not copied.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        shapes = [(3, backbone.input_size)] + [(spec.channels, spec.size) for spec in backbone.stage_specs[:-1]]
        self.maps = dict(enumerate(shapes))  # split -> channels, cells a side
        self.quantisers = nn.ModuleDict({str(n): ByteQuantiser(c) for n, (c, _) in self.maps.items()})
        self.enlargers = nn.ModuleDict(
            {str(n): Enlarger(c, size=size) for n, (c, size) in self.maps.items() if size > SIZES[0]}
        )

    @property
    def trained(self) -> nn.ModuleDict:
        """What is not the base network's own."""
        return nn.ModuleDict({"quantisers": self.quantisers, "enlargers": self.enlargers})

    @property
    def rows(self) -> tuple[str, ...]:
        """Every split at every size, and the whole network on the device."""
        return (*(f"split {n} at {size}" for n in self.maps for size in self.sizes(n)), "whole network")

    def sizes(self, split: int) -> tuple[int, ...]:
        """Sizes at which features of a split travel, the map's own last."""
        own = self.maps[split][1]
        return (*(s for s in SIZES if s < own), own)

    def levels(self, split: int, features: Tensor, size: int) -> Tensor:
        """What travels of a map (B, C, H, W): shape (B, C, size, size), values 0..255."""
        pooled = features if features.shape[-1] == size else F.adaptive_avg_pool2d(features, size)
        quantiser = self.quantisers[str(split)]
        assert isinstance(quantiser, ByteQuantiser)
        return quantiser.levels(pooled)

    def received(self, split: int, levels: Tensor) -> Tensor:
        """The map at the hub (B, C, H, W)."""
        quantiser = self.quantisers[str(split)]
        assert isinstance(quantiser, ByteQuantiser)
        features = levels * quantiser.step[:, None, None] + quantiser.low[:, None, None]
        if features.shape[-1] == self.maps[split][1]:
            return features
        enlarged: Tensor = self.enlargers[str(split)](features)
        return enlarged

    def device_maps(self, images: Tensor, last: int) -> dict[int, Tensor]:
        """The maps of splits 0 to ``last`` of normalised images (B, 3, H, W)."""
        maps = {0: images}
        for n in range(1, last + 1):
            maps[n] = self.backbone.stages[n - 1](maps[n - 1])
        return maps

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Set the quantisers' ranges from normalised images (B, 3, H, W)."""
        for n, features in self.device_maps(images, max(self.maps)).items():
            quantiser = self.quantisers[str(n)]
            assert isinstance(quantiser, ByteQuantiser)
            quantiser.calibrate(features)


class Enlarging:
    """Training of all blocks at once (see :class:`fleet.baselines.training.Recipe`).

    Every step draws three splits, each with a third of the batch and a random size.
    """

    name = NAME
    trained = "one block a split (new), the base network frozen"

    def __init__(self, backbone: Backbone, samples: Tensor) -> None:
        """Begin.

        Args:
            backbone: the base network.
            samples: normalised training images for the quantisers' ranges, shape (N, 3, H, W).
        """
        self.network = SplitNetwork(backbone.eval())
        self.network.backbone.requires_grad_(False)
        self.network.calibrate(samples)
        self.model: nn.Module = self.network.trained

    def parameters(self) -> tuple[Sequence[nn.Parameter], Sequence[nn.Parameter]]:
        """Only new weights."""
        return [], list(self.network.enlargers.parameters())

    def set_training(self) -> None:
        """The base network works as it will be used."""
        self.network.train()
        self.network.backbone.eval()

    def loss(self, batch: Batch, task: Task) -> Tensor:
        """Labels, the base network's answers, and the distance from its features: as our exits are trained."""
        network = self.network
        known = [int(n) for n in network.enlargers]
        chosen = sorted(known[i] for i in torch.randperm(len(known), generator=batch.random)[:_SPLITS_A_STEP].tolist())
        with torch.no_grad():
            maps = network.device_maps(task.augmented(batch), max(chosen))
            teacher = network.backbone.from_stage(max(chosen), maps[max(chosen)])
        joining, close = {}, []
        for part, n in enumerate(chosen):
            rows = slice(part, None, _SPLITS_A_STEP)
            sizes = network.sizes(n)[:-1]
            size = sizes[int(torch.randint(len(sizes), (), generator=batch.random))]
            whole = maps[n][rows]
            joining[n] = network.received(n, network.levels(n, whole, size))
            close.append((joining[n] - whole).pow(2).mean() / whole.pow(2).mean().clamp_min(1e-6))
        order = torch.cat([torch.arange(len(batch.labels))[part::_SPLITS_A_STEP] for part in range(len(chosen))])
        logits = _joined(network.backbone, joining)
        hard = task.loss(logits, batch.labels[order])
        return 0.5 * hard + distillation(logits, teacher[order]) + _CLOSE * torch.stack(close).mean()


def _joined(backbone: Backbone, maps: dict[int, Tensor]) -> Tensor:
    """Logits of maps behind several stages in one pass, the earliest stage's first (sum B_i, classes)."""
    batch: Tensor | None = None
    for n in range(min(maps), len(backbone.stages) + 1):
        if batch is not None:
            batch = backbone.stages[n - 1](batch)
        if n in maps:
            batch = maps[n] if batch is None else torch.cat([batch, maps[n]])
    assert batch is not None
    return backbone.run_head(batch)


class Neurosurgeon:
    """The scheme (see :class:`fleet.baselines.scheme.OffloadScheme`): every split, size and packing as an upload."""

    kind: Literal["offload"] = "offload"

    def __init__(self, network: SplitNetwork, temperatures: tuple[float, ...], note: str = NOTE) -> None:
        self.name, self.note, self.temperatures = NAME, note, temperatures
        self.network = network.eval()
        self.rows = network.rows
        self.uploads = _uploads(network)

    @torch.inference_mode()
    def answer(self, images: Images) -> Answers:
        """Logits of all splits and sizes."""
        network = self.network
        last = max(network.maps)
        maps = network.device_maps(as_input(images), last)
        logits, sizes = [], []
        for n in network.maps:
            for size in network.sizes(n):
                levels = network.levels(n, maps[n], size)
                logits.append(network.backbone.from_stage(n, network.received(n, levels)).numpy())
                values = as_bytes(levels.contiguous())
                sizes += [[values[0].size] * len(images), gzip_sizes(values)]
        logits.append(network.backbone.run_head(maps[last]).numpy())
        sizes.append([0] * len(images))
        return Answers(np.stack(logits), np.asarray(sizes, np.int32))


def _uploads(network: SplitNetwork) -> tuple[Upload, ...]:
    """Two for every row but the last: bytes, and a gzip file; then the whole network on the device."""
    steps = backbone_steps(network.backbone)
    uploads: list[Upload] = []
    row = 0
    for n, (channels, own) in network.maps.items():
        for size in network.sizes(n):
            values = channels * size**2
            pooling = channels * own**2 if size < own else 0
            for packed in (0, 1):
                work = Macs(conv=pooling + values * (1 + packed * GZIP_OPERATIONS))
                prepare = Step("pool and quantise", work, None, channels * own**2 + values)
                uploads.append(
                    Upload(
                        f"split {n} at {size}{', gzip' if packed else ''}",
                        row,
                        steps=(*steps[:n], prepare),
                        split=n,
                        settings={"size": size, "gzip": packed},
                    )
                )
            row += 1
    return (*uploads, Upload("whole network", row, steps=steps, split=len(steps) - 1, local=True))


def best_split(
    uploads: Sequence[Upload],
    mean_bytes: npt.NDArray[np.float64],
    latency: Callable[[Upload, float], float],
    allowed: npt.NDArray[np.bool_] | None = None,
) -> int:
    """The upload with the least latency, found by trying every one.

    Args:
        uploads: of the scheme.
        mean_bytes: of each, shape (uploads,).
        latency: of an upload with so many bytes, in seconds.
        allowed: those that are accurate enough, shape (uploads,); all where None.

    Returns:
        Its index; the first of equals.

    Raises:
        FleetError: none is allowed.
    """
    candidates = [i for i in range(len(uploads)) if allowed is None or allowed[i]]
    if not candidates:
        raise FleetError("no split of the network is accurate enough")
    return min(candidates, key=lambda i: latency(uploads[i], float(mean_bytes[i])))
