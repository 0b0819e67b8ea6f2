# SPDX-License-Identifier: Apache-2.0
"""Dynamic pooling as a reversible integer transform (FLEET section 3.2, eqs. 2-6).

A stage's map climbs a ladder of sizes: from a base grid of ``g0`` equal bands a side up to the finest
grid ``g0 * 2**levels``. Going up one size splits one row band and the column band of the same number in
two. All bands of one level are split, in an order that both ends share, before any half is split again.

A split is an integer lifting step. A parent cell holds ``l``, its halves are ``a`` and ``b``::

    l = floor((a + b) / 2),   h = a - b          # fine to coarse
    a = l + floor((h + 1) / 2),   b = a - h      # coarse to fine, exact

The base grid's ``l`` and every ``h`` travel. The paper's eq. 6 sends means and rebuilds the fourth cell
as ``4 F - F1 - F2 - F3``, which amplifies independent rounding errors by sqrt(19); here reconstruction
is exact at every rung, and a missing ``h`` may be taken as zero, so that any subset is usable.

Within one level, the four children of a cell ``(i, j)`` depend on that cell alone: its row is split
first if row band ``i`` comes no later in the order than column band ``j``, otherwise its column is. So
a level is a few array operations, however many sizes it spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from fleet.errors import FleetError

Order = Literal["corner", "centre"]
IntArray = npt.NDArray[np.int32]

MAX_FINEST = 256
"""Cells a side: a single channel of this size already fills the header's 16-bit coefficient index."""


def split_order(bands: int, order: Order) -> tuple[int, ...]:
    """In which order the bands of one level are split.

    Args:
        bands: number of bands of that level.
        order: ``corner`` counts up from the first (the paper's figures); ``centre`` begins in the
            middle of the picture and goes outward.

    Returns:
        A permutation of ``range(bands)``.

    Raises:
        FleetError: an order of another name.
    """
    if order == "corner":
        return tuple(range(bands))
    if order == "centre":
        middle = (bands - 1) / 2
        return tuple(sorted(range(bands), key=lambda band: (abs(band - middle), band)))
    raise FleetError(f"the split order is 'corner' or 'centre', not '{order}'")


def finest_grid(map_size: int, base: int, largest: int) -> int:
    """The finest grid ``base * 2**j`` that is larger than neither the map nor the largest rung.

    Args:
        map_size: cells a side of the stage's own map.
        base: g0.
        largest: the data set's largest rung.

    Raises:
        FleetError: the map is smaller than the base grid.
    """
    if base < 1 or min(map_size, largest) < base:
        raise FleetError(f"a map of {map_size} cells a side is smaller than the base grid of {base}")
    grid = base
    while grid * 2 <= min(map_size, largest):
        grid *= 2
    return grid


