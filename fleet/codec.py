# SPDX-License-Identifier: Apache-2.0
"""From a stage's features to packets and back: quantiser, order of coefficients, coders.

A stage's selected channels are quantised, climb the :class:`~fleet.ladder.Ladder` and are put into one
order that both ends know (:class:`StageLayout`). A packet holds a contiguous run of that order and
decodes alone. :class:`StageBuffer` collects whatever arrives and always yields a usable map.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fleet.errors import FleetError
from fleet.ladder import IntArray, Ladder
from fleet.packet import (
    HEADER_BYTES,
    LOCAL_ANSWER_STAGE,
    MAX_COUNT,
    MAX_FIRST,
    MAX_PAYLOAD,
    MIN_PAYLOAD,
    Header,
    PacketError,
)

FloatArray = npt.NDArray[np.float32]


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
    """Which coefficients one stage sends, and in which order.

    Rung by rung, and within a rung channel by channel: a packet holds some channels of one rung whole, so
    losing it costs those channels their detail and never all channels one region. Channels are ordered by
    worth (tail-drop training makes them so), so the first packet is worth the most.

    Attributes:
        stage: 0..14.
        quantiser: one step a channel.
        ladder: geometry of the transform.
        rungs: ascending sizes at which a group of coefficients ends; the last is the ladder's finest.
        mean_levels: a channel's mean, used where a base value is missing.
    """

    stage: int
    quantiser: Quantiser
    ladder: Ladder
    rungs: tuple[int, ...]
    mean_levels: tuple[int, ...]

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

    @property
    def channels(self) -> int:
        """Number of channels that travel."""
        return self.quantiser.channels

    @property
    def count(self) -> int:
        """Coefficients of the whole stage."""
        return self.channels * self.ladder.count

    def rung_end(self, rung: int) -> int:
        """How many coefficients, from the first, give every channel's rung of that size."""
        return self.channels * rung * rung

    @cached_property
    def order(self) -> npt.NDArray[np.intp]:
        """For each place in the order, the flat index into (channels, ladder.count). Shape (count,)."""
        flat = np.arange(self.count).reshape(self.channels, self.ladder.count)
        ends = [0, *(r * r for r in self.rungs)]
        return np.concatenate([flat[:, a:b].ravel() for a, b in itertools.pairwise(ends)])

    @cached_property
    def is_base(self) -> npt.NDArray[np.bool_]:
        """For each place in the order, whether it holds a mean of the base grid. Shape (count,)."""
        out: npt.NDArray[np.bool_] = self.order % self.ladder.count < self.ladder.base**2
        return out

    def coefficients(self, features: npt.ArrayLike) -> IntArray:
        """Quantise, split and order a stage's features.

        Args:
            features: floats, shape (channels, finest, finest).

        Returns:
            Integers, shape (count,): base values 0..levels-1, differences within +-(levels-1).

        Raises:
            FleetError: another shape.
        """
        shape = (self.channels, self.ladder.finest, self.ladder.finest)
        if np.shape(features) != shape:
            raise FleetError(f"stage {self.stage} sends features of shape {shape}, not {np.shape(features)}")
        return self.ladder.split(self.quantiser.quantise(features)).ravel()[self.order]


class Coder(Protocol):
    """Turns runs of ordered coefficients into the bodies of packets and back."""

    name: str
    number: int
    """The codec field of the header."""

    def encode(self, layout: StageLayout, values: IntArray, first: int, budget: int) -> tuple[bytes, int]:
        """The body that holds as many coefficients from ``first`` on as fit ``budget`` bytes, and how many."""

    def decode(self, layout: StageLayout, first: int, count: int, body: bytes) -> IntArray:
        """The coefficients of a body.

        Raises:
            PacketError: the body cannot have come from :meth:`encode`.
        """


