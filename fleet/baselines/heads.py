# SPDX-License-Identifier: Apache-2.0
"""Classifiers that sit behind a stage on the device, as the papers of the baselines describe them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DEEP_STAGE = 6
"""From here on pooled heads see 2x2 cells, before it 4x4 (FLEET section 4.1: by the depth of the features)."""


class PooledHead(nn.Module):
    """Mean pooling to a few cells and one fully connected layer: the heads of BranchyNet and Ensemble (section 4.1).

    The norm has no weights of its own and folds into the layer behind it: it is there for training and costs nothing.

    Args:
        channels: of the stage's map.
        cells: a side after pooling.
        classes: number of outputs.
    """

    def __init__(self, channels: int, *, cells: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(cells)
        self.norm = nn.BatchNorm1d(channels * cells * cells, affine=False)
        self.linear = nn.Linear(channels * cells * cells, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from a stage's map (B, channels, H, W)."""
        logits: Tensor = self.linear(self.norm(self.pool(features).flatten(1)))
        return logits


class ReductionHead(nn.Module):
    """The feature reduction of Shallow-Deep networks (Kaya et al., ICML 2019, section 4.1).

    Maps of four cells a side and more are pooled to four by a learned mixture of maximum and mean; smaller ones are
    taken as they are. One fully connected layer follows. The norm folds into it, as in :class:`PooledHead`.

    Args:
        channels: of the stage's map.
        size: cells a side of the stage's map.
        classes: number of outputs.
    """

    def __init__(self, channels: int, *, size: int, classes: int) -> None:
        super().__init__()
        self.cells = min(4, size)
        self.maximum = nn.AdaptiveMaxPool2d(self.cells)
        self.mean = nn.AdaptiveAvgPool2d(self.cells)
        self.mixture = nn.Parameter(torch.tensor(0.5))
        self.norm = nn.BatchNorm1d(channels * self.cells**2, affine=False)
        self.linear = nn.Linear(channels * self.cells**2, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from a stage's map (B, channels, H, W)."""
        return self.classify(self.maximum(features), self.mean(features))

    def classify(self, highest: Tensor, mean: Tensor) -> Tensor:
        """Logits (B, classes) from the two poolings of a map, shapes (B, channels, cells, cells)."""
        mixed = self.mixture * highest + (1 - self.mixture) * mean
        logits: Tensor = self.linear(self.norm(mixed.flatten(1)))
        return logits
