# SPDX-License-Identifier: Apache-2.0
"""What ROS adds: a frame's latency through the real nodes, over the simulator's for the same frame and event phase.

python benchmarks/overhead.py                 4 runs of 60 pictures, print, write benchmarks/overhead.json; two minutes
python benchmarks/overhead.py --frames 20     shorter

The nodes run as processes over DDS on loopback, paced to cortex-a77-200, 10 ms between events, two payloads, 1M. Every
frame's begin and every connection event carry a stamp, which gives the frame's phase; the simulator gets the same
picture at the same phase, and an exit takes there what it took the hub in the median. Runs and simulations alternate.
It ends with code 1 where the median of the nodes is more than one connection interval above the simulator's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from ros_processes import ROOT, Ear, Failed, System, machine, running

from fleet.bundle import Bundle
from fleet.codec import FloatArray
from fleet.errors import FleetError
from fleet.fusion import CloudNetwork, load_cloud
from fleet.inference import Device
from fleet.link.parameters import LinkParameters
from fleet.packet import LOCAL_ANSWER_STAGE
from fleet.platforms import load_profile
from fleet.resources import find_model
from fleet.runtime import DeviceNetwork
from fleet.session import CloudSession
from fleet.simulation import SimulatedFrame, Simulation
from fleet.sources import open_source
from fleet_msgs.msg import ExitRun, InferenceReport, LinkEvent
from fleet_ros.qos import EVENTS, REPORTS

RESULTS = ROOT / "benchmarks" / "overhead.json"
LINK = LinkParameters(ci_ms=10.0, packets=2, phy="1M")
PLATFORM = "cortex-a77-200"
FRAME_RATE = 4.03  # no multiple of the events: phases spread
WARM_UP = 5
START_S = 60.0


class Run:
    """One run of the nodes over a folder of pictures.

    Args:
        model: bundle.
        pictures: folder.
        logs: folder for what the nodes write.
    """

    def __init__(self, model: Path, pictures: Path, logs: Path) -> None:
        self.reports: dict[str, InferenceReport] = {}
        self.anchors: dict[int, float] = {}  # of one connection event that carried the frame, by its id
        self.exits_s: dict[int, list[float]] = {}  # by exit
        self.ear = Ear()
        device = {"source": str(pictures), "frame_rate": FRAME_RATE, "wait_for_hub": 30.0, "platform": PLATFORM}
        self.system = System(
            logs,
            {
                "bridge_node": {"ci_ms": LINK.ci_ms, "packets": LINK.packets, "phy": LINK.phy},
                "cloud_node": {"model": str(model)},
                "device_node": {**device, "model": str(model)},
            },
        )
        self.ear.listen(InferenceReport, "inference", REPORTS, self._on_report)
        self.ear.listen(LinkEvent, "link/events", EVENTS, self._on_event)
        self.ear.listen(ExitRun, "exit/runs", EVENTS, self._on_exit)

    def _on_report(self, msg: InferenceReport) -> None:
        self.reports[Path(msg.name).name] = msg

    def _on_event(self, msg: LinkEvent) -> None:
        if msg.sizes:
            self.anchors.setdefault(msg.inference_id, _seconds(msg.header.stamp))

    def _on_exit(self, msg: ExitRun) -> None:
        self.exits_s.setdefault(msg.stage, []).append(msg.duration)

    def until_done(self, frames: int) -> None:
        """Run the nodes until every picture is answered.

        Raises:
            Failed: a node died, or it takes too long.
        """
        with running(self.system, self.ear):
            for node in ("bridge_node", "cloud_node", "device_node"):
                self.system.start(node)
            seconds = START_S + frames / FRAME_RATE
            self.ear.wait(lambda: len(self.reports) >= frames, seconds, f"{frames} answers", self._check)

    def _check(self) -> None:
        if self.system.running["device_node"].poll() != 0:  # done by itself is as it should be
            self.system.check()

    def phase(self, report: InferenceReport) -> float | None:
        """When a frame began, as a share of the connection interval after an event; None where no event carried it."""
        anchor = self.anchors.get(report.inference_id)
        return None if anchor is None else (_seconds(report.header.stamp) - anchor) / LINK.ci_s % 1.0


def _seconds(stamp: Any) -> float:
    return float(stamp.sec) + stamp.nanosec * 1e-9


def simulated(
    model: Bundle, cloud: CloudNetwork, images: Sequence[Any], phases: Sequence[float], exit_s: Mapping[int, float]
) -> list[SimulatedFrame]:
    """The same frames in virtual time."""

    @torch.inference_mode()
    def forward(stage: int, maps: Sequence[FloatArray]) -> FloatArray:
        logits: FloatArray = cloud(stage, [torch.from_numpy(m[None]) for m in maps])[0].numpy()
        return logits

    network = DeviceNetwork(model)
    device = Device(model, network, load_profile(PLATFORM))
    simulation = Simulation(device, CloudSession(model, cloud.fused), forward, LINK, exit_s=exit_s)
    pairs = zip(images, phases, strict=True)
    return [simulation.run(network.prepare(image), phase=phase) for image, phase in pairs]


def write_pictures(folder: Path, source: str, count: int) -> dict[str, Any]:
    """Pictures as files without loss, and what is in them by the file's name."""
    images = {}
    with open_source(source) as frames:
        for number in range(count):
            frame = frames.read()
            if frame is None:
                raise Failed(f"{source} has no more than {number} pictures, {count} are needed")
            images[f"{number:05d}.png"] = frame.image
            cv2.imwrite(str(folder / f"{number:05d}.png"), np.ascontiguousarray(frame.image[..., ::-1]))
    return images


