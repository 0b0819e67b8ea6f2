# SPDX-License-Identifier: Apache-2.0
"""The bag node: writes what it hears of the cameras into a bag, as it came."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage

from fleet.bags import definitions as of
from fleet.bags.definitions import OF_ALL, TOPICS, full_name, place_of
from fleet.bags.writer import BagWriter, Storage, check_storage
from fleet.errors import FleetError
from fleet_msgs.msg import (
    ExitDecision,
    FeaturePacket,
    InferenceReport,
    Label,
    LinkParameters,
    LinkReport,
    StageFeatures,
)
from fleet_ros.diagnostics import Diagnostics, Health
from fleet_ros.node import main as run_node
from fleet_ros.settings import declare, setting

LOOK_S = 0.1
DEPTH = 1000  # messages that wait while the disk is slow
MESSAGES: dict[str, Any] = {
    of.IMAGE: CompressedImage,
    of.LABEL: Label,
    of.INFERENCE: InferenceReport,
    of.EXIT: ExitDecision,
    of.LINK_EXIT: ExitDecision,
    of.FEATURES: StageFeatures,
    of.PACKETS: FeaturePacket,
    of.LINK: LinkParameters,
    of.REPORT: LinkReport,
    of.DIAGNOSTICS: DiagnosticArray,
}
"""What :data:`fleet.bags.definitions.TOPICS` names."""


@dataclasses.dataclass(frozen=True)
class BagSettings:
    """Parameters of the bag node."""

    output: str = setting("bag", "directory of the bag; must not be there yet", read_only=True)
    storage: str = setting("mcap", "mcap or sqlite3", read_only=True)
    cameras: tuple[str, ...] = setting(
        ("",), "namespaces of the cameras; an empty name: every camera that is heard", read_only=True
    )
    duration: float = setting(
        0.0, "seconds from the first message until this node ends; 0: never", read_only=True, within=(0.0, 1e9)
    )
    images: bool = setting(True, "record pictures; the camera encodes them for that", read_only=True)
    features: bool = setting(False, "record all features, not only what the radio carried", read_only=True)

    def __post_init__(self) -> None:
        """Check what a type cannot say.

        Raises:
            FleetError: an unknown storage, or an output that is there already.
        """
        check_storage(self.storage)
        if Path(self.output).exists():
            raise FleetError(f"{self.output} exists already: give another output")

    @property
    def names(self) -> set[str]:
        """Topics of a camera that are recorded."""
        left_out = {name for name, wanted in ((of.IMAGE, self.images), (of.FEATURES, self.features)) if not wanted}
        return set(TOPICS) - left_out


class BagNode(Node):  # type: ignore[misc]
    """Looks for topics, subscribes to them without decoding anything, and writes."""

    settings: BagSettings

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("bag_node", **kwargs)
        declare(self, BagSettings)
        self.finished = threading.Event()
        self.problem: str | None = None
        self._writer: BagWriter | None = None
        self._stopped = False
        self._first_ns: int | None = None
        self._known: set[tuple[str, str]] = set()
        self._diagnostics = Diagnostics(self, "bag", self.health)
        self.create_timer(LOOK_S, self._look)
        self.create_timer(0.05, self._on_tick)
        # Not here: a node that says it records must already be one that Ctrl-C ends in order.
        self._at_once = self.create_timer(0.001, self._look_at_once)

    def _look_at_once(self) -> None:
        self._at_once.cancel()
        self._look()

    def _look(self) -> None:
        """Subscribe to what has come since the last time."""
        if set(self.settings.cameras) != {""}:
            for camera in self.settings.cameras:
                for name in self.settings.names:
                    self._subscribe(camera, name)
        for topic, types in self.get_topic_names_and_types():
            for msgtype in types:
                place = place_of(topic, msgtype)
                if place is not None and self._wanted(*place) and self.count_publishers(topic):
                    self._subscribe(*place)

    def _wanted(self, camera: str, name: str) -> bool:
        if not camera:
            return name in OF_ALL
        return name in self.settings.names and ("" in self.settings.cameras or camera in self.settings.cameras)

    def _subscribe(self, camera: str, name: str) -> None:
        if (camera, name) in self._known:
            return
        self._known.add((camera, name))
        topic = of.ALL[name]
        qos = QoSProfile(
            depth=DEPTH,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE,
        )
        self.create_subscription(MESSAGES[name], full_name(camera, name), self._writes(camera, name), qos, raw=True)
        if camera:
            self.get_logger().info(f"recording {full_name(camera, name)}")

    def _writes(self, camera: str, name: str) -> Callable[[bytes], None]:
        def write(data: bytes) -> None:
            # Nothing is left behind where no camera was heard: others have diagnostics too.
            if self._stopped or (self._writer is None and not camera):
                return
            now = self.get_clock().now().nanoseconds
            try:
                if self._writer is None:
                    self._first_ns = now
                    self._writer = BagWriter(Path(self.settings.output), self._storage)
                self._writer.write(camera, name, now, data)
            except FleetError as err:
                self.problem = str(err)
                self._stopped = True
                self.finished.set()

        return write

    @property
    def _storage(self) -> Storage:
        return check_storage(self.settings.storage)

    def _on_tick(self) -> None:
        duration = self.settings.duration
        if duration > 0 and self._first_ns is not None:
            elapsed = self.get_clock().now().nanoseconds - self._first_ns
            if elapsed >= duration * 1e9:
                self.finished.set()

    def health(self) -> Health:
        """Level, line and values for diagnostics."""
        writer = self._writer
        values: dict[str, object] = {"topics": len(self._known), "messages": writer.count if writer is not None else 0}
        if writer is None:
            return DiagnosticStatus.WARN, "no camera was heard yet", values
        return DiagnosticStatus.OK, f"recording into {self.settings.output}", values

    def stop(self) -> None:
        """End the bag.

        Raises:
            FleetError: it cannot be written to its end, or there was nothing to write.
        """
        self._stopped = True
        writer, self._writer = self._writer, None
        if writer is not None:
            count = writer.count
            try:
                writer.close()
            except FleetError:
                if self.problem is None:  # otherwise the disk was full before, and that was said
                    raise
                return
            if self.problem is None:
                self.get_logger().info(f"{count} messages in {self.settings.output}")
        if self._first_ns is None and self.problem is None:
            cameras = ", ".join(filter(None, self.settings.cameras)) or "any camera"
            raise FleetError(f"nothing was heard of {cameras}: does the system run, and in the same ROS_DOMAIN_ID?")


def main() -> None:
    """Run the bag node."""
    run_node(BagNode)
