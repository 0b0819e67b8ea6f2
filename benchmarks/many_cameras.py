# SPDX-License-Identifier: Apache-2.0
"""Many cameras, one hub on two cores: are all of them answered, and how long do their packets wait?

python benchmarks/many_cameras.py                 8 cameras, 2 frames/s, 30 s; writes benchmarks/many_cameras.json
python benchmarks/many_cameras.py --cameras 16    more of them
python benchmarks/many_cameras.py --bag BAG       packets of a bag of your own in place of sample photographs

A bag of packets is made from the sample photographs by the simulator (no camera, no data set) and played over DDS, at
the times that it has, to one real cloud node that serves all cameras, and then to one cloud node a camera. The bag's
hub never stopped a camera before its last exit, so there are more packets than a working system sends. Player and
nodes share two cores.

Age of a packet: from its publication until the exit that used it has been heard of here, DDS both ways included. A
packet that came after its inference was answered is used by nobody and has none.

Exits a second: the network alone, on what the bag's packets held, in batches of 1 to N, and in one process a camera.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("ROS_DOMAIN_ID", "96")
import numpy as np
import torch
from ros_processes import ROOT, Ear, Failed, machine, resident_mb
from simulated_bag import System, record

from fleet.bags.definitions import PACKETS
from fleet.bags.evaluation import forward_many
from fleet.bags.reader import BagReader
from fleet.bags.writer import BagWriter
from fleet.bundle import Bundle
from fleet.codec import FloatArray
from fleet.errors import FleetError
from fleet.fusion import load_cloud
from fleet.hub import Batch, Hub
from fleet.inference import Device
from fleet.link.parameters import LinkParameters
from fleet.packet import Header
from fleet.platforms import load_profile
from fleet.resources import find_model
from fleet.runtime import DeviceNetwork
from fleet.session import ExitTask
from fleet.sources.photos import PhotoSource
from fleet_msgs.msg import ExitRun, FeaturePacket, Label
from fleet_ros.qos import EVENTS, LABELS
from fleet_ros.qos import PACKETS as PACKETS_QOS

RESULTS = ROOT / "benchmarks" / "many_cameras.json"
PLATFORM = "cortex-a77-500"
CORES = 2
NEVER = 1.5  # a certainty that no exit reaches
WANTED_LABELS, WANTED_AGE_MS = 0.99, 500.0
LAST_WORD_S = 5.0
START_S = 180.0
TASKS = 96
NS = 1_000_000_000
SPREADS = ("packet_age_ms", "first_packet_to_label_ms")


# The bag ------------------------------------------------------------------------------------------------------
def make_bag(path: Path, bundle: Bundle, cameras: int, rate: float, seconds: float) -> None:
    """Packets of cameras that nobody stops before the last exit; they begin one after another within one period."""
    patient = replace(bundle, decider=replace(bundle.decider, thresholds=dict.fromkeys(bundle.layouts, NEVER)))
    network = DeviceNetwork(bundle)

    def undecided(views: Mapping[int, Sequence[FloatArray]]) -> dict[int, FloatArray]:
        return {n: np.zeros((len(maps[0]), len(bundle.classes)), np.float32) for n, maps in views.items()}

    system = System(
        device=Device(patient, network, load_profile(PLATFORM)),
        prepare=network.prepare,
        forward=undecided,
        fused=load_cloud(bundle).fused,
        link=LinkParameters(),
    )
    with BagWriter(path) as writer:
        for k in range(cameras):
            source = PhotoSource(seed=k)
            frames = islice(iter(source.read, None), round(seconds * rate))
            begin = 1_700_000_000 * NS + round(k / cameras / rate * NS)
            options: dict[str, Any] = {"begin_ns": begin, "period_s": 1 / rate, "seed": k, "first_id": 1000 * k}
            record(writer, f"/camera{k}", system, frames, topics=(PACKETS,), **options)


@dataclass(frozen=True)
class Played:
    """One packet of a bag: seconds from the bag's first one on, camera, bytes."""

    time: float
    camera: str
    packet: bytes

    @property
    def inference(self) -> tuple[str, int]:
        """Camera and inference id."""
        return self.camera, Header.unpack(self.packet).inference_id


