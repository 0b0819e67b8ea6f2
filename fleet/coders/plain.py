# SPDX-License-Identifier: Apache-2.0
"""The codec ``plain``: fixed widths, nothing to configure, the one to compare with and to debug by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fleet.coders.coder import BoolArray, rebuild, split_features
from fleet.ladder import IntArray
from fleet.layout import FloatArray, IndexArray, StageLayout
from fleet.packet import MAX_COUNT, PacketError


class PlainCoder:
    """Every coefficient in as many bits as its range needs, most significant bit first; rung by rung."""

    name = "plain"
    number = 0
    pieces = False

    def order(self, layout: StageLayout) -> IndexArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        return layout.order

    def rungs(self, layout: StageLayout) -> tuple[int, ...]:
        """See :class:`~fleet.coders.coder.Coder`."""
        return layout.rungs

    def coefficients(self, layout: StageLayout, features: npt.ArrayLike) -> IntArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        return split_features(layout, features, layout.order)

    def encode(
        self, layout: StageLayout, values: IntArray, first: int, end: int, budget: int
    ) -> tuple[list[bytes], int]:
        """See :class:`~fleet.coders.coder.Coder`."""
        # No coefficient is narrower than its channel's level, so no more than this many can fit.
        most = min(first + min(budget * 8 // _bits(layout), MAX_COUNT), end)
        base = _is_base(layout, first, most)
        widths = _widths(layout, base)
        count = int(np.searchsorted(np.cumsum(widths), budget * 8, side="right"))
        widths, base = widths[:count], base[:count]
        run = values[first : first + count]
        unsigned = np.where(base, run, run + layout.quantiser.levels - 1)
        columns = np.arange(_bits(layout), -1, -1)
        bits = (unsigned[:, None] >> columns[None, :]) & 1  # (count, widest)
        return [np.packbits(bits[widths[:, None] > columns[None, :]].astype(np.uint8)).tobytes()], count

    def decodes_alone(self, layout: StageLayout) -> bool:  # noqa: ARG002
        """See :class:`~fleet.coders.coder.Coder`."""
        return True

    def decode(
        self,
        layout: StageLayout,
        first: int,
        count: int,
        body: bytes,
        before: IntArray | None = None,  # noqa: ARG002 - packets decode alone
    ) -> IntArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        base = _is_base(layout, first, first + count)
        widths = _widths(layout, base)
        total = int(widths.sum())
        if len(body) != -(-total // 8):
            raise PacketError(f"{count} coefficients take {-(-total // 8)} bytes, the packet holds {len(body)}")
        bits = np.unpackbits(np.frombuffer(body, dtype=np.uint8))[:total]
        columns = np.arange(_bits(layout), -1, -1)
        used = widths[:, None] > columns[None, :]
        matrix = np.zeros(used.shape, dtype=np.int32)
        matrix[used] = bits
        top = layout.quantiser.levels - 1
        unsigned = (matrix << columns[None, :]).sum(axis=1)
        values: IntArray = np.where(base, unsigned, unsigned - top).astype(np.int32)
        if np.any(values > top):
            raise PacketError("a coefficient is out of its range")
        return values

    def features(self, layout: StageLayout, values: IntArray, have: BoolArray) -> FloatArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        return rebuild(layout, layout.order, values, have)


def _bits(layout: StageLayout) -> int:
    return (layout.quantiser.levels - 1).bit_length()


def _is_base(layout: StageLayout, first: int, end: int) -> BoolArray:
    out: BoolArray = layout.is_base[layout.order[first:end]]
    return out


def _widths(layout: StageLayout, base: BoolArray) -> IndexArray:
    return np.where(base, _bits(layout), _bits(layout) + 1)
