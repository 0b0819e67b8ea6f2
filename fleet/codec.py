# SPDX-License-Identifier: Apache-2.0
"""From a stage's features to packets and back.

A stage's selected channels are quantised, climb the :class:`~fleet.ladder.Ladder` and are put into an order that both
ends know. A packet holds a run of that order. :class:`StageBuffer` collects whatever arrives and always yields a
usable map.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fleet.coders import CODERS, Coder, PlainCoder, coder_named, view
from fleet.errors import FleetError
from fleet.ladder import IntArray
from fleet.layout import FloatArray, Quantiser, StageLayout
from fleet.packet import (
    CONTINUES,
    HEADER_BYTES,
    MAX_CONTINUED_COUNT,
    MAX_NUMBER,
    MAX_PAYLOAD,
    MIN_PAYLOAD,
    SHORT_HEADER_BYTES,
    Header,
    PacketError,
)

__all__ = [
    "CODERS",
    "Coder",
    "FloatArray",
    "PlainCoder",
    "Quantiser",
    "StageBuffer",
    "StageLayout",
    "coder_named",
    "encode_stage",
]

CUT = 2
"""Grows with every change of how a picture is cut into packets: a trace of another number records it anew."""
MAX_OPEN_RUNS = 8
"""Runs of which some pieces arrived; the oldest is forgotten for another one."""
MAX_EARLY = 128
"""Packets that wait for those before them; of more, what lies furthest is forgotten."""


def encode_stage(
    layout: StageLayout,
    features: npt.ArrayLike,
    *,
    inference_id: int,
    payload: int,
    coder: Coder,
    rung: int | None = None,
    begin: int = 0,
    short: bool = True,
) -> list[bytes]:
    """All packets of one stage, most useful first.

    Args:
        layout: the stage's layout.
        features: floats, shape (channels, finest, finest).
        inference_id: 0..65535.
        payload: bytes a packet may have, 20..244.
        coder: how the coefficients are coded.
        rung: stop behind this rung; one of ``coder.rungs(layout)``, the finest if None.
        begin: leave out the coefficients before this place in the coder's order.
        short: give the packets that do not decode alone short headers. They count packets, so a stage must be cut but
            once with them; and not with ``begin``.

    Returns:
        Packets of at most ``payload`` bytes; together they hold every coefficient from ``begin`` on once.

    Raises:
        FleetError: features of another shape, or a payload that no link has.
        PacketError: the inference id does not fit its field.
    """
    layout.check_shape(features)
    if not MIN_PAYLOAD <= payload <= MAX_PAYLOAD:
        raise FleetError(f"a payload of {payload} bytes is outside {MIN_PAYLOAD} to {MAX_PAYLOAD}")
    values = coder.coefficients(layout, features)
    end = layout.count if rung is None else layout.rung_end(rung)
    return [
        Header(
            inference_id, layout.stage, coder.number, run.first, run.said_count, number=run.number, leads=run.leads
        ).pack()
        + body
        for run in runs_of(layout, values, coder, payload, begin, end, short=short and begin == 0)
        for body in run.bodies
    ]


@dataclass(frozen=True, slots=True)
class Run:
    """Coefficients that are coded together.

    Attributes:
        first: place of the first one in the coder's order.
        count: of coefficients.
        bodies: of the packets that hold them, mostly one.
        number: of the packet, where its header is short, else 0.
        leads: those with short headers count from this one on.
    """

    first: int
    count: int
    bodies: list[bytes]
    number: int = 0
    leads: bool = False

    @property
    def said_count(self) -> int:
        """What the header says of the count."""
        return 0 if self.number and self.count > MAX_CONTINUED_COUNT else self.count

    @property
    def header_bytes(self) -> int:
        """Bytes of each packet's header."""
        return SHORT_HEADER_BYTES if self.number else HEADER_BYTES


