# SPDX-License-Identifier: Apache-2.0
"""The shipped descriptions of a hub and a camera with a real radio."""

import pytest

from fleet.description import Description


@pytest.mark.parametrize(
    ("name", "nodes", "transport"),
    [
        ("radio_hub", ["bridge_node", "cloud_node"], "bleak"),
        ("radio_camera", ["bridge_node", "device_node", "monitor_node"], "bumble"),
    ],
)
def test_both_ends_get_the_bundle_that_the_user_names(tiny_bundle, name, nodes, transport):
    description = Description.load(name).changed(model=str(tiny_bundle.path), link=["ci_ms=50"])
    assert [process.node for process in description.processes] == nodes
    bridge = description.process("bridge_node").parameters
    assert (bridge["transport"], bridge["ci_ms"], bridge["model"]) == (transport, 50.0, str(tiny_bundle.path))
