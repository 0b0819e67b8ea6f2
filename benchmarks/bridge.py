# SPDX-License-Identifier: Apache-2.0
"""Does the bridge keep time, and what does it cost? Beside a node with a plain ROS timer that sends as much.

python benchmarks/bridge.py                   10,000 events at 7.5 ms each, print, write benchmarks/bridge.json
python benchmarks/bridge.py --load 2          the same while two processes keep two cores busy
python benchmarks/bridge.py --events 2000     shorter

Phase: when the first of each four packets arrives here, against a grid of 7.5 ms; its change from the first hundred to
the last hundred events is the drift. An event that is missed altogether (the machine was busy) is counted apart.
Processor time is the whole process's, of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", "97")

import rclpy  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402

from fleet.packet import MAX_PAYLOAD, Header  # noqa: E402
from fleet_msgs.msg import FeaturePacket, PacketData, StageFeatures  # noqa: E402
from fleet_ros.qos import EVENTS, PACKETS  # noqa: E402

RESULTS = ROOT / "benchmarks" / "bridge.json"
CI_S = 0.0075
PACKETS_AN_EVENT = 4
FRAME_S = 0.06  # a new inference before the one before has run out of packets
ENDS = 100
TIMER_NODE = """
import rclpy
from fleet_msgs.msg import FeaturePacket
from fleet_ros.qos import PACKETS
rclpy.init()
node = rclpy.create_node("timer", namespace="bench")
publisher = node.create_publisher(FeaturePacket, "link/packets", PACKETS)
sent = 0
def event():
    global sent
    for k in range({packets}):
        publisher.publish(FeaturePacket(data=bytes([*[0] * 7, sent % 256]) + bytes({payload} - 8)))
        sent += 1
node.create_timer({ci}, event)
try:
    rclpy.spin(node)
except KeyboardInterrupt:
    pass
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000, help="connection events to watch, of each node")
    parser.add_argument("--load", type=int, default=0, help="processes that keep a core busy meanwhile")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the numbers")
    arguments = parser.parse_args()
    if arguments.events < 4 * ENDS:
        print(f"bridge: watch at least {4 * ENDS} events", file=sys.stderr)
        return 2
    bridge = [sys.executable, "-m", "fleet_ble_bridge", "--ros-args", "-r", "__ns:=/bench", "-p", "ci_ms:=7.5"]
    bridge += ["-p", f"packets:={PACKETS_AN_EVENT}", "-p", "phy:='2M'"]
    source = TIMER_NODE.format(packets=PACKETS_AN_EVENT, payload=MAX_PAYLOAD, ci=CI_S)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.load)]
    rclpy.init()
    try:
        ours = watch(bridge, arguments.events, offer=True)
        plain = watch([sys.executable, "-c", source], arguments.events, offer=False)
    finally:
        rclpy.try_shutdown()
        for process in busy:
            process.kill()
    result = {
        "conditions": {
            "ci_ms": 1000 * CI_S,
            "packets": PACKETS_AN_EVENT,
            "payload": MAX_PAYLOAD,
            "phy": "2M",
            "events": arguments.events,
            "busy_processes": arguments.load,
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
        "bridge": ours,
        "plain_timer": plain,
        "core_share_ratio": round(ours["core_share"] / plain["core_share"], 2),
    }
    for name in ("bridge", "plain_timer"):
        found = result[name]
        print(
            f"{name:12s} {found['came']:.1%} of the packets came, drift {found['drift_ms']:+.3f} ms over "
            f"{found['events']} events ({found['missed_events']} missed), "
            f"phase within {found['phase_95_ms']:.2f} ms for 95 %, "
            f"{found['core_share']:.1%} of a core"
        )
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def watch(command: list[str], events: int, *, offer: bool) -> dict[str, Any]:
    """Run one node for so many events and listen to its packets.

    Args:
        command: of its process.
        events: connection events.
        offer: give it features to send.
    """
    node = rclpy.create_node("watcher", namespace="bench")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    arrivals: list[tuple[float, int]] = []

    def heard(msg: FeaturePacket) -> None:
        arrivals.append((time.monotonic(), msg.data[7]))

    node.create_subscription(FeaturePacket, "link/packets", heard, PACKETS)
    publisher = node.create_publisher(StageFeatures, "features", EVENTS)
    count = int(1.5 * PACKETS_AN_EVENT * FRAME_S / CI_S)
    frame = 0

    def next_frame() -> None:
        nonlocal frame
        frame = (frame + 1) % 65536
        packets = [Header(frame, 1, 0, k, 1).pack() + bytes(MAX_PAYLOAD - 8) for k in range(count)]
        publisher.publish(
            StageFeatures(
                inference_id=frame, stage=1, payload=MAX_PAYLOAD, packets=[PacketData(data=p) for p in packets]
            )
        )

    if offer:
        node.create_timer(FRAME_S, next_frame)
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while not arrivals:
            executor.spin_once(timeout_sec=0.1)
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit("bridge: the node sends nothing")
        begun, used = time.monotonic(), processor_seconds(process.pid)
        arrivals.clear()
        while time.monotonic() - begun < events * CI_S:
            executor.spin_once(timeout_sec=0.1)
        lasted, used = time.monotonic() - begun, processor_seconds(process.pid) - used
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
        node.destroy_node()
    return summary(arrivals) | {"core_share": round(used / lasted, 4)}


def processor_seconds(pid: int) -> float:
    """User and system time of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def summary(arrivals: list[tuple[float, int]]) -> dict[str, Any]:
    """Events, packets that came, and the phase of the events' first packets.

    Args:
        arrivals: time in seconds and the packet's sequence number, modulo 256.
    """
    total, phases, first = arrivals[0][1], [], None
    for (time_, sequence), (_, before) in zip(arrivals, [arrivals[0], *arrivals], strict=False):
        total += (sequence - before) % 256
        event, place = divmod(total, PACKETS_AN_EVENT)
        if place == 0:
            first = first or (time_, event)
            phases.append(time_ - first[0] - (event - first[1]) * CI_S)
    late = statistics.median(phases[-ENDS:]) - statistics.median(phases[:ENDS])
    missed = round(late / CI_S)  # an event that a busy machine slept through moves the count by exactly one interval
    phases = [phase - round(phase / CI_S) * CI_S for phase in phases]
    middle = statistics.median(phases)
    spread = sorted(abs(phase - middle) for phase in phases)
    return {
        "events": total // PACKETS_AN_EVENT - arrivals[0][1] // PACKETS_AN_EVENT,
        "came": round(len(arrivals) / (total - arrivals[0][1] + 1), 4),
        "missed_events": missed,
        "drift_ms": round(1000 * (late - missed * CI_S), 4),
        "phase_95_ms": round(1000 * spread[int(0.95 * len(spread))], 3),
        "phase_worst_ms": round(1000 * spread[-1], 3),
    }


if __name__ == "__main__":
    sys.exit(main())
