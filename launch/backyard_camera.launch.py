# SPDX-License-Identifier: Apache-2.0
"""A yard camera and its hub under `ros2 launch`: the same processes and parameters as `fleet up`.

    ros2 launch fleet backyard_camera.launch.py namespace:=yard7 source:=photos link:="ci_ms=100 packets=1"

Nothing about the nodes is said here: `fleet.description` reads config/backyard_camera.yaml for both ways to start. What
differs is the discovery of ROS 2, which is the user's own here, while `fleet up` keeps to this machine.

A launch fails, with exit code 1, by an exception only; launch then prints its message in one line and stops the nodes.
A wrong argument and a node that died are therefore raised.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown, TimerAction
from launch.events.process import ProcessExited
from launch_ros.actions import Node

from fleet.description import ENVIRONMENT, LOG_LEVELS, Description, Process, check_start
from fleet.errors import FleetError
from fleet.supervisor import ASK_S, BAD_INPUT, INSIST_S, reason

PACKAGE = "fleet"
AS_IN_FILE = "; empty: as in the description"

# Name: default and meaning. All but config, namespace and log_level are arguments of Description.changed().
ARGUMENTS: Mapping[str, tuple[str, str]] = {
    "config": ("backyard_camera", "Description of the system: a file, or the name of one in config/."),
    "namespace": ("backyard", "Namespace of the topics: the camera's name."),
    "source": (
        "",
        f"auto, photos, a camera index, a file, directory or tar of images, a video, a URL, or ros:/TOPIC{AS_IN_FILE}.",
    ),
    "model": ("", f"Model bundle: a directory, or the name of one in models/{AS_IN_FILE}."),
    "platform": ("", f"Pace the device like this processor; native: as fast as this machine{AS_IN_FILE}."),
    "time_scale": ("", f"Factor on the platform's times{AS_IN_FILE}."),
    "frame_rate": ("", f"Frames a second at most, 0: as fast as inference goes{AS_IN_FILE}."),
    "link": ("", f"Words KEY=VALUE: ci_ms, packets, phy, payload, loss, ack, transport{AS_IN_FILE}."),
    "duration": ("", f"Seconds from the first frame on, 0: until Ctrl-C{AS_IN_FILE}."),
    "json": ("", f"File for the numbers of every frame{AS_IN_FILE}."),
    "log_level": ("warn", f"Of the nodes: {', '.join(LOG_LEVELS)}."),
}
# Return codes of a process that launch has told to stop; 255 is what asyncio says when a signal came too late.
STOPPED = (-signal.SIGINT, -signal.SIGTERM, 255)
NUMBERS = ("time_scale", "frame_rate", "duration")


def generate_launch_description() -> LaunchDescription:
    arguments = [DeclareLaunchArgument(n, default_value=d, description=h) for n, (d, h) in ARGUMENTS.items()]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[Node]:
    """Build one action for every process of the description."""
    words = {name: context.launch_configurations[name].strip() for name in ARGUMENTS}
    check_start(words["namespace"], words["log_level"])
    description = described(words)
    # The very file that `fleet up` gives its nodes: launch would read a dictionary's strings as YAML, the source "0" as
    # a number. It is gone when launch is.
    scratch = tempfile.TemporaryDirectory(prefix="fleet-")
    atexit.register(scratch.cleanup)
    parameters = Path(scratch.name, "parameters.yaml")
    parameters.write_text(description.parameter_file())
    run = Run(len(description.processes))
    return [
        Node(
            **program(process),
            name=process.node,
            exec_name=process.node,
            namespace=words["namespace"],
            parameters=[str(parameters)],
            ros_arguments=["--log-level", words["log_level"]],
            prefix=prefix(context),
            additional_env={name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()},
            output="screen",
            sigterm_timeout=str(ASK_S),
            sigkill_timeout=str(INSIST_S),
            on_exit=partial(run.ended, process),
        )
        for process in description.processes
    ]


def described(words: Mapping[str, str]) -> Description:
    """The description with the arguments of a launch in it.

    Raises:
        FleetError: one of them is wrong.
    """
    wanted: dict[str, Any] = {
        name: text for name, text in words.items() if text and name not in ("config", "namespace", "log_level")
    }
    wanted["link"] = wanted.get("link", "").split()
    for name in NUMBERS:
        if name in wanted:
            wanted[name] = number(name, wanted[name])
    return Description.load(words["config"]).changed(**wanted)


def number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as err:
        raise FleetError(f"{name} is a number, not '{text}'") from err


def program(process: Process) -> dict[str, Any]:
    """What runs a node: the executable that a ROS workspace has, otherwise (a checkout, pip) its Python package."""
    try:
        installed = Path(get_package_prefix(PACKAGE), "lib", PACKAGE, process.node).is_file()
    except (LookupError, OSError):  # not in this workspace; AMENT_PREFIX_PATH not set
        installed = False
    if installed:
        return {"package": PACKAGE, "executable": process.node}
    return {"executable": sys.executable, "arguments": ["-m", process.package]}


def prefix(context: LaunchContext) -> str | None:
    """What goes before a node's command: Ctrl-C then waits until the node can end without Python's traceback.

    Not where this `env` cannot do it, nor where the user has asked for a prefix.
    """
    if context.launch_configurations.get("launch-prefix"):
        return None
    words = ["env", "--block-signal=INT"]
    try:
        can = subprocess.run([*words, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        can = False
    return " ".join(words) if can else None


class Run:
    """Decides what the end of a process means for the others.

    Args:
        left: processes that have not ended.
    """

    def __init__(self, left: int) -> None:
        self.left = left
        self.died: list[str] = []

    def ended(self, process: Process, event: ProcessExited, context: LaunchContext) -> list[TimerAction] | None:
        """A process has ended.

        Raises:
            FleetError: the run has failed: at once where nothing can go on, otherwise when it is over.
        """
        self.left -= 1
        died = event.returncode != 0 and not (context.is_shutdown and event.returncode in STOPPED)
        if died:
            self.died.append(f"{process.node} died ({reason(event.returncode)})")
        over = context.is_shutdown or self.left == 0
        if self.died and (over or (died and (process.ends_run or event.returncode == BAD_INPUT))):
            lines, self.died = self.died, []
            raise FleetError("; ".join(lines))
        if over or died or not process.ends_run:
            return None
        # The last reports are still on their way to the monitor.
        return [TimerAction(period=0.5, actions=[Shutdown(reason=f"{process.node} has done its work")])]
