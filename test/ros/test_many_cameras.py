# SPDX-License-Identifier: Apache-2.0
"""One cloud node for several cameras, as its user starts it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray

pytestmark = pytest.mark.ros

from fleet.codec import encode_stage  # noqa: E402
from fleet.packet import LocalAnswer  # noqa: E402
from fleet.unanswered import Why  # noqa: E402
from fleet_msgs.msg import FeaturePacket, Label  # noqa: E402
from fleet_ros.qos import LABELS, PACKETS  # noqa: E402


def start_hub(tiny_bundle, cameras):
    command = [sys.executable, "-m", "fleet_cloud_node", "--ros-args", "-r", "__ns:=/backyard"]
    return subprocess.Popen(
        [*command, "-p", f"model:={tiny_bundle.path}", "-p", f"cameras:={cameras}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_every_camera_gets_its_own_labels(domain, tiny_bundle, listener):
    hub = start_hub(tiny_bundle, "['porch', '/yard/gate']")
    try:
        heard: dict[str, list[Label]] = {"/backyard/porch": [], "/yard/gate": []}
        publishers = {}
        for name, labels in heard.items():
            listener.node.create_subscription(Label, f"{name}/label", labels.append, LABELS)
            publishers[name] = listener.node.create_publisher(FeaturePacket, f"{name}/link/packets", PACKETS)
        listener.spin_until(lambda: listener.is_active("cloud_node"), "an active hub")
        listener.spin_until(
            lambda: all(p.get_subscription_count() for p in publishers.values()), "the hub listening to both cameras"
        )
        # The last stage, complete: its exit answers however unsure it is.
        last = tiny_bundle.exit_stages
        layout = tiny_bundle.layouts[last]
        shape = (layout.channels, layout.ladder.finest, layout.ladder.finest)
        for k, name in enumerate(publishers):
            features = np.random.default_rng(k).normal(size=shape)
            for packet in encode_stage(layout, features, inference_id=100 + k, payload=244, coder=tiny_bundle.coder):
                publishers[name].publish(FeaturePacket(data=packet))
        publishers["/yard/gate"].publish(FeaturePacket(data=LocalAnswer(200, 2, 0.5).pack()))
        listener.spin_until(
            lambda: len(heard["/backyard/porch"]) == 1 and len(heard["/yard/gate"]) >= 1, "labels of both cameras"
        )
        listener.spin_until(lambda: heard["/yard/gate"][-1].inference_id == 200, "the device's own answer")
        assert [label.inference_id for label in heard["/backyard/porch"]] == [100]
        assert heard["/backyard/porch"][0].stage == last
        assert heard["/yard/gate"][-1].source == Label.DEVICE
        hub.send_signal(signal.SIGINT)
        output, _ = hub.communicate(timeout=20)
        assert hub.returncode == 0, output
        assert "Traceback" not in output
    finally:
        hub.kill()
        hub.wait(10)


def test_after_a_jam_the_newest_frame_of_every_camera_is_answered_first(domain, tiny_bundle, listener):
    """A hub that was held up has hundreds of packets before it: what a camera has gone on from is not looked at."""
    hub = start_hub(tiny_bundle, "['porch', 'gate']")
    try:
        heard = {camera: listener.listen(Label, f"/backyard/{camera}/label", LABELS) for camera in ("porch", "gate")}
        health = listener.listen(DiagnosticArray, "/diagnostics")
        publishers = {
            camera: listener.node.create_publisher(FeaturePacket, f"/backyard/{camera}/link/packets", PACKETS)
            for camera in heard
        }
        listener.spin_until(lambda: listener.is_active("cloud_node"), "an active hub")
        listener.spin_until(lambda: all(p.get_subscription_count() for p in publishers.values()), "the hub listening")
        layout = tiny_bundle.layouts[tiny_bundle.exit_stages]
        shape = (layout.channels, layout.ladder.finest, layout.ladder.finest)
        features = np.random.default_rng(0).normal(size=shape)
        newest = 400
        hub.send_signal(signal.SIGSTOP)
        for inference_id in range(1, newest + 1):
            packets = encode_stage(layout, features, inference_id=inference_id, payload=60, coder=tiny_bundle.coder)
            for packet in packets:
                for publisher in publishers.values():
                    publisher.publish(FeaturePacket(data=packet))
        hub.send_signal(signal.SIGCONT)
        listener.spin_until(
            lambda: all(labels and labels[-1][1].inference_id == newest for labels in heard.values()),
            "the newest frame of both cameras",
        )
        assert all(len(labels) < newest for labels in heard.values())

        health.clear()
        listener.spin_until(lambda: health, "the hub's health")
        values = {value.key: value.value for value in health[-1][1].status[0].values}
        assert int(values["packets overtaken"]) > 0, values
        assert int(values["waiting"]) == 0
        assert values["cameras heard"] == "2 of 2"
        assert float(values["packet age p95 [ms]"]) > 0
        # What was overtaken was never begun; what was begun and overtaken is told of with its reason.
        assert all(f"unanswered, {why.value}" in values for why in Why)
    finally:
        hub.kill()
        hub.wait(10)


@pytest.mark.parametrize(("cameras", "words"), [("['a', 'a']", "once"), ("['a b']", "'a b' is not a camera")])
def test_names_that_are_no_namespaces_are_one_line(domain, tiny_bundle, cameras, words):
    hub = start_hub(tiny_bundle, cameras)
    output, _ = hub.communicate(timeout=40)
    assert hub.returncode == 2, output
    assert words in output
    assert "Traceback" not in output


def test_the_benchmark_plays_a_bag_to_one_node_and_to_one_a_camera(domain, tiny_bundle, tmp_path):
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "many_cameras.py"
    out = tmp_path / "many.json"
    few = ["--cameras", "2", "--seconds", "1", "--trial", "0.2", "--model", tiny_bundle.path, "--json", out]
    done = subprocess.run([sys.executable, script, *few], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: too slow on a busy machine
    found = json.loads(out.read_text())
    assert found["conditions"]["identity"] == tiny_bundle.identity.hex()
    assert found["conditions"]["machine"]["cores"] >= 1
    assert [row["batch"] for row in found["exits_a_second"]["batches"]] == [1, 2, 4, 8]
    for name, nodes in (("one_node", 1), ("one_node_a_camera", 2)):
        assert (found[name]["nodes"], found[name]["inferences"], found[name]["labelled"]) == (nodes, 4, 1.0)
        assert found[name]["packet_age_ms"]["p95"] > 0
    assert f"one node: 100.0% of {found['one_node']['inferences']} inferences" in done.stdout
