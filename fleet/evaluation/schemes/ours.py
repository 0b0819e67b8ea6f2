# SPDX-License-Identifier: Apache-2.0
"""FLEET over one link: the hub's exits and, in a race, the device's own, as runs of a stopping problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.evaluation.air import Air, FloatVector
from fleet.evaluation.certainty import Judged
from fleet.evaluation.outcomes import Outcomes, fleet_outcomes
from fleet.evaluation.replay import Packets, Timeline, replay
from fleet.evaluation.stopping import Runs
from fleet.evaluation.trace import Payload, picture_states
from fleet.exits import BEGUN_PARTS, part_of
from fleet.inference import HUB_S, SOON_S, answer_due_s, thrifty_burst
from fleet.packet import PICTURE
from fleet.platforms import PlatformProfile

DEVICE = "device"


@dataclass(frozen=True)
class Recorded:
    """What a trace has of FLEET for one split, judged.

    Attributes:
        packets: of every stage.
        states: of the hub.
        exits: the exits in every state.
        device: the whole network on the device, one row.
        local: local exits for a race, one row each; None where there are none.
        local_stages: the stages behind which these are.
        alone: whether packets decode without those before them, where any may be missing.
    """

    packets: Packets
    states: Payload
    exits: Judged
    device: Judged
    local: Judged | None = None
    local_stages: tuple[int, ...] = ()
    alone: bool = True

    @property
    def decodable_sets(self) -> npt.NDArray[np.intp]:
        """Of states that are sets of one stage's packets, what a hub can decode, as sets, shape (states,)."""
        seen = np.asarray([s.own | s.before for s in self.states.states])
        return seen if self.alone else (seen ^ (seen + 1)) >> 1  # up to the first that is missing


def split_picture(
    sizes: npt.NDArray[Any], ends: npt.NDArray[Any], payload: int, *, thrifty: bool
) -> tuple[Packets, Payload]:
    """A picture's packets as a ladder of its own; for a thrifty device as several, one for each time it sends some.

    Args:
        sizes: bytes, shape (most packets, N).
        ends: the place behind the last coefficient of each, same shape.
        payload: bytes of a packet.
        thrifty: whether the device is.
    """
    most = len(sizes)
    burst = min(thrifty_burst(payload), most) if thrifty else most
    whole = ((0, -most % burst), (0, 0))
    split = (np.pad(a, whole).reshape(-1, burst, a.shape[1]) for a in (sizes, ends))
    return Packets.of(*split), picture_states(payload, most, burst)


@dataclass(frozen=True)
class Pace:
    """When the device has done what, in seconds from the frame on.

    Attributes:
        offered: packets of the stages that are sent, in order.
        local: local exits, in order; empty without a race.
        whole: the whole network.
        picture: the picture itself; None where it does not travel.
    """

    offered: tuple[float, ...]
    local: tuple[float, ...]
    whole: float
    picture: float | None = None

    @classmethod
    def of(
        cls,
        stages: Sequence[Mapping[str, object]],
        sent: int,
        profile: PlatformProfile,
        heads: Mapping[int, Mapping[str, int]] | None = None,
        picture: Mapping[str, int] | None = None,
    ) -> Pace:
        """A device's pace.

        Args:
            stages: number ``n`` and ``macs`` of every stage in order, the head last.
            sent: so many of the first stages are sent.
            profile: of the platform; one that says how long a stage takes.
            heads: multiply-accumulates of the local exits that run, by stage; none without a race.
            picture: those of stage 0, where the picture itself travels first.
        """
        shown = None if picture is None else profile.seconds(picture, PICTURE) or 0.0
        now = shown or 0.0
        offered: list[float] = []
        local: list[float] = []
        for stage in stages:
            n, macs = int(stage["n"]), stage["macs"]  # type: ignore[call-overload]
            now += profile.seconds(macs, n) or 0.0  # type: ignore[arg-type]
            if len(offered) < sent:
                offered.append(now)
            if heads and n in heads:
                now += profile.local_exit_seconds(heads[n], n, macs) or 0.0  # type: ignore[arg-type]
                local.append(now)
        return cls(tuple(offered), tuple(local), now, shown)


@dataclass(frozen=True)
class Manner:
    """How the hub decides, where that is not as :class:`fleet.session.CloudSession` does.

    Attributes:
        agreement: an exit only answers if the one before it on the same image said the same.
        patient: the last exit, its ladder complete, does not answer unless it is sure; the device does in the end.
        parts: an exit has one threshold until its own stage is complete, and another then.
        fill: see :func:`fleet.evaluation.replay.replay`, as the next.
        hold: the same.
        picture: the picture itself travels, and nothing else, for the hub answers on it whatever its confidence once
            it is complete; without local exits the device rests meanwhile, see :meth:`fleet.inference.Device.infer`.
        thrifty: the picture goes in parts, each once the answer to those before is overdue.
        thirds: while the picture arrives, its exit has not one threshold but several, one for each of
            :data:`fleet.exits.BEGUN_PARTS` equal parts of it.
    """

    agreement: bool = False
    patient: bool = False
    parts: bool = False
    fill: bool = False
    hold: bool = False
    picture: bool = False
    thrifty: bool = False
    thirds: bool = False


