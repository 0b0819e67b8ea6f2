# SPDX-License-Identifier: Apache-2.0
"""Clock and radio of :mod:`fleet.inference`, made of a ROS node's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fleet.link.parameters import LinkParameters
from fleet.notices import Notices
from fleet.packet import MAX_PAYLOAD
from fleet.runtime import DeviceNetwork
from fleet_ros.node import ManagedNode


class NodeSurroundings(Notices):
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
        super().__init__(network.cancel, node.seconds, node.wait, interruptible=interruptible)
        self.payload = MAX_PAYLOAD
        self.link: LinkParameters | None = None
        self._publish = publish

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """See :class:`fleet.inference.Surroundings`."""
        self._publish(inference_id, stage, packets)
