# SPDX-License-Identifier: Apache-2.0
"""One frame's way through device, radio and hub, put together from what each of them says of it.

All times that come in are seconds on one wall clock; what goes out is milliseconds since the frame was ready.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fleet.link.airtime import NOTICE_OCTETS, exchange_ends_us, ll_octets
from fleet.link.parameters import LinkParameters
from fleet.packet import LOCAL_ANSWER_STAGE, PICTURE

Who = Literal["hub", "device"]
Notice = Literal["", "heard", "lost", "repeated"]

MOST_EVENTS = 400
MOST_RUNS = 200
"""Of one frame; a frame that takes longer is shown as far as this."""
PLAUSIBLE_S = 30.0
"""A picture's stamp that lies further back says nothing about when the device began."""
SAME_S, HEARING_S = 0.002, 1.0
"""How much earlier, and how much later, than the beginning that a latency tells a stamp may be, to be believed."""


@dataclass(frozen=True, slots=True)
class StageDone:
    """The device finished a stage and handed its packets to the radio.

    Attributes:
        n: the stage.
        at: s.
        packets: how many.
        size: bytes of all of them.
    """

    n: int
    at: float
    packets: int
    size: int


@dataclass(frozen=True, slots=True)
class RadioEvent:
    """A connection event that carried something, or a packet that was heard where nobody tells of events.

    Attributes:
        at: its anchor, s.
        stages: of the packets on the air, in order.
        sizes: bytes of each packet.
        lost: whether the air lost it, one a packet.
        ends_ms: when each packet had ended, after the anchor.
        notice: what became of the exit notice that it carried; empty where there was none.
    """

    at: float
    stages: tuple[int, ...]
    sizes: tuple[int, ...]
    lost: tuple[bool, ...]
    ends_ms: tuple[float, ...]
    notice: Notice = ""


@dataclass(frozen=True, slots=True)
class ExitRun:
    """The hub ran an exit.

    Attributes:
        stage: which.
        at: when it was done, s.
        duration: of the forward pass, s.
        certainty: 0..1.
        threshold: from which certainty on it answers.
        group: what it saw.
        class_name: the fine class in words.
        answered: it ended the inference.
    """

    stage: int
    at: float
    duration: float
    certainty: float
    threshold: float
    group: str
    class_name: str
    answered: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a frame shows, and who says so.

    Attributes:
        group: for example pet, or none.
        class_name: the fine class in words.
        confidence: 0..1; NaN where none travelled.
        by: who answered.
        stage: the exit; None for the device's own answer.
    """

    group: str
    class_name: str
    confidence: float
    by: Who
    stage: int | None

    def as_json(self) -> dict[str, Any]:
        """For the page."""
        return {
            "group": self.group,
            "class": self.class_name,
            "confidence": finite(self.confidence),
            "by": self.by,
            "stage": self.stage,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The device's account of a frame.

    Attributes:
        answer: as the device holds it.
        latency: s.
        compute: s that its processor was busy.
        energy_mj: processor and radio; NaN where either is unknown.
        radio_mj: of the radio alone; NaN where unknown.
        stages_run: stages it finished.
        packets: on the air; None where the radio did not report, as the next two.
        lost: of these.
        size: bytes on the air.
        name: of the frame's file.
        truth: group that the source names.
    """

    answer: Answer
    latency: float
    compute: float
    energy_mj: float
    radio_mj: float
    stages_run: int
    packets: int | None
    lost: int | None
    size: int | None
    name: str
    truth: str


