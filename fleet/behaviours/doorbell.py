# SPDX-License-Identifier: Apache-2.0
"""The doorbell: one ring a visit."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from fleet.behaviours.frames import LastFrames, check_k_of_n
from fleet.behaviours.sighting import Sighting, Watch
from fleet.behaviours.verdict import Reason, Suppression, SuppressionLog, doubt
from fleet.errors import FleetError

REMEMBERED_VISITS = 32
LATEST_S = 120.0
"""No label is later than this (an answer of the device waits a minute at most): then the clock was set back."""


@dataclass(frozen=True)
class DoorbellRules:
    """What a visit is.

    Two confidences keep a label that flickers around one of them from making many visits of one: a visit begins
    with the higher and goes on with the lower.

    Attributes:
        watch: who may come.
        min_confidence: from which a visit begins, 0..1.
        stay_confidence: from which a visit goes on, 0..1, at most ``min_confidence``.
        k: frames that must reach ``min_confidence`` before it rings,
        n: among so many consecutive ones. 1 of 1 is the fastest.
        absence: s without a sighting that end a visit, by the stamps of the pictures.
    """

    watch: Watch
    min_confidence: float = 0.7
    stay_confidence: float = 0.4
    k: int = 1
    n: int = 1
    absence: float = 30.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            FleetError: confidences outside 0..1 or the wrong way round, k of n that cannot be, no absence.
        """
        if not 0.0 <= self.min_confidence <= 1.0:
            raise FleetError(f"min_confidence must be 0 to 1, not {self.min_confidence:g}")
        if not 0.0 <= self.stay_confidence <= self.min_confidence:
            raise FleetError(
                f"stay_confidence must be 0 to min_confidence ({self.min_confidence:g}), not {self.stay_confidence:g}"
            )
        check_k_of_n(self.k, self.n)
        if not 0.0 < self.absence < math.inf:
            raise FleetError(f"absence must be more than zero seconds, not {self.absence:g}")


@dataclass
class Visit:
    """Somebody was there.

    Attributes:
        first: stamp of the earliest sighting, s.
        last: stamp of the latest sighting, s.
    """

    first: float
    last: float

    def distance(self, stamp: float) -> float:
        """Seconds from a stamp to the visit, 0 within it."""
        return max(self.first - stamp, stamp - self.last, 0.0)

    def extend(self, stamp: float) -> None:
        """Somebody is still there, or was there already."""
        self.first, self.last = min(self.first, stamp), max(self.last, stamp)


@dataclass(frozen=True)
class Ring:
    """A visit has begun.

    Attributes:
        visits: until now, this one included.
        reason: one line.
        cause: the sighting that rang.
    """

    visits: int
    reason: str
    cause: Sighting


@dataclass(frozen=True)
class DoorbellVerdict:
    """What a sighting did.

    Attributes:
        ring: it rang.
        over: a visit that this frame shows to have ended.
        suppressed: why a sighting of something that is watched for did not ring.
    """

    ring: Ring | None = None
    over: Visit | None = None
    suppressed: Suppression | None = None


class Doorbell:
    """Rings with the first sighting of a visit that the rules let pass.

    It lives by the stamps of the pictures alone, so that a bag replayed at any speed rings as often as the yard did.
    Visits that are over are remembered, so that a frame that comes late does not ring for one of them again.
    """

    def __init__(self, rules: DoorbellRules) -> None:
        """A doorbell that nobody has rung."""
        self.log = SuppressionLog()
        self.visits = 0
        self._rules = rules
        self._frames = LastFrames(rules.n)
        self._remembered: deque[Visit] = deque(maxlen=REMEMBERED_VISITS)
        self._present: Visit | None = None
        self._newest = -math.inf

    @property
    def rules(self) -> DoorbellRules:
        """As they are now; new ones hold at once, also for the visit that is going on."""
        return self._rules

    @rules.setter
    def rules(self, rules: DoorbellRules) -> None:
        self._rules = rules
        self._frames = LastFrames(rules.n)

    @property
    def present(self) -> Visit | None:
        """The visit that is going on, as of the latest frame."""
        return self._present

    def see(self, sighting: Sighting) -> DoorbellVerdict:
        """Judge one frame, which may be a late one."""
        rules, stamp = self._rules, sighting.stamp
        over = self._end_visit(stamp)
        confidence = rules.watch.confidence_in(sighting)
        counts = confidence is not None and confidence >= rules.min_confidence  # NaN does not
        count = self._frames.add(stamp, shows=counts)
        if confidence is None:
            return DoorbellVerdict(over=over)
        objection = self._objection(sighting, confidence, count)
        if objection is not None:
            return DoorbellVerdict(over=over, suppressed=self.log.add(*objection, stamp))
        self.log.something_happened()
        self.visits += 1
        visit = Visit(stamp, stamp)
        self._remembered.append(visit)
        self._present = self._present or visit  # a late frame may ring for an earlier visit while this one goes on
        frames = f", {count} of {rules.n} frames" if rules.n > 1 else ""
        return DoorbellVerdict(Ring(self.visits, f"{sighting} at {confidence:.2f}{frames}", sighting), over)

    def _end_visit(self, stamp: float) -> Visit | None:
        """The visit that is over by a frame's stamp."""
        visit = self._present
        if stamp < self._newest - LATEST_S:  # the camera's clock was set back: old stamps say nothing any more
            self._remembered.clear()
            self._newest = stamp
        else:
            self._newest = max(self._newest, stamp)
            if visit is None or stamp - visit.last < self._rules.absence:
                return None
        self._present = None
        return visit

    def _objection(self, sighting: Sighting, confidence: float, count: int) -> tuple[Reason, str] | None:
        rules = self._rules
        if confidence >= rules.stay_confidence and (visit := self._visit_at(sighting.stamp)) is not None:
            visit.extend(sighting.stamp)
            return Reason.SAME_VISIT, f"{sighting} at {confidence:.2f} belongs to visit {self.visits}"
        if (reason := doubt(confidence, rules.min_confidence)) is not None:
            return reason, f"{sighting} at {confidence:.3f}, min_confidence is {rules.min_confidence:.3f}"
        if count < rules.k:
            return Reason.TOO_FEW, f"{sighting} in {count} of {rules.n} frames, {rules.k} are needed"
        return None

    def _visit_at(self, stamp: float) -> Visit | None:
        """The visit that a stamp belongs to, the latest first."""
        near = (v for v in reversed(self._remembered) if v.distance(stamp) < self._rules.absence)
        return next(near, None)
