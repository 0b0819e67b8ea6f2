# SPDX-License-Identifier: Apache-2.0
"""The alarm: on at once when something comes, off after a while, and quiet for a while after that."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from enum import IntEnum

from fleet.behaviours.frames import LastFrames, check_k_of_n
from fleet.behaviours.hours import ActiveHours
from fleet.behaviours.sighting import Sighting, Watch
from fleet.behaviours.verdict import Reason, Suppression, SuppressionLog, doubt
from fleet.errors import FleetError


class State(IntEnum):
    """Of the alarm; the numbers of ``fleet_msgs/Alarm``."""

    OFF = 0
    ON = 1
    SILENCED = 2


@dataclass(frozen=True)
class AlarmRules:
    """When the alarm goes on and for how long.

    Attributes:
        watch: what it reacts to.
        min_confidence: below it a frame does not count, 0..1.
        k: frames that must count,
        n: among so many consecutive ones. 1 of 1 is the fastest.
        hold: s that it stays on.
        cool_down: s after going on in which it does not go on again.
        hours: when it may go on at all; None for always.
        silence_duration: s that a silence lasts; 0: until it is ended.
    """

    watch: Watch
    min_confidence: float = 0.7
    k: int = 1
    n: int = 1
    hold: float = 10.0
    cool_down: float = 60.0
    hours: ActiveHours | None = None
    silence_duration: float = 600.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            FleetError: a confidence outside 0..1, k of n that cannot be, a time that is negative or infinite.
        """
        if not 0.0 <= self.min_confidence <= 1.0:
            raise FleetError(f"min_confidence must be 0 to 1, not {self.min_confidence:g}")
        check_k_of_n(self.k, self.n)
        for name in ("hold", "cool_down", "silence_duration"):
            seconds = getattr(self, name)
            if not 0.0 <= seconds < math.inf:
                raise FleetError(f"{name} must be zero or more seconds, not {seconds:g}")


@dataclass(frozen=True)
class Change:
    """The alarm has another state.

    Attributes:
        state: the new one.
        reason: one line.
        cause: the sighting that put the alarm on, also with the change that ends this alarm; None where no alarm
            was on before or after.
    """

    state: State
    reason: str
    cause: Sighting | None = None


@dataclass(frozen=True)
class AlarmVerdict:
    """What a sighting did.

    Attributes:
        changes: of the state, in order; the time that has passed may have caused the first of them.
        suppressed: why a sighting of something that is watched for did nothing.
    """

    changes: tuple[Change, ...] = ()
    suppressed: Suppression | None = None