@dataclass(frozen=True)
class Race:
    """FLEET on one link: thresholds of the hub's exits first, then those of the local exits.

    Attributes:
        recorded: of one split.
        pace: of the device.
        timeline: of the link.
        local: rows of ``recorded.local`` that run; empty without a race.
        manner: how the hub decides.
        rest_s: how long the device does nothing once it has shown the picture, if nobody answers, shape (N,).
    """

    recorded: Recorded
    pace: Pace
    timeline: Timeline
    local: tuple[int, ...] = ()
    manner: Manner = Manner()
    rest_s: FloatVector | None = None

    @classmethod
    def on(
        cls,
        recorded: Recorded,
        pace: Pace,
        air: Air,
        *,
        exit_s: float,
        local: tuple[int, ...] = (),
        manner: Manner | None = None,
    ) -> Race:
        """Let radio and hub run once."""
        how = manner or Manner()
        if pace.picture is not None:
            return cls.of_picture(recorded, pace, air, exit_s=exit_s, local=local, manner=how)
        timeline = replay(
            air, recorded.packets, recorded.states, pace.offered, exit_s=exit_s, fill=how.fill, hold=how.hold
        )
        return cls(recorded, pace, timeline, local, how)

    @classmethod
    def of_picture(
        cls,
        recorded: Recorded,
        pace: Pace,
        air: Air,
        *,
        exit_s: float,
        local: tuple[int, ...] = (),
        manner: Manner,
        lost: npt.NDArray[np.bool_] | None = None,
    ) -> Race:
        """The picture alone: all of it replayed as one stage, what a thrifty device sends at a time as one each.

        Where packets are lost, features follow once the answer is overdue. They are left out here, as if only the
        device then knew more, which can but make FLEET later.
        """
        assert pace.picture is not None
        counts, sets = recorded.packets.counts, recorded.states.sets
        total = counts[0] if sets else counts.sum(axis=0)
        due, soon = (
            np.asarray([0.0] + [answer_due_s(n, air.link, s) for n in range(1, int(counts.max()) + 1)])
            for s in (HUB_S, SOON_S)
        )
        burst = int(counts[0].max())
        # When is the time of the image with the most packets, for all: only the last burst has fewer.
        apart = float(due[int(total.max())] if sets else soon[burst])
        offered = [pace.picture + k * apart for k in range(len(counts))]
        if sets:
            rest = due[int(total.max())] + due[counts[1]] if len(counts) > 1 else due[counts[0]]
        else:
            follows = np.append(counts[1:], np.zeros_like(counts[:1]), axis=0) > 0
            rest = np.where(follows, soon[counts], due[counts]).sum(axis=0)
        seen, whole = recorded.decodable_sets, (1 << total) - 1
        if not sets:
            seen, whole = np.asarray([s.own + burst * (s.stage - 1) for s in recorded.states.states]), total
        timeline = replay(
            air,
            recorded.packets,
            recorded.states,
            offered,
            exit_s=exit_s,
            hold=manner.hold,
            lost=lost,
            content=seen if sets else None,
        )
        complete = (timeline.state >= 0) & (seen[timeline.state] == whole[:, None])
        # Who is thrifty rests: that was decided by the longest picture.
        rests = (pace.whole - pace.picture > due[np.minimum(total, len(due) - 1)]) & (not local)
        rests |= len(counts) > 1 and not sets
        timeline = replace(timeline, complete=complete)
        return cls(recorded, pace, timeline, local, manner, np.where(rests, rest, 0.0))

    @property
    def exits(self) -> int:
        """How many thresholds there are."""
        return self._hub_exits + len(self.local)

    @property
    def _hub_exits(self) -> int:
        if self.pace.picture is not None:
            return BEGUN_PARTS if self.manner.thirds else 1  # on the whole picture there is always an answer
        return len(self.pace.offered) * (2 if self.manner.parts else 1)

    @property
    def names(self) -> tuple[str, ...]:
        """Who answers, threshold by threshold, and the whole network on the device last."""
        stages = [str(n) for n in range(1, len(self.pace.offered) + 1)]
        if self.pace.picture is not None:
            many = self._hub_exits
            stages = ["0 begun"] if many == 1 else [f"0 begun, part {k} of {many}" for k in range(1, many + 1)]
        parts = [f"{n} begun" for n in stages] if self.manner.parts else []
        return (*stages, *parts, *(f"local {self.recorded.local_stages[k]}" for k in self.local), DEVICE)

    @cached_property
    def _hub(self) -> tuple[npt.NDArray[np.intp], FloatVector, npt.NDArray[np.bool_], FloatVector]:
        """Exit, certainty, rightness and time at the device of every run, shape (N, R)."""
        state, lanes = self.timeline.state, np.arange(len(self.timeline.state))[:, None]
        stages = np.asarray([s.stage for s in self.recorded.states.states])
        judged = self.recorded.exits
        certainty = judged.certainty[state, lanes]
        if self.manner.agreement:
            said = judged.answer[state, lanes]
            same = np.zeros(said.shape, np.bool_)
            same[:, 1:] = said[:, 1:] == said[:, :-1]
            certainty = np.where(same, certainty, -1.0)
        if not self.manner.patient:
            certainty = np.where(self.timeline.complete, np.inf, certainty)
        there = state >= 0
        exit_ = stages[state] - 1
        if self.pace.picture is not None:
            exit_ = part_of(self._shown[state, lanes], self._hub_exits)
        elif self.manner.parts:
            owns = np.asarray([s.own for s in self.recorded.states.states])
            counts = self.recorded.packets.counts
            whole = self.recorded.states.whole(counts)[exit_, lanes]
            exit_ = np.where(owns[state] < whole, exit_ + len(self.pace.offered), exit_)
        notice_at = np.stack([self.timeline.notice_at(done)[1] for done in self.timeline.done.T], axis=1)
        return (
            exit_,
            np.where(there, certainty, -1.0),
            judged.right[state, lanes] & there,
            np.where(there, notice_at, np.inf),
        )

    @property
    def _shown(self) -> FloatVector:
        """The share of the picture that a hub can decode in each state, shape (states, N)."""
        packets, states = self.recorded.packets, self.recorded.states
        ends = packets.ends[0] if states.sets else packets.ends.reshape(-1, packets.ends.shape[2])
        whole = ends.max(axis=0)
        if not states.sets:
            places = [(s.stage - 1) * packets.ends.shape[1] + s.own - 1 for s in states.states]
            return np.asarray(ends[places] / whole, float)
        held = np.diff(np.maximum.accumulate(ends, axis=0), axis=0, prepend=0)
        there = self.recorded.decodable_sets[:, None] >> np.arange(len(ends)) & 1
        out: FloatVector = (there @ held) / whole
        return out

    @cached_property
    def _table(self) -> tuple[npt.NDArray[np.intp], FloatVector, npt.NDArray[np.bool_], FloatVector]:
        """The hub's runs, the local exits, the whole network: shape (N, R + L + 1)."""
        images = len(self.timeline.state)
        columns = [self._hub]
        first = self._hub_exits
        for place, row in enumerate(self.local):
            local = self.recorded.local
            assert local is not None
            columns.append(self._column(images, first + place, local, row, self.pace.local[place]))
        rested = 0.0 if self.rest_s is None else self.rest_s
        columns.append(self._column(images, 0, self.recorded.device, 0, self.pace.whole + rested))
        exit_, certainty, right, cost = (np.concatenate(parts, axis=1) for parts in zip(*columns, strict=True))
        certainty[:, -1] = np.inf
        return exit_, certainty, right, cost

    @staticmethod
    def _column(
        images: int, exit_: int, judged: Judged, row: int, cost: float | FloatVector
    ) -> tuple[npt.NDArray[np.intp], FloatVector, npt.NDArray[np.bool_], FloatVector]:
        return (
            np.full((images, 1), exit_, np.intp),
            judged.certainty[row][:, None],
            judged.right[row][:, None],
            np.broadcast_to(np.asarray(cost, float).reshape(-1, 1), (images, 1)),
        )

    @cached_property
    def runs(self) -> Runs:
        """For the search of thresholds."""
        return Runs.of_table(*self._table, exits=self.exits)

    def end(self, thresholds: Sequence[float]) -> tuple[Outcomes, npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
        """How the frames end.

        Args:
            thresholds: one a hub's exit, then one a local exit that runs.

        Returns:
            Outcomes, whether each answer is right, and who gave it (an index of :attr:`names`), shapes (N,).
        """
        levels = np.asarray([*thresholds, -np.inf])
        lanes = np.arange(len(self.timeline.state))
        exit_, certainty, right, cost = self._table
        hub = self.timeline.state.shape[1]
        exit_ = exit_.copy()
        exit_[:, -1] = self.exits  # the whole network has no threshold
        sure = certainty >= levels[exit_]
        run = sure[:, :hub].argmax(axis=1)
        answered = np.where(sure[:, :hub].any(axis=1), self.timeline.done[lanes, run], np.inf)
        own = hub + sure[:, hub:].argmax(axis=1)
        outcomes, by_hub = fleet_outcomes(self.timeline, answered, cost[lanes, own])
        if self.rest_s is not None and self.pace.picture is not None:
            rested = np.minimum(outcomes.latency - self.pace.picture, self.rest_s)
            outcomes = replace(outcomes, busy=outcomes.busy - rested)
        chosen = np.where(by_hub, run, own)
        return outcomes, right[lanes, chosen], exit_[lanes, chosen]
