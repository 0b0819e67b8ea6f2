# SPDX-License-Identifier: Apache-2.0
"""What a partial transfer leaves of a stage's features, differentiably: for training exits on any budget."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from fleet.encoder import StageEncoder
from fleet.ladder import Ladder


def received_part(latent: Tensor, have: Tensor, encoder: StageEncoder, ladder: Ladder, mean_levels: Tensor) -> Tensor:
    """Quantise, split, drop what was not received, merge, dequantise.

    The forward pass is exactly what device and hub compute on integers. The gradient is that of the same
    steps without the rounding (straight through).

    Args:
        latent: before quantisation, shape (B, c, g, g).
        have: which coefficients arrived, shape (B, c, ladder.count), bool.
        encoder: quantiser of the stage.
        ladder: geometry.
        mean_levels: level that stands for a missing base value, shape (c,).

    Returns:
        Dequantised map, shape (B, c, g, g).
    """
    low, step = encoder.low[:, None, None], encoder.step[:, None, None]
    scaled = ((latent - low) / step).clamp(0, encoder.levels - 1)  # (B, c, g, g), real
    base = torch.arange(ladder.count, device=latent.device) < ladder.base**2
    default = torch.where(base, mean_levels[:, None], torch.zeros_like(mean_levels)[:, None])  # (c, count)
    smooth = merge(torch.where(have, split(scaled, ladder), default), ladder)
    with torch.no_grad():
        whole = split(scaled.round().to(torch.int32), ladder)
        levels = merge(torch.where(have, whole, default.to(torch.int32)), ladder)
        exact = levels.clamp(0, encoder.levels - 1).to(latent.dtype)
    return (smooth + (exact - smooth).detach()) * step + low


def split(grid: Tensor, ladder: Ladder) -> Tensor:
    """:meth:`fleet.ladder.Ladder.split` for tensors: floors on integers, none on reals.

    Args:
        grid: shape (..., finest, finest).
        ladder: geometry.

    Returns:
        Shape (..., count).
    """
    lead = grid.shape[:-2]
    low = grid
    parts: list[Tensor] = []
    for level in reversed(range(ladder.levels)):
        bands = ladder.base << level
        quad = low.reshape(*lead, bands, 2, bands, 2)
        c00, c01, c10, c11 = quad[..., 0, :, 0], quad[..., 0, :, 1], quad[..., 1, :, 0], quad[..., 1, :, 1]
        row_first = _row_first(ladder, level).to(grid.device)
        off_a, off_b = torch.where(row_first, c01, c10), torch.where(row_first, c10, c01)
        half_a, half_b = _halved(c00 + off_a), _halved(off_b + c11)
        parts[:0] = [(half_a - half_b).flatten(-2), (c00 - off_a).flatten(-2), (off_b - c11).flatten(-2)]
        low = _halved(half_a + half_b)
    return torch.cat([low.flatten(-2), *parts], dim=-1)[..., _into_order(ladder).to(grid.device)]


def merge(coefficients: Tensor, ladder: Ladder) -> Tensor:
    """:meth:`fleet.ladder.Ladder.merge` for tensors, the inverse of :func:`split`.

    Args:
        coefficients: shape (..., count).
        ladder: geometry.

    Returns:
        Shape (..., finest, finest).
    """
    lead = coefficients.shape[:-1]
    low = coefficients[..., : ladder.base**2].reshape(*lead, ladder.base, ladder.base)
    for level in range(ladder.levels):
        bands = ladder.base << level
        positions = _positions(ladder, level).to(coefficients.device)
        h, h_a, h_b = (coefficients[..., positions[k]] for k in range(3))
        half_a = low + _halved_up(h)
        half_b = half_a - h
        c00, off_b = half_a + _halved_up(h_a), half_b + _halved_up(h_b)
        off_a, c11 = c00 - h_a, off_b - h_b
        row_first = _row_first(ladder, level).to(coefficients.device)
        c01, c10 = torch.where(row_first, off_a, off_b), torch.where(row_first, off_b, off_a)
        rows = torch.stack([torch.stack([c00, c01], -1), torch.stack([c10, c11], -1)], -3)  # (..., r, 2, c, 2)
        low = rows.reshape(*lead, 2 * bands, 2 * bands)
    return low


def _halved(total: Tensor) -> Tensor:
    return total / 2 if total.is_floating_point() else total >> 1


def _halved_up(difference: Tensor) -> Tensor:
    return difference / 2 if difference.is_floating_point() else (difference + 1) >> 1


@lru_cache(maxsize=64)
def _positions(ladder: Ladder, level: int) -> Tensor:
    return torch.from_numpy(ladder.level_positions[level])


@lru_cache(maxsize=64)
def _row_first(ladder: Ladder, level: int) -> Tensor:
    return torch.from_numpy(ladder.row_first_levels[level])


@lru_cache(maxsize=16)
def _into_order(ladder: Ladder) -> Tensor:
    """For each coefficient of a channel, where :func:`split` computes it."""
    places = [torch.arange(ladder.base**2), *(_positions(ladder, k).flatten() for k in range(ladder.levels))]
    order = torch.empty(ladder.count, dtype=torch.long)
    order[torch.cat(places)] = torch.arange(ladder.count)
    return order
