# SPDX-License-Identifier: Apache-2.0
"""Which level is right, and on what the hub's exits run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("fleet_msgs", reason="needs ROS 2 and the built fleet_msgs")

import torch
from diagnostic_msgs.msg import DiagnosticStatus

from fleet.errors import FleetError
from fleet_cloud_node.settings import pick_device
from fleet_monitor_node.node import MonitorSettings
from fleet_ros.cameras import check_cameras, topic_of
from fleet_ros.diagnostics import STALE_S, Diagnostics, Hearing


class Node:
    """A node in a graph that a test makes up."""

    def __init__(self, *published: str, namespace: str = "/yard") -> None:
        self.published = published
        self.namespace = namespace

    def resolve_topic_name(self, topic: str) -> str:
        return topic if topic.startswith("/") else f"{self.namespace}/{topic}"

    def count_publishers(self, topic: str) -> int:
        return self.published.count(topic)

    # For Diagnostics.
    def get_fully_qualified_name(self) -> str:
        return f"{self.namespace.rstrip('/')}/some_node"

    def get_namespace(self) -> str:
        return self.namespace

    def get_name(self) -> str:
        return "some_node"

    def create_publisher(self, *_: Any) -> Any:
        return self

    def create_timer(self, *_: Any) -> None:
        return None


TWO = {"porch": "porch/label", "gate": "gate/label"}


def state(published: Sequence[str], silent: dict[str, float], topics: dict[str, str]) -> tuple[bytes, str]:
    hearing = Hearing(Node(*published), topics, now=0.0)
    now = max(silent.values())
    for name, seconds in silent.items():
        hearing.heard(name, now - seconds)
    return hearing.state(now)


@pytest.mark.parametrize(
    ("published", "silent", "level", "line"),
    [
        ([], 0.0, DiagnosticStatus.WARN, "nobody publishes /yard/label"),
        (["/yard/label"], STALE_S - 1, DiagnosticStatus.OK, "active"),
        (["/yard/label"], STALE_S + 1, DiagnosticStatus.STALE, "nothing came on /yard/label for 31 s"),
        ([], STALE_S + 1, DiagnosticStatus.WARN, "nobody publishes /yard/label"),
    ],
)
def test_nobody_there_is_told_from_nothing_said(published, silent, level, line):
    assert state(published, {"": silent}, {"": "label"}) == (level, line)


@pytest.mark.parametrize(
    ("published", "silent", "level", "line"),
    [
        (["/yard/porch/label"], {"porch": 0, "gate": 0}, DiagnosticStatus.WARN, "1 of 2 cameras: nobody publishes"),
        (["/yard/porch/label", "/yard/gate/label"], {"porch": 0, "gate": 40}, DiagnosticStatus.WARN, "1 of 2 cameras"),
        (["/yard/porch/label", "/yard/gate/label"], {"porch": 50, "gate": 40}, DiagnosticStatus.STALE, "for 50 s"),
        (["/yard/porch/label", "/yard/gate/label"], {"porch": 0, "gate": 0}, DiagnosticStatus.OK, "active"),
    ],
)
def test_of_several_cameras_those_are_named_that_are_missed(published, silent, level, line):
    found, words = state(published, silent, TWO)
    assert found == level
    assert line in words
    if level == DiagnosticStatus.WARN:
        assert "gate" in words
        assert "porch" not in words


def test_silence_begins_when_a_node_begins_to_listen():
    hearing = Hearing(Node("/yard/label"), {"": "label"}, now=1000.0)
    assert hearing.state(1000.0 + STALE_S - 1)[0] == DiagnosticStatus.OK
    assert hearing.state(1000.0 + STALE_S)[0] == DiagnosticStatus.STALE


@pytest.mark.parametrize(("namespace", "hardware"), [("/yard/porch", "yard/porch"), ("/", "some_node")])
def test_a_status_names_its_node_as_an_aggregator_likes_it(namespace: str, hardware: str):
    diagnostics = Diagnostics(Node(namespace=namespace), "radio", lambda: (DiagnosticStatus.OK, "", {}))
    assert diagnostics._name == f"{namespace.strip('/')}/some_node: radio".lstrip("/")
    assert diagnostics._hardware_id == hardware


# Cameras and processors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [(), ("a", "a"), ("a b",), ("7",), ("a__b",), ("", "")])
def test_cameras_that_cannot_be_are_refused(names: tuple[str, ...]):
    with pytest.raises(FleetError, match="camera"):
        check_cameras(names)
    with pytest.raises(FleetError, match="camera"):
        MonitorSettings(cameras=names)


def test_a_camera_s_topics_are_in_its_namespace():
    assert [topic_of(camera, "label") for camera in ("", "porch", "/yard/gate/")] == [
        "label",
        "porch/label",
        "/yard/gate/label",
    ]


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_exits_run_on_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, there: bool, device: str):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert pick_device("auto") == device
    assert pick_device("cpu") == "cpu"


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FleetError, match="no GPU that torch can use: say auto or cpu"):
        pick_device("cuda")
    with pytest.raises(FleetError, match="torch_device is auto, cpu or cuda, not 'tpu'"):
        pick_device("tpu")
