# SPDX-License-Identifier: Apache-2.0
"""`fleet up --view` adds one process that knows of the whole run."""

from __future__ import annotations

import json

import pytest

from fleet.description import Description
from fleet.errors import FleetError
from fleet.processes import VIEW_NODE


def test_the_view_is_one_more_process_that_knows_the_conditions():
    plain = Description.load("backyard_camera").changed(platform="cortex-a77-200", time_scale=2.0)
    viewed = plain.viewed(8123)
    assert [p.node for p in viewed.processes] == [*(p.node for p in plain.processes), VIEW_NODE]
    view = viewed.process(VIEW_NODE)
    assert (view.package, view.parameters["port"], view.parameters["browser"]) == ("fleet_view_node", 8123, True)
    assert not view.ends_run
    said = json.loads(viewed.parameters_of(view)["conditions"])
    assert (said["platform"], said["time_scale"], said["model"]) == ("cortex-a77-200", 2.0, "backyard")


def test_one_view_serves_all_cameras():
    fleet = Description.load("fleet_of_cameras")
    cameras = list(dict.fromkeys(p.camera for p in fleet.processes if p.camera))
    view = fleet.viewed().process(VIEW_NODE)
    assert cameras
    assert view.parameters["cameras"] == cameras
    assert set(json.loads(fleet.viewed().parameters_of(view)["conditions"])["cameras"]) == set(cameras)


def test_a_view_that_the_description_has_keeps_its_settings(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("/**/view_node:\n  ros__parameters: {port: 9000, host: 0.0.0.0}\n")
    assert Description.load(path).process(VIEW_NODE).parameters == {"port": 9000, "host": "0.0.0.0"}
    viewed = Description.load(path).viewed()
    assert [dict(p.parameters) for p in viewed.processes] == [{"port": 9000, "host": "0.0.0.0", "browser": True}]
    assert Description.load(path).viewed(0).process(VIEW_NODE).parameters["port"] == 0


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_refused(port):
    with pytest.raises(FleetError, match=f"0 to 65535, not {port}"):
        Description.load("backyard_camera").viewed(port)
