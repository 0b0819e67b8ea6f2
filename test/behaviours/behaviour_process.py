# SPDX-License-Identifier: Apache-2.0
"""A behaviour as a real process, and the camera and robot around it as a node of the test."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile

from fleet_msgs.msg import Label
from fleet_ros.qos import EVENTS, LATCHED

ROOT = Path(__file__).resolve().parents[2]
CAMERA = "test_yard"
DEADLINE = 15.0
DEEP_LATCHED = QoSProfile(depth=64, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# Tests that run beside each other on one machine must not hear each other.
DOMAIN = 10 + os.getpid() % 90


def environment() -> dict[str, str]:
    alone = {"ROS_DOMAIN_ID": str(DOMAIN), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **alone, "PYTHONPATH": str(ROOT)}


class BehaviourProcess:
    """A node as its user starts it: with the shipped configuration, and some parameters on top."""

    def __init__(self, module: str, log: Path, **parameters: object) -> None:
        self.name = module.rsplit(".", 1)[-1]
        config = ("-r", f"__ns:=/{CAMERA}", "--params-file", str(ROOT / "config" / "behaviours.yaml"))
        extra = itertools.chain.from_iterable(("-p", f"{k}:={v}") for k, v in parameters.items())
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "--ros-args", *config, *extra],
                stdout=output,
                stderr=output,
                env=environment(),
                cwd=log.parent,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def interrupt(self, times: int = 1) -> None:
        for _ in range(times):
            self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        return self._process.wait(DEADLINE)

    def kill(self) -> None:
        if self.is_running:
            self._process.kill()
            self._process.wait()


class Surroundings:
    """A camera that publishes labels and a robot that listens, in one node of the test's own process."""

    def __init__(self, behaviour: BehaviourProcess | None, name: str) -> None:
        self.behaviour = behaviour
        self._context = Context()
        rclpy.init(context=self._context, domain_id=DOMAIN)
        self.node = Node(name, namespace=CAMERA, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        # Latched like the cloud's. Deeper, for the writer may know of the reader before the reader knows of it: of
        # labels sent in that moment a depth of 1 leaves the last.
        self._labels = self.node.create_publisher(Label, "label", DEEP_LATCHED)
        self.diagnostics: dict[str, str] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, EVENTS)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if self.behaviour is not None and status.name.startswith(f"{CAMERA}/{self.behaviour.name}: "):
                self.diagnostics = {"message": status.message, **{v.key: v.value for v in status.values}}

    def hears(self, kind: type, topic: str) -> list[Any]:
        """The list that latched messages of a topic will be in, all of them and in order."""
        heard: list[Any] = []
        self.node.create_subscription(kind, topic, heard.append, LATCHED)
        return heard

    def until(self, condition: Callable[[], object], what: str) -> None:
        assert self.behaviour is not None, "there is nothing to wait for yet"
        deadline = time.monotonic() + DEADLINE
        while not condition():
            seen = f"{self.diagnostics}\n{self.behaviour.output}"
            assert self.behaviour.is_running, f"the node ended while waiting for {what}\n{seen}"
            assert time.monotonic() < deadline, f"no sign of {what}\n{seen}"
            self._executor.spin_once(timeout_sec=0.05)

    def until_it_listens(self) -> None:
        self.until(lambda: self._labels.get_subscription_count() == 1, "a subscription to label")

    def shows(
        self,
        inference_id: int,
        stamp: float,
        group: str = "vehicle",
        *,
        group_confidence: float = math.nan,
        class_confidence: float = math.nan,
    ) -> None:
        label = Label(inference_id=inference_id, group=group, class_name="tractor", source=Label.HUB)
        label.group_confidence, label.class_confidence = group_confidence, class_confidence
        label.header.stamp.sec = int(stamp)
        label.header.stamp.nanosec = int(stamp % 1 * 1e9)
        self._labels.publish(label)

    def calls(self, kind: Any, service: str, request: Any) -> Any:
        client = self.node.create_client(kind, service)
        self.until(client.service_is_ready, service)
        future = client.call_async(request)
        self.until(future.done, f"an answer of {service}")
        return future.result()

    def sets(self, **parameters: object) -> str:
        """Why the node refused one of the changes, empty where it took them all."""
        request = SetParameters.Request()
        request.parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in parameters.items()]
        assert self.behaviour is not None
        results = self.calls(SetParameters, f"{self.behaviour.name}/set_parameters", request).results
        return "".join(r.reason for r in results if not r.successful)


@contextmanager
def running(module: str, folder: Path, **parameters: object) -> Iterator[BehaviourProcess]:
    behaviour = BehaviourProcess(module, folder / "output.txt", **parameters)
    try:
        yield behaviour
    finally:
        behaviour.kill()


@contextmanager
def around(behaviour: BehaviourProcess | None, name: str = "surroundings") -> Iterator[Surroundings]:
    surroundings = Surroundings(behaviour, name)
    try:
        yield surroundings
    finally:
        surroundings.close()