@dataclass
class Journey:
    """One frame.

    Attributes:
        seq: counts the frames of this view.
        inference_id: 0..65535.
        key: names its picture.
        captured: stamp of the picture, s.
        first_heard: when this view first heard of it, s.
        exit_stages: the last stage that is sent; 0 where unknown.
        wake_at: when the radio wakes up, at this and every whole interval from it, s; None where nobody tells.
        interval: connection interval, s.
        decided: when the hub said stop, s.
        heard: when the exit notice was at the device, s.
        own: when the device had its own answer, s.
        label: as it was published first.
        report: the device's, once it is there.
    """

    seq: int
    inference_id: int
    key: str
    captured: float
    first_heard: float
    exit_stages: int = 0
    wake_at: float | None = None
    interval: float = 0.0
    decided: float | None = None
    heard: float | None = None
    own: float | None = None
    label: Answer | None = None
    report: Report | None = None
    stages: list[StageDone] = field(default_factory=list)
    events: list[RadioEvent] = field(default_factory=list)
    runs: list[ExitRun] = field(default_factory=list)

    def add_stage(self, done: StageDone) -> None:
        """A stage was finished; one that is offered again counts once."""
        if all(done.n != stage.n for stage in self.stages):
            self.stages.append(done)
            self.stages.sort(key=lambda stage: stage.at)

    def add_event(self, event: RadioEvent) -> None:
        """Something was on the air."""
        if len(self.events) < MOST_EVENTS:
            self.events.append(event)

    def add_run(self, run: ExitRun) -> None:
        """An exit was run."""
        if len(self.runs) < MOST_RUNS:
            self.runs.append(run)

    @property
    def answer(self) -> Answer | None:
        """What the frame shows: the device's word where it has given it, else what was published."""
        return self.report.answer if self.report is not None else self.label

    @property
    def is_over(self) -> bool:
        """Whether it has been answered."""
        return self.answer is not None or self.heard is not None or self.own is not None

    @property
    def held(self) -> float | None:
        """When the device held its answer, s: once its notice was heard, or its own packets were offered."""
        if self.report is not None and self._answered_at is not None:
            return self.began + self.report.latency
        return self._answered_at

    @property
    def _answered_at(self) -> float | None:
        """When somebody else could see that the device has an answer, s."""
        if self.report is not None:
            return self.heard if self.report.answer.by == "hub" else self.own
        return min((time for time in (self.heard, self.own) if time is not None), default=None)

    @property
    def began(self) -> float:
        """When the frame was ready, s.

        The device stamps a frame of its own source at that moment. A picture from elsewhere was stamped earlier, or by
        another clock: then the time of the answer less the latency tells, which is early by as much as the device
        takes to hear a notice.
        """
        first = self.stages[0].at if self.stages else self.first_heard
        if self.report is not None and self._answered_at is not None:
            told = self._answered_at - self.report.latency
            return self.captured if -SAME_S < self.captured - told < HEARING_S else told
        return self.captured if 0.0 <= first - self.captured <= PLAUSIBLE_S else first

    def as_json(self, now: float) -> dict[str, Any]:
        """For the page; times in ms since the frame was ready.

        Args:
            now: s; how far a frame has come that is not over.
        """
        began = self.began

        def ms(time: float | None) -> float | None:
            return None if time is None else round((time - began) * 1e3, 3)

        held = self.held
        blocks = self._blocks(began, now)
        answer, report = self.answer, self.report
        marks = [block["end"] for block in blocks] + [ms(run.at) or 0.0 for run in self.runs]
        marks += [(ms(event.at) or 0.0) + (event.ends_ms[-1] if event.ends_ms else 0.0) for event in self.events]
        marks += [found for time in (self.decided, held) if (found := ms(time)) is not None]
        return {
            "seq": self.seq,
            "id": self.inference_id,
            "picture": self.key,
            "captured": round(self.captured, 3),
            "over": self.is_over,
            "end": round(max([0.0, *marks]), 3),
            "stages": blocks,
            "events": [self._event(event, began) for event in self.events],
            "wake": {"first": ms(self._first_wake(began)), "every": round(self.interval * 1e3, 3)},
            "runs": [self._run(run, began) for run in self.runs],
            "decided": ms(self.decided),
            "held": ms(held),
            "answer": answer.as_json() if answer is not None else None,
            "report": None if report is None else _report(report),
        }

    def _blocks(self, began: float, now: float) -> list[dict[str, Any]]:
        """What the device's processor did: finished stages, and what came after the last of them."""
        found: list[dict[str, Any]] = []
        since = began
        for stage in self.stages:
            if stage.n == LOCAL_ANSWER_STAGE:
                continue
            found.append(_block(stage.n, since, stage.at, began, "done", packets=stage.packets, size=stage.size))
            since = max(since, stage.at)
        last = max((block["n"] for block in found), default=0)
        rest = LOCAL_ANSWER_STAGE if self.exit_stages and last >= self.exit_stages else last + 1
        if not found and self.own is None:
            return found  # nobody here hears the device
        if found and last == PICTURE and self.own is None:
            return found  # it has shown the picture, and rests
        if self.own is not None and (self.held is None or self.own <= self.held):
            found.append(_block(rest, since, self.own, began, "answered"))
        elif self.held is not None:
            if self.held > since:
                found.append(_block(rest, since, self.held, began, "cut"))
        elif self.answer is None and now > since:
            found.append(_block(rest, since, min(now, since + PLAUSIBLE_S), began, "running"))
        return found

    def _event(self, event: RadioEvent, began: float) -> dict[str, Any]:
        begins = (0.0, *event.ends_ms)
        return {
            "at": round((event.at - began) * 1e3, 3),
            "notice": event.notice,
            "packets": [
                {"stage": stage, "bytes": size, "lost": lost, "begin": round(begin, 3), "end": round(end, 3)}
                for stage, size, lost, begin, end in zip(
                    event.stages, event.sizes, event.lost, begins, event.ends_ms, strict=False
                )
            ],
        }

    def _run(self, run: ExitRun, began: float) -> dict[str, Any]:
        # An answer is told before the run that gave it.
        end = min(run.at, self.decided) if run.answered and self.decided is not None else run.at
        return {
            "stage": run.stage,
            "begin": round((end - run.duration - began) * 1e3, 3),
            "end": round((end - began) * 1e3, 3),
            "certainty": finite(run.certainty),
            "threshold": finite(run.threshold),
            "group": run.group,
            "class": run.class_name,
            "answered": run.answered,
        }

    def _first_wake(self, began: float) -> float | None:
        """The first time at which the radio wakes up once the frame is ready, s."""
        if self.wake_at is None or not self.interval > 0:
            return None
        return self.wake_at + math.ceil((began - self.wake_at) / self.interval - 1e-9) * self.interval

    def wait(self) -> float | None:
        """Seconds from the frame being ready until the radio woke up, None where nobody tells."""
        first = self._first_wake(self.began)
        return None if first is None else first - self.began


