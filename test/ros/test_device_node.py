# SPDX-License-Identifier: Apache-2.0
"""The device node by itself and in its system: race, region, a camera that goes away, and why a frame has no label."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import DescribeParameters, ListParameters, SetParameters
from rclpy.parameter import Parameter
from torch import nn

from fleet.local_exits import LocalHead, attach_local_exits, stage_output_shape
from fleet_msgs.msg import InferenceReport, Label, StageFeatures
from fleet_ros.qos import EVENTS, LABELS, REPORTS

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from mjpeg_camera import Camera  # noqa: E402

pytestmark = pytest.mark.ros


@pytest.fixture
def described(tmp_path):
    """The shipped description with some of its parameters changed."""

    def make(**changes: str) -> str:
        text = (ROOT / "config" / "backyard_camera.yaml").read_text()
        for key, value in changes.items():
            text, count = re.subn(rf"(?m)^(    {key}: )\S+", rf"\g<1>{value}", text)
            assert count == 1, (key, count)
        (tmp_path / "mine.yaml").write_text(text)
        return str(tmp_path / "mine.yaml")

    return make


def set_parameter(listener, name, value):
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return listener.call(SetParameters, "device_node/set_parameters", request).results[0]


def health(listener):
    """The device node's newest diagnosis."""
    for _, array in reversed(listener.heard["/diagnostics"]):
        for status in array.status:
            if status.name.startswith("backyard/device_node"):
                return status
    return None


# Race ---------------------------------------------------------------------------------------------------------
def test_a_race_without_local_exits_is_one_line(fleet_up, described):
    stack = fleet_up(described(race="true"), "--source", "photos")
    assert stack.finish() == 2, stack.output
    assert sum("has no local exits to race with" in line for line in stack.lines) == 1, stack.output
    assert "Traceback" not in stack.output


def test_in_a_race_the_local_exit_answers_and_the_report_says_which(fleet_up, listener, described, tiny_copy):
    torch.manual_seed(0)
    channels = stage_output_shape(attach_local_exits(tiny_copy, {}), 3)[1]
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))
    attach_local_exits(tiny_copy, {3: LocalHead(module, {"linear": 5 * channels}, 1.0, threshold=0.0)})
    reports = listener.listen(InferenceReport, "inference", REPORTS)
    labels = listener.listen(Label, "label", LABELS)
    # The radio sleeps too long for the hub to be first.
    stack = fleet_up(described(race="true"), "--source", "photos", "--link", "ci_ms=1000", model=str(tiny_copy))
    listener.spin_until(lambda: len(reports) > 4 and len(labels) > 4, "reports and labels")
    for _, report in reports:
        assert (report.source, report.exit_stage) == (InferenceReport.DEVICE, InferenceReport.LOCAL_ANSWER)
        assert (report.local_stage, report.stages_run) == (3, 3)
    assert all(label.stage == Label.LOCAL_ANSWER for _, label in labels)
    stack.wait_for_line(lambda line: " local 3 " in line)


# Parameters ---------------------------------------------------------------------------------------------------
def test_every_parameter_says_what_it_is_and_a_wrong_value_changes_nothing(fleet_up, listener):
    fleet_up("--source", "photos")
    listener.spin_until(lambda: listener.is_active("device_node"), "an active device")
    names = listener.call(ListParameters, "device_node/list_parameters", ListParameters.Request()).result.names
    ours = [n for n in names if not n.startswith(("qos_overrides.", "use_sim_time", "start_type_description"))]
    assert {"race", "roi", "source", "answer_timeout", "autostart"} <= set(ours)
    request = DescribeParameters.Request(names=ours)
    described = listener.call(DescribeParameters, "device_node/describe_parameters", request).descriptors
    by_name = {d.name: d for d in described}
    assert not [d.name for d in described if not d.description and d.name != "autostart"]
    assert by_name["race"].read_only
    assert not by_name["roi"].read_only
    assert by_name["answer_timeout"].floating_point_range[0].to_value == 60.0

    refused = set_parameter(listener, "roi", "face")
    assert not refused.successful
    assert "roi is full or motion, not 'face'" in refused.reason
    assert not set_parameter(listener, "answer_timeout", 61.0).successful
    assert not set_parameter(listener, "race", True).successful
    assert set_parameter(listener, "answer_timeout", 0.25).successful


