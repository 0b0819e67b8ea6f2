# SPDX-License-Identifier: Apache-2.0
"""The device's network in ONNX Runtime: input, stages, and a stage that is cut short from another thread."""

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import fleet
from fleet.bundle import Bundle, LocalExit
from fleet.errors import FleetError
from fleet.runtime import CancelledError, DeviceNetwork

INPUT = np.ones((1, 3, 32, 32), np.float32)


def model(nodes, constants, outputs):
    graph = helper.make_graph(
        nodes,
        "stage",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def doubling():
    """Doubles its input; the first channel travels."""
    return model(
        [
            helper.make_node("Mul", ["features", "two"], ["output"]),
            helper.make_node("Slice", ["output", "from", "to", "axis"], ["latent"]),
        ],
        {
            "two": np.float32(2),
            "from": np.array([0]),
            "to": np.array([1]),
            "axis": np.array([1]),
        },
        [("output", [1, 3, 32, 32]), ("latent", [1, 1, 32, 32])],
    )


def endless():
    """Adds one to its input for hours."""
    body = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["y"]), helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 32, 32]),
        ],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    return model(
        [helper.make_node("Loop", ["trips", "true", "features"], ["output"], body=body)],
        {"trips": np.int64(10**10), "true": np.array(True)},
        [("output", [1, 3, 32, 32])],
    )


@pytest.fixture
def bundle_of(small_bundle, tmp_path):
    """A bundle with these bytes as its stages: stage 1 doubles, the last is what is given."""

    def make(last):
        stages = small_bundle.stages
        for stage in stages:
            (tmp_path / stage.files["float"]).write_bytes(last if stage is stages[-1] else doubling())
        (tmp_path / small_bundle.cloud_file).write_bytes(b"")
        return replace(small_bundle, path=tmp_path).save({})

    return make


# Input --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tiny_network(tiny_bundle):
    return DeviceNetwork(tiny_bundle)


def pixels(network, prepared):
    """A prepared input as an image again."""
    mean, std = np.array(network.bundle.mean), np.array(network.bundle.std)
    return (prepared[0].transpose(1, 2, 0) * std + mean) * 255


def test_an_image_of_the_right_size_is_normalised_and_nothing_else(tiny_network):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    prepared = tiny_network.prepare(image)
    assert prepared.dtype == np.float32
    assert prepared.flags.c_contiguous
    expected = (image / 255 - tiny_network.bundle.mean) / tiny_network.bundle.std
    np.testing.assert_allclose(prepared, expected.transpose(2, 0, 1)[None], rtol=1e-5, atol=1e-6)


