# SPDX-License-Identifier: Apache-2.0
"""What is exported is the network that was there, stage by stage, up to the half precision that it travels in."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fleet import export
from fleet.bundle import MANIFEST, Bundle
from fleet.errors import FleetError
from fleet.export import _shipped, half_weights, untrained_bundle
from fleet.fusion import load_cloud
from fleet.runtime import DeviceNetwork

HALF = {"rtol": 0.02, "atol": 0.01}  # 11 bits of every weight, through up to 17 stages


@pytest.fixture(scope="module")
def original(tiny_bundle, tmp_path_factory):
    """What the tiny bundle was made of, in full precision."""
    kept = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "export_bundle", lambda _directory, **parts: kept.update(parts))
        folder = tmp_path_factory.mktemp("unused")
        untrained_bundle(folder, classes=tiny_bundle.classes, seed=1, input_size=tiny_bundle.input_size)
    kept["cloud"].eval()
    return kept


@pytest.fixture(scope="module")
def network(tiny_bundle):
    return DeviceNetwork(tiny_bundle)


@pytest.fixture(scope="module")
def image():
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def close(ours, theirs):
    scale = float(theirs.abs().max())
    np.testing.assert_allclose(ours / scale, theirs.numpy() / scale, **HALF)


# The device's half --------------------------------------------------------------------------------------------
def test_every_stage_and_what_travels_of_it_is_torch_s(network, original, image):
    backbone, encoders = original["cloud"].backbone, original["encoders"]
    features, reference = image.numpy(), image
    with torch.inference_mode():
        for n, stage in enumerate(backbone.stages, start=1):
            output = network.run(n, features)
            reference = stage(reference)
            close(output.features, reference)
            if n in encoders:
                close(output.latent, encoders[n](reference)[0])
            else:
                assert output.latent is None
            features, reference = output.features, torch.from_numpy(output.features)  # errors do not add up


def test_the_stages_one_after_the_other_are_the_whole_network(network, original, image):
    features = image.numpy()
    for n in network.stage_numbers:
        features = network.run(n, features).features
    with torch.inference_mode():
        close(features, original["cloud"].backbone(image))


def test_the_stages_of_the_manifest_are_those_of_the_backbone_with_the_encoder_s_work_counted(tiny_bundle, original):
    specs = original["cloud"].backbone.stage_specs
    assert [stage.n for stage in tiny_bundle.stages] == [spec.n for spec in specs]
    for stage, spec in zip(tiny_bundle.stages, specs, strict=True):
        encoder = original["encoders"].get(stage.n)
        extra = encoder.channels * spec.channels * spec.size**2 if encoder is not None else 0
        assert sum(stage.macs.values()) == spec.macs.total + extra


def test_layouts_say_what_the_encoders_send(tiny_bundle, original):
    assert tiny_bundle.layouts == original["layouts"]
    for n, encoder in original["encoders"].items():
        layout = tiny_bundle.layouts[n]
        assert (layout.channels, layout.ladder.finest) == (encoder.channels, encoder.grid)
        np.testing.assert_allclose(layout.quantiser.step, encoder.step.detach().numpy(), rtol=1e-6)


def test_the_hub_s_quantiser_is_the_encoder_s(tiny_bundle, original, image):
    """Training rounds in torch, the product in numpy: the same levels must come out."""
    encoder, layout = original["encoders"][1], tiny_bundle.layouts[1]
    with torch.inference_mode():
        latent = encoder(original["cloud"].backbone.stages[0](image))
        rounded = encoder.quantise(latent)[0].numpy()
    ours = layout.quantiser.dequantise(layout.quantiser.quantise(latent[0].numpy()))
    np.testing.assert_allclose(ours, rounded, atol=1e-5)


# The hub's half -----------------------------------------------------------------------------------------------
def test_the_hub_loads_the_weights_that_were_exported(tiny_bundle, original):
    loaded, exported = load_cloud(tiny_bundle).state_dict(), original["cloud"].state_dict()
    assert loaded.keys() == exported.keys()
    for key, value in exported.items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(loaded[key], expected), key


def test_every_exit_of_the_hub_is_the_one_that_was_exported(tiny_bundle, original):
    cloud, generator = load_cloud(tiny_bundle), torch.Generator().manual_seed(0)
    for n, fused in cloud.fused.items():
        layouts = [tiny_bundle.layouts[m] for m in fused]
        maps = [torch.randn(1, 2 * o.channels, o.ladder.finest, o.ladder.finest, generator=generator) for o in layouts]
        with torch.inference_mode():
            close(cloud(n, maps).numpy(), original["cloud"](n, maps))


# Files --------------------------------------------------------------------------------------------------------
def test_weights_are_half_precision_on_disk(tiny_bundle):
    """Half the download; ONNX Runtime makes them single again when it loads."""
    tensors = [t for s in tiny_bundle.stages for t in onnx.load(tiny_bundle.stage_path(s, "float")).graph.initializer]
    weights = [t for t in tensors if t.dims and np.prod(t.dims) > 16]
    assert weights
    assert all(t.data_type == TensorProto.FLOAT16 for t in weights)


def test_an_untrained_bundle_says_so(tiny_bundle):
    assert not tiny_bundle.trained
    manifest = json.loads((tiny_bundle.path / MANIFEST).read_text())
    assert manifest["notes"] == {"weights": "random, seed 1"}
    assert Bundle.load(tiny_bundle.path) == tiny_bundle


def test_a_seed_gives_the_same_weights_again_and_leaves_other_randomness_alone(original, tmp_path, monkeypatch):
    again = {}
    monkeypatch.setattr(export, "export_bundle", lambda _directory, **parts: again.update(parts))
    torch.manual_seed(5)
    untrained_bundle(tmp_path, classes=original["classes"], seed=1, input_size=32)
    drawn = torch.rand(3)
    for key, value in original["cloud"].state_dict().items():
        assert torch.equal(again["cloud"].state_dict()[key], value), key
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    untrained_bundle(tmp_path, classes=original["classes"], seed=2, input_size=32)
    assert not torch.equal(again["encoders"][1].project.weight, original["encoders"][1].project.weight)


def test_a_directory_that_cannot_be_written_is_one_clear_line(original, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FleetError, match=r"cannot write the bundle to .*file/bundle"):
        export.export_bundle(tmp_path / "file" / "bundle", name="x", **original_without_name(original))


def original_without_name(original):
    return {key: value for key, value in original.items() if key != "name"}


def test_a_weight_that_half_precision_cannot_hold_stays_single():
    values = {"large": np.array([1e6, 1.0], np.float32), "small": np.array([0.1, 2.0], np.float32)}
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "large"], ["y"]), helper.make_node("Add", ["y", "small"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(v, k) for k, v in values.items()],
    )
    model = half_weights(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    types = {t.name: t.data_type for t in model.graph.initializer}
    assert types == {"large": TensorProto.FLOAT, "small_half": TensorProto.FLOAT16}


def test_a_tensor_of_the_hub_that_half_precision_cannot_hold_stays_single():
    """The running variance of a norm, for example: as infinity it would silence its channel."""
    variance = torch.tensor([1e6, 1.0])
    assert torch.equal(_shipped(variance), variance)
    assert _shipped(torch.tensor([0.1])).dtype == torch.float16
    assert _shipped(torch.tensor(3)).dtype == torch.int64
