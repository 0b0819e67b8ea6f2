# SPDX-License-Identifier: Apache-2.0
"""A label as `vision_msgs/Classification`, with the real messages where they are installed and stand-ins where not."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fleet_msgs", reason="needs ROS 2 and the built fleet_msgs")

from std_msgs.msg import Header

import fleet_ros.labels
from fleet_msgs.msg import Label
from fleet_ros.labels import LabelPublisher, classification


@dataclasses.dataclass
class ObjectHypothesis:
    class_id: str = ""
    score: float = 0.0


@dataclasses.dataclass
class Classification:
    header: Any = None
    results: list[ObjectHypothesis] = dataclasses.field(default_factory=list)


STAND_IN = SimpleNamespace(Classification=Classification, ObjectHypothesis=ObjectHypothesis)


class Node:
    """Remembers what is published where."""

    def __init__(self) -> None:
        self.published: dict[str, list[Any]] = {}
        self.kinds: dict[str, type] = {}

    def create_publisher(self, kind: type, topic: str, _qos: Any) -> Any:
        self.kinds[topic] = kind
        return SimpleNamespace(publish=self.published.setdefault(topic, []).append)


def label(group: str = "pet", **confidences: float) -> Label:
    given = {"group_confidence": 0.75, "class_confidence": 0.5, **confidences}
    return Label(header=Header(frame_id="yard"), inference_id=7, group=group, class_name="tabby", **given)


@pytest.mark.parametrize("messages", ["stand-in", "vision_msgs.msg"])
@pytest.mark.parametrize("group", ["pet", "none"])
def test_the_group_is_the_class_and_none_is_one(messages: str, group: str):
    module = (
        STAND_IN if messages == "stand-in" else pytest.importorskip(messages, reason="vision_msgs is not installed")
    )
    found = classification(module, label(group))
    (hypothesis,) = found.results
    assert (hypothesis.class_id, hypothesis.score) == (group, 0.75)
    assert found.header.frame_id == "yard"


def test_the_other_confidence_stands_in_for_one_that_did_not_travel():
    nan = float("nan")
    assert classification(STAND_IN, label(group_confidence=nan)).results[0].score == 0.5
    assert classification(STAND_IN, label(group_confidence=nan, class_confidence=nan)).results[0].score == 0.0


def test_where_vision_msgs_is_installed_every_label_goes_out_twice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fleet_ros.labels, "vision", STAND_IN)
    node = Node()
    LabelPublisher(node, "porch").publish(label())
    assert node.kinds == {"porch/label": Label, "porch/classification": Classification}
    assert [message.inference_id for message in node.published["porch/label"]] == [7]
    assert node.published["porch/classification"][0].results[0].class_id == "pet"


def test_where_it_is_not_a_label_is_a_label(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fleet_ros.labels, "vision", None)
    node = Node()
    LabelPublisher(node).publish(label())
    assert {topic: len(messages) for topic, messages in node.published.items()} == {"label": 1}
