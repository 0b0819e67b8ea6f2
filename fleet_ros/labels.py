# SPDX-License-Identifier: Apache-2.0
"""A label goes out in two forms: as FLEET's own message, and for other software as `vision_msgs/Classification`."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from fleet_msgs.msg import Label
from fleet_ros.cameras import topic_of
from fleet_ros.qos import LABELS

try:  # not in every installation, and nothing of FLEET needs it
    import vision_msgs.msg as vision
except ImportError:
    vision = None


class LabelPublisher:
    """Publishes ``label`` and, where vision_msgs is installed, ``classification``.

    Args:
        node: any node.
        camera: whose labels they are; empty for the node's own namespace.
        options: of the publishers.
    """

    def __init__(self, node: Any, camera: str = "", **options: Any) -> None:
        self._labels = node.create_publisher(Label, topic_of(camera, "label"), LABELS, **options)
        self._classifications: Any = None
        if vision is not None:
            topic = topic_of(camera, "classification")
            self._classifications = node.create_publisher(vision.Classification, topic, LABELS, **options)

    def publish(self, label: Label) -> None:
        """One frame's label."""
        self._labels.publish(label)
        if self._classifications is not None:
            self._classifications.publish(classification(vision, label))


def classification(messages: ModuleType, label: Label) -> Any:
    """A label as a `vision_msgs/Classification` with one hypothesis.

    Its ``class_id``, a string, is the group (``none`` is one) with the group's confidence. Where only the class's is
    known, as in an answer of the device by a bundle that decides by classes, that one stands in: it is at most the
    group's.

    Args:
        messages: the module vision_msgs.msg.
        label: the label.
    """
    sure = (label.group_confidence, label.class_confidence)
    score = next((confidence for confidence in sure if not math.isnan(confidence)), 0.0)
    hypothesis = messages.ObjectHypothesis(class_id=label.group, score=float(score))
    return messages.Classification(header=label.header, results=[hypothesis])
