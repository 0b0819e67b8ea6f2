# SPDX-License-Identifier: Apache-2.0
"""The processes that a description names: one a node, and where it has several cameras, one a node and camera.

A key without a namespace of its own (``/**/device_node``) speaks of every camera. A key with one
(``/porch/device_node``) speaks of that camera alone, has the last word, and by being there says that there is such
a camera. The hub's network and the monitor are there once for all of them.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.errors import FleetError

EXECUTABLES: Mapping[str, str] = {
    "device_node": "fleet_device_node",
    "bridge_node": "fleet_ble_bridge",
    "cloud_node": "fleet_cloud_node",
    "monitor_node": "fleet_monitor_node",
    "alarm_node": "fleet_behaviours.alarm_node",
    "doorbell_node": "fleet_behaviours.doorbell_node",
    "view_node": "fleet_view_node",
}
"""Every node that a description may name, with the Python module that runs it."""

DEVICE_NODE = "device_node"
LINK_NODE = "bridge_node"
CLOUD_NODE = "cloud_node"
MONITOR_NODE = "monitor_node"
VIEW_NODE = "view_node"
SHARED = (CLOUD_NODE, MONITOR_NODE, VIEW_NODE)
"""Nodes that serve any number of cameras, by their parameter ``cameras``."""

_CAMERA = re.compile(r"[A-Za-z]\w*", re.ASCII)


@dataclass(frozen=True)
class Process:
    """One node of a description.

    Attributes:
        node: its name, its executable's name, and its key in the file.
        package: Python package that runs it (``python -m``).
        parameters: as the file has them, with the user's changes.
        camera: whose it is, in a description of several; a namespace below the system's.
    """

    node: str
    package: str
    parameters: Mapping[str, Any]
    camera: str = ""

    @property
    def name(self) -> str:
        """What it is called among the others, as ROS calls loggers: ``device_node``, or ``porch.device_node``."""
        return f"{self.camera}.{self.node}" if self.camera else self.node

    @property
    def ends_run(self) -> bool:
        """Whether a run is over once the last of these has ended: nothing more to see, or nobody looking."""
        return self.node in (DEVICE_NODE, MONITOR_NODE)

    def namespace(self, system: str) -> str:
        """Its namespace in a system's, without a slash in front."""
        return "/".join(filter(None, (system.strip("/"), self.camera)))


@dataclass(frozen=True)
class Entry:
    """One key of a description's file.

    Attributes:
        node: which one.
        camera: of which camera; empty for every camera.
        parameters: of the node.
    """

    node: str
    camera: str
    parameters: Mapping[str, Any]

    @classmethod
    def read(cls, key: str, value: object) -> Entry:
        """Read a key with what it holds.

        Raises:
            FleetError: no node of FLEET, no section ``ros__parameters``, a value that no parameter can have, or a
                namespace that is no camera's name.
        """
        place, _, node = key.rpartition("/")
        if node not in EXECUTABLES:
            raise FleetError(f"names '{key}', which is no node of FLEET: choose from {', '.join(EXECUTABLES)}")
        parameters = value.get("ros__parameters") if isinstance(value, dict) else None
        if not isinstance(parameters, dict):
            raise FleetError(f"{key} needs a ros__parameters section")
        for name, given in parameters.items():
            if isinstance(given, datetime.date):
                raise FleetError(f"{name} of {node} is a date, which no parameter can be; put it in quotes")
        camera = "" if place in ("", "/**") else place.strip("/")
        if camera:
            check_camera(camera)
        return cls(node, camera, parameters)


def check_camera(name: str) -> None:
    """Refuse a camera's name that is no single part of a namespace.

    Raises:
        FleetError: it is not.
    """
    if not _CAMERA.fullmatch(name) or "__" in name:
        raise FleetError(f"'{name}' is no camera's name: letters, digits and single _, beginning with a letter")


def of_cameras(entries: Sequence[Entry], sources: Mapping[str, str]) -> list[Entry]:
    """The entries for these cameras: others of the file are left out, and new ones have a source and nothing else.

    Args:
        entries: of the file.
        sources: what each camera looks at, by its name.

    Raises:
        FleetError: a name that is none, or a file without cameras that a source could be for.
    """
    if not any(entry.node == DEVICE_NODE for entry in entries):
        raise FleetError(f"there is no {DEVICE_NODE} for the cameras {', '.join(sources)}")
    for name in sources:
        check_camera(name)
    kept = [entry for entry in entries if not entry.camera or entry.camera in sources]
    return [*kept, *(Entry(DEVICE_NODE, name, {"source": source}) for name, source in sources.items())]


def processes_of(entries: Sequence[Entry]) -> tuple[Process, ...]:
    """The processes, nodes in the order in which the file first names them, cameras likewise within a node.

    Raises:
        FleetError: a node is named twice, or one that serves all cameras as that of one.
    """
    cameras = list(dict.fromkeys(entry.camera for entry in entries if entry.camera))
    processes: list[Process] = []
    for node in dict.fromkeys(entry.node for entry in entries):
        of_all = [e.parameters for e in entries if e.node == node and not e.camera]
        if len(of_all) > 1:
            raise FleetError(f"names {node} more than once")
        own = {c: _merged(e.parameters for e in entries if e.node == node and e.camera == c) for c in cameras}
        package = EXECUTABLES[node]
        if not cameras:
            processes.append(Process(node, package, of_all[0]))
        elif node in SHARED:
            if any(parameters is not None for parameters in own.values()):
                raise FleetError(f"names {node} for one camera, but it serves all of them: name it /**/{node}")
            processes.append(Process(node, package, {**of_all[0], "cameras": cameras}))
        else:
            wanted = [c for c in cameras if of_all or own[c] is not None]
            merged = {c: {**(of_all[0] if of_all else {}), **(own[c] or {})} for c in wanted}
            processes += [Process(node, package, merged[c], camera=c) for c in wanted]
    return tuple(processes)


def _merged(sections: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Parameters of all sections, the last word for the last one; None where there is none."""
    merged: dict[str, Any] | None = None
    for section in sections:
        merged = {**(merged or {}), **section}
    return merged
