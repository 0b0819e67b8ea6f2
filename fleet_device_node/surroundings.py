# SPDX-License-Identifier: Apache-2.0
"""Clock and radio of :mod:`fleet.inference`, made of a ROS node and a condition variable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from fleet.packet import MAX_PAYLOAD, ExitNotice
from fleet.runtime import CancelledError, DeviceNetwork
from fleet_ros.node import ManagedNode


class NodeSurroundings:
    """What the worker thread sees of time and radio; ROS callbacks feed it.

    Args:
        node: whose clock rules.
        network: whose running stage an exit notice cuts short.
        publish: sends one stage's packets towards the bridge.
        interruptible: whether a notice ends a stage in its middle, or is looked at between stages only.
    """

    def __init__(
        self,
        node: ManagedNode,
        network: DeviceNetwork,
        publish: Callable[[int, int, Sequence[bytes]], None],
        *,
        interruptible: bool,
    ) -> None:
        self.payload = MAX_PAYLOAD
        self._node = node
        self._network = network
        self._publish = publish
        self._interruptible = interruptible
        self._condition = threading.Condition()
        self._current: int | None = None
        self._notice: ExitNotice | None = None
        self._closed = False

    def begin(self, inference_id: int) -> None:
        """From now on notices for this inference count."""
        with self._condition:
            self._current, self._notice = inference_id, None

    def hear(self, notice: ExitNotice) -> bool:
        """An exit notice came off the air. Returns whether the running inference is over by it."""
        with self._condition:
            if notice.inference_id != self._current or self._notice is not None:
                return False
            self._notice = notice
            self._condition.notify_all()
            if self._interruptible:
                self._network.cancel()
            return True

    def heard(self, inference_id: int) -> bool:
        """Whether a notice for this inference, the newest, has come."""
        with self._condition:
            return self._notice is not None and self._current == inference_id

    def close(self) -> None:
        """Cut short whatever runs or waits; the worker sees a CancelledError."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            self._network.cancel()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def pause_until(self, time: float) -> None:
        """Wait between frames; returns early when closed."""
        with self._condition:
            while not self._closed and self.now() < time:
                self._node.wait(self._condition, time)

    # fleet.inference.Surroundings -------------------------------------------------------------------------
    def now(self) -> float:
        """See :class:`fleet.inference.Surroundings`."""
        return self._node.seconds()

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """See :class:`fleet.inference.Surroundings`."""
        self._publish(inference_id, stage, packets)

    def wait_until(self, time: float) -> ExitNotice | None:
        """See :class:`fleet.inference.Surroundings`.

        Raises:
            CancelledError: the device closes.
        """
        with self._condition:
            while not self._closed and self.now() < time and (self._notice is None or not self._interruptible):
                self._node.wait(self._condition, time)
            if self._closed and self._notice is None:
                raise CancelledError("the device closes")
            return self._notice
