# SPDX-License-Identifier: Apache-2.0
"""Why a sighting did nothing, said once and not with every frame."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

AWAY_S = 10.0
"""A reason that was not needed for this long is told again: it belongs to another event."""


class Reason(Enum):
    """Why something that is watched for did nothing."""

    UNKNOWN = "confidence unknown"
    UNSURE = "confidence too low"
    TOO_FEW = "too few frames"
    OUTSIDE_HOURS = "outside active hours"
    SILENCED = "silenced"
    ALREADY_ON = "already on"
    COOLING_DOWN = "cooling down"
    SAME_VISIT = "same visit"


@dataclass(frozen=True)
class Suppression:
    """A sighting of something that is watched for, without consequence.

    Attributes:
        reason: the kind.
        text: one line with the numbers.
        is_news: worth a line in the log: this reason has just begun to hold.
    """

    reason: Reason
    text: str
    is_news: bool


@dataclass
class SuppressionLog:
    """Says which suppressions are news, and counts all of them.

    A reason is news when it appears, and not again before it has stayed away for ten seconds or something has
    happened in between. A camera at 8 frames a second that flickers between two reasons so costs two lines.
    """

    counts: Counter[Reason] = field(default_factory=Counter)
    _last: dict[Reason, float] = field(default_factory=dict)

    def add(self, reason: Reason, text: str, now: float) -> Suppression:
        """A sighting was suppressed at ``now`` (s)."""
        self.counts[reason] += 1
        last, self._last[reason] = self._last.get(reason, -math.inf), now
        return Suppression(reason, text, is_news=abs(now - last) > AWAY_S)

    def something_happened(self) -> None:
        """Every reason is news again."""
        self._last.clear()


def doubt(confidence: float, needed: float) -> Reason | None:
    """Why a confidence (0..1, NaN where unknown) does not do, or None where it does."""
    if math.isnan(confidence):
        return Reason.UNKNOWN
    return Reason.UNSURE if confidence < needed else None
