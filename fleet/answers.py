# SPDX-License-Identifier: Apache-2.0
"""Who answers: the device's own answers that wait for the hub's word, and one label a frame for consumers."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class PendingAnswers(Generic[T]):
    """The device's own answers, until the hub says it has them or the time for that is over.

    The device never waits for the radio: it begins the next frame at once, and an answer that the hub
    did not confirm in time is published by the device itself.

    Attributes:
        timeout: seconds an answer may wait; 0 publishes at once.
    """

    timeout: float
    _waiting: OrderedDict[int, tuple[float, T]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, inference_id: int, answer: T, now: float) -> None:
        """An answer begins to wait at ``now`` (seconds, any monotonic clock)."""
        self._waiting[inference_id] = (now + self.timeout, answer)

    def confirm(self, inference_id: int) -> bool:
        """The hub has an answer for this inference. Returns whether one was waiting."""
        return self._waiting.pop(inference_id, None) is not None

    def due(self, now: float, *, all_of_them: bool = False) -> list[T]:
        """Answers whose time is over, oldest first; they no longer wait.

        Args:
            now: seconds on the clock of :meth:`add`.
            all_of_them: nobody will confirm (no link, no hub, the end of the run).
        """
        ready = [i for i, (deadline, _) in self._waiting.items() if all_of_them or deadline <= now]
        return [self._waiting.pop(i)[1] for i in ready]


@dataclass
class OncePerFrame:
    """Says of every label whether it is the first of its frame; consumers drop the others.

    Device and hub may both answer, and ids come round after 65,536 frames: an id is remembered for the last
    ``memory`` frames of its camera only.

    Attributes:
        memory: frames remembered a camera.
    """

    memory: int = 256
    _seen: dict[str, OrderedDict[int, None]] = field(default_factory=dict)

    def is_first(self, camera: str, inference_id: int) -> bool:
        """Whether this is the first label of that camera's frame.

        Args:
            camera: its namespace.
            inference_id: 0..65535.
        """
        seen = self._seen.setdefault(camera, OrderedDict())
        if inference_id in seen:
            return False
        seen[inference_id] = None
        if len(seen) > self.memory:
            seen.popitem(last=False)
        return True
