# SPDX-License-Identifier: Apache-2.0
"""What a run tells: a line a frame, a summary at the end, and the same numbers as JSON (design section 13)."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fleet.errors import FleetError

KEPT = 20_000
"""Frames whose records are kept: forty minutes at eight a second."""
KEPT_FOR_SUMMARY = 1000
"""The same where nobody wants the records themselves: two minutes at eight a second, and memory that does not grow."""

LEAST_RATE_S = 1.0
"""Shorter runs have no rate: two frames in a millisecond are not two thousand a second."""


@dataclass(frozen=True)
class FrameRecord:
    """One frame, in the fields of design section 13 and a few more.

    Attributes:
        id: inference id.
        label: group.
        class_name: fine class in words.
        truth: group that the source's folder names, None where unknown.
        confidence: 0..1.
        source: ``hub`` or ``device``: who answered first.
        exit_stage: the exit that answered; None for the device's own answer.
        local_stage: the stage behind which a local exit of the device answered (the race); None for other answers.
        stages_run: stages that the device finished.
        packets: put on the air; None where the radio did not report (so are the next three).
        packets_lost: of these, lost.
        bytes: put on the air, headers included.
        events: connection events.
        latency_ms: until the device held the answer.
        compute_ms: time the device's processor was busy.
        energy_mj: compute and radio; None where either is unknown.
        radio_energy_mj: of the radio alone.
        name: file name, empty for a camera.
        camera: whose frame it is, where there are several cameras.
    """

    id: int
    label: str
    class_name: str
    truth: str | None
    confidence: float
    source: str
    exit_stage: int | None
    stages_run: int
    packets: int | None
    packets_lost: int | None
    bytes: int | None
    events: int | None
    latency_ms: float
    compute_ms: float
    energy_mj: float | None
    radio_energy_mj: float | None
    name: str
    local_stage: int | None = None
    camera: str = ""

    def line(self) -> str:
        """One line for a terminal."""
        own = "device" if self.local_stage is None else f"local {self.local_stage}"
        where = f"exit {self.exit_stage}" if self.exit_stage is not None else own
        radio = f"{self.packets:3d} packets {self.bytes:5d} B" if self.packets is not None else "  radio unknown    "
        mark = "" if self.truth is None else ("  right" if self.truth == self.label else f"  is {self.truth}")
        camera = f"{self.camera:<10.10s} " if self.camera else ""
        return (
            f"{camera}{self.id:5d}  {self.label:<8.8s} {self.confidence:4.0%}  {self.class_name:<24.24s} {where:<7s} "
            f"{radio} {self.latency_ms:7.1f} ms{mark}"
        )


@dataclass
class RunLog:
    """All frames of a run, and how its labels arrived.

    Attributes:
        conditions: under which the numbers hold.
        frames: in the order in which they were reported, the newest ``kept`` of them.
        left_out: older frames that are only counted; a camera may run for months.
        labels: how many labels were published, by who published them.
        repeated_labels: second labels of a frame, which consumers drop.
        kept: frames whose records are kept.
    """

    conditions: Mapping[str, Any]
    frames: list[FrameRecord] = field(default_factory=list)
    left_out: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    repeated_labels: int = 0
    kept: int = KEPT

    def add(self, frame: FrameRecord) -> None:
        """Take in one more frame."""
        self.frames.append(frame)
        if len(self.frames) > self.kept:
            del self.frames[0]
            self.left_out += 1

    def summary(self, seconds: float) -> dict[str, Any]:
        """The run in numbers.

        Args:
            seconds: from the first frame to the last.
        """
        frames = self.frames
        total = len(frames) + self.left_out
        known = [f for f in frames if f.truth is not None]
        radio = [f for f in frames if f.packets is not None and f.bytes is not None]
        energy = [f.energy_mj for f in frames if f.energy_mj is not None and math.isfinite(f.energy_mj)]
        latency = [f.latency_ms for f in frames if math.isfinite(f.latency_ms)]
        exits = Counter(f.exit_stage for f in frames)
        in_order = sorted(exits, key=lambda stage: math.inf if stage is None else stage)
        return {
            "frames": total,
            "frames_left_out": self.left_out,
            "seconds": round(seconds, 3),
            "frames_per_second": round((total - 1) / seconds, 3) if seconds >= LEAST_RATE_S and total > 1 else None,
            "answered_by_hub": sum(f.source == "hub" for f in frames),
            "answered_by_device": sum(f.source == "device" for f in frames),
            "exits": {"device" if stage is None else str(stage): exits[stage] for stage in in_order},
            "labels": dict(self.labels),
            "repeated_labels": self.repeated_labels,
            "packets_mean": _rounded(np.mean([f.packets for f in radio])) if radio else None,
            "bytes_mean": _rounded(np.mean([f.bytes for f in radio])) if radio else None,
            "latency_ms": {f"p{q}": _rounded(np.percentile(latency, q)) for q in (50, 95)} if latency else None,
            "energy_mj_mean": _rounded(np.mean(energy)) if energy else None,
            "frames_with_truth": len(known),
            "accuracy_groups": _rounded(np.mean([f.truth == f.label for f in known])) if known else None,
        }

    def as_json(self, seconds: float) -> dict[str, Any]:
        """Everything, as ``--json`` writes it."""
        everything = {
            "conditions": dict(self.conditions),
            "summary": self.summary(seconds),
            "frames": [{k: v for k, v in asdict(f).items() if v or k != "camera"} for f in self.frames],
        }
        finite: dict[str, Any] = _finite(everything)
        return finite

    def write(self, path: Path, seconds: float) -> None:
        """Write :meth:`as_json`; a reader never sees half a file.

        Raises:
            FleetError: it cannot be written.
        """
        text = json.dumps(self.as_json(seconds), indent=1, allow_nan=False) + "\n"
        part = part_of(path)
        try:
            if part == path:
                path.write_text(text)
                return
            part.write_text(text)
            os.replace(part, path)  # noqa: PTH105 - atomic, and says so
        except OSError as err:
            if part != path:
                part.unlink(missing_ok=True)
            raise FleetError(f"cannot write {path}: {err.strerror}") from err

    def summary_lines(self, seconds: float) -> list[str]:
        """The summary for a terminal."""
        s = self.summary(seconds)
        if not self.frames:
            return ["no frame was processed"]
        rate = f", {s['frames_per_second']:.1f} frames/s" if s["frames_per_second"] else ""
        exits = ", ".join(f"{k if k == 'device' else f'exit {k}'}: {n}" for k, n in s["exits"].items())
        took = f"{s['seconds']:.1f} s" if s["seconds"] >= 0.1 else "less than 0.1 s"
        lines = [
            f"{s['frames']} frame{'s' * (s['frames'] != 1)} in {took}{rate}; "
            f"answered by the hub {s['answered_by_hub']}, by the device {s['answered_by_device']}",
            f"exits          {exits}",
        ]
        if s["latency_ms"] is not None:
            p50, p95 = s["latency_ms"]["p50"], s["latency_ms"]["p95"]
            lines.append(f"latency        median {p50:.1f} ms, 95th percentile {p95:.1f} ms")
        if s["packets_mean"] is not None:
            lines.append(f"radio          {s['packets_mean']:.1f} packets, {s['bytes_mean']:.0f} bytes a frame")
        if s["energy_mj_mean"] is not None:
            lines.append(f"energy         {s['energy_mj_mean']:.2f} mJ a frame (modelled: see docs/link.md)")
        if s["accuracy_groups"] is not None:
            lines.append(
                f"right          {s['accuracy_groups']:.1%} of {s['frames_with_truth']} frames with a known group"
            )
        return lines


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def _finite(value: Any) -> Any:
    """The same with null in place of every number that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def part_of(path: Path) -> Path:
    """Where a file is written before it takes its place; the file itself where it must not be replaced.

    Replacing a device or a link (``/dev/stdout``) would leave a plain file in its stead.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return path
    return path.with_name(path.name + ".part")


def check_writable(path: Path) -> None:
    """Find out before a run whether its numbers can be written after it.

    Raises:
        FleetError: they cannot.
    """
    if path.is_dir():
        raise FleetError(f"cannot write {path}: it is a directory")
    if not path.parent.is_dir():
        raise FleetError(f"cannot write {path}: its directory is not there")
    part = part_of(path)
    if part == path:
        if not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
            raise FleetError(f"cannot write {path}: permission denied")
        return
    try:  # permissions alone do not say it: the file system may be read-only or full
        with part.open("ab"):
            pass
        part.unlink()
    except OSError as err:
        raise FleetError(f"cannot write {path}: {err.strerror}") from err