def measure(model: Path, source: str, runs: int, frames: int) -> dict[str, Any]:
    """Nodes and simulator by turns."""
    torch.set_num_threads(1)
    bundle = Bundle.load(model)
    cloud = load_cloud(bundle)
    rows: list[dict[str, Any]] = []
    exit_ms = []
    with tempfile.TemporaryDirectory(prefix="fleet-overhead-") as scratch:
        pictures = Path(scratch) / "pictures"
        pictures.mkdir()
        images = write_pictures(pictures, source, WARM_UP + frames)
        for number in range(runs):
            run = Run(model, pictures, Path(scratch))
            run.until_done(len(images))
            if not run.exits_s:
                raise Failed("the hub ran no exit")
            # An early exit runs more of the network than a late one: each takes its own median in the simulator.
            every = statistics.median(seconds for one in run.exits_s.values() for seconds in one)
            exit_s = {n: statistics.median(run.exits_s.get(n) or [every]) for n in bundle.layouts}
            exit_ms.append({str(n): round(1000 * seconds, 3) for n, seconds in exit_s.items()})
            chosen = {name: run.phase(run.reports[name]) for name in sorted(images)[WARM_UP:] if name in run.reports}
            phases = {name: phase for name, phase in chosen.items() if phase is not None}
            twins = simulated(bundle, cloud, [images[name] for name in phases], list(phases.values()), exit_s)
            for (name, phase), twin in zip(phases.items(), twins, strict=True):
                rows.append(_row(number, name, phase, run.reports[name], twin))
            print(f"\rrun {number + 1} of {runs}", end="", file=sys.stderr, flush=True)
    print("\r" + 20 * " " + "\r", end="", file=sys.stderr, flush=True)
    if not rows:
        raise Failed("no frame travelled")
    return {"exit_ms": exit_ms, "summary": summary(rows), "frames": rows}