def read_bag(path: Path) -> list[Played]:
    with BagReader(path) as bag:
        found = [(m.time_ns, m.camera, bytes(m.content.data)) for m in bag.messages((PACKETS,), bag.cameras)]
    if not found:
        raise Failed(f"{path} has no packets")
    return [Played((time_ns - found[0][0]) / NS, camera, packet) for time_ns, camera, packet in found]


# The network alone --------------------------------------------------------------------------------------------
def tasks_of(played: list[Played], bundle: Bundle, fused: Any) -> list[ExitTask]:
    """What a hub would run that looks whenever a camera has sent three packets, as three fit an event."""
    hub, found, new = Hub(bundle, fused), [], dict.fromkeys({p.camera for p in played}, 0)
    for packet in played:
        hub.take(packet.camera, packet.packet)
        new[packet.camera] += 1
        if new[packet.camera] == 3:
            new[packet.camera] = 0
            found += hub.next_batch(now=0.0).tasks.values()
    return found[:: max(1, len(found) // TASKS)][:TASKS]


def exits_a_second(cloud: Any, tasks: list[ExitTask], batch: int, seconds: float) -> float:
    """How many exits run in a second, so many at a time."""
    forward = forward_many(cloud)
    names = [str(k) for k in range(batch)]
    groups = cycle([Batch(dict(zip(names, tasks[i : i + batch], strict=False))) for i in range(0, len(tasks), batch)])
    forward(next(groups).views())
    ran, begun = 0, time.monotonic()
    while (lasted := time.monotonic() - begun) < seconds:
        group = next(groups)
        forward(group.views())
        ran += len(group.tasks)
    return ran / lasted


def worker(model: str, bag: Path, seconds: float) -> int:
    """One of many processes: one exit at a time, as the hub of one camera would run them."""
    torch.set_num_threads(1)
    bundle = Bundle.load(find_model(model))
    cloud = load_cloud(bundle)
    tasks = tasks_of(read_bag(bag), bundle, cloud.fused)
    print("ready", flush=True)
    sys.stdin.readline()
    print(exits_a_second(cloud, tasks, 1, seconds), flush=True)
    return 0


def one_process_a_camera(model: str, bag: Path, cameras: int, seconds: float) -> float:
    """Exits a second of so many processes together, on the same cores."""
    command = [sys.executable, __file__, "--worker", "--model", model, "--bag", str(bag), "--trial", str(seconds)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(cameras)]
    try:
        for process in workers:
            if process.stdout.readline().strip() != "ready":  # type: ignore[union-attr]
                raise Failed("a worker does not start")
        for process in workers:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        return sum(float(process.communicate(timeout=seconds + 60)[0]) for process in workers)
    finally:
        for process in workers:
            process.kill()
            process.wait()


# Over DDS -----------------------------------------------------------------------------------------------------
@dataclass
class Heard:
    """What came back, by camera and inference; times are ``time.monotonic``."""

    labels: dict[tuple[str, int], tuple[float, int]] = field(default_factory=dict)
    runs: dict[tuple[str, int], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def label(self, camera: str, msg: Label) -> None:
        """The first label of a frame counts."""
        self.labels.setdefault((camera, msg.inference_id), (time.monotonic(), msg.source))

    def run(self, camera: str, msg: ExitRun) -> None:
        """An exit was run; its message comes when it is over."""
        now = time.monotonic()
        self.runs[camera, msg.inference_id].append((now - msg.duration, now))

    def ages(self, published: list[tuple[float, tuple[str, int]]]) -> list[float]:
        """Of every packet that was used: until the first exit that began after it has been heard of."""
        found = []
        for sent, inference in published:
            ends = [end for begun, end in self.runs.get(inference, ()) if begun >= sent]
            if inference in self.labels:
                ends.append(self.labels[inference][0])
            if ends and min(ends) >= sent:
                found.append(min(ends) - sent)
        return found


def play(played: list[Played], model: str, groups: list[list[str]], logs: Path) -> dict[str, Any]:
    """Play packets to cloud nodes, one for each group of cameras.

    Args:
        played: what is played.
        model: bundle.
        groups: namespaces of the cameras of each node.
        logs: folder for what the nodes write.
    """
    ear, heard = Ear(), Heard()
    cameras = [camera for group in groups for camera in group]
    publishers = {c: ear.node.create_publisher(FeaturePacket, f"{c}/link/packets", PACKETS_QOS) for c in cameras}
    for camera in cameras:
        ear.listen(Label, f"{camera}/label", LABELS, lambda msg, c=camera: heard.label(c, msg))
        ear.listen(ExitRun, f"{camera}/exit/runs", EVENTS, lambda msg, c=camera: heard.run(c, msg))
    ear.start()
    nodes = [start_node(k, model, group, logs) for k, group in enumerate(groups)]

    def check() -> None:
        for k, node in enumerate(nodes):
            if node.poll() is not None:
                raise Failed(
                    f"a cloud node ended with code {node.returncode}: {(logs / f'{k}.log').read_text()[-500:]}"
                )

    try:

        def joined() -> bool:
            ours = all(p.get_subscription_count() for p in publishers.values())
            return ours and all(ear.node.count_publishers(f"{camera}/exit/runs") for camera in cameras)

        ear.wait(joined, START_S, "the cloud nodes listening to every camera", check)
        time.sleep(1.0)  # their own threads come to rest
        used = [processor_seconds(node.pid) for node in nodes]
        published, begun = [], time.monotonic()
        for packet in played:
            while (left := begun + packet.time - time.monotonic()) > 0:
                time.sleep(left)
            published.append((time.monotonic(), packet.inference))
            publishers[packet.camera].publish(FeaturePacket(data=packet.packet))
        lasted = time.monotonic() - begun
        inferences = {packet.inference for packet in played}
        deadline = time.monotonic() + LAST_WORD_S
        while time.monotonic() < deadline and len(heard.labels) < len(inferences):
            time.sleep(0.05)
        check()
        used = [processor_seconds(node.pid) - before for node, before in zip(nodes, used, strict=True)]
        memory = sum(resident_mb(node.pid) for node in nodes)
    finally:
        for node in nodes:
            node.send_signal(2)
        for node in nodes:
            try:
                node.wait(10)
            except subprocess.TimeoutExpired:
                node.kill()
        ear.close()
    ages = 1e3 * np.asarray(heard.ages(published))
    first = {inference: sent for sent, inference in reversed(published)}
    waits = [1e3 * (when - first[i]) for i, (when, _) in heard.labels.items() if i in first]
    return {
        "nodes": len(groups),
        "inferences": len(inferences),
        "labelled": round(sum(i in heard.labels for i in inferences) / len(inferences), 4),
        "by_an_exit": round(sum(source == Label.HUB for _, source in heard.labels.values()) / len(inferences), 4),
        "packets": len(played),
        "late_ms_p95": spread([1e3 * (t - begun - p.time) for (t, _), p in zip(published, played, strict=True)])["p95"],
        "packets_used": len(ages),
        "packet_age_ms": spread(ages),
        "first_packet_to_label_ms": spread(waits),
        "exits_a_second": round(sum(map(len, heard.runs.values())) / lasted, 1),
        "core_share": round(sum(used) / lasted, 3),
        "memory_mb": round(memory, 1),
    }


def start_node(number: int, model: str, cameras: list[str], logs: Path) -> subprocess.Popen[bytes]:
    names = "[" + ", ".join(f"'{camera}'" for camera in cameras) + "]"
    arguments = ["--ros-args", "-r", f"__ns:=/hub{number}", "-p", f"cameras:={names}", "-p", f"model:={model}"]
    environment = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    with (logs / f"{number}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "fleet_cloud_node", *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log
        )


def processor_seconds(pid: int) -> float:
    """User and system time of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(values: Any) -> dict[str, float]:
    if not len(values):
        return {}
    return {f"p{q}": round(float(np.percentile(values, q)), 2) for q in (50, 95, 99)}


# All of it ----------------------------------------------------------------------------------------------------
def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    here = machine()  # before anything of ours adds to the load
    bundle = Bundle.load(find_model(arguments.model))
    bag = arguments.bag or scratch / "bag"
    if not arguments.bag:
        print(f"making a bag of {arguments.cameras} cameras ...", flush=True)
        make_bag(bag, bundle, arguments.cameras, arguments.rate, arguments.seconds)
    played = read_bag(bag)
    cameras = sorted({packet.camera for packet in played})
    cloud = load_cloud(bundle)
    tasks = tasks_of(played, bundle, cloud.fused)
    batches = []
    print(f"{'batch':>8s} {'exits/s, 1 thread':>18s} {'2 threads':>10s}")
    for batch in [n for n in (1, 2, 4, 8, 16) if n <= max(8, len(cameras))]:
        row: dict[str, Any] = {"batch": batch}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            row[f"exits_a_second_{threads}_threads"] = round(exits_a_second(cloud, tasks, batch, arguments.trial), 1)
        batches.append(row)
        print(f"{batch:8d} {row['exits_a_second_1_threads']:18.1f} {row['exits_a_second_2_threads']:10.1f}", flush=True)
    longer = arguments.trial * 5 / 3  # for they do not begin in the same moment
    apart = round(one_process_a_camera(arguments.model, bag, len(cameras), longer), 1)
    print(f"{len(cameras)} processes, one exit at a time: {apart:.1f} exits/s together", flush=True)
    together = play(played, arguments.model, [cameras], scratch)
    show("one node", together)
    each = play(played, arguments.model, [[camera] for camera in cameras], scratch)
    show("one node a camera", each)
    return {
        "conditions": {
            "cameras": len(cameras),
            "frames_a_second": arguments.rate if not arguments.bag else None,
            "seconds": round(played[-1].time, 1),
            "packets": len(played),
            "packets_a_second": round(len(played) / played[-1].time, 1),
            "bag": "sample photographs, simulated" if not arguments.bag else arguments.bag.name,
            "platform": PLATFORM if not arguments.bag else None,
            "bundle": bundle.name,
            "identity": bundle.identity.hex(),
            "cores": CORES,
            "machine": here,
            "torch": torch.__version__,
        },
        "exits_a_second": {"batches": batches, "one_process_a_camera": apart},
        "one_node": together,
        "one_node_a_camera": each,
    }


def show(name: str, found: dict[str, Any]) -> None:
    age, wait = (found[key] or dict.fromkeys(("p50", "p95"), float("nan")) for key in SPREADS)
    print(
        f"{name}: {found['labelled']:.1%} of {found['inferences']} inferences labelled, {found['by_an_exit']:.1%} by an"
        f" exit; packet age median {age['p50']:.1f} ms, 95 % {age['p95']:.1f} ms; first packet to label median "
        f"{wait['p50']:.1f} ms, 95 % {wait['p95']:.1f} ms; {found['exits_a_second']} exits/s, "
        f"{found['core_share']:.2f} cores, {found['memory_mb']:.0f} MB",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=8, help="how many")
    parser.add_argument("--rate", type=float, default=2.0, help="frames a second of each")
    parser.add_argument("--seconds", type=float, default=30.0, help="of what is played")
    parser.add_argument("--trial", type=float, default=3.0, help="seconds for which the network alone runs, each time")
    parser.add_argument("--model", default="backyard", help="bundle")
    parser.add_argument("--bag", type=Path, help="packets to play in place of sample photographs")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the numbers")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) > CORES:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    if not (arguments.cameras > 0 and arguments.rate > 0 and arguments.seconds * arguments.rate >= 1):
        print("many_cameras: at least one camera with one frame", file=sys.stderr)
        return 2
    try:
        if arguments.worker:
            return worker(arguments.model, arguments.bag, arguments.trial)
        with tempfile.TemporaryDirectory(prefix="fleet-") as scratch:
            result = measure(arguments, Path(scratch))
    except (FleetError, Failed) as err:
        print(f"many_cameras: {err}", file=sys.stderr)
        return 2
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    found = result["one_node"]
    age = found["packet_age_ms"].get("p95", float("inf"))
    reached = found["labelled"] >= WANTED_LABELS and age < WANTED_AGE_MS
    print(f"labels for {WANTED_LABELS:.0%}, packets younger than {WANTED_AGE_MS:g} ms: {'yes' if reached else 'NO'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
