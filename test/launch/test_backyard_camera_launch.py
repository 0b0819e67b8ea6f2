# SPDX-License-Identifier: Apache-2.0
"""`ros2 launch fleet backyard_camera.launch.py` and `fleet up` are the same system."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import typer
import yaml
from launch_files import LaunchFile, context

from fleet.description import Description
from fleet.errors import FleetError
from fleet.processes import Process

NOT_IN_THE_DESCRIPTION = {"config", "namespace", "log_level"}
NO_WORDS: dict[str, str] = {}
ALL_WORDS = {
    "namespace": "yard7",
    "source": "0",  # a camera: must stay text
    "model": "small",
    "platform": "native",
    "time_scale": "0.5",
    "frame_rate": "3",
    "link": "ci_ms=1000 packets=1 phy=2M",
    "duration": "6",
    "json": "numbers.json",
    "behaviours": "alarm doorbell",
    "log_level": "info",
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, whatever models there are, and without a user's own settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fleet.description.find_model", lambda name: Path(str(name)).absolute())
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def yard(launch_file: Callable[[str], LaunchFile]) -> LaunchFile:
    return launch_file("backyard_camera")


@pytest.fixture
def fleet_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], dict[str, SimpleNamespace]]:
    """What `fleet up` starts for the arguments of a launch, process by process, without starting it."""
    module = importlib.import_module("fleet.commands.up")
    started: dict[str, SimpleNamespace] = {}

    class Recorder:
        def __init__(self, commands: list[Any], *, environment: Mapping[str, str], **_: Any) -> None:
            for command in commands:
                options = dict(zip(command.argv[4::2], command.argv[5::2], strict=True))
                parameters = yaml.safe_load(Path(options["--params-file"]).read_text())
                started[command.name] = SimpleNamespace(argv=command.argv, parameters=parameters, options=options)
                started[command.name].environment = environment

        def run(self) -> int:
            return 0

    def call(words: Mapping[str, str]) -> dict[str, SimpleNamespace]:
        options: dict[str, Any] = dict(words)
        for name in ("time_scale", "frame_rate", "duration"):
            if name in options:
                options[name] = float(options[name])
        for name in ("link", "behaviours"):
            options[name] = options.get(name, "").split()
        with pytest.raises(typer.Exit):
            module.up(**options)
        return started

    monkeypatch.setattr(module, "Supervisor", Recorder)
    monkeypatch.setattr(module, "find_spec", lambda _name: object())
    return call


# The two ways to start ------------------------------------------------------------------------------------------


def test_every_argument_of_a_launch_can_change_the_description_and_the_other_way_round(yard: LaunchFile):
    of_changed = set(inspect.signature(Description.changed).parameters) - {"self"}
    assert set(yard.arguments) - NOT_IN_THE_DESCRIPTION == of_changed


def test_fleet_up_has_the_same_arguments(yard: LaunchFile):
    of_up = inspect.signature(importlib.import_module("fleet.commands.up").up).parameters
    assert set(yard.arguments) - {"config"} <= set(of_up) - {"words", "only"}
    for name in ("namespace", "log_level"):
        assert yard.arguments[name][0] == of_up[name].default


def test_without_arguments_everything_is_as_in_the_description(launching: ModuleType, yard: LaunchFile):
    described = launching.described(yard.words())
    assert described.processes == Description.load("backyard_camera").changed().processes


@pytest.mark.parametrize("words", [NO_WORDS, ALL_WORDS], ids=["no arguments", "every argument"])
def test_both_start_the_same_processes_with_the_same_parameters(
    yard: LaunchFile,
    fleet_up: Callable[[Mapping[str, str]], dict[str, SimpleNamespace]],
    words: dict[str, str],
):
    nodes = {node["name"]: node for node in yard.start(**words)}
    expected = fleet_up(words)
    assert list(nodes) == list(expected)
    for name, node in nodes.items():
        (file,) = node["parameters"]
        assert yaml.safe_load(Path(file).read_text()) == expected[name].parameters
        assert f"__ns:=/{node['namespace']}" == expected[name].options["-r"]
        assert node["ros_arguments"] == ["--log-level", expected[name].options["--log-level"]]
        assert [node["executable"], *node["arguments"]] == list(expected[name].argv[:3])
        assert node["additional_env"].items() <= expected[name].environment.items()


def test_arguments_arrive_as_parameters_of_the_right_type(yard: LaunchFile, tmp_path: Path):
    node, *_ = yard.start(**ALL_WORDS)
    content = yaml.safe_load(Path(node["parameters"][0]).read_text())
    parameters = {key.rsplit("/", 1)[-1]: value["ros__parameters"] for key, value in content.items()}
    device, bridge, monitor = (parameters[f"{name}_node"] for name in ("device", "bridge", "monitor"))
    assert (device["source"], device["time_scale"], device["frame_rate"]) == ("0", 0.5, 3.0)
    assert (bridge["ci_ms"], bridge["packets"], bridge["phy"]) == (1000.0, 1, "2M")
    assert (monitor["duration"], monitor["json"]) == (6.0, str(tmp_path / "numbers.json"))
    assert device["model"] == parameters["cloud_node"]["model"] == str(tmp_path / "small")


def test_what_the_user_has_set_in_the_environment_stays(yard: LaunchFile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    for node in yard.start():
        assert node["additional_env"]["OMP_NUM_THREADS"] == "3"


def test_nodes_are_the_executables_of_the_workspace_where_it_has_them(
    launching: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    folder = tmp_path / "lib" / "fleet"
    folder.mkdir(parents=True)
    (folder / "cloud_node").touch()
    monkeypatch.setattr(launching, "get_package_prefix", lambda _package: str(tmp_path))
    assert launching.program(Process("cloud_node", "fleet_cloud_node", {})) == {
        "package": "fleet",
        "executable": "cloud_node",
    }
    # A wheel registers the package and has no such folder.
    (folder / "cloud_node").unlink()
    assert launching.program(Process("cloud_node", "fleet_cloud_node", {})) == {
        "executable": sys.executable,
        "arguments": ["-m", "fleet_cloud_node"],
    }


def test_a_prefix_that_the_user_asks_for_is_not_replaced(launching: ModuleType):
    assert launching.prefix(context(**{"launch-prefix": "gdb --args"})) is None
    assert launching.prefix(context()) in ("env --block-signal=INT", None)


@pytest.mark.parametrize(
    ("argument", "value", "named"),
    [
        ("platform", "z80", "z80"),
        ("link", "ci_ms=5", "5 ms"),
        ("link", "colour=blue", "colour"),
        ("link", "fast", "fast"),
        ("duration", "long", "duration is a number, not 'long'"),
        ("duration", "-1", "-1"),
        ("time_scale", "nan", "nan"),
        ("json", "nowhere/numbers.json", "nowhere"),
        ("config", "frontyard", "frontyard"),
        ("namespace", "7up", "7up"),
        ("namespace", "a//b", "'a//b'"),
        ("behaviours", "siren", "no behaviour 'siren'"),
        ("log_level", "loud", "loud"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(yard: LaunchFile, argument: str, value: str, named: str):
    with pytest.raises(FleetError, match=named) as caught:
        yard.start(**{argument: value})
    assert "\n" not in str(caught.value)


# What the end of a process means --------------------------------------------------------------------------------

ALL = DEVICE, CLOUD, BRIDGE, MONITOR = tuple(
    Process(name, "", {}) for name in ("device_node", "cloud_node", "bridge_node", "monitor_node")
)
TWO = tuple(Process("device_node", "", {}, camera=name) for name in ("porch", "gate"))


def ended(code: int) -> SimpleNamespace:
    return SimpleNamespace(returncode=code)


@pytest.mark.parametrize("process", [DEVICE, MONITOR])
def test_a_run_is_over_when_device_or_monitor_has_done_its_work(launching: ModuleType, process: Process):
    (timer,) = launching.Run(ALL).ended(process, ended(0), context())
    (shutdown,) = timer.options["actions"]
    assert type(shutdown).__name__ == "Shutdown"
    assert process.node in shutdown.options["reason"]


@pytest.mark.parametrize(("process", "code"), [(DEVICE, 1), (MONITOR, -signal.SIGKILL), (CLOUD, 2), (BRIDGE, 2)])
def test_a_run_fails_at_once_where_nothing_can_go_on(launching: ModuleType, process: Process, code: int):
    with pytest.raises(FleetError, match=f"^{process.node} died"):
        launching.Run(ALL).ended(process, ended(code), context())


@pytest.mark.parametrize("process", [CLOUD, BRIDGE])
def test_the_others_go_on_without_hub_or_radio_and_the_run_fails_in_the_end(launching: ModuleType, process: Process):
    run = launching.Run(ALL)
    assert run.ended(process, ended(-signal.SIGKILL), context()) is None
    assert run.ended(DEVICE, ended(0), context()) is not None  # its last reports are waited for all the same
    with pytest.raises(FleetError, match=rf"^{process.node} died \(SIGKILL\)$"):
        run.ended(MONITOR, ended(0), context(is_shutdown=True))


def test_the_last_process_to_die_fails_the_run_even_if_nothing_depends_on_it(launching: ModuleType):
    with pytest.raises(FleetError, match="cloud_node died"):
        launching.Run([CLOUD]).ended(CLOUD, ended(1), context())


@pytest.mark.parametrize("code", [0, -signal.SIGINT, -signal.SIGTERM])
def test_a_process_that_was_told_to_stop_has_not_died(launching: ModuleType, code: int):
    run = launching.Run(ALL)
    for process in ALL:
        assert run.ended(process, ended(code), context(is_shutdown=True)) is None


def test_of_several_cameras_the_last_to_end_ends_the_run(launching: ModuleType):
    run = launching.Run([*TWO, CLOUD, MONITOR])
    assert run.ended(TWO[0], ended(0), context()) is None
    assert run.ended(TWO[1], ended(0), context()) is not None


def test_of_several_cameras_one_may_die_and_the_others_go_on(launching: ModuleType):
    run = launching.Run([*TWO, CLOUD, MONITOR])
    assert run.ended(TWO[0], ended(-signal.SIGKILL), context()) is None
    assert run.ended(TWO[1], ended(0), context()) is not None
    with pytest.raises(FleetError, match=r"^porch.device_node died \(SIGKILL\)$"):
        run.ended(MONITOR, ended(0), context(is_shutdown=True))


def test_a_process_that_had_to_be_killed_has(launching: ModuleType):
    with pytest.raises(FleetError, match="SIGKILL"):
        launching.Run(ALL).ended(BRIDGE, ended(-signal.SIGKILL), context(is_shutdown=True))


# The real thing -------------------------------------------------------------------------------------------------


class Parameters:
    """Asks running nodes for their parameters."""

    def __init__(self, namespace: str) -> None:
        import rclpy  # noqa: PLC0415 - only where ROS is
        from rclpy.context import Context  # noqa: PLC0415
        from rclpy.executors import SingleThreadedExecutor  # noqa: PLC0415

        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("asking", namespace=namespace, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def of(self, node: str, *names: str) -> dict[str, Any]:
        from rcl_interfaces.srv import GetParameters  # noqa: PLC0415
        from rclpy.parameter import parameter_value_to_python  # noqa: PLC0415

        client = self.node.create_client(GetParameters, f"{node}/get_parameters")
        assert client.wait_for_service(timeout_sec=30.0), f"{node} is not there: {self.node.get_node_names()}"
        future = client.call_async(GetParameters.Request(names=list(names)))
        self.executor.spin_until_future_complete(future, timeout_sec=30.0)
        answer = future.result()
        assert answer is not None, f"{node} does not answer"
        return dict(zip(names, map(parameter_value_to_python, answer.values), strict=True))

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def fast(ros_launch: Callable[..., Any], request: pytest.FixtureRequest) -> dict[str, str]:
    """Arguments that make for a small and quiet system in a namespace of its own."""
    tiny_bundle = request.getfixturevalue("tiny_bundle")  # takes seconds, and only where there is a launch to run
    return {
        "namespace": f"yard{os.getpid()}",
        "model": str(tiny_bundle.path),
        "source": "photos",
        "platform": "native",
        "frame_rate": "5",
    }


A_FRAME = r"^\[monitor_node-\d+\] +\d+ .* packets .* ms"


@pytest.mark.ros
def test_ros2_launch_starts_the_described_nodes_and_ends_with_the_duration(
    ros_launch: Callable[..., Any], fast: dict[str, str], tmp_path: Path
):
    numbers = tmp_path / "numbers.json"
    launched = ros_launch(**fast, duration="4", json=str(numbers), link="ci_ms=1000 packets=1")
    launched.wait_for(A_FRAME)
    parameters = Parameters(fast["namespace"])
    try:
        assert parameters.of("bridge_node", "ci_ms", "packets", "phy") == {"ci_ms": 1000.0, "packets": 1, "phy": "1M"}
        assert parameters.of("device_node", "source", "platform", "frame_rate", "model") == {
            "source": "photos",
            "platform": "native",
            "frame_rate": 5.0,
            "model": fast["model"],
        }
        assert parameters.of("cloud_node", "model") == {"model": fast["model"]}
        assert parameters.of("monitor_node", "duration", "json") == {"duration": 4.0, "json": str(numbers)}
    finally:
        parameters.close()
    assert launched.finish() == 0, launched.output
    assert not launched.errors
    assert list(launched.pids) == [process.node for process in Description.load("backyard_camera").processes]
    assert not launched.left_over()
    assert json.loads(numbers.read_text())["conditions"]["link"]["ci_ms"] == 1000.0


@pytest.mark.ros
def test_ctrl_c_stops_a_launch_within_three_seconds_and_without_a_word_too_many(
    ros_launch: Callable[..., Any], fast: dict[str, str]
):
    launched = ros_launch(**fast)
    launched.wait_for(A_FRAME)
    assert launched.interrupt() < 3.0
    assert launched.process.returncode == 0, launched.output
    assert "Traceback" not in launched.output
    assert not launched.errors
    assert not launched.left_over()


@pytest.mark.ros
def test_a_launch_goes_on_without_its_hub_and_fails_in_the_end(ros_launch: Callable[..., Any], fast: dict[str, str]):
    launched = ros_launch(**fast)
    launched.wait_for(A_FRAME)
    launched.kill("cloud_node")
    launched.wait_for(r"^\[ERROR\] \[cloud_node-\d+\]: process has died")
    launched.wait_for_lines(len(launched.lines) + 5)
    assert launched.interrupt() < 3.0
    assert launched.process.returncode == 1
    assert launched.errors[-1].endswith("cloud_node died (SIGKILL)")
    assert not launched.left_over()


@pytest.mark.ros
def test_a_launch_fails_when_its_camera_dies(ros_launch: Callable[..., Any], fast: dict[str, str]):
    launched = ros_launch(**fast)
    launched.wait_for(A_FRAME)
    launched.kill("device_node")
    assert launched.finish() == 1
    assert launched.errors[-1].endswith("device_node died (SIGKILL)")
    assert not launched.left_over()


@pytest.mark.ros
@pytest.mark.parametrize(
    ("words", "named"),
    [({"platform": "z80"}, "z80"), ({"link": "ci_ms=5"}, "5 ms"), ({"duration": "long"}, "'long'")],
)
def test_a_launch_with_a_wrong_argument_says_so_in_one_line(
    ros_launch: Callable[..., Any], fast: dict[str, str], words: dict[str, str], named: str
):
    launched = ros_launch(**{**fast, **words})
    assert launched.finish() == 1
    assert not launched.pids
    (error,) = launched.errors
    assert named in error
    assert "Traceback" not in launched.output
