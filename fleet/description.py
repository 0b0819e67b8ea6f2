# SPDX-License-Identifier: Apache-2.0
"""One description of the running system for ``fleet up`` and the launch file alike.

A description is a plain ROS 2 parameter file whose keys name the nodes: one process a key, in the file's
order. What a user may change from outside (source, model, platform, link) becomes parameters of the right
nodes here and nowhere else, so that the two ways to start cannot drift apart.
"""

from __future__ import annotations

import datetime
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
from fleet.resources import expanded, find_config, find_model
from fleet.runlog import check_writable

EXECUTABLES: Mapping[str, str] = {
    "device_node": "fleet_device_node",
    "bridge_node": "fleet_ble_bridge",
    "cloud_node": "fleet_cloud_node",
    "monitor_node": "fleet_monitor_node",
    "alarm_node": "fleet_behaviours.alarm_node",
    "doorbell_node": "fleet_behaviours.doorbell_node",
}
"""Every node that a description may name, with the Python module that runs it."""

DEVICE_NODE = "device_node"
LINK_NODE = "bridge_node"
MONITOR_NODE = "monitor_node"
MAX_NAMESPACE = 128
"""Characters; ROS allows 245 for a topic with its namespace in front."""
LOG_LEVELS = ("debug", "info", "warn", "error")
ENVIRONMENT: Mapping[str, str] = {
    # One stream of bytes a node: a tensor library that spawns a thread a core starves the others.
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}
"""What every process gets besides the user's environment, where the user has not set it."""

_LINK_KEYS = ("ci_ms", "packets", "payload", "phy", "loss", "ack", "transport")


@dataclass(frozen=True)
class Process:
    """One node of a description.

    Attributes:
        node: its name, its executable's name, and its key in the file.
        package: Python package that runs it (``python -m``).
        parameters: as the file has them, with the user's changes.
    """

    node: str
    package: str
    parameters: Mapping[str, Any]

    @property
    def ends_run(self) -> bool:
        """Whether a run is over once this process has ended: nothing more to see, or nobody looking."""
        return self.node in (DEVICE_NODE, MONITOR_NODE)


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
    def load(cls, name: str | Path) -> Description:
        """Read a description.

        Args:
            name: path, or the name of one below ``config/``.

        Raises:
            FleetError: not there, not a parameter file, or a node that FLEET does not have.
        """
        path = find_config(name)
        try:
            content = strict_yaml.load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as err:  # ValueError: no text, no date
            raise FleetError(f"{path} cannot be read: {' '.join(str(err).split())}") from err
        if not isinstance(content, dict) or not content:
            raise FleetError(f"{path} is not a description: expected a ROS 2 parameter file that names the nodes")
        processes = tuple(_process(path, str(key), entry) for key, entry in content.items())
        for node in EXECUTABLES:
            if sum(process.node == node for process in processes) > 1:
                raise FleetError(f"{path} names {node} more than once")
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

    @property
    def link(self) -> LinkParameters:
        """The link that the bridge begins with.

        Raises:
            FleetError: it cannot be a BLE link.
        """
        parameters = self.process(LINK_NODE).parameters
        return LinkParameters(**{key: parameters[key] for key in _LINK_KEYS if key in parameters})

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

        Raises:
            FleetError: an unknown model, platform or link setting, a link that BLE cannot have, a number out of
                range, a JSON file that could not be written, or a wish for a node that the description lacks.
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
        for node, wishes in ((DEVICE_NODE, device), (MONITOR_NODE, monitor)):
            if wishes:
                self.process(node)  # a wish that nobody hears would be lost in silence
        wanted = LinkParameters.parse(link, self.link)
        changes = {
            DEVICE_NODE: device | bundle,
            "cloud_node": bundle,
            # A real radio makes sure that both of its ends hold the same bundle; the emulated one has no ends.
            LINK_NODE: {key: getattr(wanted, key) for key in _LINK_KEYS}
            | (bundle if wanted.transport != "emulated" else {}),
            MONITOR_NODE: monitor,
        }
        processes = tuple(replace(p, parameters={**p.parameters, **changes.get(p.node, {})}) for p in self.processes)
        described = replace(self, processes=processes)
        described.check()
        return described

    def check(self) -> None:
        """Look at everything that can be looked at without starting.

        Raises:
            FleetError: a model or platform that is not there, a number out of range, a JSON file that could not be
                written, or a link that BLE cannot have.
        """
        _ = self.link
        for process in self.processes:
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
        """Under which conditions a run's numbers hold, for whoever prints or stores them."""
        device = self.process(DEVICE_NODE).parameters
        link = self.link
        return {
            "description": self.path.name,
            **{
                key: device.get(key)
                for key in ("source", "model", "platform", "time_scale", "frame_rate", "precision", "codec")
            },
            "link": {key: getattr(link, key) for key in _LINK_KEYS} | {"effective_packets": link.effective_packets},
        }

    def parameters_of(self, process: Process) -> dict[str, Any]:
        """What a process is started with: its parameters, and for the monitor the conditions as JSON."""
        if process.node == MONITOR_NODE:
            return {**process.parameters, "conditions": json_module.dumps(self.conditions)}
        return dict(process.parameters)

    def parameter_file(self) -> str:
        """The text of a ROS 2 parameter file with everything in it, for the nodes' command lines."""
        return yaml.safe_dump(
            {f"/**/{p.node}": {"ros__parameters": self.parameters_of(p)} for p in self.processes}, sort_keys=False
        )


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


def _process(path: Path, key: str, entry: object) -> Process:
    node = key.rsplit("/", 1)[-1]
    if node not in EXECUTABLES:
        raise FleetError(f"{path} names '{key}', which is no node of FLEET: choose from {', '.join(EXECUTABLES)}")
    parameters = entry.get("ros__parameters") if isinstance(entry, dict) else None
    if not isinstance(parameters, dict):
        raise FleetError(f"{path}: {key} needs a ros__parameters section")
    for name, value in parameters.items():
        if isinstance(value, datetime.date):
            raise FleetError(f"{path}: {name} of {node} is a date, which no parameter can be; put it in quotes")
    return Process(node, EXECUTABLES[node], parameters)


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
