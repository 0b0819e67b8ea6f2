# SPDX-License-Identifier: Apache-2.0
"""What never arrived, from the numbers of what did."""

from __future__ import annotations

_MODULUS = 256


class GapCounter:
    """Counts packets and the gaps between them; the camera numbers what it puts on the air modulo 256.

    BLE delivers in order or not at all. A gap of 256 or a multiple of it cannot be seen, and the same number again is a
    host that told of one packet twice, not 255 losses. Packets with short headers have numbers of their own, which
    begin anew with every picture; what is missing behind the last one that was heard of it cannot be seen.

    Attributes:
        received: packets counted.
        lost: packets that are missing between them.
        gaps: how often some were missing.
    """

    def __init__(self) -> None:
        self.received = self.lost = self.gaps = 0
        self._expected: int | None = None
        self._picture = -1, 0  # inference, and the packet of it that was heard last

    def restart(self) -> None:
        """A new connection: the camera counts from anywhere; what was counted stays."""
        self._expected = None

    def count(self, sequence: int) -> int:
        """Count a packet; the number that is missing just before it."""
        missing = 0 if self._expected is None else (sequence - self._expected) % _MODULUS
        if missing == _MODULUS - 1:
            return 0
        self._expected = (sequence + 1) % _MODULUS
        self.received += 1
        self.lost += missing
        self.gaps += missing > 0
        return missing

    def count_numbered(self, inference_id: int, number: int) -> int:
        """Count a packet with a short header; the number that is missing just before it.

        Args:
            inference_id: of the packet.
            number: of the packet, from 1; packet 0 has a sequence number.
        """
        last = self._picture[1] if self._picture[0] == inference_id else 0
        if number == last:
            return 0
        missing = number - (last if number > last else 0) - 1  # a lower one: the picture is shown again
        self._picture = inference_id, number
        self.received += 1
        self.lost += missing
        self.gaps += missing > 0
        return missing