def runs_of(
    layout: StageLayout, values: IntArray, coder: Coder, payload: int, begin: int, end: int, *, short: bool = True
) -> Iterator[Run]:
    """How a stage's coefficients are cut into packets, most useful first.

    Args:
        layout: the stage's layout.
        values: all of its coefficients in the coder's order.
        coder: how they are coded.
        payload: bytes a packet may have.
        begin: the first coefficient that is sent.
        end: the place behind the last one.
        short: see :func:`encode_stage`.
    """
    short = short and coder.number == CONTINUES and not coder.decodes_alone(layout)
    first, number = begin, 0
    while first < end:
        continued = short and 0 < number <= MAX_NUMBER
        header = SHORT_HEADER_BYTES if continued else HEADER_BYTES
        bodies, count = coder.encode(layout, values, first, end, payload - header)
        # A short header can say more than this only of all that is left.
        if continued and count > MAX_CONTINUED_COUNT and first + count < layout.count:
            bodies, count = coder.encode(layout, values, first, first + MAX_CONTINUED_COUNT, payload - header)
        yield Run(first, count, bodies, number if continued else 0, leads=short and number == 0)
        first, number = first + count, number + 1


@dataclass
class StageBuffer:
    """What has arrived of one stage of one inference; any subset of its packets gives a map.

    Packets that do not decode alone wait until all before them are there; those with short headers are placed once
    those before them have told how much they hold. All packets of a stage are of one codec: the first one's.

    Attributes:
        layout: the stage's layout.
        packets: accepted packets, duplicates not counted.
    """

    layout: StageLayout
    packets: int = 0
    _coder: Coder | None = None
    _values: IntArray = field(init=False, repr=False)
    _have: npt.NDArray[np.bool_] = field(init=False, repr=False)
    _open: dict[tuple[int, int, int], dict[int, bytes]] = field(default_factory=dict, repr=False)
    _early: dict[tuple[int, int], bytes] = field(default_factory=dict, repr=False)
    _numbered: dict[int, tuple[Header, bytes]] = field(default_factory=dict, repr=False)
    _next: tuple[int, int] | None = None  # number and first coefficient of the next packet with a short header

    def __post_init__(self) -> None:
        self._values = np.zeros(self.layout.count, dtype=np.int32)
        self._have = np.zeros(self.layout.count, dtype=np.bool_)

    def add(self, header: Header, packet: bytes) -> bool:
        """Take a packet in.

        Args:
            header: the packet's header, of this stage.
            packet: the whole packet.

        Returns:
            Whether it held anything new.

        Raises:
            PacketError: it names coefficients that the stage does not have, an unknown codec or another than
                its stage's, or its body does not decode.
        """
        coder = CODERS.get(header.codec)
        if coder is None:
            raise PacketError(f"codec {header.codec} is not known here")
        if self._coder is not None and coder is not self._coder:
            raise PacketError(f"codec {coder.name} in a stage that began in {self._coder.name}")
        if header.number:
            is_new = self._add_numbered(coder, header, packet[header.size :])
        else:
            is_new = self._add(coder, header, packet[header.size :])
            if header.leads and header.first == 0 and self._next is None:
                self._next = 1, header.count
        self._decode_waiting(coder)
        self._coder = coder
        self.packets += is_new
        return is_new

    def _add(self, coder: Coder, header: Header, body: bytes) -> bool:
        """Take a packet in whose place is known."""
        end = header.first + header.count
        if header.count == 0 or end > self.layout.count:
            raise PacketError(
                f"coefficients {header.first} to {end} of stage {header.stage}, which has {self.layout.count}"
            )
        if self._have[header.first : end].all():
            return False
        if not (coder.decodes_alone(self.layout) or self._have[: header.first].all()):
            _check_early(body)
            if self._early.get((header.first, header.count)) == body:
                return False
            self._early[header.first, header.count] = body  # of two that differ, the later one
            if len(self._early) > MAX_EARLY:
                del self._early[max(self._early)]
            return True
        whole: bytes | None = body
        if coder.pieces:
            run, index = self._piece(header, body)
            if index in self._open.get(run, {}):
                return False
            whole = self._joined(run, index, body[1:])
        if whole is not None:
            self._decode(coder, header.first, header.count, whole)
        return True

    def _add_numbered(self, coder: Coder, header: Header, body: bytes) -> bool:
        """Take a packet in that says which one it is: it begins where the one before it ends."""
        if coder.decodes_alone(self.layout):
            raise PacketError(f"packet {header.number} of stage {header.stage} needs another header")
        if self._next is None or header.number > self._next[0]:
            _check_early(body)
            waiting = self._numbered.get(header.number)
            self._numbered[header.number] = header, body
            return waiting is None or (waiting[0].count, waiting[1]) != (header.count, body)
        number, first = self._next
        if header.number < number:
            return False
        count = header.count or self.layout.count - first
        is_new = self._add(coder, replace(header, first=first, count=count, number=0), body)
        self._next = number + 1, first + count
        return is_new

    def _decode(self, coder: Coder, first: int, count: int, body: bytes) -> None:
        try:
            values = coder.decode(self.layout, first, count, body, self._values[:first])
        except FleetError as err:  # a manifest without what this codec needs
            raise PacketError(str(err)) from err
        self._values[first : first + count] = values
        self._have[first : first + count] = True

    def _decode_waiting(self, coder: Coder) -> None:
        """What came before its turn, as far as its turn has come."""
        # These packets were taken long ago: what is wrong with one is no fault of the one that came now.
        while True:
            if self._early and self._have[: min(self._early)[0]].all():
                first, count = min(self._early)
                with contextlib.suppress(PacketError):
                    self._decode(coder, first, count, self._early.pop((first, count)))
            elif self._next is not None and self._next[0] in self._numbered:
                with contextlib.suppress(PacketError):
                    self._add_numbered(coder, *self._numbered.pop(self._next[0]))
            else:
                return

    def _piece(self, header: Header, body: bytes) -> tuple[tuple[int, int, int], int]:
        """The run that a piece belongs to, its last piece's index included, and the piece's own index."""
        if len(body) < 2 or body[0] >> 4 > body[0] & 15:
            raise PacketError("a piece of a run needs its number and at least one byte")
        return (header.first, header.count, body[0] & 15), body[0] >> 4

    def _joined(self, run: tuple[int, int, int], index: int, piece: bytes) -> bytes | None:
        """A run's bytes if this was the last piece missing."""
        pieces = {**self._open.pop(run, {}), index: piece}
        if len(pieces) == run[2] + 1:
            return b"".join(pieces[k] for k in sorted(pieces))
        if len(self._open) >= MAX_OPEN_RUNS:
            del self._open[next(iter(self._open))]
        self._open[run] = pieces
        return None

    @property
    def is_waiting(self) -> bool:
        """Whether packets are here of which nothing is decoded, for want of those before them."""
        return bool(self._early or self._numbered) and not self._have.any()

    @property
    def complete(self) -> bool:
        """Whether every coefficient has arrived."""
        return bool(self._have.all())

    @property
    def received(self) -> int:
        """Coefficients that have arrived."""
        return int(self._have.sum())

    @property
    def arrived(self) -> float:
        """The share of the coefficients that has arrived, 0..1."""
        return self.received / self.layout.count

    def features(self) -> FloatArray:
        """The map as far as it is known: floats, shape (channels, finest, finest)."""
        return self.view()[: self.layout.channels]

    def view(self) -> FloatArray:
        """What an exit is given of the stage, see :func:`fleet.coders.view`: shape (2 * channels, finest, finest)."""
        coder = self._coder or CODERS[0]  # of nothing, every codec makes the same
        return view(coder, self.layout, self._values, self._have)


def _check_early(body: bytes) -> None:
    """Refuse what cannot be decoded yet and never will be."""
    if not body or (body != b"\0" and body.endswith(b"\0")):
        raise PacketError("no encoder makes such a body")
