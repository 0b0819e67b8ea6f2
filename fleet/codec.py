# SPDX-License-Identifier: Apache-2.0
"""From a stage's features to packets and back.

A stage's selected channels are quantised, climb the :class:`~fleet.ladder.Ladder` and are put into an order that both
ends know. A packet holds a run of that order. :class:`StageBuffer` collects whatever arrives and always yields a
usable map.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fleet.coders import CODERS, Coder, PlainCoder, coder_named, view
from fleet.errors import FleetError
from fleet.ladder import IntArray
from fleet.layout import FloatArray, Quantiser, StageLayout
from fleet.packet import HEADER_BYTES, MAX_PAYLOAD, MIN_PAYLOAD, Header, PacketError

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
    packets: list[bytes] = []
    first, end = begin, layout.count if rung is None else layout.rung_end(rung)
    while first < end:
        bodies, count = coder.encode(layout, values, first, end, payload - HEADER_BYTES)
        header = Header(inference_id, layout.stage, coder.number, first, count).pack()
        packets += [header + body for body in bodies]
        first += count
    return packets


@dataclass
class StageBuffer:
    """What has arrived of one stage of one inference; any subset of its packets gives a map.

    Packets that do not decode alone wait until all before them are there. All packets of a stage are of one codec: the
    first one's.

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
        end = header.first + header.count
        coder = CODERS.get(header.codec)
        if coder is None:
            raise PacketError(f"codec {header.codec} is not known here")
        if self._coder is not None and coder is not self._coder:
            raise PacketError(f"codec {coder.name} in a stage that began in {self._coder.name}")
        if header.count == 0 or end > self.layout.count:
            raise PacketError(
                f"coefficients {header.first} to {end} of stage {header.stage}, which has {self.layout.count}"
            )
        if self._have[header.first : end].all():
            return False
        body: bytes | None = packet[HEADER_BYTES:]
        early = not (coder.decodes_alone(self.layout) or self._have[: header.first].all())
        if early and self._early.get((header.first, header.count)) == body:
            return False
        if early and (not body or (body != b"\0" and body.endswith(b"\0"))):
            raise PacketError("no encoder makes such a body")
        if coder.pieces:
            run, index = self._piece(header, packet[HEADER_BYTES:])
            if index in self._open.get(run, {}):
                return False
            body = self._joined(run, index, packet[HEADER_BYTES + 1 :])
        if early and body is not None:
            self._early[header.first, header.count] = body  # of two that differ, the later one
            if len(self._early) > MAX_EARLY:
                del self._early[max(self._early)]
        elif body is not None:
            self._decode(coder, header.first, header.count, body)
            self._decode_early(coder)
        self._coder = coder
        self.packets += 1
        return True

    def _decode(self, coder: Coder, first: int, count: int, body: bytes) -> None:
        try:
            values = coder.decode(self.layout, first, count, body, self._values[:first])
        except FleetError as err:  # a manifest without what this codec needs
            raise PacketError(str(err)) from err
        self._values[first : first + count] = values
        self._have[first : first + count] = True

    def _decode_early(self, coder: Coder) -> None:
        """What came before its turn, as far as its turn has come."""
        while self._early and self._have[: min(self._early)[0]].all():
            first, count = min(self._early)
            # The packet was taken long ago: what is wrong with it is no fault of the one that came now.
            with contextlib.suppress(PacketError):
                self._decode(coder, first, count, self._early.pop((first, count)))

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
        return bool(self._early) and not self._have.any()

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
        return self.view()[: self.layout.channels]

    def view(self) -> FloatArray:
        """What an exit is given of the stage, see :func:`fleet.coders.view`: shape (2 * channels, finest, finest)."""
        coder = self._coder or CODERS[0]  # of nothing, every codec makes the same
        return view(coder, self.layout, self._values, self._have)