def test_the_region_can_be_changed_while_frames_go_by(fleet_up, listener):
    reports = listener.listen(InferenceReport, "inference", REPORTS)
    listener.listen(DiagnosticArray, "/diagnostics", EVENTS)
    fleet_up("--source", "photos")
    listener.spin_until(lambda: len(reports) > 2, "frames")
    assert set_parameter(listener, "roi", "motion").successful
    # Every twelve frames the photograph changes, as everything does when a light goes on.
    looked = "motion: everything changed"
    listener.spin_until(
        lambda: any(v.key == looked and int(v.value) > 0 for v in (health(listener) or DiagnosticStatus()).values),
        "a look for motion",
    )
    assert set_parameter(listener, "roi", "full").successful
    listener.spin_for(0.5)
    reports.clear()
    listener.spin_until(lambda: len(reports) > 2, "frames")
    assert all(report.roi_side == 0 for _, report in reports)


# A camera that goes away --------------------------------------------------------------------------------------
def test_a_camera_that_is_unplugged_is_told_once_looked_for_and_used_again(fleet_up, listener):
    listener.listen(DiagnosticArray, "/diagnostics", EVENTS)
    reports = listener.listen(InferenceReport, "inference", REPORTS)
    camera = Camera()
    try:
        stack = fleet_up("--source", camera.address)
        listener.spin_until(lambda: len(reports) > 3, "frames")
        device = stack.node_process("fleet_device_node")
        before = device.num_threads(), device.num_fds()
        for number in (1, 2, 3):
            camera.unplug()
            listener.spin_until(
                lambda: (s := health(listener)) is not None and s.level == DiagnosticStatus.ERROR, "a complaint"
            )
            assert health(listener).message.startswith("the camera is gone")
            reports.clear()
            camera.plug()
            listener.spin_until(lambda: len(reports) > 3, "frames again")
            listener.spin_until(lambda: health(listener).level != DiagnosticStatus.ERROR, "no complaint any more")
            assert sum("went away, trying again" in line for line in stack.lines) == number, stack.output
            assert sum("is back" in line for line in stack.lines) == number, stack.output
        listener.spin_until(lambda: device.num_threads() <= before[0] and device.num_fds() <= before[1], "nothing held")
        assert stack.interrupt() < 3.5
        assert "Traceback" not in stack.output
    finally:
        camera.close()


# Frames without a label ---------------------------------------------------------------------------------------
def test_a_frame_that_the_device_stops_in_the_middle_of_is_named_in_the_log(fleet_up, listener):
    labels = listener.listen(Label, "label", LABELS)
    features = listener.listen(StageFeatures, "features", EVENTS)
    stack = fleet_up("--source", "photos", "--log-level", "info", "--time-scale", "40", "--frame-rate", "0")
    listener.spin_until(lambda: len({m.inference_id for _, m in labels}) > 2, "labels")
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
    last = features[-1][1].inference_id
    listener.spin_until(lambda: features[-1][1].inference_id != last, "a new frame")
    assert listener.call(ChangeState, "device_node/change_state", request).success
    listener.spin_for(1.0)  # what was under way has been told by then
    begun = {m.inference_id for _, m in features}
    missing = begun - {m.inference_id for _, m in labels}
    named = {int(found[1]) for line in stack.lines if (found := re.search(r"frame (\d+) gets no label", line))}
    assert missing <= named, (missing, stack.output)
    assert len(named) == 1, stack.output
