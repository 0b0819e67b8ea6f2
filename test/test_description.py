# SPDX-License-Identifier: Apache-2.0
"""One description for `fleet up` and the launch file: wishes end in the right nodes, mistakes in one line."""

import json
import math
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleet.description import Description, check_start
from fleet.errors import FleetError
from fleet.link.parameters import LinkParameters
from fleet.processes import EXECUTABLES
from fleet.resources import share_directory

YARD = """
/**/bridge_node:
  ros__parameters: {ci_ms: 10.0, packets: 2, payload: 100, phy: 1M, loss: 0.0}
/**/cloud_node:
  ros__parameters: {model: MODEL}
/**/device_node:
  ros__parameters: {source: auto, model: MODEL, platform: native, time_scale: 1.0, frame_rate: 8.0}
/**/monitor_node:
  ros__parameters: {duration: 0.0, json: ''}
"""


@pytest.fixture
def model(tmp_path):
    """A directory that looks like a bundle; whether it is sound is for the nodes to say."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text("{}")
    return tmp_path / "model"


@pytest.fixture
def describe(tmp_path, model):
    """Loads a description with some of its text replaced."""

    def load(old="", new="", text=YARD):
        assert old in text
        path = tmp_path / "yard.yaml"
        path.write_text(text.replace(old, new).replace("MODEL", str(model)))
        return Description.load(path)

    return load


def refused(attempt):
    """The one line with which something is refused."""
    with pytest.raises(FleetError) as problem:
        attempt()
    assert len(str(problem.value).splitlines()) == 1
    return str(problem.value)


# Reading ------------------------------------------------------------------------------------------------------
def test_one_process_a_key_in_the_order_of_the_file(describe):
    description = describe()
    assert [p.node for p in description.processes] == ["bridge_node", "cloud_node", "device_node", "monitor_node"]
    assert [p.package for p in description.processes] == [EXECUTABLES[p.node] for p in description.processes]
    assert description.process("device_node").parameters["frame_rate"] == 8.0


def test_a_run_ends_with_the_device_or_with_whoever_looks_at_it(describe):
    assert [p.node for p in describe().processes if p.ends_run] == ["device_node", "monitor_node"]


@pytest.mark.parametrize("key", ["/**/bridge_node", "bridge_node", "/yard/bridge_node"])
def test_a_node_may_be_named_in_any_namespace(describe, key):
    assert describe("/**/bridge_node", f"'{key}'").process("bridge_node").package == "fleet_ble_bridge"


def test_the_link_is_what_the_bridge_begins_with(describe):
    assert describe().link == LinkParameters(ci_ms=10.0, packets=2, payload=100, phy="1M")


def test_what_comes_with_the_package_is_a_description_that_names_every_node():
    description = Description.load("backyard_camera")
    assert description.path == share_directory() / "config" / "backyard_camera.yaml"
    assert {p.node for p in description.processes} <= set(EXECUTABLES)
    assert description.link.effective_packets >= 1


# Both ways to start get the same ------------------------------------------------------------------------------
def test_the_parameter_file_says_what_the_description_says_and_reads_back(describe, tmp_path):
    description = describe().changed(source="0", link=["ci_ms=30"], duration=5)
    (tmp_path / "again.yaml").write_text(description.parameter_file())
    again = Description.load(tmp_path / "again.yaml")
    for process in description.processes:
        assert dict(again.process(process.node).parameters) == description.parameters_of(process)
    assert again.link == description.link


def test_the_type_of_every_parameter_survives_the_file(describe):
    """ROS takes 10 for an integer and 10.0 for a number: a number that looks whole must stay one."""
    changed = describe("ci_ms: 10.0", "ci_ms: 10").changed(
        source="0", link=["ci_ms=30", "loss=0"], duration=5, frame_rate=0, time_scale=2
    )
    parameters = {
        key.rsplit("/", 1)[-1]: entry["ros__parameters"]
        for key, entry in yaml.safe_load(changed.parameter_file()).items()
    }
    assert parameters["device_node"]["source"] == "0"
    for node, key in [
        ("bridge_node", "ci_ms"),
        ("bridge_node", "loss"),
        ("device_node", "frame_rate"),
        ("device_node", "time_scale"),
        ("monitor_node", "duration"),
    ]:
        assert type(parameters[node][key]) is float, key
    assert type(parameters["bridge_node"]["packets"]) is int


def test_the_monitor_alone_is_told_the_conditions(describe):
    description = describe().changed(platform="cortex-a77-500", link=["loss=0.1"])
    conditions = json.loads(description.parameters_of(description.process("monitor_node"))["conditions"])
    assert conditions == description.conditions
    assert conditions["description"] == "yard.yaml"
    assert conditions["platform"] == "cortex-a77-500"
    assert (conditions["link"]["loss"], conditions["link"]["effective_packets"]) == (0.1, 2)
    assert all("conditions" not in description.parameters_of(p) for p in description.processes[:3])


# Wishes -------------------------------------------------------------------------------------------------------
def differences(before, after):
    """Which parameters of which nodes are others."""
    found = {}
    for old, new in zip(before.processes, after.processes, strict=True):
        keys = {*old.parameters, *new.parameters}
        for key in keys:
            if old.parameters.get(key) != new.parameters.get(key):
                found[f"{new.node}.{key}"] = new.parameters[key]
    return found


def test_without_wishes_only_the_link_is_written_out(describe):
    before = describe()
    after = before.changed()
    assert differences(before, after) == {"bridge_node.ack": "link_layer", "bridge_node.transport": "emulated"}
    assert after.link == before.link


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        ({"source": "photos"}, {"device_node.source": "photos"}),
        ({"source": "rtsp://yard/1"}, {"device_node.source": "rtsp://yard/1"}),
        ({"source": "ros:/camera/image_raw"}, {"device_node.source": "ros:/camera/image_raw"}),
        ({"source": "2"}, {"device_node.source": "2"}),
        ({"source": "x" * 5000}, {"device_node.source": "x" * 5000}),
        ({"source": ""}, {"device_node.source": ""}),
        ({"platform": "gap8-175"}, {"device_node.platform": "gap8-175"}),
        ({"time_scale": 3.56}, {"device_node.time_scale": 3.56}),
        ({"frame_rate": 0}, {"device_node.frame_rate": 0.0}),
        ({"duration": 20}, {"monitor_node.duration": 20.0}),
        ({"link": ["ci_ms=1000", "packets=1"]}, {"bridge_node.ci_ms": 1000.0, "bridge_node.packets": 1}),
        ({"link": ["ci_ms=30 payload=20", "ci_ms=50"]}, {"bridge_node.ci_ms": 50.0, "bridge_node.payload": 20}),
        ({"link": ["ack=next_event"]}, {"bridge_node.ack": "next_event"}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wish_becomes_a_parameter_of_the_right_node_and_of_no_other(describe, wish, found):
    base = describe().changed()
    assert differences(base, base.changed(**wish)) == found


def test_a_model_is_for_both_ends_of_the_link(describe, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_text("{}")
    base = describe().changed()
    found = differences(base, base.changed(model=str(other)))
    assert found == {"device_node.model": str(other), "cloud_node.model": str(other)}


def test_paths_are_made_absolute_because_nodes_may_run_elsewhere(describe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.jpg").write_text("")
    (tmp_path / "mine.yaml").write_text("source: mine\npower_mw: 5\nstage_seconds: {1: 0.1}\n")
    changed = describe().changed(source="cat.jpg", platform="mine.yaml", json="out.json", model="model")
    assert changed.process("device_node").parameters["source"] == str(tmp_path / "cat.jpg")
    assert changed.process("device_node").parameters["platform"] == str(tmp_path / "mine.yaml")
    assert changed.process("monitor_node").parameters["json"] == str(tmp_path / "out.json")
    assert changed.process("cloud_node").parameters["model"] == str(tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cat.jpg", "mine.yaml", "model", "yard.yaml"]


def test_a_camera_s_index_stays_one_even_beside_a_file_of_that_name(describe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").write_text("")
    assert describe().changed(source="0").process("device_node").parameters["source"] == "0"


def test_the_description_itself_is_not_changed(describe):
    description = describe()
    before = description.parameter_file()
    description.changed(source="photos", duration=5, link=["ci_ms=30"])
    assert description.parameter_file() == before


# Several cameras ----------------------------------------------------------------------------------------------
FLEET = """
/**/bridge_node:
  ros__parameters: {ci_ms: 10.0, packets: 2}
