# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of the running system share: its nodes as processes, an ear on their topics, and /proc."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", "99")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import rclpy  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402

NAMESPACE = "bench"
MODULES = {
    "bridge_node": "fleet_ble_bridge",
    "cloud_node": "fleet_cloud_node",
    "device_node": "fleet_device_node",
    "monitor_node": "fleet_monitor_node",
}
STOP_S = 10.0


class Failed(Exception):  # noqa: N818 - what a benchmark says of itself
    """Something that a benchmark needs did not happen; its message is for the user."""


class System:
    """FLEET's nodes as processes, and everything that each of them wrote.

    Args:
        logs: folder for what they write, one file a node; a restarted node goes on in its file.
        parameters: of every node, by its name.
    """

    def __init__(self, logs: Path, parameters: Mapping[str, Mapping[str, Any]]) -> None:
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._logs = logs
        self._parameters = parameters

    def start(self, node: str) -> None:
        """Start a node, or start it again."""
        settings = [f"{key}:={_yaml(value)}" for key, value in self._parameters.get(node, {}).items()]
        arguments = ["--ros-args", "-r", f"__ns:=/{NAMESPACE}", *(w for s in settings for w in ("-p", s))]
        environment = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
        with self.log_of(node).open("ab") as log:
            self.running[node] = subprocess.Popen(
                [sys.executable, "-m", MODULES[node], *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def pid(self, node: str) -> int:
        """Its process."""
        return self.running[node].pid

    def kill(self, node: str) -> None:
        """Kill it at once and wait until it is dead."""
        self.running[node].kill()
        self.running[node].wait(STOP_S)

    def log_of(self, node: str) -> Path:
        """The file that holds what it wrote."""
        return self._logs / f"{node}.log"

    def written(self) -> str:
        """Everything that all nodes wrote."""
        files = [self.log_of(node) for node in self._parameters]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def check(self) -> None:
        """Make sure that every node lives.

        Raises:
            Failed: one does not.
        """
        for node, process in self.running.items():
            if process.poll() is not None:
                last = "\n".join(self.log_of(node).read_text(errors="replace").splitlines()[-5:])
                raise Failed(f"{node} ended with code {process.returncode}:\n{last}")

    def stop(self) -> dict[str, int]:
        """Stop all nodes as Ctrl-C would, and return their exit codes."""
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + STOP_S
        for process in self.running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
        return {node: process.returncode for node, process in self.running.items()}


class Ear:
    """A node that listens, in a thread of its own; callbacks run there, with :attr:`news` held."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node("ear", namespace=NAMESPACE)
        self.news = threading.Condition()
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._over = False
        self._thread = threading.Thread(target=self._spin, name="ear", daemon=True)

    def listen(self, kind: Any, topic: str, qos: Any, heard: Callable[[Any], None]) -> None:
        """Have a function called for every message of a topic."""

        def on_message(msg: Any) -> None:
            with self.news:
                heard(msg)
                self.news.notify_all()

        self.node.create_subscription(kind, topic, on_message, qos)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def _spin(self) -> None:
        while not self._over:
            self._executor.spin_once(timeout_sec=0.1)

    def wait(self, condition: Callable[[], Any], seconds: float, what: str, check: Callable[[], None]) -> Any:
        """Wait for something that a message brings.

        Args:
            condition: looked at after every message; its first true value is returned.
            seconds: for how long.
            what: in words.
            check: called from time to time; raises when there is no use in waiting.

        Raises:
            Failed: it did not happen.
        """
        deadline = time.monotonic() + seconds
        with self.news:
            while not (result := condition()):
                if time.monotonic() > deadline:
                    raise Failed(f"not within {seconds:g} s: {what}")
                self.news.wait(0.1)
                check()
            return result

    def call(self, client: Any, request: Any, seconds: float = 10.0) -> Any:
        """Call a service of a client of :attr:`node`.

        Raises:
            Failed: it is not there or does not answer.
        """
        if not client.wait_for_service(seconds):
            raise Failed(f"there is no service {client.srv_name}")
        future = client.call_async(request)
        deadline = time.monotonic() + seconds
        while not future.done():
            if time.monotonic() > deadline:
                raise Failed(f"{client.srv_name} does not answer")
            time.sleep(0.002)
        return future.result()

    def close(self) -> None:
        """Stop listening."""
        self._over = True
        self._thread.join(2.0)
        self.node.destroy_node()
        rclpy.try_shutdown()


@contextmanager
def running(system: System, ear: Ear) -> Iterator[None]:
    """Start an ear; stop it and every node in the end, whatever happens."""
    ear.start()
    try:
        yield
    finally:
        system.stop()
        ear.close()


def _yaml(value: Any) -> str:
    """A parameter as ROS reads it from the command line; a number in quotes stays text."""
    return f"'{value}'" if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


# /proc --------------------------------------------------------------------------------------------------------
def threads(pid: int) -> int:
    """Threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descriptors(pid: int) -> int:
    """Open files of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_mb(pid: int) -> float:
    """Memory that a process holds, in MB (10^6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def machine() -> dict[str, Any]:
    """The machine a result was measured on."""
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        model = next(
            (line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line), ""
        )
    return {
        "processor": model or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }
