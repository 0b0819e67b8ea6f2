# SPDX-License-Identifier: Apache-2.0
"""int8 stages of a bundle: its ONNX files through ONNX Runtime's own static quantiser (QDQ).

Weights are quantised per channel, activations per tensor. Two things stay in float, together 1.5 % of the
multiply-accumulates of MobileNetV3-Large at 64 pixels:

* the first convolution, which sees pixels of every scale;
* the small projection of each stage to the channels that travel, whose output the hub quantises once more.

With only these left, stage 1 has nothing to quantise: its one file serves both precisions. Measured on 1,000
calibration images of the shipped kind of model, as the Kullback-Leibler divergence of the class probabilities from
the float stages' (device's own answer; exit 1; exit 2; exit 4), ranges from 200 training images:

====================================================  ======  ======  ======  ======
what stays float                                      device  exit 1  exit 2  exit 4
====================================================  ======  ======  ======  ======
nothing                                               0.0039  0.0166  0.0087  0.0049
first convolution                                     0.0025  0.0129  0.0066  0.0034
first convolution and projections                     0.0025  0.0000  0.0033  0.0029
the same, weights in 7 bits (what is built)           0.0035  0.0000  0.0036  0.0037
====================================================  ======  ======  ======  ======

On 5,000 calibration images the last row loses 0.34 points of group accuracy on the device (79.60 to 79.26 %) and 0.00,
0.04, -0.06, 0.36 and 0.20 at exits 1, 2, 4, 6 and 8, each with a 95 % interval of +-0.32 (exit 1: none).

Squeeze-and-excitation and the last classifier need no exception: left in float too, they bring 0.0026 down to 0.0022
(8-bit weights, 400 images) and make the files twice as large. Weights use 7 of their 8 bits because processors without
VNNI add pairs of products in 16 bits, which 8-bit weights overflow (2 · 255 · 127 > 32767) and 7-bit ones cannot
(2 · 255 · 64): a bundle travels, and must answer alike everywhere. Ranges end at the 99.999th percentile: the extremes
themselves (MinMax) cost 0.0043 where that costs 0.0025, the 99.9th percentile 0.03, entropy (40 images) 0.0035.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from fleet.bundle import Bundle, StageFile
from fleet.codec import FloatArray
from fleet.errors import FleetError
from fleet.runtime import DeviceNetwork

IMAGES = 300
"""Images that the ranges are taken from where there are so many; from 100 on more change little."""
PERCENTILE = 99.999
_LAYERS = ("Conv", "Gemm", "MatMul")  # what holds multiply-accumulates
_AT_ONCE = 50  # images whose intermediate maps are held in memory
_INPUT = "features"


def quantise_bundle(bundle: Bundle, images: npt.NDArray[np.uint8], seen: Callable[[], None] = lambda: None) -> Bundle:
    """Add int8 stages to a bundle on disk.

    Every stage gets its ranges from the float output of the stage before, so the choice for one stage does not
    depend on another's.

    Args:
        bundle: with float stages; its directory gets the files, its manifest names them.
        images: RGB, none of the calibration or test split, shape (N, H, W, 3).
        seen: called once a stage.

    Returns:
        The bundle as it is now on disk; its identity is another.

    Raises:
        FleetError: no images, a stage that the quantiser cannot take, or the directory cannot be written.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or not len(images):
        raise FleetError(f"int8 stages need RGB images of shape (N, H, W, 3), not {images.shape}")
    network = DeviceNetwork(bundle)
    maps = [network.prepare(image) for image in images]  # each (1, C, H, W)
    files: dict[str, bytes] = {}
    stages = []
    for stage in bundle.stages:
        path = bundle.stage_path(stage, "float")
        name = f"{path.stem}.int8.onnx"
        quantised = _quantised(path, maps, first=stage.n == 1)
        if quantised is None:
            name = path.name
        else:
            files[name] = quantised
        stages.append(StageFile(stage.n, {**stage.files, "int8": name}, stage.macs))
        maps = [network.run(stage.n, features).features for features in maps]
        seen()
    try:
        for name, content in files.items():
            (bundle.path / name).write_bytes(content)
    except OSError as err:
        raise FleetError(f"cannot write int8 stages to {bundle.path}: {err.strerror}") from err
    return replace(bundle, stages=tuple(stages)).save()


def _quantised(path: Path, maps: Sequence[FloatArray], *, first: bool) -> bytes | None:
    """The int8 model of a stage; None where nothing of it is to be quantised."""
    from onnxruntime.quantization import (  # noqa: PLC0415 - half a second that a device does not need
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Maps(CalibrationDataReader):  # type: ignore[misc]
        """Hands the quantiser one map after the other, a few dozen a pass."""

        def __init__(self) -> None:
            self.set_range(0, len(maps))

        def __len__(self) -> int:
            return len(maps)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.rest = iter(maps[start_index:end_index])

        def get_next(self) -> dict[str, FloatArray] | None:
            features = next(self.rest, None)
            return None if features is None else {_INPUT: features}

    model = _full_weights(onnx.load(path))
    kept = _stays_float(model.graph, first=first)
    if all(node.name in kept for node in model.graph.node if node.op_type in _LAYERS):
        return None
    many = len(maps) > _AT_ONCE
    maps = maps[: len(maps) // _AT_ONCE * _AT_ONCE] if many else maps  # the quantiser wants whole passes
    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                model,
                target,
                Maps(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=sorted(kept),
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": PERCENTILE, **({"CalibStridedMinMax": _AT_ONCE} if many else {})},
            )
            return target.read_bytes()
        except Exception as err:  # the library raises all kinds
            cause = " ".join(str(err).split())[:200] or type(err).__name__
            raise FleetError(f"{path} cannot be quantised: {cause}") from err


def _full_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Undo :func:`fleet.export.half_weights`: the quantiser wants float weights that are constants."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        half = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if half is None:
            nodes.append(node)
        else:
            half.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(half).astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _stays_float(graph: onnx.GraphProto, *, first: bool) -> set[str]:
    """Names of the nodes that stay float: the projection to what travels, and in stage 1 what reads the image."""
    kept = {node.name for node in graph.node if first and _INPUT in node.input}
    outputs = [output.name for output in graph.output]
    if "latent" in outputs:
        kept |= _before(graph, "latent") - _before(graph, "output")
    return kept


def _before(graph: onnx.GraphProto, tensor: str) -> set[str]:
    """Names of all nodes that a tensor depends on."""
    wanted, found = {tensor}, set()
    for node in reversed(graph.node):  # in topological order
        if wanted.intersection(node.output):
            wanted.update(node.input)
            found.add(node.name)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser logs to the root logger and prints; nothing of that is for the user.

    ``logging.warning`` would also install a handler on a root logger that has none, hence the empty one.
    """
    root, handler, before = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)
