# SPDX-License-Identifier: Apache-2.0
"""``fleet evaluate`` sees what the hub sees, and counts what goes on the air."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from io import BytesIO

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fleet.cli import app
from fleet.codec import CODERS, StageBuffer, coder_named, encode_stage
from fleet.errors import FleetError
from fleet.layout import count_tables
from fleet.packet import Header

torch = pytest.importorskip("torch", reason="torch is not installed")

from fleet.evaluation import accuracy, compare, losses  # noqa: E402

# The number of threads is the process's; with another one, later tests would not be exactly repeatable.
ONE = ("--threads", "1")


@pytest.mark.parametrize("coder", CODERS.values(), ids=lambda coder: coder.name)
def test_the_maps_of_a_rung_are_those_of_a_hub_that_received_its_packets(small_bundle, coder):
    layout = small_bundle.layouts[2]
    latents = np.random.default_rng(0).normal(size=(5, layout.channels, 8, 8)).astype(np.float32)
    layout = dataclasses.replace(layout, spread=4, tables=count_tables(layout, latents))
    encoded = accuracy.encode(layout, latents, coder, payload=40)
    for rung in coder.rungs(layout):
        maps = accuracy.received(layout, encoded, rung)
        for k, latent in enumerate(latents):
            packets = encode_stage(layout, latent, inference_id=0, payload=40, coder=coder, rung=rung)
            assert len(packets) == encoded.packets[rung][k]
            assert sum(map(len, packets)) == encoded.bytes[rung][k]
            buffer = StageBuffer(layout)
            for packet in packets:
                buffer.add(Header.unpack(packet), packet)
            assert buffer.received == layout.rung_end(rung)
            np.testing.assert_array_equal(maps[k], buffer.view())


def test_wake_words_are_judged_among_their_own_images_and_groups(small_bundle):
    classes = small_bundle.classes  # vehicle, pet, pet, animal, none
    logits = np.log(
        [
            [0.4, 0.1, 0.1, 0.1, 0.3],  # vehicle: right
            [0.1, 0.2, 0.1, 0.1, 0.5],  # pet behind none: wrong among four, right among wake words
            [0.1, 0.1, 0.1, 0.6, 0.1],  # none taken for an animal: no matter for wake words
        ]
    )
    recorded = accuracy.Recorded(np.array([0, 1, 3]), np.array([0, -1, 4]), {}, logits)
    found = accuracy.accuracies(classes, logits, recorded)
    assert found["accuracy_groups"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["accuracy_wake_words"] == 1.0
    assert found["accuracy_classes"] == 0.5  # one of the two whose folder names a class
    low, high = found["accuracy_groups_95"]
    assert low <= 1 / 3 <= high


def test_a_tar_of_labelled_pictures_gives_the_designed_fields(tiny_bundle, tmp_path):
    out = tmp_path / "out.json"
    result = CliRunner().invoke(
        app, ["evaluate", str(tiny_bundle.path), str(_pictures(tmp_path, ("vehicle", "n02"))), "--json", str(out), *ONE]
    )
    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    assert {"accuracy_wake_words", "accuracy_groups", "accuracy_classes"} <= set(document)
    assert document["conditions"]["pictures"] == 4
    assert list(document["codecs"]) == ["fleet", "paper", "paper-deflate"]
    for name, codec in document["codecs"].items():
        assert [entry["stage"] for entry in codec["exits"]] == sorted(tiny_bundle.layouts)
        for entry in codec["exits"]:
            sizes = [rung["size"] for rung in entry["rungs"]]
            assert sizes == list(coder_named(name).rungs(tiny_bundle.layouts[entry["stage"]]))
            bytes_sent = [rung["bytes"] for rung in entry["rungs"]]
            assert bytes_sent == sorted(bytes_sent)
            assert bytes_sent[0] > 0
            assert {"packets", "accuracy_groups", "accuracy_wake_words"} <= set(entry["rungs"][0])
    assert set(document["bytes_at_equal_accuracy"]) == {"fleet / paper", "fleet / paper-deflate"}


def test_whole_frames_travel_over_the_link_and_platform_that_were_asked_for(tiny_bundle, tmp_path):
    out, pictures = tmp_path / "out.json", _pictures(tmp_path, ("vehicle", "n02"))

    def evaluated(*options):
        arguments = ["evaluate", str(tiny_bundle.path), str(pictures), "--codec", "fleet", "--json", str(out), *ONE]
        result = CliRunner().invoke(app, [*arguments, *options])
        assert result.exit_code == 0, result.output
        return json.loads(out.read_text()).get("journeys")

    found = evaluated("--link", "ci_ms=7.5", "--platform", "cortex-a77-500")
    assert found["conditions"]["pictures"] == 4
    assert (found["conditions"]["link"]["ci_ms"], found["conditions"]["platform"]) == (7.5, "cortex-a77-500")
    assert sum(found["exits"].values()) == pytest.approx(1, abs=1e-3)
    assert 0 < found["latency_ms"]["median"] <= found["latency_ms"]["p95"]
    assert found["energy_mj"]["mean"] > 0
    # No exit of the untrained bundle is ever sure: the last one answers, or the device where the radio sleeps.
    assert found["exits"] == {"exit 8": 1.0}
    asleep = evaluated("--link", "ci_ms=4000", "--platform", "cortex-a77-500")
    slower = evaluated("--link", "ci_ms=4000", "--platform", "cortex-a77-200")
    assert asleep["exits"] == slower["exits"] == {"device": 1.0}
    assert slower["latency_ms"]["median"] == pytest.approx(2.5 * asleep["latency_ms"]["median"], rel=0.05)
    assert evaluated("--journeys", "0") is None
    result = CliRunner().invoke(app, ["evaluate", str(tiny_bundle.path), str(pictures), "--platform", "native", *ONE])
    assert isinstance(result.exception, FleetError)
    assert "does not say how long" in str(result.exception)


def test_losses_are_measured_where_there_are_packets_to_lose(tiny_bundle, tmp_path):
    out, pictures = tmp_path / "out.json", _pictures(tmp_path, ("vehicle", "n02"))
    options = ["--codec", "plain", "--losses", "3", "--json", str(out), *ONE]
    result = CliRunner().invoke(app, ["evaluate", str(tiny_bundle.path), str(pictures), *options])
    assert result.exit_code == 0, result.output
    losses = json.loads(out.read_text())["losses"]
    assert losses["conditions"]["pictures"] == 3
    assert losses["exits"]
    for entry in losses["exits"]:
        assert entry["packets"] >= 4
        assert entry["lost_range"][0] <= entry["lost"] <= entry["lost_range"][1]


def test_half_of_the_packets_are_kept_whichever_they_are():
    ends = [np.array([10, 15, 40, 64]), np.array([20, 40, 50, 60, 64])]
    in_order = losses.kept_in_order(ends, 64)
    assert in_order.sum(axis=1).tolist() == [15, 40]
    assert in_order[0, :15].all()
    assert in_order[1, :40].all()
    for seed in range(20):
        kept = losses.kept_at_random(ends, 64, np.random.default_rng(seed))
        for row, e in zip(kept, ends, strict=True):
            packets = np.split(row, e[:-1])
            assert sum(packet.all() for packet in packets) == len(e) // 2
            assert sum(packet.any() for packet in packets) == len(e) // 2


def test_bytes_are_compared_at_equal_accuracy_and_no_other():
    def exits(*rungs):
        return [{"stage": 1, "rungs": [{"bytes": b, "accuracy_groups": a} for b, a in rungs]}]

    found = compare.bytes_at_equal_accuracy(exits((50, 0.7), (90, 0.8)), exits((100, 0.6), (200, 0.796), (300, 0.797)))
    assert found["exits"][0]["full_ladder"] == {
        "bytes": [90, 300],
        "accuracy_groups": [0.8, 0.797],
        "equal": True,
        "ratio": 0.3,
    }
    assert found["exits"][0]["fewest"] == {"bytes": [90, 200], "target": 0.792, "ratio": 0.45}
    worse = compare.bytes_at_equal_accuracy(exits((90, 0.7)), exits((100, 0.71), (300, 0.8)))
    assert not worse["exits"][0]["full_ladder"]["equal"]
    assert worse["mean_ratio_fewest"] == 0.9


def test_pictures_without_a_known_label_are_refused_in_one_line(tiny_bundle, tmp_path):
    result = CliRunner().invoke(app, ["evaluate", str(tiny_bundle.path), str(_pictures(tmp_path, ("dragon",))), *ONE])
    assert isinstance(result.exception, FleetError)
    assert "vehicle" in str(result.exception)
    assert "\n" not in str(result.exception)


def _pictures(folder, labels):
    path = folder / "pictures.tar"
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as archive:
        for label in labels:
            for k in range(2):
                data = cv2.imencode(".png", rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))[1].tobytes()
                info = tarfile.TarInfo(f"{label}/{k}.png")
                info.size = len(data)
                archive.addfile(info, BytesIO(data))
    return path
