# SPDX-License-Identifier: Apache-2.0
"""How the codec guesses a picture's numbers from those before them: context modelling, in whole numbers.

A number is rarely a surprise where its neighbours and the lower frequencies of its block are known. Two weighted sums
over a few of them say where it is expected, and how far from there it may lie; the latter picks one of a channel's
frequency tables. Camera and hub must agree to the last bit, so everything here is an integer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fleet.errors import FleetError
from fleet.ladder import IntArray
from fleet.tables import Tables, scaled

WAYS = 4
"""Lattices that a channel's cells are dealt to, see :attr:`fleet.layout.StageLayout.spread_order`."""
UNIT = 256
"""What a weight of 1 is in a look's whole numbers."""
TOTAL = 1 << 16
"""What a context's frequencies add up to."""
NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""Cells beside a cell: (down, across)."""
NEAREST = 4
"""So many of them share a side with it."""
ROOTS = 3
"""The first channels, brightness and the two colours: in training, the neighbours' values of these count, too."""
MOST_WEIGHT = 1 << 15
MOST_BIAS = 1 << 23
"""With at most :data:`MOST_LOOKS` numbers of at most 255 each, every sum stays within 32 bits."""
MOST_LOOKS = 16
MOST_EDGES = 64
MOST_EDGE = (1 << 31) - 1

Longs = npt.NDArray[np.int64]

Look = tuple[int, int, int, int]
"""A number that is looked at: its channel, how many cells further down and across it lies, its weight."""


@dataclass(frozen=True)
class Outlook:
    """What is looked at for the numbers of one channel and lattice.

    Attributes:
        values: their weighted sum, in units of 1/256, is where a number is expected.
        sizes: the weighted sum of these' sizes, and ``bias``, is how far off it may be.
        bias: see there.
    """

    values: tuple[Look, ...]
    sizes: tuple[Look, ...]
    bias: int


@dataclass(frozen=True)
class Contexts:
    """The codec's model of a stage whose channels travel one after another.

    Attributes:
        zero: the level from which a channel's numbers count.
        outlooks: by channel, and within it by lattice.
        edges: by channel, ascending: behind how many of them the second sum lies says which table holds.
        tables: one more a channel than it has edges, of ``levels`` symbols each.
    """

    zero: tuple[int, ...]
    outlooks: tuple[Outlook, ...]
    edges: tuple[tuple[int, ...], ...]
    tables: Tables

    def check(self, channels: int, levels: int) -> None:
        """Refuse what does not fit a stage.

        Raises:
            FleetError: the numbers of entries, a look at what is not known yet, or sums that may leave 32 bits.
        """
        if (len(self.zero), len(self.outlooks), len(self.edges)) != (channels, WAYS * channels, channels):
            raise FleetError(f"contexts of {channels} channels need {WAYS} outlooks and one list of edges in each")
        if not all(0 <= zero < levels for zero in self.zero):
            raise FleetError(f"a channel's zero is one of {levels} levels")
        if any(list(edges) != sorted(edges) or len(edges) > MOST_EDGES for edges in self.edges):
            raise FleetError(f"a channel's edges must ascend, and be {MOST_EDGES} at most")
        if any(abs(edge) > MOST_EDGE for edges in self.edges for edge in edges):
            raise FleetError("a channel's edges are numbers of 32 bits")
        if self.tables.sizes != (levels,) * sum(len(edges) + 1 for edges in self.edges) or self.tables.total != TOTAL:
            raise FleetError(f"every context has one table of {levels} entries that add up to {TOTAL}")
        for place, outlook in enumerate(self.outlooks):
            channel, lattice = divmod(place, WAYS)
            if max(len(outlook.values), len(outlook.sizes)) > MOST_LOOKS or abs(outlook.bias) > MOST_BIAS:
                raise FleetError(f"an outlook has at most {MOST_LOOKS} looks of a kind and a bias within {MOST_BIAS}")
            for at, down, across, weight in (*outlook.values, *outlook.sizes):
                near = max(abs(down), abs(across)) <= 1 and abs(weight) <= MOST_WEIGHT
                earlier = 0 <= at < channel or (at == channel and (lattice + down + 2 * across) % WAYS < lattice)
                if not near or not earlier:
                    raise FleetError(
                        f"channel {channel} cannot look at channel {at}, ({down}, {across}): not known yet"
                    )

    @property
    def operations(self) -> int:
        """Multiplications that all cells of one block's channels take together, in the mean."""
        return sum(len(o.values) + len(o.sizes) for o in self.outlooks) // WAYS

    def on(self, grid: int) -> Model:
        """The model on maps of ``grid`` cells a side."""
        if grid not in self._models:
            self._models[grid] = _model(self, grid)
        return self._models[grid]

    @cached_property
    def _models(self) -> dict[int, Model]:
        return {}


