# SPDX-License-Identifier: Apache-2.0
"""The codec ``paper``, as published: means at 8 bits, compressed burst by burst (FLEET sections 3.2 and 4)."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from fleet.coders.coder import BoolArray
from fleet.ladder import IntArray, Ladder
from fleet.layout import FloatArray, IndexArray, StageLayout
from fleet.packet import MAX_COUNT, PacketError

TOP = 255
BURST = 4
"""Packets of a burst: the most that the paper's evaluation sends in one connection event."""


@dataclass(frozen=True)
class PaperCoder:
    """Means of the ladder's cells in a byte each, a whole burst deflated at a time.

    Where a cell is split, the mean of its first half travels, and the second half is what is left of the cell's own
    (eq. 6). Channel by channel within a rung. A lost packet costs its burst.

    Attributes:
        name: as in the manifest.
        number: the codec field of the header.
        container: around the deflated bytes: gzip's 18 bytes of header and check sum, or none.
    """

    name: str
    number: int
    container: Literal["gzip", "none"]
    pieces: bool = True

    @classmethod
    def gzip(cls) -> PaperCoder:
        """With gzip, as the paper says."""
        return cls("paper", 1, "gzip")

    @classmethod
    def deflate(cls) -> PaperCoder:
        """Without gzip's container: the same information in fewer bytes."""
        return cls("paper-deflate", 3, "none")

    def order(self, layout: StageLayout) -> IndexArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        return layout.order

    def rungs(self, layout: StageLayout) -> tuple[int, ...]:
        """See :class:`~fleet.coders.coder.Coder`."""
        return layout.rungs

    def coefficients(self, layout: StageLayout, features: npt.ArrayLike) -> IntArray:
        """See :class:`~fleet.coders.coder.Coder`; integers 0..255."""
        low, step = _scale(layout)
        with np.errstate(over="ignore"):
            scaled = np.nan_to_num((np.asarray(features, dtype=np.float32) - low) / step).clip(0, TOP)
        means = split_means(scaled, layout.ladder)
        flat = np.rint(means).astype(np.int32).reshape(*means.shape[:-2], layout.count)
        return flat[..., layout.order]

    def encode(
        self,
        layout: StageLayout,  # noqa: ARG002 - bytes need no layout
        values: IntArray,
        first: int,
        end: int,
        budget: int,
    ) -> tuple[list[bytes], int]:
        """See :class:`~fleet.coders.coder.Coder`."""
        room = BURST * (budget - 1)
        most = min(end - first, MAX_COUNT)
        raw = values[first : first + most].astype(np.uint8).tobytes()
        count, body = most, self._compress(raw)
        if len(body) > room:
            # Deflated length all but grows with the count: the longest run by bisection, then back if it did not.
            fits = partial(self._fits, raw, room)
            count = max(1, _bisect(most, fits))
            while not fits(count) and count > 1:
                count -= 1
            body = self._compress(raw[:count])
        piece = budget - 1
        parts = [body[at : at + piece] for at in range(0, len(body), piece)]
        return [bytes([k << 4 | len(parts) - 1]) + part for k, part in enumerate(parts)], count

    def _fits(self, raw: bytes, room: int, count: int) -> bool:
        return len(self._compress(raw[:count])) <= room

    def _compress(self, raw: bytes) -> bytes:
        if self.container == "gzip":
            return gzip.compress(raw, 9, mtime=0)
        deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        return deflate.compress(raw) + deflate.flush()

    def decodes_alone(self, layout: StageLayout) -> bool:  # noqa: ARG002
        """See :class:`~fleet.coders.coder.Coder`."""
        return True

    def decode(
        self,
        layout: StageLayout,  # noqa: ARG002
        first: int,  # noqa: ARG002
        count: int,
        body: bytes,
        before: IntArray | None = None,  # noqa: ARG002 - packets decode alone
    ) -> IntArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 16 if self.container == "gzip" else -zlib.MAX_WBITS)
        try:
            raw = inflate.decompress(body, count + 1)  # no more than was announced, whatever the bytes unpack to
        except zlib.error as err:
            raise PacketError("the burst does not inflate") from err
        if len(raw) != count or not inflate.eof or inflate.unused_data:
            raise PacketError(f"the burst does not hold {count} means")
        return np.frombuffer(raw, dtype=np.uint8).astype(np.int32)

    def features(self, layout: StageLayout, values: IntArray, have: BoolArray) -> FloatArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        low, step = _scale(layout)
        lead, order = values.shape[:-1], layout.order
        flat = np.full(values.shape, np.nan, dtype=np.float32)
        flat[..., order] = np.where(have, values, np.nan)
        top = layout.quantiser.levels - 1
        missing = np.asarray(layout.mean_levels, dtype=np.float32)[:, None] * (TOP / top)
        shaped = flat.reshape(*lead, layout.channels, layout.ladder.count)
        out: FloatArray = (merge_means(shaped, missing, layout.ladder) * step + low).astype(np.float32)
        return out


