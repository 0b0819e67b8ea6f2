# SPDX-License-Identifier: Apache-2.0
"""Packets on their way up: of the newest inference the newest stage and, before it, the picture; nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from fleet.packet import LOCAL_ANSWER_STAGE, PICTURE, Header, PacketError, is_stale, stamp

MAX_ID = 0xFFFF

MAX_PENDING = 1024
"""Packets that may wait; the bound of one StageFeatures message. The least useful beyond it are dropped."""


class UplinkQueue:
    """The packets that wait for a connection event, most useful first."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._inference: int | None = None
        self._stage = -1
        self._first_index = 0
        self._answered = False
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def inference(self) -> int | None:
        """The newest inference that was offered."""
        return self._inference

    @property
    def stage(self) -> int:
        """The newest stage of it, -1 before any."""
        return self._stage

    def accepts(self, inference_id: int, stage: int) -> bool:
        """Whether an offer is of the newest stage of the newest inference, and that not yet answered."""
        if not (0 <= inference_id <= MAX_ID and 0 <= stage <= LOCAL_ANSWER_STAGE):
            return False
        if self._inference is None:
            return True
        if inference_id == self._inference:
            return not self._answered and stage >= self._stage
        return not is_stale(inference_id, self._inference)

    def begin(self, inference_id: int, first_index: int) -> int:
        """Start a newer inference and say how many packets of the one before that leaves unsent."""
        dropped = self.clear()
        self._inference = inference_id
        self._stage = -1
        self._first_index = first_index
        self._answered = False
        return dropped

    def replace(self, stage: int, packets: Sequence[bytes], payload: int) -> int:
        """Put a stage's packets in place of whatever waits of the stages before.

        What waits of the picture is not replaced by a stage made of it, which would say less: it goes first. The
        device's own answer replaces everything.

        Args:
            stage: the same stage or a newer one of the inference that was begun.
            packets: most useful first.
            payload: longest packet that the link carries.

        Returns:
            Packets that will never be sent: those replaced, and those of ``packets`` that are too long,
            malformed or of another inference or stage.
        """
        features = PICTURE < stage < LOCAL_ANSWER_STAGE
        kept = deque(packet for packet in self._waiting if features and Header.unpack(packet).stage == PICTURE)
        dropped = len(self._waiting) - len(kept)
        self._waiting = kept
        self._stage = stage
        for packet in packets:
            if len(self._waiting) < MAX_PENDING and len(packet) <= payload and self._belongs(packet):
                self._waiting.append(bytes(packet))
            else:
                dropped += 1
        return dropped

    def take(self, count: int, index: int) -> tuple[bytes, ...]:
        """Remove and stamp the next packets.

        Args:
            count: at most so many.
            index: index of the event that carries them; the age is counted from it.
        """
        taken = []
        for left in range(min(count, len(self._waiting)), 0, -1):
            age = index - self._first_index
            packet = self._waiting.popleft()
            taken.append(stamp(packet, age=age, sequence=self._sequence, more=left > 1))
            if not Header.unpack(packet).number:  # a short header has no room for it
                self._sequence = (self._sequence + 1) & 0xFF
        return tuple(taken)

    def answered(self, inference_id: int) -> int:
        """Send no more of an inference; the number of its packets that were waiting."""
        if inference_id != self._inference:
            return 0
        self._answered = True
        return self.clear()

    def trim(self, payload: int) -> int:
        """Drop what no longer fits the link; the number dropped."""
        before = len(self._waiting)
        self._waiting = deque(packet for packet in self._waiting if len(packet) <= payload)
        return before - len(self._waiting)

    def clear(self) -> int:
        """Drop everything that waits; the number dropped."""
        dropped = len(self._waiting)
        self._waiting.clear()
        return dropped

    def _belongs(self, packet: bytes) -> bool:
        try:
            header = Header.unpack(packet)
        except PacketError:
            return False
        return header.inference_id == self._inference and header.stage == self._stage
