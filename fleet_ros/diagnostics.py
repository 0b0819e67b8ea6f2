# SPDX-License-Identifier: Apache-2.0
"""A node's health on ``/diagnostics``, once a second, under a name by which an aggregator can sort it.

``backyard/porch/bridge_node: radio`` is the node, a colon, and what of it is told, as diagnostic_updater has it. The
hardware id is the namespace: the camera, or the hub of several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from fleet_ros.qos import EVENTS

STALE_S = 30.0
"""Without a message for so long a topic is stale. No error by itself: where nothing moves a camera may say nothing."""

Health = tuple[bytes, str, Mapping[str, object]]
"""Level, one line, and values."""


class Diagnostics:
    """Publishes the health of a node.

    Args:
        node: any node.
        part: what of it is told, one word.
        health: called once a second.
    """

    def __init__(self, node: Any, part: str, health: Callable[[], Health]) -> None:
        self._node = node
        self._name = f"{node.get_fully_qualified_name().strip('/')}: {part}"
        self._hardware_id = node.get_namespace().strip("/") or node.get_name()
        self._health = health
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", EVENTS)
        node.create_timer(1.0, self.publish)

    def publish(self) -> None:
        """Tell how the node is."""
        level, message, values = self._health()
        status = DiagnosticStatus(
            level=level,
            name=self._name,
            hardware_id=self._hardware_id,
            message=message,
            values=[KeyValue(key=k, value=str(v)) for k, v in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)


class Hearing:
    """Whether there is somebody on the topics that a node lives by, and when each was heard last.

    Args:
        node: any node.
        topics: by what they are called in a message, for example a camera's name.
        now: seconds, any clock that goes on; each topic's silence begins here.
    """

    def __init__(self, node: Any, topics: Mapping[str, str], now: float) -> None:
        self._node = node
        self._topics = {name: node.resolve_topic_name(topic) for name, topic in topics.items()}
        self._last = dict.fromkeys(topics, now)

    def heard(self, name: str, now: float) -> None:
        """Something came on a topic."""
        self._last[name] = now

    def state(self, now: float) -> tuple[bytes, str]:
        """Level and line: nobody there, nothing said for long, or active."""
        missing = [name for name, topic in self._topics.items() if self._node.count_publishers(topic) == 0]
        silent = [name for name, last in self._last.items() if name not in missing and now - last >= STALE_S]
        if missing:
            return DiagnosticStatus.WARN, self._line("nobody publishes", missing)
        if silent:
            longest = max(now - self._last[name] for name in silent)
            level = DiagnosticStatus.STALE if len(silent) == len(self._topics) else DiagnosticStatus.WARN
            return level, f"{self._line('nothing came on', silent)} for {longest:.0f} s"
        return DiagnosticStatus.OK, "active"

    def _line(self, what: str, names: Sequence[str]) -> str:
        of = f"{len(names)} of {len(self._topics)} cameras: " if len(self._topics) > 1 else ""
        return f"{of}{what} {', '.join(self._topics[name] for name in names)}"
