# SPDX-License-Identifier: Apache-2.0
"""The other launch files: a camera and a hub on two machines, and many cameras at one hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from launch_files import ROOT, LaunchFile

from fleet.errors import FleetError
from fleet.processes import EXECUTABLES

FILES = sorted(path.name.removesuffix(".launch.py") for path in (ROOT / "launch").glob("*.launch.py"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, whatever models there are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fleet.description.find_model", lambda name: Path(str(name)).absolute())


def names(nodes: list[dict[str, Any]]) -> list[str]:
    return [f"/{node['namespace']}/{node['name']}" for node in nodes]


def parameters_of(nodes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    content = yaml.safe_load(Path(nodes[0]["parameters"][0]).read_text())
    return {key.removeprefix("/**/"): entry["ros__parameters"] for key, entry in content.items()}


def test_there_are_four():
    assert FILES == ["backyard_camera", "camera", "fleet_of_cameras", "hub"]


@pytest.mark.parametrize("file", FILES)
def test_every_argument_has_a_meaning_and_the_defaults_can_be(launch_file: Callable[[str], LaunchFile], file: str):
    launch = launch_file(file)
    assert {"config", "namespace", "model", "log_level"} <= set(launch.arguments)
    assert all(len(meaning) > 10 for _, meaning in launch.arguments.values())
    nodes = launch.start()
    assert {node["name"] for node in nodes} <= set(EXECUTABLES)
    assert len({node["exec_name"] for node in nodes}) == len(nodes)


# Two machines ---------------------------------------------------------------------------------------------------


def test_a_real_radio_joins_two_machines_and_no_topic_of_one_is_a_topic_of_the_other(
    launch_file: Callable[[str], LaunchFile],
):
    camera, hub = launch_file("camera").start(), launch_file("hub").start()
    assert names(camera) == [f"/backyard_camera/{node}_node" for node in ("bridge", "device", "monitor")]
    assert names(hub) == [f"/backyard/{node}_node" for node in ("bridge", "cloud", "alarm", "doorbell")]
    transports = [parameters_of(nodes)["bridge_node"]["transport"] for nodes in (camera, hub)]
    assert transports == ["bumble", "bleak"]


def test_the_emulated_radio_is_the_camera_s_and_both_machines_share_one_namespace(
    launch_file: Callable[[str], LaunchFile],
):
    camera = launch_file("camera").start(config="emulated_camera", link="ci_ms=50")
    hub = launch_file("hub").start(config="emulated_hub", behaviours="")
    assert names(camera) == ["/backyard/bridge_node", "/backyard/device_node"]
    assert names(hub) == ["/backyard/cloud_node", "/backyard/monitor_node"]
    assert parameters_of(camera)["bridge_node"]["ci_ms"] == 50.0


def test_a_namespace_that_the_user_names_holds_for_either_form(launch_file: Callable[[str], LaunchFile]):
    for config in ("radio_camera", "emulated_camera"):
        nodes = launch_file("camera").start(config=config, namespace="yard7")
        assert {node["namespace"] for node in nodes} == {"yard7"}


def test_both_machines_get_the_bundle_that_the_user_names(launch_file: Callable[[str], LaunchFile], tmp_path: Path):
    for file, nodes in (("camera", ("bridge", "device")), ("hub", ("bridge", "cloud"))):
        parameters = parameters_of(launch_file(file).start(model="mine"))
        assert {parameters[f"{node}_node"]["model"] for node in nodes} == {str(tmp_path / "mine")}


# Many cameras ---------------------------------------------------------------------------------------------------


def test_each_camera_has_a_namespace_and_a_source_and_there_is_one_hub(launch_file: Callable[[str], LaunchFile]):
    nodes = launch_file("fleet_of_cameras").start(cameras="porch=photos gate=0 'drive=my film.mp4'", behaviours="alarm")
    per_camera = [f"/backyard/{c}/{n}_node" for n in ("bridge", "device", "alarm") for c in ("porch", "gate", "drive")]
    assert sorted(names(nodes)) == sorted([*per_camera, "/backyard/cloud_node", "/backyard/monitor_node"])
    parameters = parameters_of(nodes)
    sources = {c: parameters[f"{c}/device_node"]["source"] for c in ("porch", "gate", "drive")}
    assert sources == {"porch": "photos", "gate": "0", "drive": "my film.mp4"}
    assert parameters["cloud_node"]["cameras"] == parameters["monitor_node"]["cameras"]
    assert set(parameters["cloud_node"]["cameras"]) == set(sources)


def test_without_cameras_of_the_user_s_the_file_s_are_taken(launch_file: Callable[[str], LaunchFile]):
    nodes = launch_file("fleet_of_cameras").start(namespace="yard")
    assert {"/yard/porch/device_node", "/yard/gate/device_node", "/yard/cloud_node"} <= set(names(nodes))


@pytest.mark.parametrize(
    ("cameras", "named"),
    [
        ("porch", "NAME=SOURCE, not 'porch'"),
        ("=photos", "NAME=SOURCE, not '=photos'"),
        ("porch=", "NAME=SOURCE, not 'porch='"),
        ("porch=0 porch=1", "every camera once, not porch, porch"),
        ("front-porch=0", "'front-porch' is no camera's name"),
        ("porch='0", "No closing quotation"),
    ],
)
def test_cameras_that_cannot_be_are_one_line(launching: ModuleType, launch_file: Any, cameras: str, named: str):
    with pytest.raises(FleetError, match=named) as caught:
        launch_file("fleet_of_cameras").start(cameras=cameras)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "words", "named"),
    [
        ("hub", {"behaviours": "siren"}, "no behaviour 'siren'"),
        ("hub", {"duration": "5"}, "has no monitor_node"),
        ("camera", {"link": "ci_ms=5"}, "5 ms"),
        ("camera", {"config": "emulated_camera", "json": "numbers.json"}, "has no monitor_node"),
        ("camera", {"platform": "z80"}, "z80"),
    ],
)
def test_a_wrong_argument_is_one_line(
    launch_file: Callable[[str], LaunchFile], file: str, words: dict[str, str], named: str
):
    with pytest.raises(FleetError, match=named) as caught:
        launch_file(file).start(**words)
    assert "\n" not in str(caught.value)


# The real thing -------------------------------------------------------------------------------------------------


@pytest.fixture
def model(ros_launch: Callable[..., Any], request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("tiny_bundle").path)  # takes seconds, and only where there is a launch to run


@pytest.mark.ros
def test_ros2_launch_runs_two_cameras_at_one_hub(ros_launch: Callable[..., Any], model: str):
    launched = ros_launch(
        "fleet_of_cameras",
        namespace=f"yard{os.getpid()}",
        cameras="porch=photos gate=photos",
        model=model,
        platform="native",
        duration="3",
        behaviours="alarm",
    )
    for camera in ("porch", "gate"):
        launched.wait_for(rf"^\[monitor_node-\d+\] {camera} +\d+ .* ms")
    assert launched.finish() == 0, launched.output
    assert not launched.errors
    assert {"porch.device_node", "gate.device_node", "cloud_node", "gate.alarm_node"} <= set(launched.pids)
    assert not launched.left_over()


@pytest.mark.ros
def test_ros2_launch_joins_a_camera_and_a_hub_that_were_launched_apart(ros_launch: Callable[..., Any], model: str):
    common = {"namespace": f"yard{os.getpid()}", "model": model}
    hub = ros_launch("hub", config="emulated_hub", duration="3", **common)
    # The tiny network is quick: slowed down, a frame spans several connection events.
    pace = {"platform": "cortex-a77-500", "time_scale": "4", "frame_rate": "5", "link": "ci_ms=10"}
    camera = ros_launch("camera", config="emulated_camera", source="photos", **pace, **common)
    hub.wait_for(r"^\[monitor_node-\d+\] +\d+ .* exit \d .* ms")
    assert hub.finish() == 0, hub.output
    assert camera.interrupt() < 3.0
    assert camera.process.returncode == 0, camera.output
    for launched in (hub, camera):
        assert not launched.errors, launched.output
        assert not launched.left_over()


@pytest.mark.ros
def test_ros2_launch_of_a_camera_without_its_radio_fails_in_one_line(ros_launch: Callable[..., Any], model: str):
    pytest.importorskip("bumble", reason="no bumble: the camera's half of the radio is not installed")
    launched = ros_launch("camera", source="photos", model=model)
    assert launched.finish() == 1
    assert launched.errors[-1].endswith("bridge_node died (exit code 2)")
    assert "Traceback" not in launched.output
    assert not launched.left_over()
