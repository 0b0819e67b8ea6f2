# SPDX-License-Identifier: Apache-2.0
"""The codec ``fleet``: few-bit coefficients, range coded with the manifest's tables, spread against losses."""

from __future__ import annotations

from collections.abc import Iterator

import constriction
import numpy as np
import numpy.typing as npt

from fleet.coders.coder import BoolArray, rebuild, split_features
from fleet.errors import FleetError
from fleet.ladder import IntArray
from fleet.layout import FloatArray, IndexArray, StageLayout
from fleet.packet import MAX_COUNT, PacketError
from fleet.tables import Tables

_WORD = 4  # bytes in which the library's coder works


class RangeCoder:
    """A range coder (Martin, 1979; constriction's) over :attr:`StageLayout.spread_order`.

    Within a packet the symbols are sorted by table, and within a table by place, so that a whole table's symbols are
    coded at once. The coder's 32-bit words are sent with their high byte first; of the last word only so many
    bytes travel as tell its interval from the others, and no zero bytes at the end. ``docs/protocol.md`` defines every
    bit of it in integers, for cameras that have no such library.
    """

    name = "fleet"
    number = 2
    pieces = False

    def order(self, layout: StageLayout) -> IndexArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        return layout.spread_order

    def rungs(self, layout: StageLayout) -> tuple[int, ...]:
        """See :class:`~fleet.coders.coder.Coder`."""
        return layout.spread_rungs

    def coefficients(self, layout: StageLayout, features: npt.ArrayLike) -> IntArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        return split_features(layout, features, layout.spread_order)

    def encode(
        self, layout: StageLayout, values: IntArray, first: int, end: int, budget: int
    ) -> tuple[list[bytes], int]:
        """See :class:`~fleet.coders.coder.Coder`."""
        tables = _tables_of(layout)
        most = min(end, first + MAX_COUNT)
        places = layout.kinds[layout.spread_order[first:most]]
        symbols = values[first:most] + _shift(layout, places)
        bits = np.cumsum(tables.bits[places, symbols])
        # The last word's end costs up to a byte more than the symbols' own information.
        count = max(1, int(np.searchsorted(bits, budget * 8, side="right")))
        while True:
            body = _encode(tables, places[:count], symbols[:count])
            if len(body) <= budget or count == 1:
                return [body], count
            over = 8 * (len(body) - budget)
            count = max(1, min(count - 1, int(np.searchsorted(bits, bits[count - 1] - over + 7, side="right"))))

    def decode(self, layout: StageLayout, first: int, count: int, body: bytes) -> IntArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        tables = _tables_of(layout)
        places = layout.kinds[layout.spread_order[first : first + count]]
        words = np.frombuffer(body + bytes(-len(body) % _WORD), dtype=">u4").astype(np.uint32)
        decoder = constriction.stream.queue.RangeDecoder(words)
        symbols = np.empty(count, dtype=np.int32)
        try:
            for table, chosen in _by_table(places):
                symbols[chosen] = decoder.decode(tables.models[table], len(chosen))
        except AssertionError as err:  # what the library raises for bits that no encoder gives
            raise PacketError("the body is no range-coded run") from err
        # A range coder finds a meaning in almost any bits; only an encoder's own are taken.
        if _encode(tables, places, symbols) != body:
            raise PacketError(f"the body is not what {count} coefficients from {first} are coded as")
        values: IntArray = symbols - _shift(layout, places)
        return values

    def features(self, layout: StageLayout, values: IntArray, have: BoolArray) -> FloatArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        return rebuild(layout, layout.spread_order, values, have)


def _tables_of(layout: StageLayout) -> Tables:
    if layout.tables is None:
        raise FleetError(f"stage {layout.stage} has no frequency tables for the codec 'fleet': export the model again")
    return layout.tables


def _shift(layout: StageLayout, places: IndexArray) -> IntArray:
    """What makes a coefficient a symbol: symbols count from 0."""
    return np.where(places % layout.kind_count == 0, 0, layout.quantiser.levels - 1).astype(np.int32)


def _by_table(places: IndexArray) -> Iterator[tuple[int, IndexArray]]:
    """Every table that occurs, ascending, with the places where it does."""
    order = np.argsort(places, kind="stable")
    tables, starts = np.unique(places[order], return_index=True)
    yield from zip(tables.tolist(), np.split(order, starts[1:]), strict=True)


def _encode(tables: Tables, places: IndexArray, symbols: IntArray) -> bytes:
    encoder = constriction.stream.queue.RangeEncoder()
    for table, chosen in _by_table(places):
        encoder.encode(symbols[chosen], tables.models[table])
    _, (low, width) = encoder.pos()
    words = encoder.get_compressed()
    # The interval holds every last word from the library's choice up to this one; one with zeros at its end is shorter.
    last, highest = int(words[-1]), (low + width - 1) >> 32
    for zeros in (24, 16, 8):
        rounded = -(-last >> zeros) << zeros
        if last == -(-low >> 32) and rounded <= min(highest, 0xFFFFFFFF):
            words[-1] = rounded
            break
    return words.astype(">u4").tobytes().rstrip(b"\0") or b"\0"
