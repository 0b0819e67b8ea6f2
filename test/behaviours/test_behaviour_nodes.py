# SPDX-License-Identifier: Apache-2.0
"""The nodes around the rules: real processes, real messages, and people who interrupt them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

pytest.importorskip("fleet_msgs", reason="needs ROS 2 and the built fleet_msgs")

from behaviour_process import ROOT, around, running
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from fleet.behaviours.alarm import State
from fleet_behaviours.alarm import AlarmSettings
from fleet_behaviours.doorbell import DoorbellSettings
from fleet_behaviours.labels import sighting_of
from fleet_msgs.msg import Alarm, Doorbell, Label
from fleet_ros.messages import bounded

T = 1_800_000_000.0  # any time at which a camera may have taken a picture


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


@pytest.mark.ros
def test_the_alarm_from_the_first_label_to_an_interrupt(tmp_path: Path):
    with running("fleet_behaviours.alarm_node", tmp_path, hold=3600.0) as node, around(node) as yard:
        states = yard.hears(Alarm, "alarm")
        yard.until_it_listens()
        yard.until(lambda: states, "the state it begins with")
        assert (states[-1].state, states[-1].reason) == (Alarm.OFF, "watching for vehicle")

        yard.shows(1, T, "none", group_confidence=1.0)
        yard.shows(2, T + 1, group_confidence=0.9)
        yard.until(lambda: states[-1].state == Alarm.ON, "the alarm going on")
        assert states[-1].cause.inference_id == 2
        assert states[-1].header.frame_id == "test_yard"

        with around(node, "late_joiner") as late:
            heard = late.hears(Alarm, "alarm")
            late.until(lambda: heard, "the state for one who came late")
            assert (heard[0].state, heard[0].cause.inference_id) == (Alarm.ON, 2)

        assert yard.sets(k=3) == "k must be 1 to n frames: 3 of 1 cannot be; set both together"
        assert "out of range" in yard.sets(min_confidence=2.0)
        assert yard.sets(hold=0.0, cool_down=0.0) == ""
        yard.until(lambda: states[-1].state == Alarm.OFF, "the alarm going off")
        assert yard.sets(hold=3600.0) == ""

        # The same frame answered again by the device counts once; the next has one confidence and exactly enough of it.
        yard.shows(2, T + 1, group_confidence=0.9)
        yard.shows(3, T + 2, class_confidence=0.7)
        yard.until(lambda: states[-1].state == Alarm.ON, "the alarm going on again")
        assert states[-1].cause.inference_id == 3

        answer = yard.calls(SetBool, "alarm/silence", SetBool.Request(data=True))
        assert (answer.success, answer.message) == (True, "silenced for 600 s")
        yard.until(lambda: states[-1].state == Alarm.SILENCED, "silence")
        for inference_id in (4, 5, 6):
            yard.shows(inference_id, T + inference_id, group_confidence=0.9)
        yard.until(lambda: yard.diagnostics.get("silenced") == "3", "three labels that were silenced")
        assert yard.calls(SetBool, "alarm/silence", SetBool.Request(data=False)).success
        yard.until(lambda: states[-1].state == Alarm.OFF, "the end of the silence")
        yard.shows(7, T + 7, group_confidence=0.9)
        yard.until(lambda: states[-1].state == Alarm.ON, "an alarm after the silence")
        assert states[-1].cause.inference_id == 7

        node.interrupt()
        yard.until(lambda: states[-1].reason == "not watching", "the last word of a node that stops")
        assert (states[-1].state, states[-1].cause.inference_id) == (Alarm.OFF, 7)
        assert node.wait() == 0
        assert [s.state for s in states] == [0, 1, 0, 1, 2, 0, 1, 0]
        assert node.output.count("silenced: vehicle") == 1
        assert "Traceback" not in node.output


@pytest.mark.ros
def test_the_doorbell_from_the_first_visitor_to_an_interrupt(tmp_path: Path):
    with around(None) as yard:
        yard.shows(0, T, group_confidence=1.0)  # of before the node was there: it must not ring
        with running("fleet_behaviours.doorbell_node", tmp_path) as node:
            yard.behaviour = node
            rings = yard.hears(Doorbell, "doorbell")
            yard.until_it_listens()
            yard.shows(1, T + 1, group_confidence=0.5)
            yard.shows(2, T + 2, group_confidence=0.9)
            yard.shows(3, T + 3, group_confidence=0.5)
            yard.shows(4, T + 12, group_confidence=0.9)
            yard.until(lambda: rings, "a ring")

            with around(node, "late_joiner") as late:
                heard = late.hears(Doorbell, "doorbell")
                late.until(lambda: heard, "the ring for one who came late")
                assert (heard[0].visits, heard[0].cause.inference_id) == (1, 2)

            assert yard.sets(stay_confidence=0.9) == "stay_confidence must be 0 to min_confidence (0.7), not 0.9"
            yard.shows(5, T + 41, "none", group_confidence=1.0)
            yard.shows(6, T + 42, class_confidence=0.9)
            yard.until(lambda: len(rings) == 2, "the ring of the next visitor")
            assert [(r.visits, r.cause.inference_id) for r in rings] == [(1, 2), (2, 6)]
            assert rings[-1].reason == "vehicle (tractor) at 0.90"

            node.interrupt(times=2)
            assert node.wait() == 0
            assert node.output.count("same visit: ") == 1
            assert "a visit of 10 s is over" in node.output
            assert "Traceback" not in node.output


@pytest.mark.ros
@pytest.mark.parametrize(
    ("module", "wrong", "line"),
    [
        ("alarm_node", {"active_hours": "22-6", "k": 1}, "active_hours is HH:MM-HH:MM or empty, not '22-6'"),
        ("doorbell_node", {"react_to": "[]"}, "react_to names nothing to react to"),
    ],
)
def test_a_wrong_parameter_is_one_line_and_exit_code_2(
    tmp_path: Path, module: str, wrong: dict[str, object], line: str
):
    with running(f"fleet_behaviours.{module}", tmp_path, **wrong) as node:
        assert node.wait() == 2
        assert line in node.output
        assert node.output.count("\n") == 1


@pytest.mark.parametrize(("node", "settings"), [("alarm_node", AlarmSettings), ("doorbell_node", DoorbellSettings)])
def test_the_shipped_configuration_names_every_parameter_with_its_default(node: str, settings: type):
    described = yaml.safe_load((ROOT / "config" / "behaviours.yaml").read_text())[f"/**/{node}"]["ros__parameters"]
    defaults = dataclasses.asdict(settings())
    assert described == {**defaults, "react_to": list(defaults["react_to"])}


@pytest.mark.ros
def test_the_example_of_the_documentation_works(tmp_path: Path):
    page = (ROOT / "docs" / "behaviours.md").read_text()
    (tmp_path / "floodlight_node.py").write_text(page.split("```python\n")[1].split("```")[0])
    with running("floodlight_node", tmp_path) as node, around(node) as yard:
        lights = yard.hears(Bool, "light")
        yard.until_it_listens()
        yard.shows(1, T, "pet", group_confidence=0.9)
        yard.until(lambda: [light.data for light in lights] == [True], "light for a pet")
        yard.shows(2, T + 1, "none", group_confidence=0.9)
        yard.until(lambda: [light.data for light in lights] == [True, False], "darkness")
        node.interrupt()
        assert node.wait() == 0


@pytest.mark.parametrize("state", State)
def test_the_states_have_the_numbers_of_the_message(state: State):
    assert getattr(Alarm, state.name) == state


def test_a_label_without_a_stamp_is_of_now():
    assert sighting_of(Label(group="pet"), otherwise=7.0).stamp == 7.0


def test_the_stamp_of_a_label_is_the_pictures():
    label = Label(group="pet", class_name="beagle")
    label.header.stamp.sec, label.header.stamp.nanosec = 1_800_000_000, 250_000_000
    sighting = sighting_of(label, otherwise=7.0)
    assert sighting.stamp == 1_800_000_000.25
    assert sighting.message is label


@pytest.mark.parametrize("text", ["short", "x" * 200, "ä" * 100, "x" + "ä" * 100])
def test_a_text_is_cut_to_the_bytes_of_a_bounded_string(text: str):
    cut = bounded(text)
    assert len(cut.encode()) <= 128
    assert text.startswith(cut)
    assert len(cut) >= min(len(text), 63)
