# SPDX-License-Identifier: Apache-2.0
"""Does it run for long? Memory, threads and files of every process, and what was written about errors.

python benchmarks/soak.py                 30 minutes at 7.5 ms between events, print, write benchmarks/soak.json
python benchmarks/soak.py --minutes 3     shorter

Bridge, hub, device (sample photographs as fast as eight a second) and monitor run as processes and are looked at every
ten seconds. Memory is flat where it never comes to more than five percent above what it was after the second minute.
It ends with code 1 where memory is not flat, a process died, or a traceback or error was written.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ros_processes import ROOT, Ear, Failed, System, descriptors, machine, resident_mb, running, threads

from fleet.errors import FleetError
from fleet.resources import find_model
from fleet_msgs.msg import InferenceReport, Label, LinkStatistics
from fleet_ros.qos import EVENTS, LABELS, REPORTS

RESULTS = ROOT / "benchmarks" / "soak.json"
CI_MS = 7.5
FRAME_RATE = 8.0
NODES = ("bridge_node", "cloud_node", "device_node", "monitor_node")
EVERY_S = 10.0
SETTLED_S = 120.0
FLAT = 0.05
START_S = 60.0
BAD = re.compile(r"^.*(?:Traceback|\[ERROR\]|\[FATAL\]|Error: ).*$", re.MULTILINE)


class Counts:
    """What came over the topics."""

    def __init__(self, ear: Ear) -> None:
        self.frames = self.by_hub = self.labels = self.events = 0
        ear.listen(InferenceReport, "inference", REPORTS, self._report)
        ear.listen(Label, "label", LABELS, self._label)
        ear.listen(LinkStatistics, "link/statistics", EVENTS, self._statistics)

    def _report(self, msg: InferenceReport) -> None:
        self.frames += 1
        self.by_hub += msg.source == InferenceReport.HUB

    def _label(self, _msg: Label) -> None:
        self.labels += 1

    def _statistics(self, msg: LinkStatistics) -> None:
        self.events = msg.events


def soak(model: Path, minutes: float) -> dict[str, Any]:
    """Run and look."""
    shared = {"model": str(model)}
    device = {"source": "photos", "platform": "cortex-a77-500", "frame_rate": FRAME_RATE, "wait_for_hub": 30.0}
    parameters: dict[str, dict[str, Any]] = {
        "bridge_node": {"ci_ms": CI_MS, "packets": 2},
        "cloud_node": shared,
        "device_node": {**device, **shared},
        "monitor_node": {"quiet": True},
    }
    with tempfile.TemporaryDirectory(prefix="fleet-soak-") as logs:
        ear = Ear()
        counts = Counts(ear)
        system = System(Path(logs), parameters)
        with running(system, ear):
            for node in NODES:
                system.start(node)
            ear.wait(lambda: counts.by_hub, START_S, "an answer of the hub", system.check)
            begun = time.monotonic()
            samples = []
            while (now := time.monotonic() - begun) < 60 * minutes:
                system.check()
                samples.append({"seconds": round(now, 1), **{node: _sample(system.pid(node)) for node in NODES}})
                print(f"\r{now / 60:.1f} of {minutes:g} minutes", end="", file=sys.stderr, flush=True)
                time.sleep(max(0.0, len(samples) * EVERY_S - (time.monotonic() - begun)))
            codes = system.stop()
        complaints = BAD.findall(system.written())
    print("\r" + 40 * " " + "\r", end="", file=sys.stderr, flush=True)
    return {
        "frames": counts.frames,
        "answered_by_hub": counts.by_hub,
        "labels": counts.labels,
        "connection_events": counts.events,
        "exit_codes": codes,
        "complaints": complaints[:20],
        "growth": {node: growth(samples, node) for node in NODES},
        "samples": samples,
    }


def _sample(pid: int) -> dict[str, float]:
    return {"mb": round(resident_mb(pid), 2), "threads": threads(pid), "files": descriptors(pid)}


def growth(samples: Sequence[dict[str, Any]], node: str) -> dict[str, float]:
    """A node's memory when it had settled, the most afterwards, and by how much that is more; the last of the rest."""
    settled = [sample[node] for sample in samples if sample["seconds"] >= SETTLED_S]
    begin, most = settled[0]["mb"], max(sample["mb"] for sample in settled)
    return {
        "settled_mb": begin,
        "most_mb": most,
        "share": round(most / begin - 1, 4),
        "threads": settled[-1]["threads"] - settled[0]["threads"],
        "files": settled[-1]["files"] - settled[0]["files"],
    }


def faults(result: dict[str, Any]) -> list[str]:
    """What is not as it must be, in words."""
    found = [f"{node} ended with code {code}" for node, code in result["exit_codes"].items() if code]
    found += [f"written: {line}" for line in result["complaints"]]
    for node, grown in result["growth"].items():
        if grown["share"] > FLAT:
            found.append(f"{node} grew by {grown['share']:.1%}")
        found += [f"{node} has {grown[what]} more {what}" for what in ("threads", "files") if grown[what] > 0]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long, from the hub's first answer on")
    parser.add_argument("--model", default="backyard", help="bundle")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the numbers")
    arguments = parser.parse_args()
    try:
        if not 60 * arguments.minutes > SETTLED_S + EVERY_S:
            raise Failed(f"memory settles in {SETTLED_S / 60:g} minutes: watch for longer than that")
        about = machine()
        result = soak(find_model(arguments.model), arguments.minutes)
    except (Failed, FleetError) as err:
        print(f"soak: {err}", file=sys.stderr)
        return 2
    conditions = {
        "machine": about,
        "model": arguments.model,
        "minutes": arguments.minutes,
        "ci_ms": CI_MS,
        "frame_rate": FRAME_RATE,
        "every_s": EVERY_S,
        "settled_s": SETTLED_S,
    }
    problems = faults(result)
    print(
        f"{result['frames']} frames, {result['answered_by_hub']} answered by the hub, "
        f"{result['connection_events']} connection events in {arguments.minutes:g} minutes"
    )
    for node, grown in result["growth"].items():
        print(
            f"{node:13s} {grown['settled_mb']:7.1f} MB after {SETTLED_S / 60:g} minutes, at most "
            f"{grown['most_mb']:7.1f} MB ({grown['share']:+.2%}), "
            f"threads {grown['threads']:+.0f}, files {grown['files']:+.0f}"
        )
    for problem in problems:
        print(f"not as it must be: {problem}")
    arguments.json.write_text(json.dumps({"conditions": conditions, "faults": problems, **result}, indent=1) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