@dataclass(frozen=True)
class Model:
    """Contexts laid out for every number of a map, in the order in which they travel.

    Attributes:
        levels: of the quantiser.
        order: their flat indices into (channels, cells), shape (count,).
        zero: the level from which each counts.
        value_at: which numbers are looked at for it, by flat index, ``count`` where there is none, shape (count, most
            looks).
        value_by: with which weights, same shape.
        size_at: the same of the second sum.
        size_by: the same.
        bias: of each number.
        channel: of each number.
        first_table: of each channel.
        edges: of each channel.
        starts: where the numbers of a lattice begin, ascending; what is looked at for them lies before.
    """

    levels: int
    order: Longs
    zero: Longs
    value_at: Longs
    value_by: Longs
    size_at: Longs
    size_by: Longs
    bias: Longs
    channel: Longs
    first_table: Longs
    edges: tuple[Longs, ...]
    starts: Longs

    def look(self, known: Longs, start: int, end: int) -> tuple[Longs, Longs]:
        """Where the numbers from one place in the order to another are expected, and which table each has.

        Args:
            known: every number less its zero, by flat index, 0 where it is not known, and one more 0 at the end, shape
                (count + 1,).
            start: the first number's place.
            end: the place behind the last.

        Returns:
            The level that symbol 0 stands for, modulo ``levels``, and the table, shapes (end - start,).
        """
        run = slice(start, end)
        guess = ((known[self.value_at[run]] * self.value_by[run]).sum(axis=1) + UNIT // 2) // UNIT
        width = (np.abs(known[self.size_at[run]]) * self.size_by[run]).sum(axis=1) + self.bias[run]
        channel = self.channel[run]
        table = np.empty(end - start, np.int64)
        for c in range(int(channel[0]), int(channel[-1]) + 1):
            own = slice(*np.searchsorted(channel, (c, c + 1)))
            # An edge itself is not behind it.
            table[own] = self.first_table[c] + np.searchsorted(self.edges[c], width[own])
        return self.zero[run] + guess - self.levels // 2, table

    def cuts(self, first: int, end: int) -> list[int]:
        """Where a run's lattices begin, and its end."""
        inside = self.starts[np.searchsorted(self.starts, first, side="right") : np.searchsorted(self.starts, end)]
        return [first, *inside.tolist(), end]


def _model(contexts: Contexts, grid: int) -> Model:
    channels, cells = len(contexts.zero), grid * grid
    row, column = np.divmod(np.arange(cells), grid)
    channel = np.arange(channels).repeat(cells)
    lattice = ((row + 2 * column + np.arange(channels)[:, None]) % WAYS).ravel()
    order = np.lexsort((lattice, channel))
    place = WAYS * channel + lattice  # of an outlook
    tables = np.asarray([len(edges) + 1 for edges in contexts.edges])
    (value_at, value_by), (size_at, size_by) = (_laid(contexts, grid, kind) for kind in ("values", "sizes"))
    return Model(
        contexts.tables.sizes[0],
        order,
        np.asarray(contexts.zero, np.int64)[channel[order]],
        value_at[order],
        value_by[order],
        size_at[order],
        size_by[order],
        np.asarray([o.bias for o in contexts.outlooks], np.int64)[place[order]],
        channel[order],
        np.cumsum(tables) - tables,
        tuple(np.asarray(edges, np.int64) for edges in contexts.edges),
        np.flatnonzero(np.diff(place[order], prepend=-1)),
    )


def _laid(contexts: Contexts, grid: int, kind: str) -> tuple[Longs, Longs]:
    """The looks of every number: flat indices and weights, shape (count, most looks)."""
    channels, cells = len(contexts.zero), grid * grid
    count = channels * cells
    row, column = np.divmod(np.arange(cells), grid)
    most = max((len(getattr(o, kind)) for o in contexts.outlooks), default=0)
    at, by = np.full((count, most), count, np.int64), np.zeros((count, most), np.int64)
    for place, outlook in enumerate(contexts.outlooks):
        channel, lattice = divmod(place, WAYS)
        own = np.flatnonzero((row + 2 * column + channel) % WAYS == lattice)
        for k, (source, down, across, weight) in enumerate(getattr(outlook, kind)):
            there = row[own] + down, column[own] + across
            inside = (there[0] >= 0) & (there[0] < grid) & (there[1] >= 0) & (there[1] < grid)
            at[channel * cells + own, k] = np.where(inside, source * cells + there[0] * grid + there[1], count)
            by[channel * cells + own, k] = weight
    return at, by


# Learning -----------------------------------------------------------------------------------------------------
RIDGE = 1e-4
"""Of the mean square of what is looked at: keeps weights of all but equal numbers small."""
LEAST_GAIN = 1e-4
"""Mean squared levels by which a look must come closer to be worth its operations."""


def count_contexts(levels: IntArray, symbols: int, *, values: int = 4, sizes: int = 6, widths: int = 12) -> Contexts:
    """Contexts from samples: the looks that say most, found one after another, by least squares.

    Args:
        levels: of samples, shape (N, channels, grid, grid).
        symbols: levels of the quantiser.
        values: at most so many looks say where a number is expected.
        sizes: at most so many say how far off it may be.
        widths: tables a channel.
    """
    channels = levels.shape[1]
    zero = [int(np.bincount(levels[:, c].ravel(), minlength=symbols).argmax()) for c in range(channels)]
    x = (levels - np.asarray(zero)[:, None, None]).astype(np.float32)
    outlooks: list[Outlook] = []
    edges, tables = [], []
    for channel in range(channels):
        own = [_outlook(x, channel, lattice, values, sizes) for lattice in range(WAYS)]
        outlooks += [outlook for outlook, _, _ in own]
        off, width = (np.concatenate([part[k] for part in own]) for k in (1, 2))
        inner = np.quantile(width, np.linspace(0, 1, widths + 1)[1:-1]).astype(int)
        found = sorted(set(inner.tolist()))
        behind = np.searchsorted(found, width, side="left")  # an edge itself is not behind it
        for k in range(len(found) + 1):
            chosen = (off[behind == k].astype(int) + symbols // 2) % symbols
            tables.append(scaled(np.bincount(chosen, minlength=symbols), TOTAL))
        edges.append(tuple(found))
    return Contexts(tuple(zero), tuple(outlooks), tuple(edges), Tables(tuple(tables), TOTAL))


def _outlook(
    x: npt.NDArray[np.float32], channel: int, lattice: int, values: int, sizes: int
) -> tuple[Outlook, npt.NDArray[np.float64], Longs]:
    """The outlook of a channel's lattice, how far the samples are off its guesses, and their second sums."""
    grid = x.shape[-1]
    row, column = np.divmod(np.arange(grid * grid), grid)
    cells = ((row + 2 * column + channel) % WAYS == lattice).reshape(grid, grid)
    looks = [(channel, d, a) for d, a in NEIGHBOURS if (lattice + d + 2 * a) % WAYS < lattice]
    looks += [(k, 0, 0) for k in range(channel)]
    looks += [(k, d, a) for k in range(channel) for d, a in NEIGHBOURS[:NEAREST]]
    truth = x[:, channel][:, cells].ravel().astype(np.float64)
    if not looks or not truth.size:
        return Outlook((), (), 0), truth, np.zeros(len(truth), np.int64)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    seen = np.stack(
        [padded[:, k, 1 + d : 1 + d + grid, 1 + a : 1 + a + grid][:, cells].ravel() for k, d, a in looks], axis=1
    )
    chosen, weights = _most_telling(seen, truth, values)
    guess = (seen[:, chosen].astype(np.float64) @ weights + UNIT // 2) // UNIT
    off = truth - guess
    by_value = tuple((*looks[k], int(w)) for k, w in zip(chosen, weights, strict=True))
    sizes_seen = np.concatenate([np.abs(seen), np.ones((len(seen), 1), np.float32)], axis=1)
    chosen, weights = _most_telling(sizes_seen, np.abs(off), sizes + 1)
    width = (sizes_seen[:, chosen].astype(np.float64) @ weights).astype(np.int64)
    found = dict(zip(chosen, weights.tolist(), strict=True))
    bias = int(found.pop(len(looks), 0))
    return Outlook(by_value, tuple((*looks[k], int(w)) for k, w in found.items()), bias), off, width


def _most_telling(
    seen: npt.NDArray[np.float32], truth: npt.NDArray[np.float64], most: int
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Columns that explain the most together, added one by one, and their weights in units of 1/256."""
    squares = (seen.T @ seen).astype(np.float64) / len(seen)
    shared = seen.T.astype(np.float64) @ truth / len(seen)
    ridge = max(RIDGE * np.trace(squares) / len(squares), RIDGE)
    chosen: list[int] = []
    for _ in range(min(most, len(shared))):
        left, own = shared, np.diag(squares)
        if chosen:
            inner = squares[np.ix_(chosen, chosen)] + ridge * np.eye(len(chosen))
            left = shared - squares[:, chosen] @ np.linalg.solve(inner, shared[chosen])
            own = own - (squares[:, chosen] * np.linalg.solve(inner, squares[chosen]).T).sum(axis=1)
        gain = np.where(own > ridge, left**2 / np.maximum(own, ridge), 0.0)
        gain[chosen] = 0.0
        if gain.max() < LEAST_GAIN:
            break
        chosen.append(int(gain.argmax()))
    inner = squares[np.ix_(chosen, chosen)] + ridge * np.eye(len(chosen))
    weights = np.rint(np.linalg.solve(inner, shared[chosen]) * UNIT).clip(-MOST_WEIGHT, MOST_WEIGHT)
    return chosen, weights
