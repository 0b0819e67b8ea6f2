# SPDX-License-Identifier: Apache-2.0
"""The monitor node: one line a frame of any number of cameras, a summary at the end, and the numbers as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.node import Node

from fleet.answers import OncePerFrame
from fleet.errors import FleetError
from fleet.runlog import KEPT, KEPT_FOR_SUMMARY, FrameRecord, RunLog
from fleet.sources.frame import printable
from fleet_msgs.msg import InferenceReport, Label
from fleet_ros.cameras import check_cameras, topic_of
from fleet_ros.diagnostics import Diagnostics, Health, Hearing
from fleet_ros.node import main as run_node
from fleet_ros.qos import LABELS, REPORTS
from fleet_ros.settings import declare, setting


@dataclasses.dataclass(frozen=True)
class MonitorSettings:
    """Parameters of the monitor node."""

    duration: float = setting(0.0, "seconds from the first frame until this node ends; 0: never", read_only=True)
    json: str = setting("", "file for the numbers, written at the end; empty: none", read_only=True)
    conditions: str = setting("{}", "under which conditions the numbers hold, a JSON object", read_only=True)
    quiet: bool = setting(False, "no line a frame")
    cameras: tuple[str, ...] = setting(
        ("",), "namespaces of the cameras; an empty name is the node's own namespace", read_only=True
    )

    def __post_init__(self) -> None:
        """Check what a type cannot say.

        Raises:
            FleetError: no camera, one that is named twice, or a name that is no namespace.
        """
        check_cameras(self.cameras or ())


class MonitorNode(Node):  # type: ignore[misc]
    """Listens to ``inference`` and ``label`` and writes to the terminal."""

    settings: MonitorSettings

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("monitor_node", **kwargs)
        declare(self, MonitorSettings)
        try:
            conditions = json.loads(self.settings.conditions)
            # Whoever asks for the records gets them; otherwise a camera may run for months.
            kept = KEPT if self.settings.json else KEPT_FOR_SUMMARY
            self._log = RunLog({"namespace": self.get_namespace(), **conditions}, kept=kept)
        except (ValueError, TypeError) as err:
            raise FleetError(f"parameter conditions is not a JSON object: {err}") from err
        self.finished = threading.Event()
        self._once = OncePerFrame()
        self._first_s = self._last_s = math.nan
        reports = {name: topic_of(name, "inference") for name in self.settings.cameras}
        self._hearing = Hearing(self, reports, self._now())
        for name, topic in reports.items():
            self.create_subscription(InferenceReport, topic, partial(self._on_report, name), REPORTS)
            self.create_subscription(Label, topic_of(name, "label"), partial(self._on_label, name), LABELS)
        self.create_timer(0.05, self._on_tick)
        self._diagnostics = Diagnostics(self, "monitor", self.health)

    def _now(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _on_report(self, camera: str, msg: InferenceReport) -> None:
        self._last_s = self._now()
        self._hearing.heard(camera, self._last_s)
        if math.isnan(self._first_s):
            self._first_s = self._last_s
        record = dataclasses.replace(frame_record(msg), camera=camera)
        self._log.add(record)
        if not self.settings.quiet:
            print(printable(record.line()), flush=True)  # noqa: T201 - its purpose

    def _on_label(self, camera: str, msg: Label) -> None:
        if self._once.is_first(camera, msg.inference_id):
            self._log.labels["hub" if msg.source == Label.HUB else "device"] += 1
        else:
            self._log.repeated_labels += 1

    def _on_tick(self) -> None:
        duration = self.settings.duration
        if duration > 0 and not math.isnan(self._first_s) and self._now() - self._first_s >= duration:
            self.finished.set()

    def health(self) -> Health:
        """Level, line and values for diagnostics."""
        frames = len(self._log.frames) + self._log.left_out
        return (*self._hearing.state(self._now()), {"frames": frames, **self._log.labels})

    def stop(self) -> None:
        """Print the summary and write the file.

        Raises:
            FleetError: the file cannot be written.
        """
        seconds = 0.0 if math.isnan(self._first_s) else self._last_s - self._first_s
        if self._log.frames:  # otherwise another node has just said what is wrong, in its one line
            print("", *self._log.summary_lines(seconds), sep="\n", flush=True)  # noqa: T201 - its purpose
        if self.settings.json:
            self._log.write(Path(self.settings.json), seconds)


def frame_record(msg: InferenceReport) -> FrameRecord:
    """The record of a report."""
    radio = bool(msg.radio_reported)
    energy = msg.compute_energy_mj + msg.radio_energy_mj
    return FrameRecord(
        id=msg.inference_id,
        label=msg.group,
        class_name=msg.class_name,
        truth=msg.truth or None,
        confidence=round(msg.confidence, 4),
        source="hub" if msg.source == InferenceReport.HUB else "device",
        exit_stage=None if msg.exit_stage == InferenceReport.LOCAL_ANSWER else msg.exit_stage,
        stages_run=msg.stages_run,
        packets=msg.packets if radio else None,
        packets_lost=msg.packets_lost if radio else None,
        bytes=msg.bytes if radio else None,
        events=msg.events if radio else None,
        latency_ms=round(msg.latency * 1e3, 3),
        compute_ms=round(msg.compute_time * 1e3, 3),
        energy_mj=round(energy, 5) if math.isfinite(energy) else None,
        radio_energy_mj=round(msg.radio_energy_mj, 5) if math.isfinite(msg.radio_energy_mj) else None,
        name=msg.name,
        local_stage=msg.local_stage or None,
    )


def main() -> None:
    """Run the monitor node."""
    run_node(MonitorNode)
