# SPDX-License-Identifier: Apache-2.0
"""``fleet up``: run the nodes of a description as processes on this machine."""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

import fleet
from fleet.description import ENVIRONMENT, Description, check_start
from fleet.errors import FleetError
from fleet.processes import MONITOR_NODE, VIEW_NODE, Process
from fleet.supervisor import Command, Supervisor


def up(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [KEY=VALUE]...",
            help="Description of the system (a file, or a name in config/), and more settings of the link.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="auto, photos, a camera index, a file, directory or tar of images, a video, a URL, or ros:/TOPIC."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model bundle: a directory, or the name of one in models/.")] = None,
    platform: Annotated[
        str | None, typer.Option(help="Pace the device like this processor; native: as fast as this machine.")
    ] = None,
    time_scale: Annotated[float | None, typer.Option(help="Factor on the platform's times.")] = None,
    frame_rate: Annotated[
        float | None, typer.Option(help="Frames a second at most; 0: as fast as inference goes.")
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Link: ci_ms, packets, phy, payload, loss, ack, transport. May be repeated."
        ),
    ] = None,
    duration: Annotated[float | None, typer.Option(help="Seconds from the first frame on; 0: until Ctrl-C.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the numbers of every frame to this file.")] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the topics: the camera's name.")] = "backyard",
    behaviours: Annotated[
        list[str] | None, typer.Option(help="Add a behaviour of every camera: alarm or doorbell. May be repeated.")
    ] = None,
    view: Annotated[
        bool, typer.Option("--view", help="Serve a page on this machine that shows what happens, and open it.")
    ] = False,
    view_port: Annotated[
        int | None, typer.Option(help="Port of that page, 0 for any free one; asks for the page by itself.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Start this node alone, for example cloud_node. May be repeated.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="Of the nodes: debug, info, warn, error.")] = "warn",
) -> None:
    """Run a camera and its hub on this machine, as real ROS 2 nodes, without the ros2 tools.

    One line a frame, a summary at the end. Ctrl-C stops everything.
    """
    config, settings = _sort_words(words or [])
    check_start(namespace, log_level)
    description = Description.load(config).changed(
        source=source,
        model=model,
        platform=platform,
        time_scale=time_scale,
        frame_rate=frame_rate,
        link=[*(link or []), *settings],
        duration=duration,
        json=str(json) if json is not None else None,
        behaviours=behaviours or [],
    )
    wants_view = view or view_port is not None
    if wants_view:
        description = description.viewed(view_port)
    if find_spec("rclpy") is None:
        raise FleetError("ROS 2 (rclpy) is not installed for this Python: run 'make' in the repository, or source ROS")
    wanted = description.named([*only, *([VIEW_NODE] if wants_view else [])]) if only else description.processes
    with tempfile.TemporaryDirectory(prefix="fleet-") as scratch:
        parameters = Path(scratch) / "parameters.yaml"
        parameters.write_text(description.parameter_file())
        commands = [_command(process, namespace, parameters, log_level) for process in wanted]
        code = Supervisor(commands, report=_say, environment=node_environment()).run()
    raise typer.Exit(code)


def _sort_words(words: list[str]) -> tuple[str, list[str]]:
    """A configuration, if one is given, and link settings, which ``--link A=1 B=2`` leaves as loose words."""
    settings = [word for word in words if "=" in word and not Path(word).exists()]
    configs = [word for word in words if word not in settings]
    if len(configs) > 1:
        raise FleetError(f"one configuration at a time, not {' and '.join(configs)}")
    return (configs[0] if configs else "backyard_camera"), settings


def _command(process: Process, namespace: str, parameters: Path, log_level: str) -> Command:
    place = f"__ns:=/{process.namespace(namespace)}"
    arguments = ("-r", place, "--params-file", str(parameters), "--log-level", log_level)
    return Command(
        name=process.name,
        kind=process.node,
        argv=(sys.executable, "-m", process.package, "--ros-args", *arguments),
        ends_run=process.ends_run,
        needed=process.ends_run,
        listens=process.node == MONITOR_NODE,
    )


def node_environment() -> dict[str, str]:
    """What the process of a node finds around it."""
    environment = dict(os.environ)
    # This machine only, unless the user has said otherwise.
    if "ROS_LOCALHOST_ONLY" not in environment:
        environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    for name, value in ENVIRONMENT.items():
        environment.setdefault(name, value)
    # The ROS wheels find their libraries by restarting Python once; a child of this process must do so itself.
    environment.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    # `python -m` looks for modules in the current folder first: a user's own secrets.py would be taken for Python's.
    if Path(fleet.__file__).resolve().parents[1] != Path.cwd():
        environment["PYTHONSAFEPATH"] = "1"
    return environment


def _say(line: str) -> None:
    print(f"fleet: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the user's line
