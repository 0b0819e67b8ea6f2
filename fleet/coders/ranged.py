# SPDX-License-Identifier: Apache-2.0
"""The codec ``fleet``: few-bit coefficients, range coded with the manifest's tables, spread against losses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from fleet.coders.coder import BoolArray, rebuild, split_features
from fleet.contexts import Contexts
from fleet.errors import FleetError
from fleet.ladder import IntArray
from fleet.layout import FloatArray, IndexArray, StageLayout
from fleet.packet import MAX_COUNT, PacketError
from fleet.tables import Tables

_WORD = 4  # bytes in which the library's coder works


class RangeCoder:
    """A range coder (Martin, 1979; constriction's) over :attr:`StageLayout.spread_order`.

    Within a packet the symbols are sorted by table, and within a table by place, so that a whole table's symbols are
    coded at once. Where a stage has contexts (:mod:`fleet.contexts`), they are coded in order, each by the table that
    those before it choose, and packets decode in their order only. The coder's 32-bit words are sent with their high
    byte first; of the last word only so many bytes travel as tell its interval from the others, and no zero bytes at
    the end. ``docs/protocol.md`` defines every bit of it in integers, for cameras that have no such library.
    """

    name = "fleet"
    number = 2
    pieces = False

    def __init__(self) -> None:
        self._whole: tuple[StageLayout, IntArray, _Run] | None = None  # that was coded last, for its next packet

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
        run = self._symbols(layout, values, first, min(end, first + MAX_COUNT))
        bits = np.cumsum(run.bits())
        # The last word's end costs up to a byte more than the symbols' own information.
        count = max(1, int(np.searchsorted(bits, budget * 8, side="right")))
        while True:
            body = run.part(0, count).encode()
            if len(body) <= budget or count == 1:
                return [body], count
            over = 8 * (len(body) - budget)
            count = max(1, min(count - 1, int(np.searchsorted(bits, bits[count - 1] - over + 7, side="right"))))

    def _symbols(self, layout: StageLayout, values: IntArray, first: int, end: int) -> _Run:
        """The run from ``first`` to ``end``; the guesses are made once for all packets of the same picture."""
        if layout.contexts is None:
            return _run(layout, values, first, end)
        known = self._whole
        if known is None or known[0] is not layout or not np.array_equal(known[1], values):
            known = self._whole = layout, values.copy(), _run(layout, values, 0, layout.count)
        return known[2].part(first, end)

    def decodes_alone(self, layout: StageLayout) -> bool:
        """See :class:`~fleet.coders.coder.Coder`."""
        return layout.contexts is None

    def decode(
        self, layout: StageLayout, first: int, count: int, body: bytes, before: IntArray | None = None
    ) -> IntArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        words = np.frombuffer(body + bytes(-len(body) % _WORD), dtype=">u4").astype(np.uint32)
        decoder = constriction.stream.queue.RangeDecoder(words)
        try:
            if layout.contexts is None:
                values = _decode_sorted(layout, first, count, decoder)
            else:
                values = _decode_guessed(layout, layout.contexts, first, count, decoder, before)
        except AssertionError as err:  # what the library raises for bits that no encoder gives
            raise PacketError("the body is no range-coded run") from err
        # A range coder finds a meaning in almost any bits; only an encoder's own are taken.
        whole = np.zeros(layout.count, np.int32)
        whole[:first] = before[:first] if before is not None else 0
        whole[first : first + count] = values
        if _run(layout, whole, first, first + count).encode() != body:
            raise PacketError(f"the body is not what {count} coefficients from {first} are coded as")
        return values

    def features(self, layout: StageLayout, values: IntArray, have: BoolArray) -> FloatArray:
        """See :class:`~fleet.coders.coder.Coder`."""
        return rebuild(layout, layout.spread_order, values, have)


@dataclass(frozen=True)
class _Run:
    """Symbols to code, in the order's order.

    Attributes:
        tables: of which each has one.
        where: which one, shape (n,).
        symbols: shape (n,).
        by_table: whether they are coded table by table, each of which then is one model for all its symbols.
    """

    tables: Tables
    where: IndexArray
    symbols: IntArray
    by_table: bool

    def bits(self) -> npt.NDArray[np.float64]:
        """Information of each symbol."""
        found: npt.NDArray[np.float64] = self.tables.bits[self.where, self.symbols]
        return found

    def part(self, begin: int, end: int) -> _Run:
        """Those from one on up to another."""
        return replace(self, where=self.where[begin:end], symbols=self.symbols[begin:end])

    def encode(self) -> bytes:
        """The body of a packet."""
        encoder = constriction.stream.queue.RangeEncoder()
        if self.by_table:
            for table, chosen in _by_table(self.where):
                encoder.encode(self.symbols[chosen], self.tables.models[table])
        else:
            encoder.encode(self.symbols, _ANY, self.tables.shares[self.where])
        return _bytes(encoder)


_ANY = constriction.stream.model.Categorical(perfect=False)
"""A model that is given its shares with every symbol."""


def _run(layout: StageLayout, values: IntArray, first: int, end: int) -> _Run:
    """The run from ``first`` to ``end`` of all coefficients in order."""
    if layout.contexts is None:
        places = layout.kinds[layout.spread_order[first:end]]
        return _Run(_tables_of(layout), places, values[first:end] + _shift(layout, places), by_table=True)
    model = layout.contexts.on(layout.ladder.finest)
    known = np.zeros(layout.count + 1, np.int64)
    known[model.order[:end]] = values[:end] - model.zero[:end]
    lowest, where = model.look(known, first, end)
    symbols = ((values[first:end] - lowest) % layout.quantiser.levels).astype(np.int32)
    return _Run(layout.contexts.tables, where, symbols, by_table=False)


def _decode_sorted(layout: StageLayout, first: int, count: int, decoder: Any) -> IntArray:
    tables = _tables_of(layout)
    places = layout.kinds[layout.spread_order[first : first + count]]
    symbols = np.empty(count, dtype=np.int32)
    for table, chosen in _by_table(places):
        symbols[chosen] = decoder.decode(tables.models[table], len(chosen))
    values: IntArray = symbols - _shift(layout, places)
    return values


def _decode_guessed(
    layout: StageLayout, contexts: Contexts, first: int, count: int, decoder: Any, before: IntArray | None
) -> IntArray:
    """Lattice by lattice: what is looked at for one lies in those before."""
    if first and before is None:
        raise PacketError(f"the first {first} coefficients are not known yet")
    model = contexts.on(layout.ladder.finest)
    known = np.zeros(layout.count + 1, np.int64)
    if before is not None:
        known[model.order[:first]] = before[:first] - model.zero[:first]
    values = np.empty(count, np.int32)
    for start, end in itertools.pairwise(model.cuts(first, first + count)):
        lowest, where = model.look(known, start, end)
        symbols = decoder.decode(_ANY, contexts.tables.shares[where])
        found = (lowest + symbols) % layout.quantiser.levels
        known[model.order[start:end]] = found - model.zero[start:end]
        values[start - first : end - first] = found
    return values


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


def _bytes(encoder: Any) -> bytes:
    """What was coded, in as few bytes as tell it from anything else."""
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
