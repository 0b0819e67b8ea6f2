# SPDX-License-Identifier: Apache-2.0
"""The bytes on the air: packet header, local answer, exit notice, inference ids.

All integers are little-endian. A packet is one BLE notification: an 8-byte header and a body. A packet that means
nothing without those before it in its stage may have a header of 5 bytes, which leaves out what those have said.

=======  ====================  =========================================================
bytes    field                 meaning
=======  ====================  =========================================================
0-1      inference id          16-bit serial number (RFC 1982)
2        stage, codec, more    stage in the low four bits, codec in the next three; the highest bit says that another
                               packet follows in the same connection event
3-4      first coefficient     index of the body's first coefficient in the stage's order
5-6      count, age            count in the low twelve bits, age in events in the high four
7        sequence              counts every packet with such a header that this camera put on the air, modulo 256
=======  ====================  =========================================================

The short header has the same bytes 0 to 2, but for a codec of :data:`CONTINUED`, and then:

=======  ====================  =========================================================
3-4      count, number         count in the low ten bits, 0: all that is left of the stage; in the high six, which
                               packet of the cut it is, from 1
=======  ====================  =========================================================

Packet 0 of such a cut has the header of eight bytes and the codec :data:`LEADS`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEADER = struct.Struct("<HBHHB")
HEADER_BYTES = HEADER.size
SHORT_HEADER = struct.Struct("<HBH")
SHORT_HEADER_BYTES = SHORT_HEADER.size
EXIT_NOTICE = struct.Struct("<HHBB")
EXIT_NOTICE_BYTES = EXIT_NOTICE.size
ANSWER = struct.Struct("<HB")

MAX_PAYLOAD = 244  # 251 link-layer octets - 4 (L2CAP) - 3 (ATT)
MIN_PAYLOAD = 20  # 27 link-layer octets - 4 - 3
MAX_AGE = 15  # events; the field saturates
MAX_CODEC = 7
MAX_COUNT = 0xFFF
MAX_FIRST = 0xFFFF
CONTINUED = 4
"""In place of codec 2: the header is short."""
LEADS = 5
"""In place of codec 2: the header is long, and those with short headers count from this packet on."""
CONTINUES = 2
"""The codec of what has a short header."""
MAX_CONTINUED_COUNT = 0x3FF
MAX_NUMBER = 63
PICTURE = 0
"""The stage whose packets hold the picture itself (design section 12.4)."""
LOCAL_ANSWER_STAGE = 15
_ID_MODULUS = 1 << 16

STALE_WINDOW = 64
"""How many ids back count as older. A camera that restarts begins at a random id; with RFC 1982's
half circle every second restart would look stale for an hour. Within a connection ids only ever
fall behind by a few, so anything further back than this is a restart, and a restart that does land
in the window heals after as many frames."""


class PacketError(ValueError):
    """Bytes from the air that are not a packet of ours."""


def is_newer(candidate: int, reference: int) -> bool:
    """Whether ``candidate`` is a later inference than ``reference`` (RFC 1982, with a narrow past).

    Args:
        candidate: inference id, 0..65535.
        reference: inference id, 0..65535.
    """
    return candidate != reference and not is_stale(candidate, reference)


def is_stale(candidate: int, reference: int) -> bool:
    """Whether ``candidate`` is one of the :data:`STALE_WINDOW` ids just before ``reference``."""
    return 0 < (reference - candidate) % _ID_MODULUS <= STALE_WINDOW


def next_id(inference_id: int) -> int:
    """The id that follows, modulo 2**16."""
    return (inference_id + 1) % _ID_MODULUS


def peek(packet: bytes) -> tuple[int, int] | None:
    """Inference id and stage that a packet claims, whatever else is wrong with it; None of one that is too short."""
    return (int.from_bytes(packet[:2], "little"), packet[2] & 15) if len(packet) >= SHORT_HEADER_BYTES else None


@dataclass(frozen=True, slots=True)
class Header:
    """The first bytes of every packet: eight, or five where it has a number.

    Attributes:
        inference_id: 0..65535.
        stage: 0..14, or :data:`LOCAL_ANSWER_STAGE`.
        codec: 0..7, see :mod:`fleet.codec`.
        first: index of the first coefficient, 0..65535; a short header does not say it.
        count: number of coefficients, 0..4095, in a short header 0..1023; 0 there says that they are all that is left
            of the stage, which may be more.
        age: connection events since the frame was captured, 0..15, saturating; a short header does not say it.
        sequence: 0..255; a short header does not say it.
        more: another packet follows in the same connection event.
        number: which packet of its cut it is, 1..63, in a short header; 0: the header is not short.
        leads: it is packet 0 of a cut whose other packets have short headers.
    """

    inference_id: int
    stage: int
    codec: int
    first: int
    count: int
    age: int = 0
    sequence: int = 0
    more: bool = False
    number: int = 0
    leads: bool = False

    @property
    def size(self) -> int:
        """Bytes of the header."""
        return SHORT_HEADER_BYTES if self.number else HEADER_BYTES

    def pack(self) -> bytes:
        """Eight bytes, or five.

        Raises:
            PacketError: a field is out of its range.
        """
        if self.number:
            return self._pack_short()
        codec_fits = self.codec == CONTINUES if self.leads else self.codec not in (CONTINUED, LEADS)
        codec_fits = codec_fits and 0 <= self.codec <= MAX_CODEC
        if not (0 <= self.stage <= 15 and codec_fits and 0 <= self.count <= MAX_COUNT):
            raise PacketError(f"header out of range: {self}")
        try:
            return HEADER.pack(
                self.inference_id,
                self.stage | (LEADS if self.leads else self.codec) << 4 | self.more << 7,
                self.first,
                self.count | min(self.age, MAX_AGE) << 12,
                self.sequence,
            )
        except struct.error as err:
            raise PacketError(f"header out of range: {self}") from err

    def _pack_short(self) -> bytes:
        fits = 0 <= self.stage <= 15 and 0 <= self.count <= MAX_CONTINUED_COUNT and 0 < self.number <= MAX_NUMBER
        if not fits or self.codec != CONTINUES or self.leads:
            raise PacketError(f"short header out of range: {self}")
        try:
            return SHORT_HEADER.pack(
                self.inference_id, self.stage | CONTINUED << 4 | self.more << 7, self.count | self.number << 10
            )
        except struct.error as err:
            raise PacketError(f"short header out of range: {self}") from err

    @classmethod
    def unpack(cls, packet: bytes) -> Header:
        """The header of a packet.

        Raises:
            PacketError: fewer bytes than its header, a short one without a number, or more than one notification can
                hold.
        """
        if len(packet) >= SHORT_HEADER_BYTES and packet[2] >> 4 & MAX_CODEC == CONTINUED:
            return cls._unpack_short(packet)
        if not HEADER_BYTES <= len(packet) <= MAX_PAYLOAD:
            raise PacketError(f"a packet has {HEADER_BYTES} to {MAX_PAYLOAD} bytes, this one {len(packet)}")
        inference_id, stage_codec, first, count_age, sequence = HEADER.unpack_from(packet)
        codec = stage_codec >> 4 & MAX_CODEC
        return cls(
            inference_id,
            stage_codec & 15,
            CONTINUES if codec == LEADS else codec,
            first,
            count_age & MAX_COUNT,
            count_age >> 12,
            sequence,
            more=stage_codec >> 7 == 1,
            leads=codec == LEADS,
        )

    @classmethod
    def _unpack_short(cls, packet: bytes) -> Header:
        inference_id, stage_codec, count_number = SHORT_HEADER.unpack_from(packet)
        number = count_number >> 10
        if number == 0 or len(packet) > MAX_PAYLOAD:
            raise PacketError("a packet with a short header needs a number, and has at most 244 bytes")
        more = stage_codec >> 7 == 1
        count = count_number & MAX_CONTINUED_COUNT
        return cls(inference_id, stage_codec & 15, CONTINUES, 0, count, more=more, number=number)


def stamp(packet: bytes, *, age: int, sequence: int, more: bool) -> bytes:
    """The packet with its age, its sequence number and whether more follow set, as the radio does when it sends.

    Of a short header only whether more follow.

    Args:
        packet: a packet, these fields arbitrary.
        age: connection events since the frame was captured; saturates at 15.
        sequence: taken modulo 256.
        more: another packet follows in the same connection event.

    Raises:
        PacketError: not a packet.
    """
    header = Header.unpack(packet)
    stage_codec = packet[2] & 0x7F | more << 7
    if header.number:
        return packet[:2] + bytes([stage_codec]) + packet[3:]
    count_age = header.count | min(max(age, 0), MAX_AGE) << 12
    return packet[:2] + bytes([stage_codec]) + packet[3:5] + struct.pack("<HB", count_age, sequence & 0xFF) + packet[8:]


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """The device's own answer on its way to the hub: a packet with stage 15.

    Attributes:
        inference_id: 0..65535.
        class_index: index into the bundle's classes.
        confidence: 0..1, on the air in steps of 1/255.
    """

    inference_id: int
    class_index: int
    confidence: float

    def pack(self) -> bytes:
        """Eleven bytes: header and body.

        Raises:
            PacketError: a field is out of its range.
        """
        header = Header(self.inference_id, LOCAL_ANSWER_STAGE, 0, 0, 1).pack()
        try:
            return header + ANSWER.pack(self.class_index, _to_u8(self.confidence))
        except (struct.error, ValueError, OverflowError) as err:
            raise PacketError(f"local answer out of range: {self}") from err

    @classmethod
    def unpack(cls, packet: bytes) -> LocalAnswer:
        """The answer in a packet.

        Raises:
            PacketError: another stage, or a body of the wrong length.
        """
        header = Header.unpack(packet)
        if header.stage != LOCAL_ANSWER_STAGE or header.number or len(packet) != HEADER_BYTES + ANSWER.size:
            raise PacketError("not a local answer")
        class_index, confidence = ANSWER.unpack_from(packet, HEADER_BYTES)
        return cls(header.inference_id, class_index, confidence / 255)


@dataclass(frozen=True, slots=True)
class ExitNotice:
    """The hub's word that an inference is over.

    Attributes:
        inference_id: 0..65535.
        class_index: index into the bundle's classes.
        stage: the exit that answered; 15 when the hub heard the device's own answer.
        confidence: 0..1, on the air in steps of 1/255.
    """

    inference_id: int
    class_index: int
    stage: int
    confidence: float

    def pack(self) -> bytes:
        """Six bytes.

        Raises:
            PacketError: a field is out of its range.
        """
        try:
            return EXIT_NOTICE.pack(self.inference_id, self.class_index, self.stage, _to_u8(self.confidence))
        except (struct.error, ValueError, OverflowError) as err:
            raise PacketError(f"exit notice out of range: {self}") from err

    @classmethod
    def unpack(cls, data: bytes) -> ExitNotice:
        """The notice in six bytes.

        Raises:
            PacketError: not six bytes.
        """
        if len(data) != EXIT_NOTICE_BYTES:
            raise PacketError(f"an exit notice has {EXIT_NOTICE_BYTES} bytes, this one {len(data)}")
        inference_id, class_index, stage, confidence = EXIT_NOTICE.unpack(data)
        return cls(inference_id, class_index, stage, confidence / 255)

    def on_air(self) -> ExitNotice:
        """The notice as it arrives, its confidence in steps of 1/255.

        Raises:
            PacketError: a field is out of its range.
        """
        return ExitNotice.unpack(self.pack())


def _to_u8(confidence: float) -> int:
    """In 1/255; raises ValueError or OverflowError for what is no number."""
    return max(0, min(255, round(confidence * 255)))
