# SPDX-License-Identifier: Apache-2.0
"""Features as bytes: the 8-bit quantiser of the partitioned baselines, and what gzip makes of it."""

from __future__ import annotations

import gzip

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

LEVELS = 256
GZIP_OPERATIONS = 50
"""Operations a byte of DEFLATE's compressor: zlib takes 40 to 100 cycles a byte at its usual levels."""


class ByteQuantiser(nn.Module):
    """One byte a value, with a range of its own for every channel that both ends hold.

    Args:
        channels: of the features.
    """

    low: Tensor
    step: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.full((channels,), -4.0))
        self.register_buffer("step", torch.full((channels,), 8.0 / (LEVELS - 1)))

    def levels(self, features: Tensor) -> Tensor:
        """What travels, still as real numbers: shape (B, channels, H, W), values 0..255."""
        scaled: Tensor = (features - self.low[:, None, None]) / self.step[:, None, None]
        clipped = scaled.clamp(0, LEVELS - 1)
        return clipped + (clipped.round() - clipped).detach()  # straight through

    def forward(self, features: Tensor) -> Tensor:
        """The features as the hub has them, same shape; the gradient passes."""
        return self.levels(features) * self.step[:, None, None] + self.low[:, None, None]

    @torch.no_grad()
    def calibrate(self, features: Tensor, *, tail: float = 0.0005) -> None:
        """Set the ranges from samples.

        Args:
            features: shape (B, channels, H, W).
            tail: share of the values that may fall outside at each end.
        """
        flat = features.transpose(0, 1).flatten(1).float()
        count = max(1, round(tail * flat.shape[1]))
        ordered = flat.sort(dim=1).values
        low, high = ordered[:, count - 1], ordered[:, -count]
        self.low.copy_(low)
        self.step.copy_((high - low).clamp_min(1e-3) / (LEVELS - 1))


def as_bytes(levels: Tensor) -> npt.NDArray[np.uint8]:
    """Whole levels as bytes, same shape."""
    return levels.to(torch.uint8).numpy()


def gzip_sizes(values: npt.NDArray[np.uint8]) -> list[int]:
    """Bytes of each image's values as a gzip file, its header and check included.

    Args:
        values: shape (B, ...); channel by channel, as they lie in memory.
    """
    return [len(gzip.compress(one.tobytes(), 9, mtime=0)) for one in values]
