# SPDX-License-Identifier: Apache-2.0
"""What others see of a running system: the health of every node, and the topics that the Foxglove layout draws."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from fleet.resources import share_directory

pytestmark = pytest.mark.ros

BEHAVIOURS = ("--behaviours", "alarm", "--behaviours", "doorbell")
PARTS = {
    "bridge_node": "radio",
    "cloud_node": "hub",
    "device_node": "camera",
    "monitor_node": "monitor",
    "alarm_node": "alarm",
    "doorbell_node": "doorbell",
    "view_node": "view",
}


def newest(heard: list[tuple[float, DiagnosticArray]]) -> dict[str, DiagnosticStatus]:
    """The latest word of every node by the name that it gives itself."""
    return {status.name: status for _, array in heard for status in array.status}


def healthy(heard: list[tuple[float, DiagnosticArray]], names: set[str]) -> bool:
    statuses = newest(heard)
    return set(statuses) >= names and all(statuses[name].level == DiagnosticStatus.OK for name in names)


def drawn(layout: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Topic and field of everything that a layout's panels show; the field is empty for a whole message."""
    for config in layout["configById"].values():
        paths = [path["value"] for path in config.get("paths", [])]
        paths += [config[key] for key in ("path", "topicPath", "topicToRender") if key in config]
        paths += [config["imageMode"]["imageTopic"]] if "imageMode" in config else []
        for path in paths:
            match = re.fullmatch(r"(/[\w/]+)(?:\.([\w.]+))?", path)
            assert match, f"no message path: {path}"
            yield match[1], match[2] or ""


def has_field(kind: Any, field: str) -> bool:
    """Whether a message type has a field, which may be one of a nested message."""
    for name in filter(None, field.split(".")):
        fields = kind.get_fields_and_field_types() if hasattr(kind, "get_fields_and_field_types") else {}
        if name not in fields:
            return False
        package, _, message = fields[name].partition("/")
        kind = getattr(importlib.import_module(f"{package}.msg"), message) if message else None
    return True


def leaves(layout: Any) -> Iterator[str]:
    if isinstance(layout, str):
        yield layout
    else:
        yield from leaves(layout["first"])
        yield from leaves(layout["second"])


def test_every_node_tells_how_it_is_and_the_layout_draws_what_there_is(fleet_up, listener):
    heard = listener.listen(DiagnosticArray, "/diagnostics")
    names = {f"backyard/{node}: {part}" for node, part in PARTS.items()}
    stack = fleet_up("--source", "photos", "--view-port", "0", *BEHAVIOURS)
    listener.spin_until(lambda: healthy(heard, names), "all nodes in good health")
    statuses = newest(heard)
    assert set(statuses) == names, stack.output
    assert {status.hardware_id for status in statuses.values()} == {"backyard"}
    assert all(status.message and status.values for status in statuses.values())

    layout = json.loads((share_directory() / "config" / "foxglove_layout.json").read_text())
    there = dict(listener.node.get_topic_names_and_types())
    for topic, field in drawn(layout):
        assert topic in there, f"nobody publishes {topic}: {sorted(there)}"
        package, _, message = there[topic][0].split("/")
        kind = getattr(importlib.import_module(f"{package}.msg"), message)
        assert has_field(kind, field), f"{message} has no field {field}"
    assert sorted(leaves(layout["layout"])) == sorted(layout["configById"])

    # Without its camera a system is not well, and says so in the right places; the hub is.
    heard.clear()
    stack.node_process("fleet_cloud_node").terminate()  # of who is killed discovery tells after twenty seconds
    complaints = {"backyard/bridge_node: radio": "no hub", "backyard/device_node: camera": "no hub"}
    listener.spin_until(
        lambda: all(
            (status := newest(heard).get(name)) is not None
            and status.level == DiagnosticStatus.WARN
            and words in status.message
            for name, words in complaints.items()
        ),
        "complaints of those who miss the hub",
    )


def test_a_hub_without_cameras_says_which_it_misses(fleet_up, listener):
    heard = listener.listen(DiagnosticArray, "/diagnostics")
    fleet_up("fleet_of_cameras", "--only", "cloud_node", "--only", "monitor_node")
    name = "backyard/cloud_node: hub"
    listener.spin_until(lambda: name in newest(heard) and "nobody" in newest(heard)[name].message, "a complaint")
    status = newest(heard)[name]
    assert status.level == DiagnosticStatus.WARN
    assert status.message == (
        "2 of 2 cameras: nobody publishes /backyard/porch/link/packets, /backyard/gate/link/packets"
    )
    listener.spin_until(lambda: "backyard/monitor_node: monitor" in newest(heard), "the monitor's word")
    assert newest(heard)["backyard/monitor_node: monitor"].level == DiagnosticStatus.WARN
