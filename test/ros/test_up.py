# SPDX-License-Identifier: Apache-2.0
"""The whole stack as its users meet it: ``fleet up`` and its topics."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from fleet.packet import LocalAnswer
from fleet_msgs.msg import ExitDecision, FeaturePacket, InferenceReport, Label, LinkParameters, LinkReport
from fleet_msgs.srv import Renegotiate

pytestmark = pytest.mark.ros
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def frames_of(path: Path) -> list[dict]:
    return json.loads(path.read_text())["frames"]


def test_every_picture_of_a_tar_is_answered_and_the_run_ends_by_itself(fleet_up, picture_tar, tmp_path):
    out = tmp_path / "out.json"
    stack = fleet_up("--source", str(picture_tar(12, {"vehicle/broken.jpg": b"no picture"})), "--json", str(out))
    assert stack.finish() == 0, stack.output
    result = json.loads(out.read_text())
    frames = result["frames"]
    assert [f["name"] for f in frames] == [f"vehicle/{k:04d}.png" for k in range(12)]
    assert all(f["truth"] == "vehicle" and f["label"] in ("vehicle", "pet", "animal", "none") for f in frames)
    assert all(f["stages_run"] >= 1 and f["packets"] is not None and f["bytes"] is not None for f in frames)
    # The last stage's ladder is complete long before the device has run the rest of its network.
    assert sum(f["source"] == "hub" and f["packets"] > 0 for f in frames) >= 6, frames
    assert sum("vehicle/broken.jpg" in line for line in stack.lines) == 1, stack.output
    assert "Traceback" not in stack.output
    assert result["summary"]["frames"] == 12
    assert result["conditions"]["link"]["ci_ms"] == 10.0


def test_a_slow_link_carries_one_packet_an_event_and_never_slows_the_device(fleet_up, listener, picture_tar, tmp_path):
    packets = listener.listen(FeaturePacket, "link/packets", 1000)
    rates = []
    for ci_ms, seconds in ((7.5, 4), (1000, 6)):
        out = tmp_path / f"{ci_ms}.json"
        packets.clear()
        stack = fleet_up(
            *("--source", "photos", "--duration", str(seconds), "--json", str(out)),
            *("--link", f"ci_ms={ci_ms}", "packets=1"),
        )
        listener.spin_until(lambda s=stack: s.process.poll() is not None, "the end of the run")
        assert stack.finish() == 0, stack.output
        rates.append(json.loads(out.read_text())["summary"]["frames_per_second"])
    # The run is some seconds longer than its frames: count the packets against their own span.
    span = packets[-1][0] - packets[0][0]
    assert 3 <= len(packets) <= span / 1.0 + 1.5, (len(packets), span)
    assert min(b - a for (a, _), (b, _) in itertools.pairwise(packets)) > 0.9
    assert rates[1] > 0.9 * rates[0], rates


def test_a_killed_hub_is_named_and_the_device_goes_on_until_another_comes(fleet_up, listener):
    labels = listener.listen(Label, "label")
    stack = fleet_up("--source", "photos", "--duration", "0")
    listener.spin_until(lambda: any(m.source == Label.HUB for _, m in labels), "a label from the hub")

    stack.node_process("fleet_cloud_node").kill()
    stack.wait_for_line(lambda line: "cloud_node died (SIGKILL)" in line)
    labels.clear()
    listener.spin_until(lambda: sum(m.source == Label.DEVICE for _, m in labels) >= 5, "the device's own answers")
    assert psutil.pid_exists(stack.node_process("fleet_device_node").pid)
    assert psutil.pid_exists(stack.node_process("fleet_ble_bridge").pid)

    fleet_up("--only", "cloud_node")
    listener.spin_until(lambda: listener.is_active("cloud_node"), "an active hub")
    labels.clear()
    listener.spin_until(lambda: any(m.source == Label.HUB for _, m in labels), "labels from the new hub", 5.0)

    assert stack.interrupt() < 3.5
    assert stack.process.returncode == 1, stack.output  # a node had died: the run has failed
    assert "Traceback" not in stack.output


def test_ctrl_c_stops_everything_without_traceback_or_orphan(fleet_up):
    stack = fleet_up("--source", "photos")
    stack.wait_for_line(lambda line: " packets " in line)
    children = psutil.Process(stack.process.pid).children(recursive=True)
    assert len(children) == 4
    assert stack.interrupt() < 3.5
    assert stack.process.returncode == 0
    assert "Traceback" not in stack.output
    assert not [c for c in children if c.is_running()]


def test_ctrl_c_while_the_nodes_still_load_is_quiet(fleet_up):
    stack = fleet_up("--source", "photos")
    listed = psutil.Process(stack.process.pid)
    while not listed.children() and stack.process.poll() is None:
        pass
    assert stack.interrupt() < 3.5
    assert "Traceback" not in stack.output


def test_the_link_is_renegotiated_in_the_middle_of_everything(fleet_up, listener):
    reports = listener.listen(LinkReport, "link/report")
    links = listener.listen(LinkParameters, "link/parameters", LATCHED)
    packets = listener.listen(FeaturePacket, "link/packets", 1000)
    fleet_up("--source", "photos")
    listener.spin_until(lambda: len(reports) > 5 and packets, "reports")
    assert max(len(m.data) for _, m in packets) > 100

    answer = listener.call(Renegotiate, "link/renegotiate", Renegotiate.Request(ci_ms=30.0, payload=60, packets=2))
    assert answer.accepted, answer.message
    assert (answer.parameters.ci_ms, answer.parameters.payload, answer.parameters.packets) == (30.0, 60, 2)
    listener.spin_until(lambda: links and links[-1][1].payload == 60, "the new parameters on their topic")
    packets.clear()
    listener.spin_until(lambda: len(packets) > 20, "packets cut to the new size")
    assert max(len(m.data) for _, m in packets) <= 60

    answer = listener.call(Renegotiate, "link/renegotiate", Renegotiate.Request(ci_ms=5.0))
    assert not answer.accepted
    assert "5 ms" in answer.message
    assert answer.parameters.ci_ms == 30.0


def test_the_device_pauses_and_resumes_by_its_life_cycle(fleet_up, listener):
    reports = listener.listen(InferenceReport, "inference")
    packets = listener.listen(FeaturePacket, "link/packets", 1000)
    fleet_up("--source", "photos")
    listener.spin_until(lambda: len(reports) > 3, "frames")
    assert listener.call(Renegotiate, "link/renegotiate", Renegotiate.Request(payload=60)).accepted

    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return listener.call(ChangeState, "device_node/change_state", request).success

    assert change(Transition.TRANSITION_DEACTIVATE)
    listener.spin_for(0.5)  # what was under way has been told by then
    reports.clear()
    listener.spin_for(1.0)
    assert not reports
    assert change(Transition.TRANSITION_ACTIVATE)
    packets.clear()
    listener.spin_until(lambda: len(reports) > 3, "frames after the pause")
    # The device still knows how long the link's packets are; longer ones would never arrive, only a stage's remainder.
    assert sum(len(m.data) > 55 for _, m in packets) > len(packets) / 3


def test_another_frame_rate_holds_at_once(fleet_up, listener):
    reports = listener.listen(InferenceReport, "inference")
    fleet_up("--source", "photos")
    listener.spin_until(lambda: len(reports) > 3, "frames")

    def set_rate(rate: float) -> None:
        value = Parameter("frame_rate", value=rate).to_parameter_msg()
        answer = listener.call(SetParameters, "device_node/set_parameters", SetParameters.Request(parameters=[value]))
        assert answer.results[0].successful

    set_rate(0.001)
    listener.spin_for(1.0)
    reports.clear()
    set_rate(10.0)
    listener.spin_until(lambda: len(reports) > 3, "frames", 5.0)


def test_messages_that_no_node_of_ours_would_send_end_no_node(fleet_up, listener):
    links = listener.node.create_publisher(LinkParameters, "link/parameters", LATCHED)
    exits = listener.node.create_publisher(ExitDecision, "link/exit", 10)
    to_bridge = listener.node.create_publisher(ExitDecision, "exit", 10)
    to_hub = listener.node.create_publisher(FeaturePacket, "link/packets", 10)
    labels = listener.listen(Label, "label")
    stack = fleet_up("--source", "photos")
    listener.spin_until(lambda: any(m.source == Label.HUB for _, m in labels), "a label from the hub")
    before_all_time = Header()
    before_all_time.stamp.sec, before_all_time.stamp.nanosec = -(2**31), 2**32 - 1
    for payload, ci_ms in itertools.product((0, 19, 255), (math.nan, 0.0, math.inf, 10.0)):
        links.publish(LinkParameters(payload=payload, ci_ms=ci_ms, connected=True))
    for stage, class_index, confidence in itertools.product((0, 8, 255), (0, 65535), (math.nan, 1e30)):
        decision = ExitDecision(stage=stage, class_index=class_index, confidence=confidence)
        for last in labels[-1][1].inference_id + np.arange(4):
            decision.inference_id = int(last) % 65536
            exits.publish(decision)
            to_bridge.publish(decision)
    for data in (b"", b"?", bytes(range(244)), LocalAnswer(labels[-1][1].inference_id ^ 0x8000, 0, 0.5).pack()):
        to_hub.publish(FeaturePacket(header=before_all_time, data=data))
    listener.spin_for(1.0)
    labels.clear()
    listener.spin_until(lambda: sum(m.source == Label.HUB for _, m in labels) > 5, "labels from the hub afterwards")
    assert stack.interrupt() < 3.5
    assert stack.process.returncode == 0, stack.output
    assert "Traceback" not in stack.output
    assert not any(" exit 255 " in line for line in stack.lines), stack.output


def test_a_ros_image_topic_is_a_source_and_its_header_travels(fleet_up, listener):
    labels = listener.listen(Label, "label")
    pictures = listener.listen(CompressedImage, "image/compressed")
    images = listener.node.create_publisher(Image, "/camera/image_raw", 10)
    fleet_up("--source", "ros:/camera/image_raw")

    def publish_until_labelled() -> bool:
        image = Image(height=48, width=64, encoding="bgr8", step=192, data=bytes(48 * 192))
        image.header.frame_id = "porch"
        image.header.stamp = listener.node.get_clock().now().to_msg()
        images.publish(image)
        return bool(labels and pictures)

    listener.spin_until(publish_until_labelled, "a label for a picture from a topic")
    assert labels[-1][1].header.frame_id == "porch"
    assert labels[-1][1].header.stamp.sec > 0
    assert pictures[-1][1].header.frame_id == "porch"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--source", "/no/such/file"], "/no/such/file"),
        (["--source", "77"], "camera 77"),
        (["--source", "photos", "--platform", "abacus"], "abacus"),
        (["--source", "photos", "--link", "ci_ms=5"], "5 ms"),
        (["--source", "photos", "--link", "speed=5"], "speed"),
        (["--source", "photos", "--json", "/no/such/folder/out.json"], "/no/such/folder"),
        (["--source", "photos", "--duration", "nan"], "duration"),
        (["no_such_config"], "no_such_config"),
        (["--source", "photos", "--namespace", "1 2"], "namespace"),
    ],
)
def test_bad_input_gets_one_clear_line_and_exit_code_2(fleet_up, arguments, line):
    stack = fleet_up(*arguments)
    assert stack.finish() == 2, stack.output
    assert len(stack.lines) == 1, stack.output
    assert line in stack.lines[0]


def test_a_whole_number_in_the_file_will_do_for_any_number_and_for_a_camera(fleet_up, tmp_path):
    text = (Path(__file__).resolve().parents[2] / "config" / "backyard_camera.yaml").read_text()
    for old, new in (("source: auto", "source: 77"), ("answer_timeout: 0.5", "answer_timeout: 1")):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "mine.yaml").write_text(text)
    stack = fleet_up(str(tmp_path / "mine.yaml"))
    assert stack.finish() == 2
    assert any(line.startswith("device_node: camera 77 is not there") for line in stack.lines), stack.output


def test_a_model_that_was_tampered_with_is_refused(fleet_up, tiny_bundle, tmp_path):
    copy = tmp_path / "bundle"
    copy.mkdir()
    for file in tiny_bundle.path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    with (copy / tiny_bundle.cloud_file).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff" if file.read(1) != b"\xff" else b"\x00")
    stack = fleet_up("--source", "photos", model=str(copy))
    assert stack.finish() == 2, stack.output
    assert "Traceback" not in stack.output
    assert tiny_bundle.cloud_file in stack.output


@pytest.mark.usefixtures("domain")
def test_files_in_the_users_folder_are_not_taken_for_pythons_modules(tiny_bundle, tmp_path):
    for name in ("secrets", "statistics", "dataclasses", "fleet_ros"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not for you')\n")
    command = [sys.executable, "-P", "-m", "fleet", "up", "--model", str(tiny_bundle.path), "--source", "no/such/file"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2, run.stderr
    assert "there is no file or directory no/such/file" in run.stderr
    assert "Traceback" not in run.stderr


def test_killing_fleet_up_itself_leaves_no_node_behind(fleet_up):
    stack = fleet_up("--source", "photos")
    stack.wait_for_line(lambda line: " packets " in line)
    children = psutil.Process(stack.process.pid).children(recursive=True)
    stack.process.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert len(gone) == 4
