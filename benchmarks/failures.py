# SPDX-License-Identifier: Apache-2.0
"""Hub killed, bridge killed, link lost, camera unplugged, each in mid-inference: is every frame labelled, what leaks?

python benchmarks/failures.py               20 times each, print, write benchmarks/failures.json; ten minutes
python benchmarks/failures.py --times 2     shorter
python benchmarks/failures.py hub camera    these only

The real nodes run as processes on a network camera on loopback. A frame is struck at a random moment after one of its
stages; what was killed is started again at once, what was cut or unplugged comes back after a random time. A frame is
fine if it has a label, or a line in a log that says why not. Recovery is the time until the hub answers again (until
a frame is labelled again, for the camera) from when the dead process is noticed, or from when link or camera are back.
It ends with code 1 where a frame has neither, where recovery took more than five seconds, or where something leaked.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from mjpeg_camera import Camera
from ros_processes import NAMESPACE, ROOT, Ear, Failed, System, descriptors, machine, running, threads

from fleet.errors import FleetError
from fleet.resources import find_model
from fleet_msgs.msg import InferenceReport, Label, StageFeatures
from fleet_msgs.srv import Renegotiate
from fleet_ros.qos import EVENTS, LABELS, REPORTS

RESULTS = ROOT / "benchmarks" / "failures.json"
KINDS = {"hub": "hub killed", "bridge": "bridge killed", "link": "link lost", "camera": "camera unplugged"}
START_S, RECOVERY_S, LABEL_S = 60.0, 5.0, 3.0
GIVE_UP_S = 30.0
FORGET_S = 25.0
"""Seconds after which discovery has forgotten who was killed, and closed what it held for them."""
LINK = {"ci_ms": 10.0, "packets": 2, "phy": "1M"}
PLATFORM = "cortex-a77-200"
NO_LABEL = re.compile(r"frame (\d+) gets no label: (.*)")


@dataclass
class Heard:
    """What came over the topics; times are of the monotonic clock, in s.

    Attributes:
        begun: when the first features of a frame came, by its id.
        newest: id and stage of the newest features.
        labels: when the first label of a frame came, and from whom, by its id.
        repeated: second labels of a frame.
        reports: ids in the device's own reports.
    """

    begun: dict[int, float] = field(default_factory=dict)
    newest: tuple[int, int] = (0, 0)
    labels: dict[int, tuple[float, int]] = field(default_factory=dict)
    repeated: int = 0
    reports: set[int] = field(default_factory=set)

    def features(self, msg: StageFeatures) -> None:
        """A stage is done."""
        self.begun.setdefault(msg.inference_id, time.monotonic())
        self.newest = msg.inference_id, msg.stage

    def label(self, msg: Label) -> None:
        """A frame is labelled, perhaps not for the first time."""
        if msg.inference_id in self.labels:
            self.repeated += 1
        else:
            self.labels[msg.inference_id] = time.monotonic(), msg.source

    def report(self, msg: InferenceReport) -> None:
        """A frame is over."""
        self.reports.add(msg.inference_id)


class Run:
    """The system, its camera, and who listens.

    Args:
        model: bundle for device and hub.
        time_scale: of the device's platform.
        seed: of the moments.
        logs: folder for what the nodes write.
    """

    def __init__(self, model: Path, time_scale: float, seed: int, logs: Path) -> None:
        self.random = random.Random(seed)
        self.camera = Camera()
        self.heard = Heard()
        self.ear = Ear()
        device = {"source": self.camera.address, "model": str(model), "platform": PLATFORM, "time_scale": time_scale}
        self.system = System(
            logs,
            {
                "bridge_node": {**LINK, "seed": seed + 1},
                "cloud_node": {"model": str(model)},
                "device_node": {**device, "frame_rate": 5.0, "answer_timeout": 0.5},
            },
        )
        heard = self.heard
        self.ear.listen(StageFeatures, "features", EVENTS, heard.features)
        self.ear.listen(Label, "label", LABELS, heard.label)
        self.ear.listen(InferenceReport, "inference", REPORTS, heard.report)
        self.renegotiate = self.ear.node.create_client(Renegotiate, "link/renegotiate")

    def wait_for_label(self, source: int | None, seconds: float) -> float:
        """Wait for a label of a frame that begins from now on; returns how long that took, in s.

        Args:
            source: who must have given it; None for anybody.
            seconds: for how long.
        """
        begun = time.monotonic()

        def there() -> float | None:
            for inference_id, since in reversed(self.heard.begun.items()):
                if since <= begun:
                    return None
                label = self.heard.labels.get(inference_id)
                if label is not None and source in (None, label[1]):
                    return label[0]
            return None

        return float(self.ear.wait(there, seconds, "a label of a new frame", self.system.check)) - begun

    def mid_inference(self) -> dict[str, Any]:
        """Wait until a random stage of a new frame is done, and a little longer, but not until it is labelled."""
        while True:
            last, stage = self.heard.newest[0], self.random.randint(1, 4)

            def there(last: int = last, stage: int = stage) -> bool:
                return self.heard.newest[0] != last and self.heard.newest[1] >= stage

            self.ear.wait(there, START_S, f"stage {stage} of a new frame", self.system.check)
            time.sleep(self.random.uniform(0.0, 0.01))
            inference_id, stage = self.heard.newest
            if inference_id not in self.heard.labels:
                return {"frame": inference_id, "stage": stage}

    # The four kinds -------------------------------------------------------------------------------------------
    def hub(self) -> float:
        """Kill the hub and start it again."""
        return self._kill("cloud_node")

    def bridge(self) -> float:
        """Kill the bridge and start it again."""
        return self._kill("bridge_node")

    def _kill(self, node: str) -> float:
        self.system.kill(node)
        self.system.start(node)
        return self.wait_for_label(Label.HUB, GIVE_UP_S)

    def link(self) -> float:
        """Lose every packet for a while."""
        self._loss(1.0)
        time.sleep(self.random.uniform(0.5, 2.0))
        self._loss(0.0)
        return self.wait_for_label(Label.HUB, GIVE_UP_S)

    def _loss(self, loss: float) -> None:
        answer = self.ear.call(self.renegotiate, Renegotiate.Request(loss=loss))
        if not answer.accepted:
            raise Failed(f"the bridge refuses a loss of {loss}: {answer.message}")

    def unplugged(self) -> float:
        """Unplug the camera for a while."""
        self.camera.unplug()
        time.sleep(self.random.uniform(0.5, 3.0))
        self.camera.plug()
        return self.wait_for_label(None, GIVE_UP_S)

    # Sums -----------------------------------------------------------------------------------------------------
    def held(self) -> dict[str, dict[str, int]]:
        """Threads and open files of every node, the fewest within a second: some come and go."""
        samples: list[dict[str, tuple[int, int]]] = []
        for _ in range(5):
            samples.append(
                {n: (threads(self.system.pid(n)), descriptors(self.system.pid(n))) for n in self.system.running}
            )
            time.sleep(0.25)
        return {
            node: {"threads": min(s[node][0] for s in samples), "files": min(s[node][1] for s in samples)}
            for node in self.system.running
        }

    def unlabelled(self) -> list[int]:
        """Frames that have no label."""
        return sorted((self.heard.begun.keys() | self.heard.reports) - self.heard.labels.keys())


def strike(run: Run, kind: str, times: int) -> dict[str, Any]:
    """Let one kind of thing happen again and again."""
    act = {"hub": run.hub, "bridge": run.bridge, "link": run.link, "camera": run.unplugged}[kind]
    killed = {"hub": "cloud_node", "bridge": "bridge_node"}.get(kind)
    run.wait_for_label(Label.HUB, START_S)
    if times > 1:  # discovery still holds what the kind before has killed
        time.sleep(FORGET_S)
    before = run.held()
    moments, recoveries = [], []
    first = len(run.heard.begun)
    for number in range(times):
        moments.append(run.mid_inference())
        recoveries.append(act())
        print(f"\r{KINDS[kind]:17s} {number + 1} of {times}", end="", file=sys.stderr, flush=True)
        time.sleep(run.random.uniform(0.2, 0.8))
    survivors = [node for node in before if node != killed]
    deadline = time.monotonic() + (FORGET_S if killed else LABEL_S)
    while any(_more(before, after := run.held(), survivors)) and time.monotonic() < deadline:
        time.sleep(0.5)
    print("\r" + 40 * " " + "\r", end="", file=sys.stderr, flush=True)
    ids = list(run.heard.begun)[first:]
    delays = [run.heard.labels[i][0] - run.heard.begun[i] for i in ids if i in run.heard.labels]
    return {
        "kind": KINDS[kind],
        "times": times,
        "frames": len(ids),
        "by_hub": sum(run.heard.labels[i][1] == Label.HUB for i in ids if i in run.heard.labels),
        "recovery_s": {"median": _rounded(statistics.median(recoveries)), "worst": _rounded(max(recoveries))},
        # From the frame's first features on, which is a little after its begin.
        "label_delay_s": {"median": _rounded(statistics.median(delays)), "worst": _rounded(max(delays))},
        "struck_after_stage": [moment["stage"] for moment in moments],
        "recoveries_s": [_rounded(r) for r in recoveries],
        "leaked": {
            node: {what: after[node][what] - before[node][what] for what in ("threads", "files")} for node in survivors
        },
    }


def _more(
    before: dict[str, dict[str, int]], after: dict[str, dict[str, int]], nodes: list[str]
) -> Iterator[tuple[str, str]]:
    """What nodes hold more of than before."""
    return ((node, what) for node in nodes for what, n in after[node].items() if n > before[node][what])


def measure(run: Run, kinds: list[str], times: int) -> dict[str, Any]:
    """All kinds, one after another, and what became of every frame."""
    with running(run.system, run.ear):
        for node in ("bridge_node", "cloud_node", "device_node"):
            run.system.start(node)
        run.wait_for_label(Label.HUB, START_S)
        results = [strike(run, kind, times) for kind in kinds]
        codes = run.system.stop()
        deadline = time.monotonic() + LABEL_S
        while run.unlabelled() and time.monotonic() < deadline:
            time.sleep(0.1)
    run.camera.close()
    left = [" ".join(process.cmdline()[:4]) for process in psutil.Process().children(recursive=True)]
    written = run.system.written()
    reasons = {int(found[1]): found[2] for found in NO_LABEL.finditer(written)}
    missing = run.unlabelled()
    return {
        "kinds": results,
        "frames": len(run.heard.begun),
        "repeated_labels": run.heard.repeated,
        "without_label": {str(i): reasons.get(i, "") for i in missing},
        "exit_codes": codes,
        "processes_left": left,
        "tracebacks": written.count("Traceback"),
    }


def faults(result: dict[str, Any]) -> list[str]:
    """What is not as it must be, in words."""
    found = [f"frame {i} has neither a label nor a reason" for i, why in result["without_label"].items() if not why]
    found += [f"{node} ended with code {code}" for node, code in result["exit_codes"].items() if code]
    found += [f"a process is left: {command}" for command in result["processes_left"]]
    if result["tracebacks"]:
        found.append(f"{result['tracebacks']} tracebacks")
    for kind in result["kinds"]:
        if kind["recovery_s"]["worst"] > RECOVERY_S:
            found.append(f"{kind['kind']}: recovery took {kind['recovery_s']['worst']} s")
        for node, leaked in kind["leaked"].items():
            found += [f"{kind['kind']}: {node} holds {n} more {what}" for what, n in leaked.items() if n > 0]
    return found


def _rounded(seconds: float) -> float:
    return round(seconds, 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; all without any")
    parser.add_argument("--times", type=int, default=20, help="how often each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--model", default="backyard", help="bundle")
    parser.add_argument("--time-scale", type=float, default=1.0, help="factor on the platform's times")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the numbers")
    arguments = parser.parse_args()
    kinds = arguments.kinds or list(KINDS)
    try:
        if unknown := set(kinds) - set(KINDS) or arguments.times < 1:
            raise Failed(f"choose from {', '.join(KINDS)}, at least once, not {unknown}")
        about = machine()
        with tempfile.TemporaryDirectory(prefix="fleet-failures-") as logs:
            run = Run(find_model(arguments.model), arguments.time_scale, arguments.seed, Path(logs))
            result = measure(run, kinds, arguments.times)
    except (Failed, FleetError) as err:
        print(f"failures: {err}", file=sys.stderr)
        return 2
    result["conditions"] = {
        "machine": about,
        "model": arguments.model,
        "platform": PLATFORM,
        "time_scale": arguments.time_scale,
        "link": LINK,
        "frame_rate": 5.0,
        "answer_timeout_s": 0.5,
        "seed": arguments.seed,
        "namespace": NAMESPACE,
    }
    result["faults"] = faults(result)
    print(f"{'':17s}  times  frames  by hub  recovery median / worst  label after median / worst  leaked")
    for kind in result["kinds"]:
        recovery, delay = kind["recovery_s"], kind["label_delay_s"]
        leaked = sum(max(0, n) for node in kind["leaked"].values() for n in node.values())
        print(
            f"{kind['kind']:17s}  {kind['times']:5d}  {kind['frames']:6d}  {kind['by_hub']:6d}  "
            f"{recovery['median']:9.2f} s / {recovery['worst']:5.2f} s   "
            f"{delay['median']:10.2f} s / {delay['worst']:5.2f} s    {leaked:6d}"
        )
    reasons = sum(bool(why) for why in result["without_label"].values())
    print(
        f"{result['frames']} frames, {len(result['without_label'])} without a label, {reasons} of these with a reason"
    )
    for fault in result["faults"]:
        print(f"not as it must be: {fault}")
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