class Alarm:
    """Goes on with the first sighting that the rules let pass; every other sighting leaves no trace but a reason.

    All times ``now`` are seconds on one clock, which may be simulated. Should it jump back, what was running then
    runs on from there.
    """

    def __init__(self, rules: AlarmRules, now: float) -> None:
        """An alarm that begins to watch at ``now`` (s)."""
        self.log = SuppressionLog()
        self.alarms = 0
        self._rules = rules
        self._frames = LastFrames(rules.n)
        self._now = now
        self._on_since: float | None = None  # of the latest alarm, also when it is over: the cool-down counts from it
        self._silent_since = now
        self.current = Change(State.OFF, f"watching for {rules.watch}")
        """The latest change."""

    @property
    def rules(self) -> AlarmRules:
        """As they are now; new ones hold at once, also for what is running, and count frames from then on."""
        return self._rules

    @rules.setter
    def rules(self, rules: AlarmRules) -> None:
        self._rules = rules
        self._frames = LastFrames(rules.n)

    @property
    def state(self) -> State:
        """As of the latest call."""
        return self.current.state

    # Time and people --------------------------------------------------------------------------------------
    def pass_time(self, now: float) -> tuple[Change, ...]:
        """End what is over by ``now`` (s): the alarm after its hold, the silence after its duration."""
        if now < self._now:  # a simulation was started again, or a bag loops
            self._silent_since += now - self._now
            if self._on_since is not None:
                self._on_since += now - self._now
        self._now = now
        if self.state is State.ON and self._on_since is not None and now - self._on_since >= self._rules.hold:
            return self._become(State.OFF, f"was on for {self._rules.hold:g} s", self.current.cause)
        if self.state is State.SILENCED and self._silence_left() <= 0:
            return self._become(State.OFF, f"silence of {self._rules.silence_duration:g} s is over")
        return ()

    def silence(self, now: float) -> tuple[Change, ...]:
        """Somebody wants silence from ``now`` (s) on; a silence that is running begins again."""
        changes = self.pass_time(now)
        self._silent_since = now
        if self.state is State.SILENCED:
            return changes
        duration = self._rules.silence_duration
        reason = f"silenced for {duration:g} s" if duration > 0 else "silenced until further notice"
        ended = self.current.cause if self.state is State.ON else None
        return (*changes, *self._become(State.SILENCED, reason, ended))

    def end_silence(self, now: float) -> tuple[Change, ...]:
        """Somebody ends the silence at ``now`` (s)."""
        changes = self.pass_time(now)
        if self.state is not State.SILENCED:
            return changes
        return (*changes, *self._become(State.OFF, "silence was ended"))

    # Sightings --------------------------------------------------------------------------------------------
    def see(self, sighting: Sighting, now: float, time_of_day: datetime.time) -> AlarmVerdict:
        """Judge one frame.

        Args:
            sighting: what it showed; frames may come out of order.
            now: s.
            time_of_day: local, for the active hours.
        """
        changes = self.pass_time(now)
        rules = self._rules
        confidence = rules.watch.confidence_in(sighting)
        counts = confidence is not None and confidence >= rules.min_confidence  # NaN does not
        count = self._frames.add(sighting.stamp, shows=counts)
        if confidence is None:
            return AlarmVerdict(changes)
        objection = self._objection(sighting, confidence, count, time_of_day)
        if objection is not None:
            return AlarmVerdict(changes, self.log.add(*objection, now))
        self.log.something_happened()
        self.alarms += 1
        self._on_since = now
        frames = f", {count} of {rules.n} frames" if rules.n > 1 else ""
        return AlarmVerdict((*changes, *self._become(State.ON, f"{sighting} at {confidence:.2f}{frames}", sighting)))

    def _objection(
        self, sighting: Sighting, confidence: float, count: int, time_of_day: datetime.time
    ) -> tuple[Reason, str] | None:
        """Why this sighting must not put the alarm on. First: is it one? Then: is it wanted now?"""
        rules = self._rules
        if (reason := doubt(confidence, rules.min_confidence)) is not None:
            return reason, f"{sighting} at {confidence:.3f}, min_confidence is {rules.min_confidence:.3f}"
        if count < rules.k:
            return Reason.TOO_FEW, f"{sighting} in {count} of {rules.n} frames, {rules.k} are needed"
        if rules.hours is not None and not rules.hours.include(time_of_day):
            return Reason.OUTSIDE_HOURS, f"{sighting} at {time_of_day:%H:%M}, active hours are {rules.hours}"
        if self.state is State.SILENCED:
            left = self._silence_left()
            more = f" for {left:.0f} s more" if left < math.inf else ""
            return Reason.SILENCED, f"{sighting} while silenced{more}"
        if self.state is State.ON:
            return Reason.ALREADY_ON, f"{sighting} while the alarm is on"
        if self._on_since is not None and (left := self._on_since + rules.cool_down - self._now) > 0:
            return Reason.COOLING_DOWN, f"{sighting} while cooling down for {left:.0f} s more"
        return None

    def _silence_left(self) -> float:
        duration = self._rules.silence_duration
        return self._silent_since + duration - self._now if duration > 0 else math.inf

    def _become(self, state: State, reason: str, cause: Sighting | None = None) -> tuple[Change, ...]:
        self.current = Change(state, reason, cause)
        return (self.current,)
