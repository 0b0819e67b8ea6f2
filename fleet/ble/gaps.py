# SPDX-License-Identifier: Apache-2.0
"""What never arrived, from the sequence numbers of what did."""

from __future__ import annotations

_MODULUS = 256


class GapCounter:
    """Counts packets and the gaps between them; the camera numbers what it puts on the air modulo 256.

    BLE delivers in order or not at all. A gap of 256 or a multiple of it cannot be seen, and the same number again is a
    host that told of one packet twice, not 255 losses.

    Attributes:
        received: packets counted.
        lost: packets that are missing between them.
        gaps: how often some were missing.
    """

    def __init__(self) -> None:
        self.received = self.lost = self.gaps = 0
        self._expected: int | None = None

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
