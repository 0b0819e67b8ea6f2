# SPDX-License-Identifier: Apache-2.0
"""What the live view knows of one camera: facts come in, a snapshot for the page goes out, and nothing grows.

Times are seconds on one wall clock and always arguments.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from fleet.answers import OncePerFrame
from fleet.behaviours.sighting import Sighting
from fleet.bundle import StageFile
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF5340
from fleet.platforms import PlatformProfile
from fleet.view.comparison import Cost, always_jpeg, always_local, measured_local, rate, spread
from fleet.view.journey import Answer, ExitRun, Journey, Notice, RadioEvent, Report, StageDone, finite, packet_ends_ms
from fleet.view.pictures import JPEG_QUALITY, Picture
from fleet.view.sightings import Sightings

KEPT_FRAMES = 96
"""Frames whose journeys, pictures and costs are kept."""
REUSED_S = 60.0
"""An id that was heard of so long ago belongs to another frame now."""
LIVE_S = 0.3
"""A frame that takes longer is shown while it is under way."""
TOLD_S = 1.0
"""So long after its beginning a frame that was answered is shown without the device's report."""
NEAR_S = 0.5
"""A frame of which there is a picture is shown in place of one that is so much newer at most."""
MEASURED = 50


@dataclass(frozen=True)
class Facts:
    """What holds for a whole run.

    Attributes:
        exit_stages: the last stage that is sent; 0 where the model is unknown.
        input_size: of the network, pixels; None where unknown.
        stages: the device's network; empty where unknown.
        shown: whether the picture itself travels first, as a stage more.
        profile: of the device's platform; None where unknown.
        conditions: as ``fleet up`` knows them.
    """

    exit_stages: int = 0
    input_size: int | None = None
    stages: tuple[StageFile, ...] = ()
    shown: bool = False
    profile: PlatformProfile | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Entry:
    """One frame in the comparison.

    Attributes:
        seq: of its journey.
        key: of its picture.
        at: when it was reported, s.
        answer: as the device holds it.
        fleet: what it cost.
        right: whether the answer is what the source says; None where that is unknown.
        wait: s until the first connection event; None where nobody tells.
        local: what it would have cost without a radio.
        jpeg: what it would have cost as a JPEG file.
        sent: bytes of that file.
    """

    seq: int
    key: str
    at: float
    answer: Answer
    fleet: Cost
    right: bool | None
    wait: float | None
    local: Cost | None = None
    jpeg: Cost | None = None
    sent: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For the page."""
        costs = {"fleet": self.fleet, "local": self.local, "jpeg": self.jpeg}
        return {
            "seq": self.seq,
            "group": self.answer.group,
            "by": self.answer.by,
            "stage": self.answer.stage,
            "right": self.right,
            "latency": {name: finite(cost.latency_ms) for name, cost in costs.items() if cost is not None},
        }


class CameraView:
    """One camera, as its topics tell of it. Not safe to share between threads."""

    def __init__(self, facts: Facts, *, seed: int = 0) -> None:
        """Nothing has been heard yet.

        Args:
            facts: of the run.
            seed: of the losses and phases that *always JPEG* meets.
        """
        self.facts = facts
        self.version = 0
        self.link: LinkParameters | None = None
        self.connected: bool | None = None
        self.pictures: OrderedDict[str, Picture] = OrderedDict()
        self.sightings = Sightings()
        self._journeys: OrderedDict[int, Journey] = OrderedDict()  # by id, the newest last
        self._entries: deque[Entry] = deque(maxlen=KEPT_FRAMES)
        self._once = OncePerFrame()
        self._seq = 0
        self._wake_at: float | None = None
        self._rng = np.random.default_rng(seed)
        self._forward_s: deque[float] = deque(maxlen=MEASURED)
        self._whole_s: deque[float] = deque(maxlen=MEASURED)
        self._exits_reported: Counter[int | None] = Counter()
        self._exits_labelled: Counter[int | None] = Counter()
        self._frames = self._known = self._right = self._packets = self._lost = 0
        self._local = always_local(facts.stages, facts.profile) if facts.profile is not None else None

    # Facts ------------------------------------------------------------------------------------------------
    def on_link(self, link: LinkParameters, *, connected: bool) -> None:
        """The link as it is now."""
        if self.link is not None and link.ci_ms != self.link.ci_ms:
            self._wake_at = None  # the next event tells the new grid
        self.link, self.connected = link, connected
        self.version += 1

    def on_stage(self, inference_id: int, key: str, captured: float, done: StageDone) -> None:
        """The device offered a stage's packets, or, as stage 15, its own answer."""
        journey = self._journey(inference_id, done.at, key, captured)
        if done.n == 15 and journey.own is None:
            journey.own = done.at
        journey.add_stage(done)

    def on_event(
        self,
        inference_id: int,
        at: float,
        stages: Sequence[int],
        sizes: Sequence[int],
        lost: Sequence[bool],
        notice: tuple[int, bool] | None,
    ) -> None:
        """A connection event that carried something.

        Args:
            inference_id: of its packets, or of the notice where there are none.
            at: its anchor, s.
            stages: one a packet.
            sizes: bytes, one a packet.
            lost: one a packet.
            notice: the id that an exit notice ends, and whether it was heard for the first time.
        """
        self._wake_at = at
        if self.link is None or not len(stages) == len(sizes) == len(lost):
            return
        self._packets += len(stages)
        self._lost += sum(lost)
        told: Notice = ""
        if notice is not None:
            ended = self._known_journey(notice[0], at)
            was_heard = ended is not None and ended.heard is not None and ended.heard < at
            told = "heard" if notice[1] else "repeated" if was_heard or ended is None else "lost"
        ends = packet_ends_ms(self.link, sizes, notice=notice is not None)
        event = RadioEvent(at, tuple(stages), tuple(sizes), tuple(lost), ends, told)
        if stages or told != "repeated":
            self._journey(inference_id, at).add_event(event)

    def on_packet(self, inference_id: int, key: str, captured: float, stage: int, size: int, at: float) -> None:
        """A packet was heard, on a radio of which nobody tells the events."""
        self._packets += 1
        journey = self._journey(inference_id, at, key, captured)
        journey.add_event(RadioEvent(at, (stage,), (size,), (False,), (0.0,)))

    def on_run(self, inference_id: int, run: ExitRun) -> None:
        """The hub ran an exit."""
        if not (math.isfinite(run.duration) and run.duration >= 0.0):
            return  # no hub says such a thing
        self._forward_s.append(run.duration)
        self._journey(inference_id, run.at).add_run(run)

    def on_decision(self, inference_id: int, at: float) -> None:
        """The hub said stop."""
        journey = self._journey(inference_id, at)
        journey.decided = journey.decided or at

    def on_notice(self, inference_id: int, at: float) -> None:
        """An exit notice reached the device."""
        journey = self._journey(inference_id, at)
        journey.heard = journey.heard or at

    def on_label(self, inference_id: int, key: str, captured: float, answer: Answer, at: float) -> None:
        """A label was published; the second one of a frame says nothing new."""
        if not self._once.is_first("", inference_id):
            return
        journey = self._journey(inference_id, at, key, captured)
        journey.label = answer
        self._exits_labelled[answer.stage] += 1
        confidence = answer.confidence if 0.0 <= answer.confidence <= 1.0 else math.nan
        sighting = Sighting(captured, answer.group, answer.class_name, confidence)
        visit = self.sightings.see(sighting, key)
        if visit is not None and key in self.pictures:
            visit.picture(key, self.pictures[key].thumb)

    def on_report(self, inference_id: int, key: str, captured: float, report: Report, at: float) -> None:
        """The device's account of a frame; one that no device would give is no account."""
        if not (math.isfinite(report.latency) and math.isfinite(report.compute) and report.latency >= 0.0):
            return
        journey = self._journey(inference_id, at, key, captured)
        if journey.report is not None:
            return
        journey.report = report
        self._frames += 1
        self._exits_reported[report.answer.stage] += 1
        whole = len(self.facts.stages) + self.facts.shown
        if report.answer.by == "device" and self.facts.stages and report.stages_run == whole:
            self._whole_s.append(report.compute)
        right = report.truth == report.answer.group if report.truth else None
        if right is not None:
            self._known += 1
            self._right += right
        cost = Cost(report.latency * 1e3, report.energy_mj if math.isfinite(report.energy_mj) else None)
        entry = Entry(journey.seq, key, at, report.answer, cost, right, journey.wait())
        self._entries.append(entry)
        self._compare(entry)

    def on_picture(self, key: str, picture: Picture) -> None:
        """A frame's picture."""
        self.pictures[key] = picture
        while len(self.pictures) > KEPT_FRAMES:
            self.pictures.popitem(last=False)
        self.sightings.picture(key, picture.thumb)
        for entry in self._entries:
            if entry.key == key:
                self._compare(entry)
        self.version += 1

    # What follows from them -------------------------------------------------------------------------------
    def _journey(self, inference_id: int, at: float, key: str = "", captured: float = math.nan) -> Journey:
        """The journey of an id; a new one where it is new, or was heard of too long ago."""
        self.version += 1
        journey = self._known_journey(inference_id, at)
        if journey is None:
            self._seq += 1
            journey = Journey(
                self._seq,
                inference_id,
                key,
                at if math.isnan(captured) else captured,
                at,
                exit_stages=self.facts.exit_stages,
                wake_at=self._wake_at,
                interval=self.link.ci_s if self.link is not None else 0.0,
            )
            self._journeys[inference_id] = journey
            self._journeys.move_to_end(inference_id)
            while len(self._journeys) > KEPT_FRAMES:
                self._journeys.popitem(last=False)
        elif key and not journey.key:
            journey.key, journey.captured = key, captured
        if journey.wake_at is None and self._wake_at is not None and self.link is not None:
            journey.wake_at, journey.interval = self._wake_at, self.link.ci_s
        return journey

    def _known_journey(self, inference_id: int, at: float) -> Journey | None:
        journey = self._journeys.get(inference_id)
        return None if journey is None or at - journey.first_heard > REUSED_S else journey

    @property
    def hub_s(self) -> float:
        """What the hub takes for an answer: the median of the newest forward passes, s."""
        return median(self._forward_s) if self._forward_s else 0.0

    def _compare(self, entry: Entry) -> None:
        entry.local = self._local
        if entry.local is None and self.facts.profile is not None and self._whole_s:
            entry.local = measured_local(median(self._whole_s), self.facts.profile)
        picture = self.pictures.get(entry.key)
        if picture is None or picture.sent is None or self.link is None or entry.sent is not None:
            return
        wait = entry.wait if entry.wait is not None else float(self._rng.random()) * self.link.ci_s
        entry.sent = picture.sent
        entry.jpeg = always_jpeg(picture.sent, self.link, wait_s=wait, hub_s=self.hub_s, rng=self._rng)

    # The snapshot -----------------------------------------------------------------------------------------
    def frame(self, seq: int, now: float) -> dict[str, Any] | None:
        """The journey with that number, if it is still known."""
        return next((self._told(journey, now) for journey in self._journeys.values() if journey.seq == seq), None)

    def _told(self, journey: Journey, now: float) -> dict[str, Any]:
        """A journey for the page, which asks for a picture only where there is one."""
        told = journey.as_json(now)
        return told if journey.key in self.pictures else {**told, "picture": None}

    def is_live(self, now: float) -> bool:
        """Whether a frame is shown while it is under way, so that the snapshot changes with time alone."""
        newest = self._newest()
        return newest is not None and not newest.is_over and LIVE_S < now - newest.first_heard < REUSED_S

    def _newest(self) -> Journey | None:
        return max(self._journeys.values(), key=lambda journey: journey.seq, default=None)

    def _shown(self, now: float) -> Journey | None:
        """The newest frame of which everything has been said, or one that has been under way for a while."""
        if self.is_live(now):
            return self._newest()
        # Where no device reports, a label is the last word.
        told = [
            journey
            for journey in self._journeys.values()
            if journey.report is not None or (journey.label is not None and now - journey.first_heard > TOLD_S)
        ]
        newest = max(told, key=lambda journey: journey.seq, default=self._newest())
        # Of a quick camera only some frames have a picture here.
        near = (j for j in told if j.key in self.pictures and newest and j.first_heard > newest.first_heard - NEAR_S)
        return max(near, key=lambda journey: journey.seq, default=newest)

    def snapshot(self, now: float) -> dict[str, Any]:
        """Everything that the page shows; finite numbers, text and nulls only.

        Args:
            now: s.
        """
        shown = self._shown(now)
        exits = self._exits_reported or self._exits_labelled
        first = 0 if self.facts.shown else 1
        stages = max([self.facts.exit_stages, *(stage for stage in exits if stage is not None)], default=0)
        return {
            "now": round(now, 3),
            "frame": self._told(shown, now) if shown is not None else None,
            "link": self._link_json(),
            "platform": self._platform_json(),
            "conditions": dict(self.facts.conditions),
            "histogram": {
                "exits": [{"stage": n, "count": exits.get(n, 0)} for n in range(first, stages + 1)],
                "device": exits.get(None, 0),
            },
            "totals": {
                "frames": self._frames or sum(self._exits_labelled.values()),
                "rate": rate([entry.at for entry in list(self._entries)[-24:]]),
                "by_hub": sum(count for stage, count in exits.items() if stage is not None),
                "known": self._known,
                "right": self._right,
                "packets": self._packets,
                "lost": self._lost,
                "events": self.sightings.total,
            },
            "comparison": self._comparison_json(),
            "recent": [entry.as_json() for entry in self._entries],
            "events": self.sightings.as_json(),
        }

    def _link_json(self) -> dict[str, Any] | None:
        link = self.link
        if link is None:
            return None
        names = ("ci_ms", "phy", "payload", "packets", "effective_packets", "loss", "ack", "transport")
        return {name: getattr(link, name) for name in names} | {"connected": self.connected}

    def _platform_json(self) -> dict[str, Any] | None:
        profile = self.facts.profile
        if profile is None:
            return None
        return {
            "name": profile.name,
            "power_mw": profile.power_mw,
            "time_scale": profile.time_scale,
            "paced": profile.paced,
            "source": profile.source,
        }

    def _comparison_json(self) -> dict[str, Any]:
        """FLEET and the others over the newest frames that all of them are known for."""
        entries = list(self._entries)
        if all(entry.jpeg is None for entry in entries):  # no picture, or no link that would ever carry one
            names: tuple[str, ...] = ("fleet", "local")
        else:
            entries = [entry for entry in entries if entry.jpeg is not None]
            names = ("fleet", "local", "jpeg")
        sizes = [entry.sent for entry in entries if entry.sent is not None]
        rows = {}
        for name in names:
            costs = [cost for entry in entries if (cost := getattr(entry, name)) is not None]
            energies = [cost.energy_mj for cost in costs if cost.energy_mj is not None]
            # A mean over other frames than the others' would not compare.
            rows[name] = {
                "latency_ms": spread([cost.latency_ms for cost in costs]) if len(costs) == len(entries) else None,
                "energy_mj": spread(energies) if len(energies) == len(entries) else None,
            }
        return {
            "frames": len(entries),
            "rows": rows,
            "hub_ms": round(self.hub_s * 1e3, 3),
            "jpeg_bytes": round(sum(sizes) / len(sizes)) if sizes else None,
            "jpeg_quality": JPEG_QUALITY,
            "input_size": self.facts.input_size,
            "local_measured": self._local is None and bool(self._whole_s),
            "radio": NRF5340.name,
            "radio_note": NRF5340.note,
        }
