# SPDX-License-Identifier: Apache-2.0
"""What became of an inference that the hub did not answer, for its log: a detection may have been missed there.

The device answers every frame, so nothing is lost by it; but whoever wonders why the hub was silent shall find out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

TELL_AGAIN_S = 10.0


class Why(Enum):
    """Why the hub had no answer when the camera went on to the next frame."""

    UNHEARD = "never heard of"
    UNDECODED = "nothing decoded"
    BUSY = "hub busy"
    UNSURE = "not sure enough"
    LOCAL_ANSWER_LATE = "the device's answer came too late to be passed on"


@dataclass(frozen=True)
class Unanswered:
    """Inferences that ended without an answer of the hub.

    Attributes:
        first: id of the first, 0..65535.
        count: how many with the ids that follow.
        why: the kind.
        text: one line with the numbers.
    """

    first: int
    count: int
    why: Why
    text: str

    def __str__(self) -> str:
        which = (
            f"inference {self.first}" if self.count == 1 else f"inferences {self.first} to {self.last} ({self.count})"
        )
        return f"{which} ended without an answer of the hub: {self.text}"

    @property
    def last(self) -> int:
        """Id of the last."""
        return (self.first + self.count - 1) % (1 << 16)


@dataclass
class Throttle:
    """Lets one line of a kind through in a while, and says how many it kept back since.

    Attributes:
        every: seconds between two lines of one kind.
    """

    every: float = TELL_AGAIN_S
    _told: dict[object, float] = field(default_factory=dict)
    _kept_back: dict[object, int] = field(default_factory=dict)

    def may_tell(self, kind: object, now: float) -> bool:
        """Whether a line of this kind may go out at ``now`` (s, a clock that goes on)."""
        if abs(now - self._told.get(kind, -math.inf)) < self.every:
            self._kept_back[kind] = self._kept_back.get(kind, 0) + 1
            return False
        self._told[kind] = now
        return True

    def kept_back(self, kind: object) -> int:
        """How many were kept back since the last line of this kind; they count from nought again."""
        return self._kept_back.pop(kind, 0)
