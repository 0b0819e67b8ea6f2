# SPDX-License-Identifier: Apache-2.0
"""The launch files as modules, with stand-ins where launch is not installed, and as running programs where it is."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from launch_files import Launched, LaunchFile, StandIn, path_of


@pytest.fixture
def launching(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The launch files' common module with stand-ins for actions: nothing is started, and launch is not needed."""

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
    monkeypatch.delitem(sys.modules, "fleet_ros.launching", raising=False)
    module = importlib.import_module("fleet_ros.launching")
    monkeypatch.setitem(sys.modules, "fleet_ros.launching", module)  # and gone with the stand-ins

    def nothing_is_installed(_package: str) -> str:
        raise LookupError

    monkeypatch.setattr(module, "get_package_prefix", nothing_is_installed)
    return module


@pytest.fixture
def launch_file(launching: ModuleType) -> Callable[[str], LaunchFile]:
    return LaunchFile


@pytest.fixture
def ros_launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Starts a launch file with the real launch_ros in a domain of its own; kills what is left of it afterwards."""
    for name in ("launch.actions", "launch_ros.actions", "rclpy"):
        pytest.importorskip(name, reason=f"no {name}: it comes with a distribution of ROS 2 and not from PyPI")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(91 + os.getpid() % 11))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    launches: list[Launched] = []

    def start(file: str = "backyard_camera", **words: str) -> Launched:
        launches.append(Launched(path_of(file), [f"{name}:={value}" for name, value in words.items()], tmp_path))
        return launches[-1]

    yield start
    for launched in launches:
        for pid in (*launched.pids.values(), launched.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launched.process.wait(10)
