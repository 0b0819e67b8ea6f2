# SPDX-License-Identifier: Apache-2.0
"""What every behaviour does with ``label``: hear each frame once, and tell why nothing came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from fleet.answers import OncePerFrame
from fleet.behaviours.sighting import Sighting
from fleet.behaviours.verdict import Suppression, SuppressionLog
from fleet_msgs.msg import Label
from fleet_ros.diagnostics import Health, Hearing
from fleet_ros.node import ManagedNode
from fleet_ros.qos import EVENTS, OVERRIDABLE

TOPIC = "label"


class Labels:
    """Subscription to the labels of the camera whose namespace the node is in."""

    def __init__(self, node: ManagedNode, heard: Callable[[Sighting], None]) -> None:
        """Gives ``heard`` the first label of every frame while :meth:`open`."""
        self.count = 0
        self._node = node
        self._heard = heard
        self._once = OncePerFrame()
        self._subscription: Any = None
        self._hearing = Hearing(node, {"": TOPIC}, node.seconds())

    def open(self) -> None:
        """Begin to listen."""
        self._hearing = Hearing(self._node, {"": TOPIC}, self._node.seconds())
        # Volatile although the publisher is latched: the last label of before we were there must not ring a bell.
        self._subscription = self._node.create_subscription(
            Label, TOPIC, self._on_label, EVENTS, qos_overriding_options=OVERRIDABLE
        )

    def close(self) -> None:
        """Stop listening."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _on_label(self, msg: Label) -> None:
        self._hearing.heard("", self._node.seconds())
        # Device and hub may both have answered; the first answer is the frame's.
        if self._once.is_first(self._node.get_namespace(), msg.inference_id):
            self.count += 1
            self._heard(sighting_of(msg, otherwise=clock_seconds(self._node)))

    def tell(self, suppressed: Suppression | None) -> None:
        """Write to the log why something that is watched for did nothing, once for every appearance of a reason."""
        if suppressed is not None and suppressed.is_news:
            self._node.get_logger().info(f"{suppressed.reason.value}: {suppressed.text}")

    def health(self, log: SuppressionLog, values: dict[str, object]) -> Health:
        """For the node's diagnostics.

        Args:
            log: of the rules.
            values: what else is to be told.
        """
        values = {"labels": self.count, **values, **{reason.value: n for reason, n in log.counts.items()}}
        if not self._node.is_active:
            return DiagnosticStatus.WARN, "inactive", values
        return (*self._hearing.state(self._node.seconds()), values)


def sighting_of(msg: Label, *, otherwise: float) -> Sighting:
    """The sighting in a label.

    Args:
        msg: the label, which becomes the cause of what it does.
        otherwise: stamp where the label has none, s.
    """
    stamp = msg.header.stamp.sec + msg.header.stamp.nanosec * 1e-9
    return Sighting(
        stamp=stamp or otherwise,
        group=msg.group,
        class_name=msg.class_name,
        # float32 on the wire: 0.7 arrives as 0.69999999 and must still be 0.7
        group_confidence=round(msg.group_confidence, 6),
        class_confidence=round(msg.class_confidence, 6),
        message=msg,
    )


def clock_seconds(node: ManagedNode) -> float:
    """The time on the node's clock, seconds since 1970 or since a simulation's beginning."""
    return float(node.get_clock().now().nanoseconds) * 1e-9
