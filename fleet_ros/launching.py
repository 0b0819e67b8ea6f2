# SPDX-License-Identifier: Apache-2.0
"""What the launch files have in common: a description of config/ becomes actions of `ros2 launch`.

Nothing about the nodes is said here: `fleet.description` reads the same file for `fleet up`. What differs is the
discovery of ROS 2, which is the user's own here, while `fleet up` keeps to this machine.

A launch fails, with exit code 1, by an exception only; launch then prints its message in one line and stops the nodes.
A wrong argument and a node that died are therefore raised.
"""

from __future__ import annotations

import atexit
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown, TimerAction
from launch.events.process import ProcessExited
from launch_ros.actions import Node

from fleet.description import BEHAVIOURS, ENVIRONMENT, LOG_LEVELS, Description, check_start
from fleet.errors import FleetError
from fleet.processes import Process
from fleet.supervisor import ASK_S, BAD_INPUT, INSIST_S, reason

PACKAGE = "fleet"
AS_IN_FILE = "; empty: as in the description"

ARGUMENTS: Mapping[str, str] = {
    "config": "Description of the system: a file, or the name of one in config/.",
    "namespace": "Namespace of the topics; empty: backyard, and backyard_camera for the camera's half of a real radio.",
    "cameras": f"Words NAME=SOURCE, a camera each, in quotes where a source has blanks{AS_IN_FILE}.",
    "source": f"auto, photos, a camera index, a file, directory or tar of images, a URL, ros:/TOPIC{AS_IN_FILE}.",
    "model": f"Model bundle: a directory, or the name of one in models/{AS_IN_FILE}.",
    "platform": f"Pace the device like this processor; native: as fast as this machine{AS_IN_FILE}.",
    "time_scale": f"Factor on the platform's times{AS_IN_FILE}.",
    "frame_rate": f"Frames a second at most, 0: as fast as inference goes{AS_IN_FILE}.",
    "link": f"Words KEY=VALUE: ci_ms, packets, phy, payload, loss, ack, transport{AS_IN_FILE}.",
    "duration": f"Seconds from the first frame on, 0: until Ctrl-C{AS_IN_FILE}.",
    "json": f"File for the numbers of every frame{AS_IN_FILE}.",
    "behaviours": f"Words: {', '.join(BEHAVIOURS)}; of every camera, as in config/behaviours.yaml.",
    "log_level": f"Of the nodes: {', '.join(LOG_LEVELS)}.",
}
"""Every argument that a launch file may have. Without a default of its own it is empty."""

NUMBERS = ("time_scale", "frame_rate", "duration")
WORDS = ("link", "behaviours")
# What a description is not changed by.
_ABOUT_THE_START = ("config", "namespace", "cameras", "log_level")
# Return codes of a process that launch has told to stop; 255 is what asyncio says when a signal came too late.
STOPPED = (-signal.SIGINT, -signal.SIGTERM, 255)


def system(config: str, *, without: Iterable[str] = (), **defaults: str) -> LaunchDescription:
    """The launch description of a system.

    Args:
        config: description that is taken unless the user names another.
        without: arguments that mean nothing to it.
        defaults: of the other arguments.
    """
    values = {"config": config, "log_level": "warn", **defaults}
    names = [name for name in ARGUMENTS if name not in set(without)]
    arguments = [DeclareLaunchArgument(n, default_value=values.get(n, ""), description=ARGUMENTS[n]) for n in names]
    return LaunchDescription([*arguments, OpaqueFunction(function=partial(start, names))])


def start(names: Iterable[str], context: LaunchContext) -> list[Node]:
    """Build one action for every process of the description.

    Args:
        names: of the arguments.
        context: of the launch; it holds their values.

    Raises:
        FleetError: an argument is wrong.
    """
    # Not all of launch's configurations: a file that includes this one may have a `source` of its own.
    words = {name: context.launch_configurations[name].strip() for name in names}
    description = described(words)
    namespace = words.get("namespace") or description.namespace
    check_start(namespace, words["log_level"])
    # The very file that `fleet up` gives its nodes: launch would read a dictionary's strings as YAML, the source "0" as
    # a number. It is gone when launch is.
    scratch = tempfile.TemporaryDirectory(prefix="fleet-")
    atexit.register(scratch.cleanup)
    parameters = Path(scratch.name, "parameters.yaml")
    parameters.write_text(description.parameter_file())
    run = Run(description.processes)
    return [
        Node(
            **program(process),
            name=process.node,
            exec_name=process.name,
            namespace=process.namespace(namespace),
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
    wanted: dict[str, Any] = {n: text for n, text in words.items() if text and n not in _ABOUT_THE_START}
    for name in WORDS:
        wanted[name] = wanted.get(name, "").split()
    for name in NUMBERS:
        if name in wanted:
            wanted[name] = number(name, wanted[name])
    return Description.load(words["config"], cameras_of(words.get("cameras", ""))).changed(**wanted)


def number(name: str, text: str) -> float:
    """The number that an argument holds.

    Raises:
        FleetError: it holds none.
    """
    try:
        return float(text)
    except ValueError as err:
        raise FleetError(f"{name} is a number, not '{text}'") from err


def cameras_of(text: str) -> dict[str, str]:
    """Sources by the names of the cameras.

    Raises:
        FleetError: not words NAME=SOURCE, or one camera twice.
    """
    try:
        pairs = [word.partition("=") for word in shlex.split(text)]
    except ValueError as err:  # a quote that is never closed
        raise FleetError(f"cameras are words NAME=SOURCE, not '{text}': {err}") from err
    for name, equals, source in pairs:
        if not (name and equals and source):
            raise FleetError(f"cameras are words NAME=SOURCE, not '{name}{equals}{source}'")
    cameras = {name: source for name, _, source in pairs}
    if len(cameras) < len(pairs):
        raise FleetError(f"cameras must name every camera once, not {', '.join(name for name, _, _ in pairs)}")
    return cameras


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
    """Decides what the end of a process means for the others, as :class:`fleet.supervisor.Supervisor` does.

    Args:
        processes: that run.
    """

    def __init__(self, processes: Iterable[Process]) -> None:
        self.running = Counter(process.node for process in processes)
        self.died: list[str] = []

    def ended(self, process: Process, event: ProcessExited, context: LaunchContext) -> list[TimerAction] | None:
        """A process has ended.

        Raises:
            FleetError: the run has failed: at once where nothing can go on, otherwise when it is over.
        """
        self.running[process.node] -= 1
        ends_run = process.ends_run and not self.running[process.node]
        died = event.returncode != 0 and not (context.is_shutdown and event.returncode in STOPPED)
        if died:
            self.died.append(f"{process.name} died ({reason(event.returncode)})")
        over = context.is_shutdown or not self.running.total()
        if self.died and (over or (died and (ends_run or event.returncode == BAD_INPUT))):
            lines, self.died = self.died, []
            raise FleetError("; ".join(lines))
        if over or died or not ends_run:
            return None
        # The last reports are still on their way to the monitor.
        return [TimerAction(period=0.5, actions=[Shutdown(reason=f"{process.name} has done its work")])]