@dataclass(frozen=True)
class Ladder:
    """The transform between a map on the finest grid and its coefficients, for one geometry.

    Coefficients of one channel are ordered by the size they belong to: first the ``base**2`` means of
    the base grid, row by row, then for every size ``o -> o + 1`` the ``o`` differences of the row split
    and the ``o + 1`` differences of the column split. The first ``s**2`` of them give rung ``s``.

    Attributes:
        base: g0, bands a side of the coarsest grid.
        levels: the finest grid has ``base * 2**levels`` cells a side.
        order: in which order bands are split.
    """

    base: int
    levels: int
    order: Order = "centre"

    def __post_init__(self) -> None:
        if self.base < 1 or self.levels < 0:
            raise FleetError(f"a ladder needs a base of at least 1 and no negative levels, not {self}")
        # Numbers from a manifest: look before anything is sized by them.
        if self.levels > MAX_FINEST.bit_length() or self.finest > MAX_FINEST:
            raise FleetError(f"a ladder has at most {MAX_FINEST} cells a side, not {self.base} * 2**{self.levels}")
        split_order(self.base, self.order)

    @property
    def finest(self) -> int:
        """Cells a side of the finest grid."""
        return self.base << self.levels

    @property
    def count(self) -> int:
        """Coefficients of one channel: one for every cell of the finest grid."""
        return self.finest**2

    @cached_property
    def level_positions(self) -> tuple[npt.NDArray[np.intp], ...]:
        """For every level, where the three differences of every cell stand in the channel's order.

        Shape (3, bands, bands) a level: the difference of the cell's first split, then the two of its
        second split (of its first and second half).
        """
        return tuple(self._positions_of_level(level) for level in range(self.levels))

    def _positions_of_level(self, level: int) -> npt.NDArray[np.intp]:
        bands = self.base << level
        order = split_order(bands, self.order)
        positions = np.full((3, bands, bands), -1, dtype=np.intp)
        # Bands as the splits find them: (band of this level, which half or None while whole).
        rows: list[tuple[int, int]] = [(band, -1) for band in range(bands)]
        columns = list(rows)
        at = bands * bands
        for band in order:
            for col, half in columns:  # row split: one difference for every column there is now
                positions[self._slot(half), band, col] = at
                at += 1
            rows = _halve(rows, band)
            for row, half in rows:  # column split: the new rows included
                positions[self._slot(half), row, band] = at
                at += 1
            columns = _halve(columns, band)
        return positions

    @cached_property
    def base_cell(self) -> npt.NDArray[np.intp]:
        """For every coefficient of a channel, the cell of the base grid (flat) that it refines. Shape (count,)."""
        cells = np.empty(self.count, dtype=np.intp)
        cells[: self.base**2] = np.arange(self.base**2)
        for level, positions in enumerate(self.level_positions):
            band = np.arange(self.base << level) >> level
            cells[positions] = band[:, None] * self.base + band[None, :]
        return cells

    @staticmethod
    def _slot(half: int) -> int:
        return half + 1  # whole: first split of its cell; halves 0 and 1: the second split

    def _row_first(self, bands: int) -> npt.NDArray[np.bool_]:
        """Shape (bands, bands): whether a cell's row is split before its column."""
        rank = np.empty(bands, dtype=np.intp)
        rank[list(split_order(bands, self.order))] = np.arange(bands)
        return rank[:, None] <= rank[None, :]

    @cached_property
    def row_first_levels(self) -> tuple[npt.NDArray[np.bool_], ...]:
        """For every level, which cells' rows are split before their columns, shapes (bands, bands)."""
        return tuple(self._row_first(self.base << level) for level in range(self.levels))

    def split(self, grid: npt.ArrayLike) -> IntArray:
        """Fine to coarse: the coefficients of maps on the finest grid.

        Args:
            grid: integers, shape (..., finest, finest).

        Returns:
            Integers, shape (..., count).

        Raises:
            FleetError: another shape or no integers.
        """
        cells = np.asarray(grid)
        if cells.shape[-2:] != (self.finest, self.finest) or not np.issubdtype(cells.dtype, np.integer):
            raise FleetError(
                f"this ladder splits integer maps of {self.finest}x{self.finest}, not {cells.dtype} {cells.shape}"
            )
        low = cells.astype(np.int32)  # (..., g, g)
        lead = low.shape[:-2]
        out = np.empty((*lead, self.count), dtype=np.int32)
        for level in reversed(range(self.levels)):
            bands = self.base << level
            quad = low.reshape(*lead, bands, 2, bands, 2)
            c00, c01 = quad[..., 0, :, 0], quad[..., 0, :, 1]  # (..., bands, bands)
            c10, c11 = quad[..., 1, :, 0], quad[..., 1, :, 1]
            row_first = self.row_first_levels[level]
            # The halves of the cell's first split, each with the two children of its second split.
            # Row first: top (c00, c01), bottom (c10, c11). Column first: left (c00, c10), right (c01, c11).
            off_a = np.where(row_first, c01, c10)
            off_b = np.where(row_first, c10, c01)
            half_a, h_a = (c00 + off_a) >> 1, c00 - off_a
            half_b, h_b = (off_b + c11) >> 1, off_b - c11
            positions = self.level_positions[level]
            out[..., positions[0]] = half_a - half_b
            out[..., positions[1]] = h_a
            out[..., positions[2]] = h_b
            low = (half_a + half_b) >> 1
        out[..., : self.base**2] = low.reshape(*lead, self.base**2)
        return out

    def merge(self, coefficients: npt.ArrayLike) -> IntArray:
        """Coarse to fine, the inverse of :meth:`split`; a zero difference leaves both halves alike.

        With the differences above rung ``s`` zero, this is the paper's UpSample of that rung: every cell
        of the uneven grid is repeated where it belongs.

        Args:
            coefficients: integers, shape (..., count).

        Returns:
            Integers, shape (..., finest, finest).

        Raises:
            FleetError: another number of coefficients or no integers.
        """
        values = np.asarray(coefficients)
        if values.shape[-1:] != (self.count,) or not np.issubdtype(values.dtype, np.integer):
            raise FleetError(
                f"this ladder has {self.count} coefficients a channel, integers, not {values.dtype} {values.shape}"
            )
        values = values.astype(np.int32, copy=False)
        lead = values.shape[:-1]
        low = values[..., : self.base**2].reshape(*lead, self.base, self.base)
        for level in range(self.levels):
            bands = self.base << level
            positions = self.level_positions[level]
            h, h_a, h_b = (values[..., positions[k]] for k in range(3))  # (..., bands, bands)
            half_a = low + ((h + 1) >> 1)
            half_b = half_a - h
            c00 = half_a + ((h_a + 1) >> 1)
            off_a = c00 - h_a
            off_b = half_b + ((h_b + 1) >> 1)
            c11 = off_b - h_b
            row_first = self.row_first_levels[level]
            fine = np.empty((*lead, bands, 2, bands, 2), dtype=np.int32)
            fine[..., 0, :, 0] = c00
            fine[..., 0, :, 1] = np.where(row_first, off_a, off_b)
            fine[..., 1, :, 0] = np.where(row_first, off_b, off_a)
            fine[..., 1, :, 1] = c11
            low = fine.reshape(*lead, 2 * bands, 2 * bands)
        return low


def _halve(bands: list[tuple[int, int]], band: int) -> list[tuple[int, int]]:
    """The bands with one of them replaced by its two halves, in place."""
    at = bands.index((band, -1))
    return [*bands[:at], (band, 0), (band, 1), *bands[at + 1 :]]
