# SPDX-License-Identifier: Apache-2.0
"""The launch file as a module, with stand-ins where launch is not installed, and as a running program where it is."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / "launch" / "backyard_camera.launch.py"
DEADLINE = 60.0

# What `ros2 launch FILE NAME:=VALUE...` does, without its command line.
LAUNCHER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource

path, *words = sys.argv[1:]
file = AnyLaunchDescriptionSource(path)
service = LaunchService(argv=words, noninteractive=True)
arguments = [tuple(word.split(":=", 1)) for word in words]
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(file, launch_arguments=arguments)]))
sys.exit(service.run())
"""


class StandIn:
    """Takes the place of an action of launch and remembers what it was made with."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments = arguments
        self.options = options


@pytest.fixture
def launch_file(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The launch file as a module whose actions are stand-ins: nothing is started, and launch is not needed."""

    def stand_in(name: str, *names: str) -> None:
        module = ModuleType(name)
        for entry in names:
            setattr(module, entry, type(entry, (StandIn,), {}))
        monkeypatch.setitem(sys.modules, name, module)

    stand_in("launch", "LaunchContext", "LaunchDescription")
    stand_in("launch.actions", "DeclareLaunchArgument", "OpaqueFunction", "Shutdown", "TimerAction")
    stand_in("launch.events")
    stand_in("launch.events.process", "ProcessExited")
    stand_in("launch_ros")
    stand_in("launch_ros.actions", "Node")
    stand_in("ament_index_python")
    stand_in("ament_index_python.packages", "get_package_prefix")
    spec = importlib.util.spec_from_file_location("backyard_camera_launch", LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def nothing_is_installed(_package: str) -> str:
        raise LookupError

    monkeypatch.setattr(module, "get_package_prefix", nothing_is_installed)
    return module


@pytest.fixture
def context(launch_file: ModuleType) -> Callable[..., SimpleNamespace]:
    """Makes what launch hands to the launch file: every argument's default, and what a user says instead."""

    def make(*, is_shutdown: bool = False, **words: str) -> SimpleNamespace:
        defaults = {name: default for name, (default, _) in launch_file.ARGUMENTS.items()}
        return SimpleNamespace(launch_configurations={**defaults, **words}, is_shutdown=is_shutdown)

    return make


class Launched:
    """A running launch and everything that it has said."""

    def __init__(self, words: list[str], folder: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "ROS_LOG_DIR": str(folder),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(LAUNCH_FILE), *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
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

    @property
    def errors(self) -> list[str]:
        return [line for line in self.lines if line.startswith("[ERROR]")]

    @property
    def pids(self) -> dict[str, int]:
        """Process id of each node, as launch has announced it."""
        return {name: int(pid) for name, pid in re.findall(r"\[(\w+)-\d+\]: process started.*\[(\d+)\]", self.output)}

    def wait_for(self, pattern: str, deadline: float = DEADLINE) -> None:
        with self._changed:
            seen = self._changed.wait_for(lambda: re.search(pattern, self.output, re.MULTILINE), deadline)
        assert seen, f"no '{pattern}' within {deadline} s; launch said:\n{self.output}"

    def wait_for_lines(self, count: int, deadline: float = DEADLINE) -> None:
        with self._changed:
            seen = self._changed.wait_for(lambda: len(self.lines) >= count, deadline)
        assert seen, f"no {count} lines within {deadline} s; launch said:\n{self.output}"

    def kill(self, node: str) -> None:
        os.kill(self.pids[node], signal.SIGKILL)

    def interrupt(self) -> float:
        """Ctrl-C; returns the seconds until all was over."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.finish()
        return time.monotonic() - begun

    def finish(self, deadline: float = DEADLINE) -> int:
        try:
            code = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {deadline} s; launch said:\n{self.output}")
        self._reader.join(5.0)
        return code

    def left_over(self) -> list[str]:
        """The nodes that are still running."""
        return [name for name, pid in self.pids.items() if Path(f"/proc/{pid}").exists()]


@pytest.fixture
def ros_launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Starts the launch file with the real launch_ros in a domain of its own; kills what is left of it afterwards."""
    for name in ("launch.actions", "launch_ros.actions", "rclpy"):
        pytest.importorskip(name, reason=f"no {name}: it comes with a distribution of ROS 2 and not from PyPI")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(91 + os.getpid() % 11))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    launches: list[Launched] = []

    def start(**words: str) -> Launched:
        launches.append(Launched([f"{name}:={value}" for name, value in words.items()], tmp_path))
        return launches[-1]

    yield start
    for launched in launches:
        for pid in (*launched.pids.values(), launched.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launched.process.wait(10)
