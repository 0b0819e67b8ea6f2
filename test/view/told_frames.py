# SPDX-License-Identifier: Apache-2.0
"""Frames as cameras, radios and hubs tell of them, and a feed that a test fills itself."""

from __future__ import annotations

from typing import Any

from fleet.bundle import StageFile
from fleet.link.parameters import LinkParameters
from fleet.platforms import load_profile
from fleet.view.journey import Answer, ExitRun, Report, StageDone
from fleet.view.pictures import Picture
from fleet.view.state import CameraView, Facts

STAGES = tuple(StageFile(n, {"float": f"{n}.onnx"}, {"conv": 1_300_000}) for n in range(1, 6))
FACTS = Facts(exit_stages=3, input_size=64, stages=STAGES, profile=load_profile("cortex-a77-500"))
LINK = LinkParameters(ci_ms=10.0)
START = 1_000_000.0


def answer(by="hub", stage=2, group="pet") -> Answer:
    return Answer(group, "tabby", 0.9, by, stage if by == "hub" else None)


def report(said: Answer, latency=0.020, truth="pet", stages_run=2, energy=4.0) -> Report:
    return Report(said, latency, latency, energy, 0.1, stages_run, 5, 1, 1000, "cat.png", truth)


def live_through(view: CameraView, number: int, at: float, said: Answer | None = None, **changes) -> str:
    """One frame from its first stage to its report; returns the name of its picture."""
    said = said or answer()
    key, inference_id = f"{number}.0", number % 65536
    for n in (1, 2):
        view.on_stage(inference_id, key, at, StageDone(n, at + 0.004 * n, 3, 500))
    view.on_event(inference_id, at + 0.010, [1, 1, 2], [244, 100, 244], [False, True, False], None)
    view.on_run(inference_id, ExitRun(2, at + 0.017, 0.004, 0.9, 0.6, said.group, "tabby", said.by == "hub"))
    if said.by == "hub":
        view.on_decision(inference_id, at + 0.017)
        view.on_event(inference_id, at + 0.020, [], [], [], (inference_id, True))
        view.on_notice(inference_id, at + 0.020)
    else:
        view.on_stage(inference_id, key, at, StageDone(15, at + 0.020, 1, 11))
    view.on_label(inference_id, key, at, said, at + 0.018)
    view.on_report(inference_id, key, at, report(said, **changes), at + 0.030)
    return key


def picture(sent=1500) -> Picture:
    return Picture(b"\xff\xd8\xff shown", b"\xff\xd8\xff thumb", sent)


class FilledFeed:
    """Views that a test fills itself, in place of the node."""

    def __init__(self, **views: CameraView) -> None:
        self.views = views
        self.now = 0.0
        self.snapshots = 0
        self.fails = False

    @property
    def cameras(self) -> list[str]:
        return list(self.views)

    def news(self, camera: str) -> object:
        return self.views[camera].version

    def snapshot(self, camera: str) -> dict[str, Any]:
        self.snapshots += 1
        if self.fails:
            raise ZeroDivisionError
        return self.views[camera].snapshot(self.now)

    def frame(self, camera: str, seq: int) -> dict[str, Any] | None:
        return self.views[camera].frame(seq, self.now)

    def picture(self, camera: str, key: str) -> bytes | None:
        picture = self.views[camera].pictures.get(key)
        return picture.shown if picture is not None else None

    def thumb(self, camera: str, number: int) -> bytes | None:
        return self.views[camera].sightings.thumb(number)
