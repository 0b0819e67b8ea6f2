# SPDX-License-Identifier: Apache-2.0
"""What a stage sends: its quantiser, its ladder, and the tables of its coefficients' frequencies."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fleet.contexts import WAYS, Contexts
from fleet.errors import FleetError
from fleet.ladder import IntArray, Ladder
from fleet.packet import LOCAL_ANSWER_STAGE, MAX_FIRST
from fleet.tables import Tables, scaled

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Quantiser:
    """Uniform quantiser, one step a channel, ``levels`` values from 0 up.

    Attributes:
        low: value of level 0, one a channel.
        step: width of a level, one a channel, positive.
        levels: number of levels, 2..256.
    """

    low: tuple[float, ...]
    step: tuple[float, ...]
    levels: int

    def __post_init__(self) -> None:
        if len(self.low) != len(self.step) or not self.low:
            raise FleetError("a quantiser needs as many steps as offsets, and at least one")
        if not 2 <= self.levels <= 256:
            raise FleetError(f"a quantiser has 2 to 256 levels, not {self.levels}")
        # In single precision, which is what the sums are done in.
        with np.errstate(over="ignore"):
            low, step = np.asarray(self.low, np.float32), np.asarray(self.step, np.float32)
        if not np.isfinite(low).all() or not (np.isfinite(step) & (step > 0)).all():
            raise FleetError("a quantiser's offsets must be finite, its steps positive and finite")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.low)

    def quantise(self, features: npt.ArrayLike) -> IntArray:
        """Levels of features.

        Args:
            features: floats, shape (channels, H, W). What is not a number becomes level 0.

        Returns:
            Integers 0..levels-1, same shape.
        """
        x = np.asarray(features, dtype=np.float32)
        with np.errstate(over="ignore"):  # what is off the scale ends at its end
            scaled = (x - self._low) / self._step
        out: IntArray = np.clip(np.rint(np.nan_to_num(scaled)), 0, self.levels - 1).astype(np.int32)
        return out

    def dequantise(self, levels: npt.ArrayLike) -> FloatArray:
        """Features of levels, shape (channels, H, W); the inverse of :meth:`quantise` up to half a step."""
        out: FloatArray = np.asarray(levels, dtype=np.float32) * self._step + self._low
        return out

    @cached_property
    def _low(self) -> FloatArray:
        return np.asarray(self.low, dtype=np.float32)[:, None, None]

    @cached_property
    def _step(self) -> FloatArray:
        return np.asarray(self.step, dtype=np.float32)[:, None, None]


@dataclass(frozen=True)
class StageLayout:
    """Which coefficients one stage has, and in which orders they may travel.

    Attributes:
        stage: 0..14.
        quantiser: one step a channel.
        ladder: geometry of the transform.
        rungs: ascending sizes at which a group of coefficients ends; the last is the ladder's finest.
        mean_levels: a channel's mean, used where nothing near a missing base value is known.
        spread: the coefficients up to this rung travel mixed in :attr:`spread_order`; one of ``rungs``, or 0 for
            the first.
        waves: in how many channels each part of :attr:`spread_order` consists, where channels do not travel side by
            side but the first ones of the whole map before the next ones. Only for maps of one rung.
        tables: how often each symbol occurs, by channel and within it by :attr:`kinds`: base values
            0..levels-1, then differences from -(levels-1) to levels-1. None where nobody counted.
        contexts: how the codec ``fleet`` guesses each number from those before it; then packets decode in their order
            only. Its channels travel one after another: every wave has one. None where each number is coded alone.
    """

    stage: int
    quantiser: Quantiser
    ladder: Ladder
    rungs: tuple[int, ...]
    mean_levels: tuple[int, ...]
    spread: int = 0
    tables: Tables | None = field(default=None, repr=False)
    waves: tuple[int, ...] = ()
    contexts: Contexts | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.stage < LOCAL_ANSWER_STAGE:
            raise FleetError(f"stage {self.stage} cannot be sent: the header has room for 0 to 14")
        rungs = list(self.rungs)
        if not rungs or rungs != sorted(set(rungs)) or rungs[-1] != self.ladder.finest or rungs[0] < self.ladder.base:
            raise FleetError(
                f"stage {self.stage}: rungs must ascend from {self.ladder.base} to {self.ladder.finest}, not {rungs}"
            )
        if len(self.mean_levels) != self.channels or not all(0 <= m < self.quantiser.levels for m in self.mean_levels):
            raise FleetError(f"stage {self.stage}: one mean level a channel is needed, below {self.quantiser.levels}")
        if self.count > MAX_FIRST + 1:
            raise FleetError(f"stage {self.stage}: {self.count} coefficients do not fit the header's 16 bits")
        if self.spread and self.spread not in rungs:
            raise FleetError(f"stage {self.stage}: spread must be one of the rungs {rungs}, not {self.spread}")
        if self.waves and (len(rungs) > 1 or min(self.waves) < 1 or sum(self.waves) != self.channels):
            raise FleetError(
                f"stage {self.stage}: waves share {self.channels} channels of one rung out among them, not {self.waves}"
            )
        sizes = tuple(self.table_size(k) for k in range(self.kind_count))
        if self.tables is not None and self.tables.sizes != sizes * self.channels:
            raise FleetError(f"stage {self.stage}: the tables must have {sizes} entries in each of the channels")
        if self.contexts is not None:
            if self.waves != (1,) * self.channels:
                raise FleetError(f"stage {self.stage}: contexts are for channels that travel one after another")
            try:
                self.contexts.check(self.channels, self.quantiser.levels)
            except FleetError as err:
                raise FleetError(f"stage {self.stage}: {err}") from err

    @property
    def channels(self) -> int:
        """Number of channels that travel."""
        return self.quantiser.channels

    @property
    def count(self) -> int:
        """Coefficients of the whole stage."""
        return self.channels * self.ladder.count

    def rung_end(self, rung: int) -> int:
        """How many coefficients give every channel's rung of that size."""
        return self.channels * rung * rung

    @cached_property
    def order(self) -> IndexArray:
        """Rung by rung, and within a rung channel by channel. Shape (count,).

        For each place in the order, the flat index into (channels, ladder.count). A packet holds some channels
        of one rung whole, so losing it costs those channels their detail and never all channels one region.
        """
        flat = np.arange(self.count).reshape(self.channels, self.ladder.count)
        ends = [0, *(r * r for r in self.rungs)]
        return np.concatenate([flat[:, a:b].ravel() for a, b in itertools.pairwise(ends)])

    @cached_property
    def spread_order(self) -> IndexArray:
        """As :attr:`order`, but no run of it holds a region or a channel alone. Shape (count,).

        Everything up to rung ``spread`` first (about what one full packet holds), then rung by rung. Within
        each of these groups the base grid's cells form ``WAYS`` lattices, shifted from channel to channel, and one
        lattice with all detail inside its cells comes after another: of a lost packet's cells every neighbour is
        still there in the same channel, and the cell itself in the other channels. Where there are :attr:`waves`, each
        of them is such a group.
        """
        per_channel = np.arange(self.ladder.count)
        ends = np.asarray([r * r for r in self.spread_rungs])
        shape = self.channels, self.ladder.count
        group = np.broadcast_to(np.searchsorted(ends, per_channel, side="right"), shape)
        if self.waves:
            group = np.broadcast_to(np.repeat(np.arange(len(self.waves)), self.waves)[:, None], shape)
        return np.lexsort((self.lattices, group.ravel())).astype(np.intp)

    @cached_property
    def lattices(self) -> IndexArray:
        """The lattice of every flat index into (channels, ladder.count), of the base cell that it lies in."""
        row, column = np.divmod(self.ladder.base_cell, self.ladder.base)
        found: IndexArray = ((row + 2 * column + np.arange(self.channels)[:, None]) % WAYS).ravel()
        return found

    @property
    def spread_rungs(self) -> tuple[int, ...]:
        """The rungs that a prefix of :attr:`spread_order` gives."""
        return tuple(r for r in self.rungs if r >= max(self.spread, self.rungs[0]))

    @property
    def kind_count(self) -> int:
        """Kinds of coefficients: base values, and for every level the first and the second splits' differences."""
        return 1 + 2 * self.ladder.levels

    def table_size(self, kind: int) -> int:
        """Symbols of a kind."""
        return self.quantiser.levels if kind == 0 else 2 * self.quantiser.levels - 1

    @cached_property
    def kinds(self) -> IndexArray:
        """The kind of every flat index into (channels, ladder.count), channels counted: c * kind_count + kind."""
        kind = np.zeros(self.ladder.count, dtype=np.intp)
        for level, positions in enumerate(self.ladder.level_positions):
            kind[positions[0]] = 1 + 2 * level
            kind[positions[1:]] = 2 + 2 * level
        return (np.arange(self.channels)[:, None] * self.kind_count + kind).ravel()

    @cached_property
    def is_base(self) -> npt.NDArray[np.bool_]:
        """For every flat index, whether it is a mean of the base grid. Shape (count,)."""
        out: npt.NDArray[np.bool_] = np.arange(self.count) % self.ladder.count < self.ladder.base**2
        return out

    def check_shape(self, features: npt.ArrayLike) -> None:
        """Refuse what is not this stage's.

        Raises:
            FleetError: the last three axes are not (channels, finest, finest).
        """
        shape = (self.channels, self.ladder.finest, self.ladder.finest)
        if np.shape(features) != shape:
            raise FleetError(f"stage {self.stage} sends features of shape {shape}, not {np.shape(features)}")


def count_tables(layout: StageLayout, latents: npt.ArrayLike) -> Tables:
    """Tables of a stage from samples.

    Args:
        layout: of the stage.
        latents: floats, shape (N, channels, finest, finest).
    """
    split = layout.ladder.split(layout.quantiser.quantise(np.asarray(latents))).reshape(-1, layout.count)
    tables = []
    for table in range(layout.channels * layout.kind_count):
        kind = table % layout.kind_count
        values = split[:, layout.kinds == table].ravel() + (0 if kind == 0 else layout.quantiser.levels - 1)
        tables.append(scaled(np.bincount(values, minlength=layout.table_size(kind))))
    return Tables(tuple(tables))
