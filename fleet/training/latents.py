# SPDX-License-Identifier: Apache-2.0
"""What a partial transfer leaves of a stage's features, differentiably: for training exits on any budget."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from fleet.coders.coder import MEAN_WEIGHT, cell_shares, neighbour_weights
from fleet.encoder import Encoder
from fleet.ladder import Ladder


def received_part(
    latent: Tensor, have: Tensor, encoder: Encoder, ladder: Ladder, mean_levels: Tensor
) -> tuple[Tensor, Tensor]:
    """Quantise, split, drop what was not received, guess what is missing, merge, dequantise.

    The forward pass is what device and hub compute on integers (:func:`fleet.coders.coder.rebuild`). The gradient
    is that of the same steps without the rounding (straight through).

    Args:
        latent: before quantisation, shape (B, c, g, g).
        have: which coefficients arrived, shape (B, c, ladder.count), bool.
        encoder: quantiser of the stage.
        ladder: geometry.
        mean_levels: level of each channel's mean, shape (c,).

    Returns:
        What the exit is given (:func:`fleet.coders.view`), shape (B, 2 c, g, g), and an estimate of what the
        coefficients cost, in bits each (:func:`coding_cost`).
    """
    low, step = encoder.low[:, None, None], encoder.step[:, None, None]
    scaled = ((latent - low) / step).clamp(0, encoder.levels - 1)  # (B, c, g, g), real
    real = split(scaled, ladder)
    smooth = merge(_completed(real, have, mean_levels, ladder), ladder)
    with torch.no_grad():
        whole = split(scaled.round().to(torch.int32), ladder)
        levels = merge(_completed(whole.float(), have, mean_levels, ladder).round().to(torch.int32), ladder)
        exact = levels.clamp(0, encoder.levels - 1).to(latent.dtype)
    features = (smooth + (exact - smooth).detach()) * step + low
    return torch.cat([features, known_share(have, ladder)], dim=1), coding_cost(real, ladder)


def known_share(have: Tensor, ladder: Ladder) -> Tensor:
    """For every place the share of coefficients that arrived of its base cell, shape (B, c, g, g).

    Args:
        have: which coefficients arrived, shape (B, c, ladder.count), bool.
        ladder: geometry.
    """
    shares = torch.from_numpy(cell_shares(ladder)).to(have.device)
    return (have.to(torch.float32) @ shares).reshape(*have.shape[:-1], ladder.finest, ladder.finest)


def _completed(values: Tensor, have: Tensor, mean_levels: Tensor, ladder: Ladder) -> Tensor:
    """Coefficients (B, c, count) with zero for the missing differences and a guess for the missing base values."""
    cells = ladder.base**2
    known = torch.where(have, values, torch.zeros_like(values))
    there = have[..., :cells].to(values.dtype)
    weights = torch.from_numpy(neighbour_weights(ladder.base)).to(values.device)
    total = MEAN_WEIGHT * mean_levels[:, None] + known[..., :cells] @ weights
    guess = total / (MEAN_WEIGHT + there @ weights)  # (B, c, cells)
    return torch.cat([torch.where(have[..., :cells], values[..., :cells], guess), known[..., cells:]], dim=-1)


def coding_cost(values: Tensor, ladder: Ladder) -> Tensor:
    """Mean bits of a coefficient, differentiably.

    As if every channel's base values and every level's differences had a Laplace distribution each, of the batch's
    own mean deviation b: its entropy is log2(2 e b) bits at unit steps, here log2(1 + 2 e b), which is never negative.

    Args:
        values: coefficients in levels, before rounding, shape (B, c, count).
        ladder: geometry.
    """
    cells = ladder.base**2
    base = values[..., :cells]
    deviation = (base - base.mean((0, 2), keepdim=True)).abs().mean((0, 2))  # (c,)
    bits = (1 + 2 * math.e * deviation).log2() * cells
    for level in range(ladder.levels):
        positions = _positions(ladder, level).to(values.device)
        for chosen in (positions[0].flatten(), positions[1:].flatten()):
            spread = values[..., chosen].abs().mean((0, 2))  # (c,)
            bits = bits + (1 + 2 * math.e * spread).log2() * len(chosen)
    return bits.mean() / ladder.count


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