/**/cloud_node:
  ros__parameters: {model: MODEL}
/**/device_node:
  ros__parameters: {source: auto, model: MODEL, frame_rate: 8.0}
/**/monitor_node:
  ros__parameters: {duration: 0.0}
/porch/device_node:
  ros__parameters: {source: photos}
/gate/device_node:
  ros__parameters: {source: '0', frame_rate: 2.0}
/gate/bridge_node:
  ros__parameters: {ci_ms: 100.0}
"""


def test_each_camera_has_its_own_processes_and_shares_the_hub_s(describe):
    description = describe(text=FLEET)
    assert [p.name for p in description.processes] == [
        *("porch.bridge_node", "gate.bridge_node", "cloud_node"),
        *("porch.device_node", "gate.device_node", "monitor_node"),
    ]
    assert [p.namespace("/yard/") for p in description.processes][:3] == ["yard/porch", "yard/gate", "yard"]
    for node in ("cloud_node", "monitor_node"):
        assert description.process(node).parameters["cameras"] == ["porch", "gate"]


def test_a_camera_s_own_word_goes_before_what_is_said_of_all(describe, model):
    porch, gate = describe(text=FLEET).named(["device_node"])
    assert porch.parameters == {"source": "photos", "model": str(model), "frame_rate": 8.0}
    assert gate.parameters == {"source": "0", "model": str(model), "frame_rate": 2.0}


def test_a_wish_is_heard_by_every_camera_and_changes_nothing_else_of_its_link(describe):
    changed = describe(text=FLEET).changed(frame_rate=4, link=["packets=1"], behaviours=["alarm"])
    assert [p.parameters["frame_rate"] for p in changed.named(["device_node"])] == [4.0, 4.0]
    bridges = [p.parameters for p in changed.named(["bridge_node"])]
    assert [(b["ci_ms"], b["packets"]) for b in bridges] == [(10.0, 1), (100.0, 1)]
    assert [p.name for p in changed.processes[-2:]] == ["porch.alarm_node", "gate.alarm_node"]
    conditions = changed.conditions["cameras"]
    assert [(c, said["source"], said["link"]["ci_ms"]) for c, said in conditions.items()] == [
        ("porch", "photos", 10.0),
        ("gate", "0", 100.0),
    ]


def test_other_cameras_may_be_named_in_place_of_the_file_s(describe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "film.mp4").write_text("")
    path = describe(text=FLEET).path
    description = Description.load(path, {"drive": "film.mp4", "gate": "1"})
    devices = {p.camera: p.parameters for p in description.named(["device_node"])}
    assert {c: (d["source"], d["frame_rate"]) for c, d in devices.items()} == {
        "gate": ("1", 2.0),
        "drive": (str(tmp_path / "film.mp4"), 8.0),
    }
    assert description.process("cloud_node").parameters["cameras"] == ["gate", "drive"]


def test_the_parameter_file_tells_each_camera_its_own(describe, tmp_path):
    description = describe(text=FLEET).changed()
    content = yaml.safe_load(description.parameter_file())
    assert content["/**/gate/bridge_node"]["ros__parameters"]["ci_ms"] == 100.0
    assert content["/**/porch/bridge_node"]["ros__parameters"]["ci_ms"] == 10.0
    assert content["/**/cloud_node"]["ros__parameters"]["cameras"] == ["porch", "gate"]
    assert len(content) == len(description.processes)
    assert "&" not in description.parameter_file()  # ROS takes no aliases


def test_processes_are_found_by_camera_or_all_at_once(describe):
    description = describe(text=FLEET)
    assert [p.name for p in description.named(["gate.bridge_node"])] == ["gate.bridge_node"]
    assert len(description.named(["bridge_node", "cloud_node"])) == 3
    assert "has no yard.bridge_node; it has: porch.bridge_node" in refused(
        lambda: description.named(["yard.bridge_node"])
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("/porch/device_node", "/porch/cloud_node", "it serves all of them: name it /**/cloud_node"),
        ("/porch/device_node", "/front/porch/device_node", "'front/porch' is no camera's name"),
        ("/porch/device_node", "/7/device_node", "'7' is no camera's name"),
        ("/porch/device_node", "/a__b/device_node", "'a__b' is no camera's name"),
    ],
)
def test_cameras_that_cannot_be_are_refused(describe, old, new, words):
    assert words in refused(lambda: describe(old, new, FLEET))


def test_cameras_that_are_asked_for_by_no_name_or_without_devices_are_refused(describe):
    path = describe(text=FLEET).path
    assert "'a b' is no camera's name" in refused(lambda: Description.load(path, {"a b": "photos"}))
    assert "no device_node for the cameras porch" in refused(lambda: Description.load("radio_hub", {"porch": "0"}))


@pytest.mark.parametrize("name", ["fleet_of_cameras", "emulated_camera", "emulated_hub", "radio_camera", "radio_hub"])
def test_whatever_is_shipped_is_a_description_that_can_be(name):
    description = Description.load(name).changed()
    assert description.conditions["description"] == f"{name}.yaml"
    assert yaml.safe_load(description.parameter_file())


def test_the_camera_s_half_of_a_real_radio_has_a_namespace_of_its_own():
    names = ("backyard_camera", "fleet_of_cameras", "emulated_camera", "emulated_hub", "radio_hub")
    assert {Description.load(name).namespace for name in names} == {"backyard"}
    assert Description.load("radio_camera").namespace == "backyard_camera"


def test_behaviours_come_with_their_shipped_parameters_unless_the_description_has_its_own(describe):
    text = YARD + "alarm_node:\n  ros__parameters: {react_to: [pet]}\n"
    changed = describe(text=text).changed(behaviours=["doorbell", "alarm", "alarm"])
    assert [p.node for p in changed.processes[-2:]] == ["alarm_node", "doorbell_node"]
    assert changed.process("alarm_node").parameters == {"react_to": ["pet"]}
    shipped = Description.load("behaviours").process("doorbell_node").parameters
    assert changed.process("doorbell_node").parameters == shipped
    line = refused(lambda: describe().changed(behaviours=["siren"]))
    assert "there is no behaviour 'siren': choose from alarm, doorbell" in line


# Mistakes in wishes -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"platform": "abacus"}, "unknown platform 'abacus'"),
        ({"platform": "/no/such.yaml"}, "/no/such.yaml"),
        ({"link": ["ci_ms=5"]}, "5 ms is outside BLE's 7.5 to 4000 ms"),
        ({"link": ["ci_ms=10.1"]}, "not a multiple of 1.25 ms"),
        ({"link": ["ci_ms=nan"]}, "ci_ms"),
        ({"link": ["speed=5"]}, "'speed' is not a setting of a link"),
        ({"link": ["ci_ms"]}, "not KEY=VALUE"),
        ({"link": ["packets=many"]}, "packets=many"),
        ({"link": ["phy=5G"]}, "no PHY is called '5G'"),
        ({"link": ["payload=500"]}, "payload of 500 bytes"),
        ({"link": ["loss=2"]}, "loss of 2"),
        ({"model": "no_such_model"}, "no model bundle 'no_such_model'"),
        ({"model": "/etc"}, "/etc"),
        ({"duration": math.nan}, "duration must be zero or more, not nan"),
        ({"duration": math.inf}, "duration"),
        ({"duration": -1}, "duration"),
        ({"frame_rate": -0.5}, "frame rate"),
        ({"frame_rate": math.nan}, "frame rate"),
        ({"time_scale": 0}, "time_scale must be a number above 0"),
        ({"time_scale": math.inf}, "time scale"),
        ({"json": "/no/such/folder/out.json"}, "its directory is not there"),
        ({"json": "/"}, "it is a directory"),
        ({"json": "/proc/out.json"}, "cannot write /proc/out.json"),
        ({"json": "~nobody-of-that-name/out.json"}, "no such user"),
        ({"source": "~nobody-of-that-name/cat.jpg"}, "no such user"),
    ],
    ids=str,
)
def test_a_wish_that_cannot_be_is_refused_before_anything_starts(describe, wish, words):
    assert words in refused(lambda: describe().changed(**wish))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_one_may_not_write_to_is_found_out_before_the_run(describe, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    assert "Permission denied" in refused(lambda: describe().changed(json=str(tmp_path / "closed" / "out.json")))


@pytest.mark.parametrize(
    ("wish", "node"),
    [({"duration": 5}, "monitor_node"), ({"source": "photos"}, "device_node"), ({"link": ["loss=0.1"]}, "bridge_node")],
)
def test_a_wish_that_nobody_would_hear_is_refused(describe, tmp_path, wish, node):
    others = yaml.safe_load(describe().parameter_file())
    del others[f"/**/{node}"]
    (tmp_path / "fewer.yaml").write_text(yaml.safe_dump(others))
    assert f"has no {node}" in refused(lambda: Description.load(tmp_path / "fewer.yaml").changed(**wish))


# Mistakes in the file -----------------------------------------------------------------------------------------
def test_a_description_that_is_not_there_names_those_that_are():
    line = refused(lambda: Description.load("no_such_config"))
    assert "no_such_config" in line
    assert "backyard_camera.yaml" in line


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2",
        "a: b: c",
        "\t- x",
        "key: !!python/object/apply:os.system ['true']",
        "a: &a [*a, *b]",
        "day: 2001-99-99",
        "[" * 5000,
        "\0",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_broken_yaml_is_one_line_with_the_file_s_name(describe, text):
    line = refused(lambda: describe(text=text))
    assert "yard.yaml cannot be read" in line


def test_a_file_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "yard.yaml").write_bytes(b"\xff\xfe\x00\x01")
    assert "yard.yaml cannot be read" in refused(lambda: Description.load(tmp_path / "yard.yaml"))


@pytest.mark.parametrize("text", ["", "7", "- a", "null", "just words", "{}"])
def test_yaml_that_names_no_node_is_no_description(describe, text):
    assert "is not a description" in refused(lambda: describe(text=text))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("/**/bridge_node", "/**/bridge", "names '/**/bridge', which is no node of FLEET: choose from device_node"),
        ("/**/bridge_node", "7", "names '7'"),
        ("/**/monitor_node", "device_node", "names device_node more than once"),
        ("ros__parameters: {duration: 0.0, json: ''}", "ros_parameters: {}", "needs a ros__parameters section"),
        ("ros__parameters: {duration: 0.0, json: ''}", "ros__parameters: 7", "needs a ros__parameters section"),
        ("  ros__parameters: {duration: 0.0, json: ''}", "", "needs a ros__parameters section"),
    ],
)
def test_a_node_that_there_is_not_or_that_says_nothing_is_refused(describe, old, new, words):
    assert words in refused(lambda: describe(old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("ci_ms: 10.0", "ci_ms: 5", "5 ms is outside"),
        ("ci_ms: 10.0", "ci_ms: fast", "ci_ms"),
        ("ci_ms: 10.0", "ci_ms: .nan", "ci_ms"),
        ("packets: 2", "packets: 2.5", "packets"),
        ("phy: 1M", "phy: 1", "no PHY is called '1'"),
        ("loss: 0.0", "loss: true", "loss"),
        ("platform: native", "platform: abacus", "abacus"),
        ("platform: native", "platform: 7", "unknown platform '7'"),
        ("time_scale: 1.0", "time_scale: slow", "time_scale of device_node in"),
        ("time_scale: 1.0", "time_scale: null", "time_scale of device_node in"),
        ("time_scale: 1.0", "time_scale: 0.0", "time_scale"),
        ("frame_rate: 8.0", "frame_rate: .nan", "frame_rate of device_node in"),
        ("frame_rate: 8.0", "frame_rate: true", "frame_rate of device_node in"),
        ("duration: 0.0", "duration: .inf", "duration of monitor_node in"),
        ("duration: 0.0", "duration: '5'", "duration of monitor_node in"),
        ("json: ''", "json: /not/here/out.json", "cannot write /not/here/out.json"),
        ("source: auto, model: MODEL", "source: 2024-01-01, model: MODEL", "source of device_node is a date"),
        ("source: auto, model: MODEL", "source: auto, model: nowhere", "no model bundle 'nowhere'"),
        ("source: auto, model: MODEL", "source: auto, model: [1]", "no model bundle"),
    ],
)
def test_a_value_in_the_file_that_cannot_be_is_refused_before_anything_starts(describe, old, new, words):
    assert words in refused(lambda: describe(old, new).changed())


def test_a_node_that_is_asked_for_and_not_there_is_named_with_those_that_are(describe):
    assert "has no alarm_node; it has: bridge_node" in refused(lambda: describe().process("alarm_node"))


# Starting -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("namespace", ["backyard", "/backyard", "/yard/north_7/", "_x"])
def test_a_namespace_that_ros_takes_is_taken(namespace):
    check_start(namespace, "warn")


@pytest.mark.parametrize("namespace", ["", "/", "1 2", "7yard", "a//b", "yärd", "a-b", "a b", "a/7", "a__b"])
def test_a_namespace_that_ros_does_not_take_is_refused(namespace):
    assert f"'{namespace}' is not a namespace" in refused(lambda: check_start(namespace, "warn"))


def test_a_namespace_that_is_too_long_for_ros_is_refused():
    assert "at most 128 characters" in refused(lambda: check_start("a" * 129, "warn"))


def test_an_unknown_log_level_is_refused():
    assert "debug, info, warn or error, not 'loud'" in refused(lambda: check_start("yard", "loud"))


@given(text=st.text(max_size=60))
def test_any_text_is_a_description_or_one_line(tmp_path_factory, text):
    path = Path(tmp_path_factory.getbasetemp()) / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    try:
        Description.load(path)
    except FleetError as err:
        assert len(str(err).splitlines()) == 1  # noqa: PT017 - either way is right
