# SPDX-License-Identifier: Apache-2.0
"""``fleet evaluate`` sees what the hub sees, and counts what goes on the air."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fleet.cli import app
from fleet.codec import CODERS, StageBuffer, encode_stage
from fleet.errors import FleetError
from fleet.packet import Header

torch = pytest.importorskip("torch", reason="torch is not installed")

from fleet.evaluation import accuracy  # noqa: E402

# The number of threads is the process's; with another one, later tests would not be exactly repeatable.
ONE = ("--threads", "1")


def test_the_maps_of_a_rung_are_those_of_a_hub_that_received_its_packets(small_bundle):
    layout = small_bundle.layouts[2]
    latents = np.random.default_rng(0).normal(size=(5, layout.channels, 8, 8)).astype(np.float32)
    encoded = accuracy.encode(layout, latents, CODERS[0], payload=40)
    for rung in layout.rungs:
        maps = accuracy.received(layout, encoded, rung)
        for k, latent in enumerate(latents):
            packets = encode_stage(layout, latent, inference_id=0, payload=40, coder=CODERS[0])
            sent = packets[: int(encoded.packets[rung][k])]
            assert sum(map(len, sent)) == encoded.bytes[rung][k]
            buffer = StageBuffer(layout)
            for packet in sent:
                buffer.add(Header.unpack(packet), packet)
            assert buffer.received >= layout.rung_end(rung)
            np.testing.assert_array_equal(maps[k], buffer.features())


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
    exits = document["codecs"]["plain"]["exits"]
    assert [entry["stage"] for entry in exits] == sorted(tiny_bundle.layouts)
    for entry in exits:
        sizes = [rung["size"] for rung in entry["rungs"]]
        assert sizes == list(tiny_bundle.layouts[entry["stage"]].rungs)
        bytes_sent = [rung["bytes"] for rung in entry["rungs"]]
        assert bytes_sent == sorted(bytes_sent)
        assert bytes_sent[0] > 0
        assert {"packets", "accuracy_groups", "accuracy_wake_words"} <= set(entry["rungs"][0])


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
