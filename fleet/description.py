# SPDX-License-Identifier: Apache-2.0
"""One description of the running system for ``fleet up`` and the launch file alike.

A description is a plain ROS 2 parameter file whose keys name the nodes: one process a key, in the file's order, and
for several cameras one a key and camera (:mod:`fleet.processes`). What a user may change from outside (source, model,
platform, link) becomes parameters of the right nodes here and nowhere else, so that the two ways to start cannot drift
apart.
"""

from __future__ import annotations

import json as json_module
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from fleet import strict_yaml
from fleet.errors import FleetError
from fleet.link.parameters import LinkParameters
from fleet.platforms import load_profile
from fleet.processes import (
    CLOUD_NODE,
    DEVICE_NODE,
    EXECUTABLES,
    LINK_NODE,
    MONITOR_NODE,
    VIEW_NODE,
    Entry,
    Process,
    of_cameras,
    processes_of,
)
from fleet.resources import expanded, find_config, find_model
from fleet.runlog import check_writable

MAX_NAMESPACE = 128
"""Characters; ROS allows 245 for a topic with its namespace in front."""
MAX_PORT = 65535
LOG_LEVELS = ("debug", "info", "warn", "error")
ENVIRONMENT: Mapping[str, str] = {
    # One stream of bytes a node: a tensor library that spawns a thread a core starves the others.
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}
"""What every process gets besides the user's environment, where the user has not set it."""

BEHAVIOURS = ("alarm", "doorbell")
"""What may be added to any description, with the parameters of config/behaviours.yaml."""

_LINK_KEYS = ("ci_ms", "packets", "payload", "phy", "loss", "ack", "transport")


