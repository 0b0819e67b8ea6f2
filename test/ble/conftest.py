# SPDX-License-Identifier: Apache-2.0
"""Worlds with a camera, a hub and a virtual radio between them."""

import time

import pytest
from world import World

DEADLINE = 30.0


@pytest.fixture
def make_world():
    worlds = []

    def make(**air):
        worlds.append(World(**air))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
        # What bumble leaves behind of a request that was refused or broken off is bumble's.
        assert not [error for error in world.errors if "/bumble/" not in repr(error)]


@pytest.fixture
def world(make_world):
    return make_world()


@pytest.fixture
def ros(monkeypatch):
    """A context, an executor, and nodes that are stopped at the end."""
    rclpy = pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
    from rclpy.context import Context  # noqa: PLC0415
    from rclpy.executors import SingleThreadedExecutor  # noqa: PLC0415
    from rclpy.node import Node  # noqa: PLC0415
    from rclpy.parameter import Parameter  # noqa: PLC0415

    from fleet_ble_bridge.node import BridgeNode  # noqa: PLC0415

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = Context()
    rclpy.init(context=context, domain_id=97)
    executor = SingleThreadedExecutor(context=context)
    nodes = []

    class Ros:
        def add(self, node):
            nodes.append(node)
            executor.add_node(node)
            return node

        def bridge(self, namespace, **parameters):
            overrides = [Parameter(name, value=value) for name, value in parameters.items()]
            return self.add(BridgeNode(context=context, namespace=namespace, parameter_overrides=overrides))

        def listener(self):
            return self.add(Node("listener", context=context))

        def until(self, condition, what):
            end = time.monotonic() + DEADLINE
            while not condition():
                assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
                executor.spin_once(timeout_sec=0.05)

    yield Ros()
    for node in nodes:
        if isinstance(node, BridgeNode):
            node.stop()
        node.destroy_node()
    executor.shutdown()
    rclpy.shutdown(context=context)
