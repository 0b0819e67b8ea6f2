# SPDX-License-Identifier: Apache-2.0
"""How much of a stage has arrived: what training draws at random, and what calibration lays down."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fleet.codec import StageLayout

_SMALLEST_RUN, _LARGEST_RUN = 60, 1000  # coefficients a packet holds: 20 bytes at 3 bits, 244 at 2


def random_part(layout: StageLayout, count: int, random: torch.Generator, *, newest: bool = True) -> Tensor:
    """Which coefficients arrived, shape (count, channels, ladder.count), bool.

    Of the newest stage a third arrived whole, a third up to a random packet, and of a third random packets
    are missing. The stage before may have been overtaken before it sent anything.

    Args:
        layout: of the stage.
        count: images.
        random: source of every random number.
        newest: whether it is the exit's own stage.
    """
    kind = torch.rand(count, 1, generator=random)
    cut = (torch.rand(count, 1, generator=random) * layout.count).clamp_min(_SMALLEST_RUN)
    place = torch.arange(layout.count)[None, :]
    run = int(torch.randint(_SMALLEST_RUN, _LARGEST_RUN, (), generator=random))
    packets = -(-layout.count // run)
    survived = torch.rand(count, packets, generator=random) > torch.rand(count, 1, generator=random) * 0.7
    lossy = survived.repeat_interleave(run, dim=1)[:, : layout.count]
    have = torch.where(kind < 1 / 3, place >= 0, torch.where(kind < 2 / 3, place < cut, lossy))
    if not newest:
        have &= torch.rand(count, 1, generator=random) < 0.8
    return in_place(layout, have)


def size_part(layout: StageLayout, count: int, random: torch.Generator, *, together: bool) -> Tensor:
    """Which coefficients arrived where only whole sizes do, as published, shape (count, channels, ladder.count), bool.

    Args:
        layout: of the stage.
        count: images.
        random: source of every random number.
        together: whether all images arrived at one size.
    """
    drawn = torch.randint(len(layout.rungs), (1 if together else count,), generator=random)
    ends = torch.tensor([rung * rung for rung in layout.rungs])[drawn].expand(count)  # coefficients of a channel
    have = torch.arange(layout.ladder.count) < ends[:, None]
    return have[:, None, :].expand(-1, layout.channels, -1)


def begun_part(layout: StageLayout, count: int, random: torch.Generator) -> Tensor:
    """Which coefficients arrived of what decodes from its beginning only, shape (count, channels, ladder.count), bool.

    Of a third of the images all of them, of the others the first ones up to a random place.

    Args:
        layout: of the stage.
        count: images.
        random: source of every random number.
    """
    whole = torch.rand(count, 1, generator=random) < 1 / 3
    cut = (torch.rand(count, 1, generator=random) * layout.count).clamp_min(_SMALLEST_RUN)
    return in_place(layout, whole | (torch.arange(layout.count)[None, :] < cut))


def first_part(layout: StageLayout, shares: npt.NDArray[np.float64]) -> Tensor:
    """The first so much of a stage's coefficients in order, shape (len(shares), channels, ladder.count), bool."""
    return in_place(layout, torch.arange(layout.count) < torch.from_numpy(shares * layout.count).round()[:, None])


def in_place(layout: StageLayout, have: Tensor) -> Tensor:
    """Which coefficients arrived, from the order in which they travel, (N, count), to (N, channels, ladder.count)."""
    found = torch.empty(len(have), layout.count, dtype=torch.bool)
    found[:, torch.from_numpy(layout.spread_order)] = have
    return found.reshape(len(have), layout.channels, layout.ladder.count)
