# SPDX-License-Identifier: Apache-2.0
"""What a picture's numbers cost if each is guessed from those before it: differentiably, for training stage 0."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fleet.contexts import NEAREST, NEIGHBOURS, ROOTS, WAYS

_SCALE = 0.05
"""The narrowest distribution, in levels: a gradient remains where everything is guessed."""
_LEAST = 1e-6


class ConditionalRate(nn.Module):
    """Bits of a picture's numbers under a logistic distribution each, whose place and width are guessed linearly.

    The same look as the codec's (:mod:`fleet.contexts`): at the neighbours of the same channel that are coded before,
    and at the channels before. Here every guess is real and all weights are there; the codec's are few, and whole.

    Args:
        channels: of the latent.
        grid: cells a side.
    """

    lattice: Tensor
    known: Tensor

    def __init__(self, channels: int, grid: int) -> None:
        super().__init__()
        self.channels = channels
        row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
        lattice = (row + 2 * column + torch.arange(channels)[:, None, None]) % WAYS  # (C, g, g)
        self.register_buffer("lattice", lattice, persistent=False)
        around = torch.stack([(lattice + down + 2 * across) % WAYS for down, across in NEIGHBOURS], dim=-1)
        self.register_buffer("known", (around < lattice[..., None]).float(), persistent=False)  # (C, g, g, 8)
        for name in ("value", "size"):
            setattr(self, f"{name}_own", nn.Parameter(torch.zeros(channels, WAYS, len(NEIGHBOURS))))
            setattr(self, f"{name}_before", nn.Parameter(torch.zeros(channels, channels)))
        self.value_around = nn.Parameter(torch.zeros(channels, ROOTS, NEAREST))
        self.size_around = nn.Parameter(torch.zeros(channels, channels))
        self.zero = nn.Parameter(torch.zeros(channels))
        self.width = nn.Parameter(torch.zeros(channels, WAYS))

    def forward(self, levels: Tensor) -> Tensor:
        """Bits of each picture.

        Args:
            levels: whole numbers, with the gradient of the real ones, shape (B, C, g, g).

        Returns:
            Shape (B,).
        """
        x = levels - self.zero[:, None, None]
        guess = self._guess(x, "value")
        width = F.softplus(self._guess(x.abs(), "size") + self._by_lattice(self.width)) + _SCALE
        off = x - guess
        share = torch.sigmoid((0.5 - off) / width) - torch.sigmoid((-0.5 - off) / width)
        return -(share + _LEAST).log2().sum((1, 2, 3))

    def _guess(self, x: Tensor, name: str) -> Tensor:
        own, before, around = (getattr(self, f"{name}_{part}") for part in ("own", "before", "around"))
        padded = F.pad(x, (1, 1, 1, 1))
        g = x.shape[-1]
        shifted = [padded[..., 1 + down : 1 + down + g, 1 + across : 1 + across + g] for down, across in NEIGHBOURS]
        weights = self._by_lattice(own) * self.known  # (C, g, g, 8)
        found = torch.zeros_like(x)
        for k, neighbour in enumerate(shifted):
            found = found + neighbour * weights[..., k]
        found = found + torch.einsum("cd,bdij->bcij", before.tril(-1), x)
        if name == "size":  # all four neighbours of every channel before
            ring = sum(shifted[k] for k in range(NEAREST))
            return found + torch.einsum("cd,bdij->bcij", around.tril(-1), ring)
        first = torch.stack([shifted[k][:, :ROOTS] for k in range(NEAREST)], dim=2)  # (B, ROOTS, 4, g, g)
        later = (torch.arange(self.channels)[:, None] > torch.arange(ROOTS)).to(x)
        return found + torch.einsum("cdk,bdkij->bcij", around * later[..., None], first)

    def _by_lattice(self, weights: Tensor) -> Tensor:
        """Weights by channel and lattice, (C, WAYS, ...), at every place, (C, g, g, ...)."""
        return weights[torch.arange(self.channels)[:, None, None], self.lattice]
