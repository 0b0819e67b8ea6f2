# SPDX-License-Identifier: Apache-2.0
"""The device's side of a stage: which few channels travel (FLEET section 3.2, torch, for training and export)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Encoder(nn.Module):
    """What travels of one stage, and its learned quantiser.

    Args:
        channels: channels that travel.
        grid: cells a side of the finest grid.
        levels: quantiser levels.
    """

    def __init__(self, channels: int, *, grid: int, levels: int) -> None:
        super().__init__()
        self.channels, self.grid, self.levels = channels, grid, levels
        self.low = nn.Parameter(torch.full((channels,), -2.0))
        self.log_step = nn.Parameter(torch.full((channels,), 4.0 / (levels - 1)).log())

    @property
    def step(self) -> Tensor:
        """Width of a quantiser level, shape (channels,)."""
        return self.log_step.exp()

    def quantise(self, latent: Tensor) -> Tensor:
        """Round to levels and back, with the gradient of the identity inside the range.

        Args:
            latent: shape (B, channels, H, W).

        Returns:
            Dequantised, same shape.
        """
        return self.levels_of(latent) * self.step[:, None, None] + self.low[:, None, None]

    def levels_of(self, latent: Tensor) -> Tensor:
        """As :meth:`quantise`, in whole levels."""
        levels = ((latent - self.low[:, None, None]) / self.step[:, None, None]).clamp(0, self.levels - 1)
        return levels + (levels.round() - levels).detach()

    @torch.no_grad()
    def calibrate(self, latent: Tensor, *, tail: float = 0.002) -> None:
        """Set the quantiser's range from samples.

        Args:
            latent: shape (B, channels, grid, grid).
            tail: share of the values that may fall outside at each end.
        """
        flat = latent.transpose(0, 1).flatten(1).float()  # (channels, B * grid * grid)
        ends = torch.quantile(flat, torch.tensor([tail, 1 - tail]), dim=1)  # (2, channels)
        self.low.copy_(ends[0])
        self.log_step.copy_(((ends[1] - ends[0]).clamp_min(1e-3) / (self.levels - 1)).log())


class StageEncoder(Encoder):
    """Channel reduction, pooling to the finest grid, and a learned quantiser.

    The reduction is a trained 1x1 convolution, so that the channels that travel carry what the cloud needs
    instead of being picked from the backbone's own. It runs on the device, behind its stage.

    Args:
        into: channels of the stage's map.
        channels: channels that travel.
        grid: cells a side of the finest grid.
        levels: quantiser levels.
    """

    def __init__(self, into: int, channels: int, *, grid: int, levels: int) -> None:
        super().__init__(channels, grid=grid, levels=levels)
        self.project = nn.Conv2d(into, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """What travels, before quantisation.

        Args:
            features: the stage's map, shape (B, into, H, W), H and W at least ``grid``.

        Returns:
            Shape (B, channels, grid, grid).
        """
        latent: Tensor = self.project(features)  # (B, c, H, W)
        if latent.shape[-1] == self.grid:
            return latent
        return F.adaptive_avg_pool2d(latent, self.grid)  # (B, c, g, g)