def packet_ends_ms(link: LinkParameters, sizes: Sequence[int], *, notice: bool) -> tuple[float, ...]:
    """When each packet of an event had ended, in ms after the anchor.

    Args:
        link: as it was.
        sizes: bytes of each packet.
        notice: whether the hub's first packet was an exit notice.
    """
    up = [ll_octets(size) for size in sizes]
    ends = exchange_ends_us(link.phy, up, [NOTICE_OCTETS] if notice else [])[1]
    return tuple(end * 1e-3 for end in ends[: len(sizes)])


def finite(value: float) -> float | None:
    """The number, rounded, or None for what JSON does not have."""
    return round(value, 4) if math.isfinite(value) else None


def _block(n: int, begin: float, end: float, began: float, state: str, **more: int) -> dict[str, Any]:
    begin_ms, end_ms = (begin - began) * 1e3, (max(begin, end) - began) * 1e3
    return {"n": n, "begin": round(begin_ms, 3), "end": round(end_ms, 3), "state": state, **more}


def _report(report: Report) -> dict[str, Any]:
    return {
        "latency_ms": finite(report.latency * 1e3),
        "compute_ms": finite(report.compute * 1e3),
        "energy_mj": finite(report.energy_mj),
        "radio_mj": finite(report.radio_mj),
        "packets": report.packets,
        "lost": report.lost,
        "bytes": report.size,
        "name": report.name,
        "truth": report.truth or None,
    }