def _row(run: int, name: str, phase: float, report: InferenceReport, twin: SimulatedFrame) -> dict[str, Any]:
    ours, theirs = 1000 * report.latency, 1000 * twin.outcome.latency
    return {
        "run": run,
        "picture": name,
        "phase": round(phase, 4),
        "nodes_ms": round(ours, 3),
        "simulator_ms": round(theirs, 3),
        "nodes_exit": report.exit_stage,
        "simulator_exit": twin.outcome.stage,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and how the differences are distributed."""
    nodes, simulator = ([row[key] for row in rows] for key in ("nodes_ms", "simulator_ms"))
    differences = np.asarray(nodes) - np.asarray(simulator)
    in_runs = [
        statistics.median(r["nodes_ms"] for r in rows if r["run"] == k)
        - statistics.median(r["simulator_ms"] for r in rows if r["run"] == k)
        for k in sorted({row["run"] for row in rows})
    ]
    return {
        "frames": len(rows),
        "nodes_median_ms": round(statistics.median(nodes), 3),
        "simulator_median_ms": round(statistics.median(simulator), 3),
        "overhead_ms": round(statistics.median(nodes) - statistics.median(simulator), 3),
        "overhead_by_run_ms": [round(overhead, 3) for overhead in in_runs],
        "difference_ms": {f"p{q}": round(float(np.percentile(differences, q)), 3) for q in (5, 25, 50, 75, 95)},
        "same_exit": round(float(np.mean([row["nodes_exit"] == row["simulator_exit"] for row in rows])), 4),
        "answered_by_device": sum(row["nodes_exit"] == LOCAL_ANSWER_STAGE for row in rows),
        # Latency ends with an event: differences are multiples of the interval, and a little.
        "intervals": {
            str(k): int(n)
            for k, n in zip(*np.unique(np.rint(differences / LINK.ci_ms).astype(int), return_counts=True), strict=True)
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4, help="runs of the nodes")
    parser.add_argument("--frames", type=int, default=60, help="pictures in each")
    parser.add_argument("--source", help="pictures; Tiny-ImageNet's test split beside the repository, else photos")
    parser.add_argument("--model", default="backyard", help="bundle")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the numbers")
    arguments = parser.parse_args()
    data = Path(os.environ.get("FLEET_DATA", ROOT.parent / "shared" / "data")) / "tiny-imagenet-100" / "val.tar.gz"
    source = arguments.source or (str(data) if data.is_file() else "photos")
    try:
        if arguments.runs < 1 or arguments.frames < 1:
            raise Failed("at least one run of one picture")
        about = machine()
        result = measure(find_model(arguments.model), source, arguments.runs, arguments.frames)
    except (Failed, FleetError) as err:
        print(f"overhead: {err}", file=sys.stderr)
        return 2
    found = result["summary"]
    conditions = {
        "machine": about | {"load_after": round(os.getloadavg()[0], 2)},
        "model": arguments.model,
        "pictures": Path(source).name,
        "platform": PLATFORM,
        "link": {"ci_ms": LINK.ci_ms, "packets": LINK.packets, "payload": LINK.payload, "phy": LINK.phy},
        "frame_rate": FRAME_RATE,
    }
    print(
        f"{found['frames']} frames; median of the nodes {found['nodes_median_ms']} ms, of the simulator "
        f"{found['simulator_median_ms']} ms: {found['overhead_ms']:+.2f} ms (by run: "
        f"{', '.join(f'{o:+.2f}' for o in found['overhead_by_run_ms'])})"
    )
    print(f"difference a frame, ms: {', '.join(f'{q} {v:+.2f}' for q, v in found['difference_ms'].items())}")
    exits = [milliseconds for run in result["exit_ms"] for milliseconds in run.values()]
    print(f"same exit: {found['same_exit']:.1%}; an exit took {min(exits)} to {max(exits)} ms")
    most = max(found["intervals"].values())
    for k, n in found["intervals"].items():
        print(f"  {int(k):+3d} intervals {n:5d} {'#' * round(40 * n / most)}")
    arguments.json.write_text(json.dumps({"conditions": conditions, **result}, indent=1) + "\n")
    return 0 if found["overhead_ms"] <= LINK.ci_ms else 1


if __name__ == "__main__":
    sys.exit(main())
