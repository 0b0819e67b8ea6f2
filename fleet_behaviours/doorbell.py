# SPDX-License-Identifier: Apache-2.0
"""The doorbell node: labels in, one latched ring a visit out."""

from __future__ import annotations

import dataclasses
from typing import Any

from std_msgs.msg import Header

from fleet.behaviours.doorbell import Doorbell, DoorbellRules, Ring
from fleet.behaviours.sighting import Sighting, Watch
from fleet_behaviours.labels import Labels
from fleet_msgs.msg import Doorbell as DoorbellMsg
from fleet_ros.diagnostics import Health
from fleet_ros.messages import bounded
from fleet_ros.node import ManagedNode
from fleet_ros.node import main as run_node
from fleet_ros.qos import LATCHED, OVERRIDABLE
from fleet_ros.settings import declare, setting


@dataclasses.dataclass(frozen=True)
class DoorbellSettings:
    """Parameters of the doorbell node."""

    react_to: tuple[str, ...] = setting(
        ("vehicle",), "groups, or classes in words, whose visit rings; the shipped model does not recognise people"
    )
    min_confidence: float = setting(0.7, "confidence from which a visit begins, 0 to 1", within=(0.0, 1.0))
    stay_confidence: float = setting(
        0.4, "confidence from which a visit goes on, 0 to min_confidence", within=(0.0, 1.0)
    )
    k: int = setting(1, "frames that must reach min_confidence before it rings", within=(1, 32))
    n: int = setting(1, "consecutive frames among which k must", within=(1, 32))
    absence: float = setting(30.0, "time without a sighting that ends a visit [s]", within=(0.1, 86400.0))

    def __post_init__(self) -> None:
        """Check what a range cannot say.

        Raises:
            FleetError: rules that cannot be.
        """
        self.rules()

    def rules(self) -> DoorbellRules:
        """The rules."""
        # An empty list on the command line arrives as None: it has no type.
        watch = Watch(tuple(self.react_to or ()))
        names = ("min_confidence", "stay_confidence", "k", "n", "absence")
        return DoorbellRules(watch=watch, **{name: getattr(self, name) for name in names})


class DoorbellNode(ManagedNode):
    """Gives labels to :class:`fleet.behaviours.doorbell.Doorbell` and publishes when it rings."""

    part = "doorbell"
    settings: DoorbellSettings

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("doorbell_node", **kwargs)
        declare(self, DoorbellSettings, self._on_settings)
        self._doorbell = Doorbell(self.settings.rules())
        self._labels = Labels(self, self._on_sighting)
        self._publisher = self.create_publisher(DoorbellMsg, "doorbell", LATCHED, qos_overriding_options=OVERRIDABLE)

    # Life cycle -------------------------------------------------------------------------------------------
    def activate(self) -> None:
        """Watch, with no visit remembered."""
        self._doorbell = Doorbell(self.settings.rules())
        self._labels.open()

    def deactivate(self) -> None:
        """Stop watching."""
        self._labels.close()

    def _on_settings(self, _old: DoorbellSettings, new: DoorbellSettings) -> None:
        self._doorbell.rules = new.rules()

    # Labels in, rings out ---------------------------------------------------------------------------------
    def _on_sighting(self, sighting: Sighting) -> None:
        verdict = self._doorbell.see(sighting)
        if verdict.over is not None:
            self.get_logger().info(f"a visit of {verdict.over.last - verdict.over.first:.0f} s is over")
        if verdict.ring is not None:
            self.get_logger().warning(f"ring, visit {verdict.ring.visits}: {verdict.ring.reason}")
            self._publish(verdict.ring)
        self._labels.tell(verdict.suppressed)

    def _publish(self, ring: Ring) -> None:
        stamp = Header(stamp=self.get_clock().now().to_msg(), frame_id=self.get_namespace().strip("/"))
        self._publisher.publish(
            DoorbellMsg(header=stamp, visits=ring.visits, reason=bounded(ring.reason), cause=ring.cause.message)
        )

    def health(self) -> Health:
        """See the base class."""
        visitor = "yes" if self._doorbell.present is not None else "no"
        return self._labels.health(self._doorbell.log, {"visits": self._doorbell.visits, "visitor": visitor})


def main() -> None:
    """Run the doorbell node."""
    run_node(DoorbellNode)
