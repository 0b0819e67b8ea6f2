# SPDX-License-Identifier: Apache-2.0
"""Where a camera's packets wait while the hub is busy: never many, and the newest inference is looked at first."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.packet import LOCAL_ANSWER_STAGE, peek

LIMIT = 512
"""Packets of one camera that may wait: several inferences of any model."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A packet that nobody has looked at.

    Attributes:
        packet: as it came off the air.
        since: when it came, s.
        note: whatever belongs to it, handed back with it.
    """

    packet: bytes
    since: float
    note: Any = None

    @property
    def inference_id(self) -> int:
        """What it says of itself, -1 where it is too short to say anything."""
        said = peek(self.packet)
        return said[0] if said else -1

    @property
    def is_local_answer(self) -> bool:
        """Whether it says that it is an answer of the device."""
        said = peek(self.packet)
        return said is not None and said[1] == LOCAL_ANSWER_STAGE


@dataclass
class Inbox:
    """One camera's packets in the order in which they came.

    Attributes:
        limit: packets that may wait; the oldest makes room for the newest.
        overflowed: packets that had to make room.
    """

    limit: int = LIMIT
    overflowed: int = 0
    _waiting: deque[Waiting] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, packet: Waiting) -> None:
        """One more has come."""
        if len(self._waiting) >= self.limit:
            self._waiting.popleft()
            self.overflowed += 1
        self._waiting.append(packet)

    def take_all(self) -> list[Waiting]:
        """Everything that waits; it no longer does."""
        taken, self._waiting = self._waiting, deque()
        return list(taken)


def by_inference(packets: Sequence[Waiting]) -> list[list[Waiting]]:
    """Packets by inference, inferences in the order in which they were first heard of."""
    groups: dict[int, list[Waiting]] = {}
    for packet in packets:
        groups.setdefault(packet.inference_id, []).append(packet)
    return list(groups.values())
