# SPDX-License-Identifier: Apache-2.0
"""Local exits in a bundle on disk: exported, found again, run, and replaced without a moment of harm."""

import contextlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fleet.bundle import Bundle
from fleet.errors import FleetError
from fleet.local_exits import LocalHead, attach_local_exits, stage_output_shape
from fleet.runtime import DeviceNetwork


def head(bundle, n, *, seed=0, **changes):
    channels = stage_output_shape(bundle, n)[1]
    torch.manual_seed(seed)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(bundle.classes)))
    made = LocalHead(module, {"linear": channels * len(bundle.classes)}, temperature=1.5, threshold=0.7)
    return replace(made, **changes)


def attach(directory, *stages, **changes):
    bundle = Bundle.load(directory)
    return attach_local_exits(directory, {n: head(bundle, n, **changes) for n in stages})


def refused(directory, heads):
    with pytest.raises(FleetError) as problem:
        attach_local_exits(directory, heads)
    assert "\n" not in str(problem.value)
    return str(problem.value)


def test_exits_are_found_again_with_all_that_was_said_of_them(tiny_copy):
    before = Bundle.load(tiny_copy)
    attach(tiny_copy, 5, 3)
    found = Bundle.load(tiny_copy)
    assert list(found.local_exits) == [3, 5]
    exit_5 = found.local_exits[5]
    assert (exit_5.file, exit_5.temperature, exit_5.threshold) == ("local05.onnx", 1.5, 0.7)
    assert exit_5.macs == {"linear": stage_output_shape(found, 5)[1] * 5}
    assert found.identity != before.identity
    assert replace(found, local_exits={}, identity=before.identity, checksums={}) == replace(before, checksums={})


def test_a_bundle_without_them_is_written_as_it_always_was(tiny_copy):
    before = (tiny_copy / "manifest.json").read_bytes()
    assert b"local_exits" not in before
    attach(tiny_copy, 4)
    attach_local_exits(tiny_copy, {})
    assert (tiny_copy / "manifest.json").read_bytes() == before
    assert not list(tiny_copy.glob("local*"))


def test_the_device_runs_what_torch_ran(tiny_copy):
    bundle = attach(tiny_copy, 3, 8)
    network = DeviceNetwork(bundle)
    features = network.prepare(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    for n in range(1, 9):
        features = network.run(n, features).features
        if n in (3, 8):
            with torch.no_grad():
                theirs = head(bundle, n).module(torch.from_numpy(features)).numpy()
            np.testing.assert_allclose(network.run_local(n, features), theirs, rtol=0.01, atol=0.01)


def test_exits_that_are_replaced_leave_no_file_behind(tiny_copy):
    attach(tiny_copy, 2, 6)
    attach(tiny_copy, 6, 7, seed=1)
    assert sorted(path.name for path in tiny_copy.glob("local*")) == ["local06.onnx", "local07.onnx"]
    assert list(Bundle.load(tiny_copy).local_exits) == [6, 7]


@pytest.mark.parametrize("survives", range(5))
def test_a_power_cut_at_any_moment_leaves_a_bundle_that_loads(tiny_copy, monkeypatch, survives):
    attach(tiny_copy, 5)
    replace_file, left = Path.replace, survives

    def until_the_cut(path, target):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(5, "power cut")
        return replace_file(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", until_the_cut)
        with contextlib.suppress(FleetError):
            attach(tiny_copy, 5, 6, seed=1)
    # The manifest without exits, two files, the manifest with them.
    assert list(Bundle.load(tiny_copy).local_exits) == ([5] if survives == 0 else [5, 6] if survives >= 4 else [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": 0.0}, "positive temperature"),
        ({"temperature": math.nan}, "positive temperature"),
        ({"threshold": math.nan}, "threshold"),
        ({"macs": {"conv": -1}}, "negative"),
        ({"module": nn.Flatten()}, "logits"),
        ({"module": nn.Linear(7, 5)}, "does not take features"),
    ],
)
def test_an_exit_that_cannot_be_is_refused_and_nothing_has_changed(tiny_copy, changes, words):
    attach(tiny_copy, 5)
    before = {path.name: path.read_bytes() for path in tiny_copy.iterdir()}
    bundle = Bundle.load(tiny_copy)
    assert words in refused(tiny_copy, {4: head(bundle, 4), 5: head(bundle, 5, **changes)})
    assert {path.name: path.read_bytes() for path in tiny_copy.iterdir()} == before


@pytest.mark.parametrize("n", [0, -1, 18, 99])
def test_a_stage_that_has_no_features_to_look_at_is_refused(tiny_copy, n):
    bundle = Bundle.load(tiny_copy)
    assert f"no stage {n}" in refused(tiny_copy, {n: head(bundle, 5)})


def test_an_exit_that_never_answers_on_its_own_survives_the_manifest(tiny_copy):
    attach(tiny_copy, 5, threshold=math.inf)
    assert Bundle.load(tiny_copy).local_exits[5].threshold == math.inf
