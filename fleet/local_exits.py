# SPDX-License-Identifier: Apache-2.0
"""Puts trained local exits into a bundle on disk: torch modules become ONNX files that the manifest names."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from torch import nn

from fleet.bundle import Bundle, LocalExit
from fleet.errors import FleetError
from fleet.export import OPSET, half_weights


@dataclass(frozen=True)
class LocalHead:
    """A trained local exit.

    Attributes:
        module: features of its stage (1, C, H, W) to logits (1, classes).
        macs: multiply-accumulates by layer type (``conv``, ``depthwise``, ``linear``).
        temperature: logits are divided by it, from the calibration split.
        threshold: the certainty from which it answers, in the bundle's trigger and unit; infinite: never.
    """

    module: nn.Module
    macs: Mapping[str, int]
    temperature: float
    threshold: float


def attach_local_exits(directory: str | Path, heads: Mapping[int, LocalHead]) -> Bundle:
    """Give a bundle these local exits in place of those it has.

    Stopped at any moment, it leaves a bundle with the old exits, without any, or with the new ones, but always a whole
    one. Its identity on the air is another afterwards: the hub needs the same manifest.

    Args:
        directory: of the bundle.
        heads: by the stage whose features they take; none removes all local exits.

    Returns:
        The bundle as it is now on disk.

    Raises:
        FleetError: no bundle there, no such stage, a module that does not fit its stage or the classes, a temperature
            or threshold that is none, or a directory that cannot be written. The bundle then has no local exits at
            worst.
    """
    bundle = Bundle.load(directory)
    exits = {n: _local_exit(n, head) for n, head in sorted(heads.items())}
    models = {exits[n].file: _as_onnx(bundle, n, heads[n].module) for n in exits}
    old = {head.file for head in bundle.local_exits.values()}
    if bundle.local_exits:  # files must not change under a manifest that has their checksums
        bundle = replace(bundle, local_exits={}).save()
    try:
        for name in old - set(models):
            (bundle.path / name).unlink(missing_ok=True)
        for name, model in models.items():
            part = bundle.path / f"{name}.part"
            try:
                part.write_bytes(model)
                part.replace(bundle.path / name)
            finally:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
    except OSError as err:
        raise FleetError(f"cannot write local exits to {bundle.path}: {err.strerror}") from err
    return replace(bundle, local_exits=exits).save() if exits else bundle


def stage_output_shape(bundle: Bundle, n: int) -> tuple[int, ...]:
    """Shape (1, C, H, W) of a stage's features, as its ONNX file has it.

    Raises:
        FleetError: the bundle has no such stage before its head.
    """
    if not 1 <= n < len(bundle.stages):
        raise FleetError(f"{bundle.path} has no stage {n} for a local exit: choose from 1 to {len(bundle.stages) - 1}")
    graph = onnx.load(str(bundle.stage_path(bundle.stages[n - 1], "float"))).graph
    return tuple(int(side.dim_value) for side in graph.output[0].type.tensor_type.shape.dim)


def _local_exit(n: int, head: LocalHead) -> LocalExit:
    return LocalExit(n, f"local{n:02d}.onnx", dict(head.macs), float(head.temperature), float(head.threshold))


def _as_onnx(bundle: Bundle, n: int, module: nn.Module) -> bytes:
    features = torch.zeros(stage_output_shape(bundle, n))
    training = module.training
    module.eval()
    buffer = io.BytesIO()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # every shape here is fixed, which the tracer cannot know
            shape = tuple(module(features).shape)
            if shape != (1, len(bundle.classes)):
                raise FleetError(f"local exit {n} gives {shape}, not one row of {len(bundle.classes)} logits")
            torch.onnx.export(
                module,
                (features,),
                buffer,  # type: ignore[arg-type]
                input_names=["features"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=False,
            )
    except RuntimeError as err:  # torch's word for shapes that do not fit
        raise FleetError(f"local exit {n} does not take features of {tuple(features.shape)}: {_line(err)}") from err
    finally:
        module.train(training)
    model: bytes = half_weights(onnx.load_from_string(buffer.getvalue())).SerializeToString()
    return model


def _line(err: Exception) -> str:
    return str(err).strip().splitlines()[0]