class PlainCoder:
    """Every coefficient in as many bits as its range needs, most significant bit first."""

    name = "plain"
    number = 0

    def encode(self, layout: StageLayout, values: IntArray, first: int, budget: int) -> tuple[bytes, int]:
        """See :class:`Coder`."""
        # No coefficient is narrower than its channel's level, so no more than this many can fit.
        most = min(first + min(budget * 8 // _bits(layout), MAX_COUNT), layout.count)
        widths = self._widths(layout, first, most)
        count = int(np.searchsorted(np.cumsum(widths), budget * 8, side="right"))
        widths = widths[:count]
        run = values[first : first + count]
        unsigned = np.where(layout.is_base[first : first + count], run, run + layout.quantiser.levels - 1)
        columns = np.arange(_bits(layout), -1, -1)
        bits = (unsigned[:, None] >> columns[None, :]) & 1  # (count, widest)
        return np.packbits(bits[widths[:, None] > columns[None, :]].astype(np.uint8)).tobytes(), count

    def decode(self, layout: StageLayout, first: int, count: int, body: bytes) -> IntArray:
        """See :class:`Coder`."""
        widths = self._widths(layout, first, first + count)
        total = int(widths.sum())
        if len(body) != -(-total // 8):
            raise PacketError(f"{count} coefficients take {-(-total // 8)} bytes, the packet holds {len(body)}")
        bits = np.unpackbits(np.frombuffer(body, dtype=np.uint8))[:total]
        columns = np.arange(_bits(layout), -1, -1)
        used = widths[:, None] > columns[None, :]
        matrix = np.zeros(used.shape, dtype=np.int32)
        matrix[used] = bits
        base = layout.is_base[first : first + count]
        top = layout.quantiser.levels - 1
        unsigned = (matrix << columns[None, :]).sum(axis=1)
        values: IntArray = np.where(base, unsigned, unsigned - top).astype(np.int32)
        if np.any(values > top):
            raise PacketError("a coefficient is out of its range")
        return values

    @staticmethod
    def _widths(layout: StageLayout, first: int, end: int) -> npt.NDArray[np.intp]:
        base = layout.is_base[first:end]
        return np.where(base, _bits(layout), _bits(layout) + 1)


def _bits(layout: StageLayout) -> int:
    return (layout.quantiser.levels - 1).bit_length()


CODERS: Mapping[int, Coder] = {coder.number: coder for coder in (PlainCoder(),)}


def coder_named(name: str) -> Coder:
    """The coder of that name.

    Raises:
        FleetError: there is none.
    """
    for coder in CODERS.values():
        if coder.name == name:
            return coder
    raise FleetError(f"there is no codec '{name}'; there are: {', '.join(c.name for c in CODERS.values())}")


def encode_stage(
    layout: StageLayout, features: npt.ArrayLike, *, inference_id: int, payload: int, coder: Coder
) -> list[bytes]:
    """All packets of one stage, most useful first.

    Args:
        layout: the stage's layout.
        features: floats, shape (channels, finest, finest).
        inference_id: 0..65535.
        payload: bytes a packet may have, 20..244.
        coder: how the coefficients are coded.

    Returns:
        Packets of at most ``payload`` bytes; together they hold every coefficient once.

    Raises:
        FleetError: features of another shape, or a payload that no link has.
        PacketError: the inference id does not fit its field.
    """
    if not MIN_PAYLOAD <= payload <= MAX_PAYLOAD:
        raise FleetError(f"a payload of {payload} bytes is outside {MIN_PAYLOAD} to {MAX_PAYLOAD}")
    values = layout.coefficients(features)
    packets = []
    first = 0
    while first < layout.count:
        body, count = coder.encode(layout, values, first, payload - HEADER_BYTES)
        packets.append(Header(inference_id, layout.stage, coder.number, first, count).pack() + body)
        first += count
    return packets


@dataclass
class StageBuffer:
    """What has arrived of one stage of one inference; any subset of its packets gives a map.

    Attributes:
        layout: the stage's layout.
        packets: accepted packets, duplicates not counted.
    """

    layout: StageLayout
    packets: int = 0
    _values: IntArray = field(init=False, repr=False)
    _have: npt.NDArray[np.bool_] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        layout = self.layout
        values = np.zeros((layout.channels, layout.ladder.count), dtype=np.int32)
        values[:, : layout.ladder.base**2] = np.asarray(layout.mean_levels, dtype=np.int32)[:, None]
        self._values = values.ravel()
        self._have = np.zeros(layout.count, dtype=np.bool_)

    def add(self, header: Header, packet: bytes) -> bool:
        """Take a packet in.

        Args:
            header: the packet's header, of this stage.
            packet: the whole packet.

        Returns:
            Whether it held anything new.

        Raises:
            PacketError: it names coefficients that the stage does not have, an unknown codec, or its body
                does not decode.
        """
        end = header.first + header.count
        coder = CODERS.get(header.codec)
        if coder is None:
            raise PacketError(f"codec {header.codec} is not known here")
        if header.count == 0 or end > self.layout.count:
            raise PacketError(
                f"coefficients {header.first} to {end} of stage {header.stage}, which has {self.layout.count}"
            )
        if self._have[header.first : end].all():
            return False
        values = coder.decode(self.layout, header.first, header.count, packet[HEADER_BYTES:])
        self._values[self.layout.order[header.first : end]] = values
        self._have[header.first : end] = True
        self.packets += 1
        return True

    @property
    def complete(self) -> bool:
        """Whether every coefficient has arrived."""
        return bool(self._have.all())

    @property
    def received(self) -> int:
        """Coefficients that have arrived."""
        return int(self._have.sum())

    def features(self) -> FloatArray:
        """The map as far as it is known: floats, shape (channels, finest, finest)."""
        levels = self.layout.ladder.merge(self._values.reshape(self.layout.channels, -1))
        # A partial set of differences can push a cell past the ends of the scale.
        return self.layout.quantiser.dequantise(np.clip(levels, 0, self.layout.quantiser.levels - 1))
