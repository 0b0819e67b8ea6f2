# SPDX-License-Identifier: Apache-2.0
"""int8 stages give what the float ones give, up to eight bits, and nobody hears the quantiser."""

import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from fleet.bundle import MANIFEST, Bundle
from fleet.errors import FleetError
from fleet.int8 import quantise_bundle
from fleet.runtime import DeviceNetwork


def photographs(count, seed):
    """Smooth pictures: neighbouring pixels of a photograph are alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def quantised(tiny_bundle, tmp_path_factory):
    """A copy of the tiny bundle with int8 stages, and what stood on the screen while they were made."""
    path = tmp_path_factory.mktemp("int8") / "bundle"
    shutil.copytree(tiny_bundle.path, path)
    return quantise_bundle(Bundle.load(path), photographs(24, 0))


def outputs(bundle, precision, image):
    network = DeviceNetwork(bundle, precision=precision)
    features, latents = network.prepare(image), {}
    for n in network.stage_numbers:
        output = network.run(n, features)
        assert output.features.dtype == np.float32
        features = output.features
        if output.latent is not None:
            assert output.latent.dtype == np.float32
            latents[n] = output.latent
    return latents, features


def test_what_travels_of_the_int8_stages_is_close_to_that_of_the_float_ones(quantised):
    for image in photographs(3, 1):
        exact, answer = outputs(quantised, "float", image)
        latents, int8_answer = outputs(quantised, "int8", image)
        assert sorted(latents) == sorted(quantised.layouts)
        for n, latent in latents.items():
            spread = exact[n].std()
            assert np.abs(latent - exact[n]).mean() < 0.15 * spread, f"stage {n}"
        assert np.corrcoef(answer.ravel(), int8_answer.ravel())[0, 1] > 0.95


def test_the_manifest_names_and_vouches_for_the_int8_files(quantised, tiny_bundle):
    loaded = Bundle.load(quantised.path)
    assert loaded.identity == quantised.identity != tiny_bundle.identity
    assert loaded.notes == tiny_bundle.notes != {}
    for stage in loaded.stages:
        assert loaded.stage_path(stage, "int8").is_file()
        assert stage.files["int8"] in loaded.checksums
        assert stage.files["float"] in loaded.checksums
    damaged = loaded.stage_path(loaded.stages[3], "int8")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + b"?")
    try:
        with pytest.raises(FleetError, match="not the file that the manifest describes"):
            Bundle.load(loaded.path)
    finally:
        damaged.write_bytes(content)


def test_weights_are_stored_once_and_in_eight_bits(quantised):
    for stage in quantised.stages[1:]:
        model = onnx.load(quantised.stage_path(stage, "int8"))
        by_type = {}
        for tensor in model.graph.initializer:
            if len(tensor.dims) > 1:  # biases and scales are vectors
                by_type[tensor.data_type] = by_type.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
        in_float = by_type.pop(onnx.TensorProto.FLOAT, 0)
        assert set(by_type) == {onnx.TensorProto.INT8}
        # The projection to what travels is all that stays.
        layout = quantised.layouts.get(stage.n)
        projection = 0 if layout is None else layout.channels * quantised_width(model)
        assert in_float == projection, f"stage {stage.n}"


def quantised_width(model):
    """Channels of a stage's map."""
    return next(o for o in model.graph.output if o.name == "output").type.tensor_type.shape.dim[1].dim_value


def test_a_stage_with_nothing_to_quantise_has_one_file_for_both(quantised):
    assert len(set(quantised.stages[0].files.values())) == 1
    assert all(len(set(stage.files.values())) == 2 for stage in quantised.stages[1:])


def test_the_quantiser_is_not_heard_and_leaves_the_log_as_it_was(tiny_copy, capfd, caplog):
    root = logging.getLogger()
    handlers, disabled = list(root.handlers), logging.root.manager.disable
    quantise_bundle(Bundle.load(tiny_copy), photographs(4, 2))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert not caplog.records
    assert (list(root.handlers), logging.root.manager.disable) == (handlers, disabled)


def test_any_number_of_images_will_do(tiny_copy):
    many = quantise_bundle(Bundle.load(tiny_copy), photographs(101, 3))  # two passes of fifty, and one over
    assert DeviceNetwork(many, precision="int8").stage_numbers == tuple(s.n for s in many.stages)


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (32, 32, 3), (4, 32, 32, 1)])
def test_what_is_no_set_of_pictures_is_refused(tiny_bundle, shape):
    with pytest.raises(FleetError, match="RGB images"):
        quantise_bundle(tiny_bundle, np.zeros(shape, np.uint8))


def test_a_file_that_cannot_be_written_is_one_line_and_the_bundle_stays_what_it_was(tiny_copy):
    before = (tiny_copy / MANIFEST).read_bytes()
    (tiny_copy / "stage02.int8.onnx").mkdir()
    with pytest.raises(FleetError, match="cannot write int8 stages") as problem:
        quantise_bundle(Bundle.load(tiny_copy), photographs(2, 4))
    assert "\n" not in str(problem.value)
    assert (tiny_copy / MANIFEST).read_bytes() == before


def test_a_stage_that_the_quantiser_cannot_take_is_one_line(tiny_copy, monkeypatch):
    def refuse(*_arguments, **_options):
        raise ValueError("no such\noperator")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", refuse)
    with pytest.raises(FleetError, match=r"stage02\.onnx cannot be quantised: no such operator"):
        quantise_bundle(Bundle.load(Path(tiny_copy)), photographs(2, 5))