@settings(max_examples=30)
@given(height=st.integers(1, 200), width=st.integers(1, 200))
def test_an_image_of_any_shape_becomes_the_input(tiny_network, height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    prepared = tiny_network.prepare(image)
    assert prepared.shape == (1, 3, 32, 32)
    assert pixels(tiny_network, prepared).min() >= -0.01
    assert pixels(tiny_network, prepared).max() <= 255.01


@pytest.mark.parametrize(("height", "width"), [(4000, 6000), (6000, 40), (1, 5000), (1, 1), (31, 33), (33, 31)])
def test_an_even_image_stays_even_however_large_small_or_long_it_is(tiny_network, height, width):
    image = np.full((height, width, 3), (10, 128, 250), np.uint8)
    np.testing.assert_allclose(
        pixels(tiny_network, tiny_network.prepare(image)), np.broadcast_to([10, 128, 250], (32, 32, 3)), atol=0.6
    )


@pytest.mark.parametrize("upright", [False, True])
def test_the_central_square_is_what_is_looked_at(tiny_network, upright):
    image = np.zeros((32, 96, 3), np.uint8)
    image[:, 32:64] = np.random.default_rng(0).integers(1, 256, (32, 32, 3))
    shown = image.transpose(1, 0, 2) if upright else image
    square = shown[32:64] if upright else shown[:, 32:64]
    np.testing.assert_allclose(pixels(tiny_network, tiny_network.prepare(shown)), square, atol=1e-3)


def test_making_an_image_smaller_averages_and_does_not_skip_pixels(tiny_network):
    """A checkerboard becomes grey, not black or white."""
    image = np.indices((256, 256)).sum(axis=0) % 2 * np.uint8(255)
    prepared = tiny_network.prepare(np.repeat(image[..., None], 3, axis=2).astype(np.uint8))
    np.testing.assert_allclose(pixels(tiny_network, prepared), 127.5, atol=1)


def test_a_mirrored_view_of_an_image_is_an_image(tiny_network):
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    for view in (image[::-1], image[:, ::-1], image[..., ::-1], image[::2, ::2]):
        np.testing.assert_array_equal(tiny_network.prepare(view), tiny_network.prepare(view.copy()))


# Stages -------------------------------------------------------------------------------------------------------
def test_a_stage_gives_the_next_stage_s_input_and_what_travels(bundle_of):
    network = DeviceNetwork(bundle_of(doubling()))
    output = network.run(1, INPUT)
    np.testing.assert_array_equal(output.features, 2 * INPUT)
    assert output.latent.shape == (1, 32, 32)
    assert np.all(output.latent == 2)


def test_stages_come_in_their_order_the_head_last(tiny_network, tiny_bundle):
    assert tiny_network.stage_numbers == tuple(range(1, len(tiny_bundle.stages) + 1))


def test_a_stage_that_does_not_take_what_it_gets_is_an_error_in_one_line(tiny_network):
    for features in (INPUT[:, :2], INPUT[..., :9], np.ones((1, 3, 32, 32)), INPUT[0]):
        with pytest.raises(FleetError, match="stage 1 of") as problem:
            tiny_network.run(1, features)
        assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: b"no network", lambda data: data[: len(data) // 2], lambda data: data[9:]]
)
def test_a_file_that_is_no_network_is_an_error_in_one_line(bundle_of, damage):
    bundle = bundle_of(damage(doubling()))
    with pytest.raises(FleetError, match=r"10\.onnx cannot be run") as problem:
        DeviceNetwork(bundle)
    assert "\n" not in str(problem.value)


def test_a_file_that_vanished_is_an_error_in_one_line(bundle_of):
    bundle = bundle_of(doubling())
    (bundle.path / "4.onnx").unlink()
    with pytest.raises(FleetError, match=r"4\.onnx cannot be run"):
        DeviceNetwork(bundle)


def test_a_precision_that_the_bundle_lacks_is_refused(tiny_bundle):
    with pytest.raises(FleetError, match="no int8 stages; it has: float"):
        DeviceNetwork(tiny_bundle, precision="int8")


# Cutting short ------------------------------------------------------------------------------------------------
def cancel_until_done(network, run):
    """What a run that is cut short from this thread raises, and how long it took (s)."""
    raised = []

    def worker():
        try:
            run()
        except BaseException as err:
            raised.append(err)

    thread = threading.Thread(target=worker, daemon=True)
    begun = time.monotonic()
    thread.start()
    while thread.is_alive() and time.monotonic() < begun + 30:
        network.cancel()
        thread.join(0.002)
    assert not thread.is_alive(), "still running after 30 s"
    return raised


def test_a_running_stage_is_cut_short_from_another_thread(bundle_of):
    network = DeviceNetwork(bundle_of(endless()))
    (err,) = cancel_until_done(network, lambda: network.run(10, INPUT))
    assert isinstance(err, CancelledError)


def test_a_running_local_exit_is_cut_short_from_another_thread(bundle_of):
    bundle = bundle_of(endless())
    head = LocalExit(3, bundle.stages[-1].files["float"], {}, 1.0, 0.5)
    network = DeviceNetwork(replace(bundle, local_exits={3: head}))
    (err,) = cancel_until_done(network, lambda: network.run_local(3, INPUT))
    assert isinstance(err, CancelledError)


def test_a_local_exit_that_does_not_take_its_features_is_one_line(bundle_of):
    bundle = bundle_of(doubling())
    head = LocalExit(3, bundle.stages[-1].files["float"], {}, 1.0, 0.5)
    network = DeviceNetwork(replace(bundle, local_exits={3: head}))
    with pytest.raises(FleetError, match="local exit 3") as problem:
        network.run_local(3, INPUT[:, :1])
    assert "\n" not in str(problem.value)


def test_after_a_stage_was_cut_short_the_next_one_runs(bundle_of):
    network = DeviceNetwork(bundle_of(endless()))
    cancel_until_done(network, lambda: network.run(10, INPUT))
    np.testing.assert_array_equal(network.run(1, INPUT).features, 2 * INPUT)


def test_cancelling_while_nothing_runs_does_nothing_to_what_comes(bundle_of):
    network = DeviceNetwork(bundle_of(doubling()))
    network.cancel()
    network.run(1, INPUT)
    network.cancel()
    np.testing.assert_array_equal(network.run(2, INPUT).features, 2 * INPUT)


# What the device must not carry -------------------------------------------------------------------------------
def test_a_device_never_imports_torch_and_imports_start_nothing(tiny_bundle: Bundle):
    script = f"""
import sys, threading
import fleet.runtime, fleet.inference, fleet.bundle, fleet.answers, fleet.session, fleet.platforms, fleet.link.scheduler
assert "torch" not in sys.modules, "importing took torch along"
assert "onnxruntime" not in sys.modules, "importing took ONNX Runtime along"
assert "rclpy" not in sys.modules, "importing took ROS along"
assert threading.active_count() == 1, threading.enumerate()
import numpy as np
network = fleet.runtime.DeviceNetwork(fleet.bundle.Bundle.load({str(tiny_bundle.path)!r}))
features = network.prepare(np.zeros((48, 64, 3), np.uint8))
for n in network.stage_numbers:
    features = network.run(n, features).features
assert features.shape == (1, {len(tiny_bundle.classes)})
assert "torch" not in sys.modules, "running took torch along"
"""
    root = Path(fleet.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