@dataclass(frozen=True)
class Description:
    """The processes of a system.

    Attributes:
        path: the file.
        processes: in the order in which they start.
    """

    path: Path
    processes: tuple[Process, ...]

    @classmethod
    def load(cls, name: str | Path, cameras: Mapping[str, str] | None = None) -> Description:
        """Read a description.

        Args:
            name: path, or the name of one below ``config/``.
            cameras: sources by the names of the cameras, in place of the file's own cameras.

        Raises:
            FleetError: not there, not a parameter file, a node that FLEET does not have, or no name for a camera.
        """
        path = find_config(name)
        try:
            content = strict_yaml.load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as err:  # ValueError: no text, no date
            raise FleetError(f"{path} cannot be read: {' '.join(str(err).split())}") from err
        if not isinstance(content, dict) or not content:
            raise FleetError(f"{path} is not a description: expected a ROS 2 parameter file that names the nodes")
        try:
            entries = [Entry.read(str(key), value) for key, value in content.items()]
            processes = processes_of(entries)
        except FleetError as err:
            raise FleetError(f"{path}: {err}") from err
        if cameras:
            absolute = {camera: _absolute(source) for camera, source in cameras.items()}
            processes = processes_of(of_cameras(entries, absolute))
        return cls(path, processes)

    def process(self, node: str) -> Process:
        """The process of a node.

        Raises:
            FleetError: the description does not have it.
        """
        for process in self.processes:
            if process.node == node:
                return process
        raise FleetError(f"{self.path} has no {node}; it has: {', '.join(p.node for p in self.processes)}")

    def named(self, names: Iterable[str]) -> tuple[Process, ...]:
        """Processes by their names; the name of a node stands for those of all cameras.

        Raises:
            FleetError: the description does not have one.
        """
        chosen = list(names)
        for name in chosen:
            if not any(name in (p.node, p.name) for p in self.processes):
                raise FleetError(f"{self.path} has no {name}; it has: {', '.join(p.name for p in self.processes)}")
        return tuple(p for p in self.processes if p.node in chosen or p.name in chosen)

    @property
    def link(self) -> LinkParameters:
        """The link that the bridge begins with; of several cameras the first one's.

        Raises:
            FleetError: it cannot be a BLE link, or there is no bridge.
        """
        return _link_of(self.process(LINK_NODE))

    @property
    def namespace(self) -> str:
        """The namespace where the user names none.

        The two ends of a real radio say different things on topics of one name, and may well be on one network.
        """
        bridges = (p for p in self.processes if p.node == LINK_NODE)
        return "backyard_camera" if any(p.parameters.get("transport") == "bumble" for p in bridges) else "backyard"

    def changed(
        self,
        *,
        source: str | None = None,
        model: str | None = None,
        platform: str | None = None,
        time_scale: float | None = None,
        frame_rate: float | None = None,
        link: Iterable[str] = (),
        duration: float | None = None,
        json: str | None = None,
        behaviours: Iterable[str] = (),
    ) -> Description:
        """The description with a user's wishes in it; everything that can be checked without starting is.

        Args:
            source: what the device looks at; a path becomes absolute.
            model: bundle, for device and cloud.
            platform: profile that the device is paced to.
            time_scale: factor on its times.
            frame_rate: frames a second at most, 0 for no limit.
            link: ``KEY=VALUE`` settings of the link.
            duration: seconds from the first frame on, 0 for no limit.
            json: file for the numbers.
            behaviours: ``alarm`` or ``doorbell``, of every camera, with the parameters of config/behaviours.yaml unless
                the description has its own.

        Raises:
            FleetError: an unknown model, platform, behaviour or link setting, a link that BLE cannot have, a number
                out of range, a JSON file that could not be written, or a wish for a node that the description lacks.
        """
        for name, number in (("frame rate", frame_rate), ("duration", duration), ("time scale", time_scale)):
            if number is not None:
                _check_number(name, number)
        device: dict[str, Any] = {}
        if source is not None:
            device["source"] = _absolute(source)
        if platform is not None:
            device["platform"] = _absolute(platform)
        if time_scale is not None:
            device["time_scale"] = float(time_scale)
        if frame_rate is not None:
            device["frame_rate"] = float(frame_rate)
        bundle = {"model": str(find_model(model))} if model is not None else {}
        monitor: dict[str, Any] = {}
        if duration is not None:
            monitor["duration"] = float(duration)
        if json is not None:
            file = expanded(json).absolute()
            check_writable(file)
            monitor["json"] = str(file)
        settings = list(link)
        for node, wishes in ((DEVICE_NODE, device), (MONITOR_NODE, monitor), (LINK_NODE, settings)):
            if wishes:
                self.process(node)  # a wish that nobody hears would be lost in silence
        changes = {DEVICE_NODE: device | bundle, CLOUD_NODE: bundle, MONITOR_NODE: monitor}

        def change(process: Process) -> Process:
            if process.node != LINK_NODE:
                return replace(process, parameters={**process.parameters, **changes.get(process.node, {})})
            wanted = LinkParameters.parse(settings, _link_of(process))
            said = {key: getattr(wanted, key) for key in _LINK_KEYS}
            # A real radio makes sure that both of its ends hold the same bundle; the emulated one has no ends.
            said |= bundle if wanted.transport != "emulated" else {}
            return replace(process, parameters={**process.parameters, **said})

        described = replace(self, processes=(*map(change, self.processes), *self._added(behaviours)))
        described.check()
        return described

    def _added(self, behaviours: Iterable[str]) -> list[Process]:
        wanted = list(dict.fromkeys(behaviours))
        for name in wanted:
            if name not in BEHAVIOURS:
                raise FleetError(f"there is no behaviour '{name}': choose from {', '.join(BEHAVIOURS)}")
        cameras = list(dict.fromkeys(p.camera for p in self.processes if p.camera)) or [""]
        shipped = Description.load("behaviours") if wanted else self
        added = [replace(shipped.process(f"{name}_node"), camera=c) for name in wanted for c in cameras]
        there = {process.name for process in self.processes}
        return [process for process in added if process.name not in there]

    def viewed(self, port: int | None = None) -> Description:
        """The description with the live view of all its cameras.

        Args:
            port: that the page is served on, 0 for any free one; the description's own, or the node's default, if None.

        Raises:
            FleetError: no port has that number.
        """
        if port is not None and not 0 <= port <= MAX_PORT:
            raise FleetError(f"a port is a number from 0 to {MAX_PORT}, not {port}")
        cameras = list(dict.fromkeys(p.camera for p in self.processes if p.camera))
        view = next((p for p in self.processes if p.node == VIEW_NODE), None)
        if view is None:
            view = Process(VIEW_NODE, EXECUTABLES[VIEW_NODE], {"cameras": cameras} if cameras else {})
        wishes = {"browser": True} | ({"port": port} if port is not None else {})
        view = replace(view, parameters={**view.parameters, **wishes})
        return replace(self, processes=(*(p for p in self.processes if p.node != VIEW_NODE), view))

    def check(self) -> None:
        """Look at everything that can be looked at without starting.

        Raises:
            FleetError: a model or platform that is not there, a number out of range, a JSON file that could not be
                written, or a link that BLE cannot have.
        """
        for process in self.processes:
            if process.node == LINK_NODE:
                _link_of(process)
            for key in ("frame_rate", "time_scale", "duration"):
                if key in process.parameters:
                    _check_number(f"{key} of {process.node} in {self.path}", process.parameters[key])
            if process.node == MONITOR_NODE and process.parameters.get("json"):
                check_writable(expanded(str(process.parameters["json"])).absolute())
            if "model" in process.parameters:
                find_model(str(process.parameters["model"]))
            if "platform" in process.parameters:
                load_profile(
                    str(process.parameters["platform"]), time_scale=float(process.parameters.get("time_scale", 1.0))
                )

    @property
    def conditions(self) -> dict[str, Any]:
        """Under which conditions a run's numbers hold, for whoever prints or stores them.

        Of several cameras each has its own; a hub whose cameras run elsewhere knows none.
        """
        cameras = list(dict.fromkeys(p.camera for p in self.processes if p.camera))
        said: dict[str, Any] = {"description": self.path.name}
        if not cameras:
            return said | self._conditions_of("")
        return said | {"cameras": {camera: self._conditions_of(camera) for camera in cameras}}

    def _conditions_of(self, camera: str) -> dict[str, Any]:
        said: dict[str, Any] = {}
        for process in self.processes:
            if process.camera == camera and process.node == DEVICE_NODE:
                keys = ("source", "model", "platform", "time_scale", "frame_rate", "precision", "codec")
                said |= {key: process.parameters.get(key) for key in keys}
            elif process.camera == camera and process.node == LINK_NODE:
                link = _link_of(process)
                said["link"] = {key: getattr(link, key) for key in _LINK_KEYS}
                said["link"]["effective_packets"] = link.effective_packets
        return said

    def parameters_of(self, process: Process) -> dict[str, Any]:
        """What a process is started with: its parameters, and for the monitor and the view the conditions as JSON."""
        if process.node in (MONITOR_NODE, VIEW_NODE):
            return {**process.parameters, "conditions": json_module.dumps(self.conditions)}
        return dict(process.parameters)

    def parameter_file(self) -> str:
        """The text of a ROS 2 parameter file with everything in it, for the nodes' command lines."""
        keys = {p.name: f"/**/{p.namespace('')}/{p.node}" if p.camera else f"/**/{p.node}" for p in self.processes}
        content = {keys[p.name]: {"ros__parameters": self.parameters_of(p)} for p in self.processes}
        return yaml.dump(content, Dumper=_WithoutAliases, sort_keys=False)


