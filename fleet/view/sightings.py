# SPDX-License-Identifier: Apache-2.0
"""The list of events: one a visit of something that wakes the hub up, with the picture of its surest frame."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

from fleet.behaviours.doorbell import Doorbell, DoorbellRules
from fleet.behaviours.sighting import Sighting, Watch
from fleet.behaviours.verdict import Reason

NOTHING = "none"
KEPT = 60


@dataclass
class Visit:
    """Something was there for a while.

    Attributes:
        number: counts the visits of this view from 1.
        group: what.
        class_name: the fine class of the surest frame.
        confidence: of the surest frame.
        key: of that frame's picture.
        shown: of the picture that ``thumb`` is; empty until there is one.
        first: stamp of the earliest frame, s.
        last: stamp of the latest, s.
        frames: that showed it.
        thumb: JPEG file.
    """

    number: int
    group: str
    class_name: str
    confidence: float
    key: str
    first: float
    last: float
    frames: int = 1
    shown: str = ""
    thumb: bytes = b""

    def show(self, thumb: bytes) -> None:
        """The picture of :attr:`key` is there."""
        self.thumb, self.shown = thumb, self.key

    def as_json(self) -> dict[str, Any]:
        """For the page."""
        return {
            "number": self.number,
            "group": self.group,
            "class": self.class_name,
            "confidence": round(self.confidence, 4),
            "first": round(self.first, 3),
            "last": round(self.last, 3),
            "frames": self.frames,
            "snapshot": self.shown or None,
        }


class Sightings:
    """Keeps the newest visits; what begins and what continues one is the doorbell's rule, a doorbell a group."""

    def __init__(self, *, min_confidence: float = 0.7, stay_confidence: float = 0.4, absence: float = 2.0) -> None:
        """Nothing was seen yet; arguments as :class:`fleet.behaviours.doorbell.DoorbellRules`."""
        self._confidences = (min_confidence, stay_confidence)
        self._absence = absence
        self._bells: dict[str, Doorbell] = {}
        self._visits: deque[Visit] = deque(maxlen=KEPT)
        self.total = 0

    def see(self, sighting: Sighting, key: str) -> Visit | None:
        """Take a frame's label in.

        Args:
            sighting: the label.
            key: of the frame's picture.

        Returns:
            The visit that wants this frame's picture, if one does: the frame is the surest one of it.
        """
        if sighting.group == NOTHING or not sighting.group.split():
            return None
        bell = self._bells.get(sighting.group)
        if bell is None:
            if len(self._bells) >= KEPT:  # more groups than any model has
                return None
            rules = DoorbellRules(Watch((sighting.group,)), *self._confidences, absence=self._absence)
            bell = self._bells[sighting.group] = Doorbell(rules)
        verdict = bell.see(sighting)
        confidence = bell.rules.watch.confidence_in(sighting)
        confidence = 0.0 if confidence is None or math.isnan(confidence) else confidence
        if verdict.ring is not None:
            self.total += 1
            stamp = sighting.stamp
            begun = Visit(self.total, sighting.group, sighting.class_name, confidence, key, stamp, stamp)
            self._visits.append(begun)
            return begun
        if verdict.suppressed is None or verdict.suppressed.reason is not Reason.SAME_VISIT:
            return None
        visit = next((v for v in reversed(self._visits) if v.group == sighting.group), None)
        if visit is None:
            return None
        visit.first, visit.last = min(visit.first, sighting.stamp), max(visit.last, sighting.stamp)
        visit.frames += 1
        if confidence <= visit.confidence:
            return None
        visit.confidence, visit.class_name, visit.key = confidence, sighting.class_name, key
        return visit

    def waiting_for(self, key: str) -> list[Visit]:
        """Visits whose snapshot is the picture of that name."""
        return [visit for visit in self._visits if visit.key == key != visit.shown]

    def thumb(self, number: int) -> bytes:
        """The snapshot of a visit; empty where there is none."""
        return next((visit.thumb for visit in self._visits if visit.number == number), b"")

    def as_json(self) -> list[dict[str, Any]]:
        """For the page, the newest first."""
        return [visit.as_json() for visit in reversed(self._visits)]
