# SPDX-License-Identifier: Apache-2.0
"""The list of events: one a visit of something that wakes the hub up, with the picture of its surest frame."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from fleet.behaviours.doorbell import Doorbell, DoorbellRules
from fleet.behaviours.sighting import Sighting, Watch
from fleet.behaviours.verdict import Reason

NOTHING = "none"
KEPT = 60
AWAITED = 32
"""Frames of a visit whose pictures may still come."""


@dataclass
class Visit:
    """Something was there for a while.

    Attributes:
        number: counts the visits of this view from 1.
        group: what.
        class_name: the fine class of the surest frame.
        confidence: of the surest frame.
        first: stamp of the earliest frame, s.
        last: stamp of the latest, s.
        frames: that showed it.
        shown: names the picture that ``thumb`` is; empty until there is one.
        thumb: JPEG file of the surest frame whose picture came.
    """

    number: int
    group: str
    class_name: str
    confidence: float
    first: float
    last: float
    frames: int = 0
    shown: str = ""
    thumb: bytes = b""
    _frames: OrderedDict[str, float] = field(default_factory=OrderedDict)  # confidence by the name of the picture
    _shown_confidence: float = -1.0

    def add(self, sighting: Sighting, confidence: float, key: str) -> None:
        """One more frame, whose picture has that name."""
        self.first, self.last = min(self.first, sighting.stamp), max(self.last, sighting.stamp)
        self.frames += 1
        if confidence > self.confidence:
            self.confidence, self.class_name = confidence, sighting.class_name
        self._frames[key] = confidence
        while len(self._frames) > AWAITED:
            self._frames.popitem(last=False)

    def picture(self, key: str, thumb: bytes) -> None:
        """A picture is there; it is kept if it is of the surest frame so far. Of some frames none ever comes."""
        confidence = self._frames.pop(key, -1.0)
        if confidence > self._shown_confidence:
            self.thumb, self.shown, self._shown_confidence = thumb, key, confidence

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
            # The page asks for another picture when this changes.
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
            The visit that the frame belongs to, if it does.
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
        visit = None
        if verdict.ring is not None:
            self.total += 1
            stamp = sighting.stamp
            visit = Visit(self.total, sighting.group, sighting.class_name, confidence, stamp, stamp)
            self._visits.append(visit)
        elif verdict.suppressed is not None and verdict.suppressed.reason is Reason.SAME_VISIT:
            visit = next((v for v in reversed(self._visits) if v.group == sighting.group), None)
        if visit is not None:
            visit.add(sighting, confidence, key)
        return visit

    def picture(self, key: str, thumb: bytes) -> None:
        """A frame's picture is there."""
        for visit in self._visits:
            visit.picture(key, thumb)

    def thumb(self, number: int) -> bytes:
        """The snapshot of a visit; empty where there is none."""
        return next((visit.thumb for visit in self._visits if visit.number == number), b"")

    def as_json(self) -> list[dict[str, Any]]:
        """For the page, the newest first."""
        return [visit.as_json() for visit in reversed(self._visits)]