class _WithoutAliases(yaml.SafeDumper):
    """Writes what several nodes share out for each of them: the parser of ROS takes no aliases."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - yaml's own signature
        """See yaml."""
        return True


def check_start(namespace: str, log_level: str) -> None:
    """Look at what processes are started with beyond their parameters.

    Raises:
        FleetError: ROS does not take such a namespace or log level.
    """
    if log_level not in LOG_LEVELS:
        raise FleetError(f"log level is {', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}, not '{log_level}'")
    parts = namespace.strip("/").split("/")
    if not all(p.replace("_", "a").isalnum() and p.isascii() and not p[0].isdigit() and "__" not in p for p in parts):
        raise FleetError(f"'{namespace}' is not a namespace: letters, digits and single _, not beginning with a digit")
    if len(namespace) > MAX_NAMESPACE:
        raise FleetError(f"a namespace has at most {MAX_NAMESPACE} characters, not {len(namespace)}")


def _link_of(bridge: Process) -> LinkParameters:
    return LinkParameters(**{key: bridge.parameters[key] for key in _LINK_KEYS if key in bridge.parameters})


def _absolute(text: str) -> str:
    """A path as seen from anywhere; whatever is no path here stays as it is."""
    if not text or text.isdigit():
        return text
    try:
        path = expanded(text).absolute()
        return str(path) if path.exists() else text
    except OSError:  # a name too long for a path is not one
        return text


def _check_number(name: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float) or not (math.isfinite(number) and number >= 0):
        shown = f"{number:g}" if isinstance(number, float) else repr(number)
        raise FleetError(f"the {name} must be zero or more, not {shown}")
