# SPDX-License-Identifier: Apache-2.0
"""Real nodes as real processes over DDS on loopback, each test in a domain of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from lifecycle_msgs.msg import State  # noqa: E402
from lifecycle_msgs.srv import GetState  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 45.0
_domains = itertools.count(os.getpid() % 30 + 1)


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ROS domain that no other test of this run uses, on this machine only."""
    number = next(_domains) % 60 + 30
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return number


class Stack:
    """A running ``fleet up`` and everything that it has said."""

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fleet.cli", "up", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, wanted: Callable[[str], bool], deadline: float = DEADLINE) -> str:
        end = time.monotonic() + deadline
        seen = 0
        with self._changed:
            while True:
                for line in self.lines[seen:]:
                    if wanted(line):
                        return line
                seen = len(self.lines)
                left = end - time.monotonic()
                assert left > 0, f"no such line within {deadline} s; the stack said:\n{self.output}"
                self._changed.wait(min(left, 0.5))

    def node_process(self, package: str) -> psutil.Process:
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if package in child.cmdline():
                    return child
        raise AssertionError(f"{package} is not running; the stack said:\n{self.output}")

    def finish(self, deadline: float = DEADLINE) -> int:
        try:
            code = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {deadline} s; the stack said:\n{self.output}")
        self._reader.join(5.0)
        return code

    def interrupt(self) -> float:
        """Ctrl-C; returns the seconds until it was over."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.finish()
        return time.monotonic() - begun


@pytest.fixture
def fleet_up(domain: int, tiny_bundle: Any) -> Iterator[Callable[..., Stack]]:
    """Starts ``fleet up`` with the tiny bundle and kills whatever is left of it afterwards."""
    stacks: list[Stack] = []

    def start(*arguments: str, model: str | None = None) -> Stack:
        # The tiny network is quick: slowed down, a frame spans several connection events.
        pace = [] if "--time-scale" in arguments else ["--time-scale", "4", "--frame-rate", "5"]
        stacks.append(Stack(["--model", model or str(tiny_bundle.path), *pace, *arguments]))
        return stacks[-1]

    yield start
    for stack in stacks:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [psutil.Process(stack.process.pid), *psutil.Process(stack.process.pid).children(recursive=True)]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        stack.process.wait(10)


class Listener:
    """A node of the test's own, in its own context, that remembers every message."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = Node("listener", namespace="backyard", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard: dict[str, list[tuple[float, Any]]] = {}

    def listen(self, kind: Any, topic: str, qos: Any = 100) -> list[tuple[float, Any]]:
        heard = self.heard.setdefault(topic, [])
        self.node.create_subscription(kind, topic, lambda msg: heard.append((time.monotonic(), msg)), qos)
        return heard

    def spin_until(self, condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
        end = time.monotonic() + deadline
        while True:
            if result := condition():
                return result
            counts = {topic: len(messages) for topic, messages in self.heard.items()}
            assert time.monotonic() < end, f"not within {deadline} s: {what}; heard {counts}"
            self.executor.spin_once(timeout_sec=0.1)

    def spin_for(self, seconds: float) -> None:
        """Listen for a span of time, for measurements of rates."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, kind: Any, name: str, request: Any, deadline: float = DEADLINE) -> Any:
        client = self.node.create_client(kind, name)
        try:
            self.spin_until(client.service_is_ready, f"service {name}", deadline)
            future = client.call_async(request)
            self.spin_until(future.done, f"an answer of {name}", deadline)
            return future.result()
        finally:
            self.node.destroy_client(client)

    def is_active(self, node: str) -> bool:
        """Whether a managed node is active; a node that was killed seems to be there for a while and says nothing."""
        try:
            answer = self.call(GetState, f"{node}/get_state", GetState.Request(), deadline=1.0)
        except AssertionError:
            return False
        return bool(answer.current_state.id == State.PRIMARY_STATE_ACTIVE)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def listener(domain: int) -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@pytest.fixture
def picture_tar(tmp_path: Path) -> Callable[..., Path]:
    """Makes a tar of small pictures, ``CLASS/FILE``, with whatever else a test wants in it."""

    def make(count: int, extra: dict[str, bytes] | None = None) -> Path:
        path = tmp_path / "pictures.tar.gz"
        rng = np.random.default_rng(0)
        with tarfile.open(path, "w:gz") as archive:
            for name, data in (extra or {}).items():
                _add(archive, name, data)
            for k in range(count):
                picture = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
                _add(archive, f"vehicle/{k:04d}.png", cv2.imencode(".png", picture)[1].tobytes())
        return path

    return make


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, BytesIO(data))
