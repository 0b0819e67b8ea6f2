# SPDX-License-Identifier: Apache-2.0
"""What every codec does, and how a map is rebuilt from any part of the ladder's coefficients."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fleet.ladder import IntArray, Ladder
from fleet.layout import FloatArray, IndexArray, StageLayout

BoolArray = npt.NDArray[np.bool_]

MEAN_WEIGHT = 0.5
"""What the channel's mean counts beside a direct neighbour (1) when a missing base value is guessed."""


class Coder(Protocol):
    """Turns a stage's features into the bodies of packets, and whatever arrived of them back into features.

    A coder puts a stage's coefficients into one order. A *run* is a part of it without gaps; a packet holds a run,
    or a piece of one.
    """

    @property
    def name(self) -> str:
        """As in the manifest."""

    @property
    def number(self) -> int:
        """The codec field of the header."""

    @property
    def pieces(self) -> bool:
        """Whether a run may take several packets, all of which are needed to decode it.

        Every body then begins with the index of its piece in the high four bits and the last one's in the low.
        """

    def order(self, layout: StageLayout) -> IndexArray:
        """For each place in the order, the flat index into (channels, ladder.count). Shape (count,)."""

    def rungs(self, layout: StageLayout) -> tuple[int, ...]:
        """The rungs that a prefix of the order gives."""

    def coefficients(self, layout: StageLayout, features: npt.ArrayLike) -> IntArray:
        """What is coded of features (..., channels, finest, finest), in the coder's order, shape (..., count)."""

    def encode(
        self, layout: StageLayout, values: IntArray, first: int, end: int, budget: int
    ) -> tuple[list[bytes], int]:
        """Code the longest run from ``first`` on, not beyond ``end``, that fits its packets.

        Args:
            layout: of the stage.
            values: all coefficients in order, shape (count,).
            first: the run's first place.
            end: the place behind the last that may be coded.
            budget: bytes of a packet's body.

        Returns:
            The bodies, and how many coefficients they hold together.
        """

    def decodes_alone(self, layout: StageLayout) -> bool:
        """Whether a run decodes without all that is before it in the order."""

    def decode(
        self, layout: StageLayout, first: int, count: int, body: bytes, before: IntArray | None = None
    ) -> IntArray:
        """The coefficients of a run, its pieces joined.

        Args:
            layout: of the stage.
            first: the run's first place.
            count: coefficients that it holds.
            body: the packet's.
            before: the coefficients at the places before ``first``, which runs need that do not decode alone.

        Raises:
            PacketError: the body cannot have come from :meth:`encode`.
        """

    def features(self, layout: StageLayout, values: IntArray, have: BoolArray) -> FloatArray:
        """The map as far as it is known.

        Args:
            layout: of the stage.
            values: coefficients in the coder's order, shape (..., count); those that are missing are not looked at.
            have: which of them arrived, same shape.

        Returns:
            Shape (..., channels, finest, finest).
        """


def split_features(layout: StageLayout, features: npt.ArrayLike, order: IndexArray) -> IntArray:
    """Quantise, split, order: features (..., channels, finest, finest) to integers (..., count).

    Base values are 0..levels-1, differences within +-(levels-1).
    """
    split = layout.ladder.split(layout.quantiser.quantise(features))
    return split.reshape(*split.shape[:-2], layout.count)[..., order]


def rebuild(layout: StageLayout, order: IndexArray, values: IntArray, have: BoolArray) -> FloatArray:
    """The map that any subset of the reversible ladder's coefficients gives.

    A missing difference is zero. A missing base value is the weighted mean of those of its channel that are there
    and of the channel's own mean, with the inverse fourth power of the distance as weight.

    Args:
        layout: of the stage.
        order: which flat index each place holds.
        values: in that order, shape (..., count).
        have: which of them arrived, same shape.

    Returns:
        Dequantised, shape (..., channels, finest, finest).
    """
    lead, cells = values.shape[:-1], layout.ladder.base**2
    flat, known = np.zeros(values.shape, dtype=np.int32), np.zeros(values.shape, dtype=np.bool_)
    flat[..., order], known[..., order] = np.where(have, values, 0), have
    flat = flat.reshape(*lead, layout.channels, layout.ladder.count)
    known = known.reshape(flat.shape)
    base, there = flat[..., :cells], known[..., :cells]
    if not there.all():
        mean = np.asarray(layout.mean_levels, dtype=np.float32)[:, None]
        flat[..., :cells] = np.where(there, base, conceal(base, there, mean, layout.ladder.base))
    levels = layout.ladder.merge(flat)
    # A partial set of differences can push a cell past the ends of the scale.
    return layout.quantiser.dequantise(np.clip(levels, 0, layout.quantiser.levels - 1))


def view(coder: Coder, layout: StageLayout, values: IntArray, have: BoolArray) -> FloatArray:
    """What an exit is given of a stage: its map as far as it is known, and how much of it is.

    Args:
        coder: of the coefficients.
        layout: of the stage.
        values: coefficients in the coder's order, shape (..., count).
        have: which of them arrived, same shape.

    Returns:
        Shape (..., 2 * channels, finest, finest): the map, then for every channel and place the share of
        coefficients that arrived of the base cell it lies in, 0..1.
    """
    lead, ladder = values.shape[:-1], layout.ladder
    known = np.zeros(values.shape, dtype=np.float32)
    known[..., coder.order(layout)] = have
    shares = known.reshape(*lead, layout.channels, ladder.count) @ cell_shares(ladder)
    square = shares.reshape(*shares.shape[:-1], ladder.finest, ladder.finest)
    return np.concatenate([coder.features(layout, values, have), square], axis=-3)


@lru_cache(maxsize=16)
def cell_shares(ladder: Ladder) -> npt.NDArray[np.float32]:
    """What every coefficient counts at every place of the finest grid: shape (ladder.count, finest * finest)."""
    band = np.arange(ladder.finest) * ladder.base // ladder.finest
    cell_of_place = (band[:, None] * ladder.base + band).ravel()
    shares = (ladder.base_cell[:, None] == cell_of_place).astype(np.float32)
    out: npt.NDArray[np.float32] = shares / shares.sum(axis=0)
    return out


def conceal(base: IntArray, there: BoolArray, mean: npt.NDArray[np.float32], side: int) -> IntArray:
    """A guess for every cell of the base grid from those that are there, see :func:`rebuild`.

    Args:
        base: shape (..., channels, side * side), zero where missing.
        there: same shape.
        mean: level of each channel's mean, shape (channels, 1).
        side: cells a side.
    """
    weights = neighbour_weights(side)
    total = MEAN_WEIGHT * mean + base.astype(np.float32) @ weights
    guess: IntArray = np.rint(total / (MEAN_WEIGHT + there.astype(np.float32) @ weights)).astype(np.int32)
    return guess


@lru_cache(maxsize=8)
def neighbour_weights(side: int) -> npt.NDArray[np.float32]:
    """Inverse fourth power of the distance between the cells of a square grid, 0 to itself. (side², side²)."""
    row, column = np.divmod(np.arange(side * side), side)
    squared = (row[:, None] - row) ** 2 + (column[:, None] - column) ** 2
    return np.where(squared > 0, 1.0 / np.maximum(squared, 1) ** 2, 0.0).astype(np.float32)
