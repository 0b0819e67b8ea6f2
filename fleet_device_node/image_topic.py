# SPDX-License-Identifier: Apache-2.0
"""A ROS image topic as a source of frames; it keeps the newest picture only."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from fleet.errors import FleetError
from fleet.sources import Frame, SourceTimeout

PREFIX = "ros:"
_CHANNELS = {"mono8": 1, "8UC1": 1, "bgr8": 3, "8UC3": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4}


class ImageTopic:
    """Subscribes to ``sensor_msgs/Image``, or to ``CompressedImage`` where the topic ends in ``/compressed``.

    Args:
        node: that subscribes.
        spec: ``ros:`` and a topic name.

    Raises:
        FleetError: no topic name.
    """

    live = True

    def __init__(self, node: Node, spec: str) -> None:
        topic = spec.removeprefix(PREFIX)
        if not topic:
            raise FleetError("a ROS source is ros: and a topic, for example ros:/camera/image_raw")
        self.description = f"ROS topic {topic}"
        self.header = Header()
        self.skipped = 0
        self._condition = threading.Condition()
        self._newest: tuple[Frame, Header] | None = None
        self._closed = False
        self._node = node
        kind: Any = CompressedImage if topic.endswith("/compressed") else Image
        try:
            self._subscription = node.create_subscription(kind, topic, self._on_image, qos_profile_sensor_data)
        except Exception as err:  # rclpy has a class for each way a name can be wrong
            raise FleetError(f"'{topic}' is not a topic name: {str(err).splitlines()[0]}") from err

    def _on_image(self, msg: Image | CompressedImage) -> None:
        try:
            picture = decode_compressed(msg) if isinstance(msg, CompressedImage) else decode_image(msg)
        except FleetError as err:
            self.skipped += 1
            self._node.get_logger().warning(f"{self.description}: {err}", throttle_duration_sec=5.0)
            return
        stamp = msg.header.stamp.sec + msg.header.stamp.nanosec * 1e-9
        with self._condition:
            self._newest = Frame(picture, "", None, stamp), msg.header
            self._condition.notify_all()

    def read(self, timeout: float | None = None) -> Frame | None:
        """The newest picture that was not read before; see :class:`fleet.sources.Source`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            while self._newest is None and not self._closed:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise SourceTimeout(f"{self.description}: no picture for {timeout:g} s")
                self._condition.wait(left)
            if self._newest is None:
                return None
            (frame, self.header), self._newest = self._newest, None
            return frame

    def close(self) -> None:
        """Unsubscribe; a waiting read returns None."""
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._condition.notify_all()
        self._node.destroy_subscription(self._subscription)

    def __enter__(self) -> ImageTopic:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def decode_image(msg: Image) -> np.ndarray:
    """RGB, shape (H, W, 3), of a raw image message.

    Raises:
        FleetError: an encoding that is not 8-bit grey or colour, or a size that does not fit the data.
    """
    channels = _CHANNELS.get(msg.encoding)
    if channels is None:
        raise FleetError(f"encoding {msg.encoding!r} is not one of {', '.join(_CHANNELS)}")
    data = np.frombuffer(bytes(msg.data), dtype=np.uint8)
    width = msg.width * channels
    if not msg.height or not msg.width or msg.step < width or len(data) < msg.height * msg.step:
        raise FleetError(f"{len(data)} bytes are not a picture of {msg.width}x{msg.height}")
    rows = data[: msg.height * msg.step].reshape(msg.height, msg.step)[:, :width]
    picture = rows.reshape(msg.height, msg.width, channels)
    if channels == 1:
        return np.repeat(picture, 3, axis=2)
    return np.ascontiguousarray(picture[..., [0, 1, 2] if msg.encoding.startswith("rgb") else [2, 1, 0]])


def decode_compressed(msg: CompressedImage) -> np.ndarray:
    """RGB, shape (H, W, 3), of a compressed image message.

    Raises:
        FleetError: it does not decode.
    """
    data = np.frombuffer(bytes(msg.data), dtype=np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise FleetError(f"{len(data)} bytes of format {msg.format!r} do not decode")
    return np.ascontiguousarray(picture[..., ::-1])