def _bisect(most: int, fits: partial[bool]) -> int:
    low, high = 0, most  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _scale(layout: StageLayout) -> tuple[FloatArray, FloatArray]:
    """Offset and width of a byte's step: the stage's own range in 256 instead of a few levels."""
    low = np.asarray(layout.quantiser.low, dtype=np.float32)[:, None, None]
    step = np.asarray(layout.quantiser.step, dtype=np.float32)[:, None, None]
    return low, step * ((layout.quantiser.levels - 1) / TOP)


def split_means(grid: FloatArray, ladder: Ladder) -> FloatArray:
    """The means that travel: those of the base grid, then of every split's first half.

    Args:
        grid: shape (..., finest, finest).
        ladder: geometry and order.

    Returns:
        Shape (..., ladder.count), at the places where the reversible ladder has the splits' differences.
    """
    lead = grid.shape[:-2]
    out = np.empty((*lead, ladder.count), dtype=np.float32)
    low: npt.NDArray[np.floating] = grid
    for level in reversed(range(ladder.levels)):
        bands = ladder.base << level
        quad = low.reshape(*lead, bands, 2, bands, 2)
        c00, c01, c10, c11 = quad[..., 0, :, 0], quad[..., 0, :, 1], quad[..., 1, :, 0], quad[..., 1, :, 1]
        row_first = ladder.row_first_levels[level]
        off_a, off_b = np.where(row_first, c01, c10), np.where(row_first, c10, c01)
        half_a, half_b = (c00 + off_a) / 2, (off_b + c11) / 2
        positions = ladder.level_positions[level]
        out[..., positions[0]], out[..., positions[1]], out[..., positions[2]] = half_a, c00, off_b
        low = (half_a + half_b) / 2
    out[..., : ladder.base**2] = low.reshape(*lead, -1)
    return out


def merge_means(means: FloatArray, missing: FloatArray, ladder: Ladder) -> FloatArray:
    """The inverse of :func:`split_means` up to rounding; a half that is not there is like its cell.

    Args:
        means: shape (..., ladder.count), NaN where missing.
        missing: stands for a missing base mean, shape (channels, 1).
        ladder: geometry and order.

    Returns:
        Shape (..., finest, finest), within 0..255.
    """
    lead = means.shape[:-1]
    base = means[..., : ladder.base**2]
    low: FloatArray = (
        np.where(np.isnan(base), missing, base).astype(np.float32).reshape(*lead, ladder.base, ladder.base)
    )
    for level in range(ladder.levels):
        bands = ladder.base << level
        first, corner, other = (means[..., ladder.level_positions[level][k]] for k in range(3))
        half_a = np.where(np.isnan(first), low, first)
        half_b = (2 * low - half_a).clip(0, TOP)
        c00 = np.where(np.isnan(corner), half_a, corner)
        off_b = np.where(np.isnan(other), half_b, other)
        off_a, c11 = (2 * half_a - c00).clip(0, TOP), (2 * half_b - off_b).clip(0, TOP)
        row_first = ladder.row_first_levels[level]
        fine = np.empty((*lead, bands, 2, bands, 2))
        fine[..., 0, :, 0], fine[..., 1, :, 1] = c00, c11
        fine[..., 0, :, 1], fine[..., 1, :, 0] = np.where(row_first, off_a, off_b), np.where(row_first, off_b, off_a)
        low = fine.reshape(*lead, 2 * bands, 2 * bands)
    return low.astype(np.float32)
