#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Check what ``fleet up --json FILE`` wrote: is it complete, and did images really go all the way?

Usage: ``check_run.py FILE [LEAST_FRAMES]``. Ends with 0 and one line, or with 1 and one line a problem.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FRAME_KEYS = frozenset(
    {"id", "label", "truth", "confidence", "source", "exit_stage", "stages_run", "packets", "bytes"}
    | {"latency_ms", "energy_mj"}
)
LEAST_FRAMES = 5  # in eight seconds; a slow and busy machine manages several times that


def problems(report: Any, least_frames: int = LEAST_FRAMES) -> Iterator[str]:
    """Yield one line for everything that is wrong with a report.

    Args:
        report: the parsed JSON.
        least_frames: fewer frames than this are a problem.
    """
    if not isinstance(report, dict) or not all(
        isinstance(report.get(key), kind) for key, kind in (("conditions", dict), ("summary", dict), ("frames", list))
    ):
        yield "the report has to be an object with conditions, summary and frames"
        return
    frames = report["frames"]
    if len(frames) < least_frames:
        yield f"{len(frames)} frames came through, {least_frames} are the least"
    if not report["conditions"]:
        yield "conditions are empty: nobody can repeat this run"
    for number, frame in enumerate(frames):
        if missing := FRAME_KEYS - set(frame):
            yield f"frame {number} lacks {', '.join(sorted(missing))}"
            return  # so will the others
        yield from (f"frame {number}: {problem}" for problem in _frame_problems(frame))
    if frames and not any(frame["packets"] for frame in frames):
        yield "no packet went on the air in the whole run"
    if frames and not any(frame["source"] == "hub" for frame in frames):
        yield "the hub answered no frame: device, bridge and cloud are not connected"
    if frames and report["summary"].get("frames") != len(frames):
        yield f"the summary counts {report['summary'].get('frames')} frames, the list has {len(frames)}"


def _frame_problems(frame: dict[str, Any]) -> Iterator[str]:
    if not frame["label"]:
        yield "no label"
    if frame["source"] not in ("hub", "device"):
        yield f"source '{frame['source']}'"
    if not 0 <= frame["confidence"] <= 1:
        yield f"confidence {frame['confidence']}"
    if frame["stages_run"] < 1:
        yield f"stages_run {frame['stages_run']}"
    if not (math.isfinite(frame["latency_ms"]) and frame["latency_ms"] > 0):
        yield f"latency_ms {frame['latency_ms']}"
    # Both null: the bridge had no time left to report.
    if (frame["packets"] is None) != (frame["bytes"] is None) or (frame["bytes"] or 0) < (frame["packets"] or 0):
        yield f"{frame['packets']} packets with {frame['bytes']} bytes"


def main(arguments: list[str]) -> int:
    """Check the file named on the command line."""
    path = Path(arguments[0])
    least = int(arguments[1]) if len(arguments) > 1 else LEAST_FRAMES
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as err:
        sys.stderr.write(f"{path}: {err}\n")
        return 1
    found = list(problems(report, least))
    sys.stderr.writelines(f"{path.name}: {problem}\n" for problem in found)
    if not found:
        frames = report["frames"]
        hub = sum(frame["source"] == "hub" for frame in frames)
        sys.stdout.write(f"smoke run: {len(frames)} frames, {hub} answered by the hub, all records complete\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
