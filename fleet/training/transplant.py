# SPDX-License-Identifier: Apache-2.0
"""Trained encoders and exits of a bundle, to go on with: also where more channels are to travel than did."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import load_file
from torch import Tensor, nn

from fleet.backbones import IN_BUNDLE
from fleet.bundle import Bundle
from fleet.encoder import StageEncoder
from fleet.errors import FleetError
from fleet.fusion import CloudNetwork, ExitBlock, with_trunk


def transplant(bundle: Bundle, encoders: nn.ModuleDict, cloud: CloudNetwork) -> None:
    """Put a bundle's weights into encoders and a hub's network of the same stages.

    A channel that the bundle does not have keeps its encoder's random weights, and the exits' weights for it are
    zero, so every exit answers as it did.

    Args:
        bundle: whose weights they are.
        encoders: keyed by the stage's number as text, with at least as many channels.
        cloud: the hub's network.

    Raises:
        FleetError: other stages, grids or levels, fewer channels, or another network.
    """
    if bundle.combinations or cloud.combinations:
        raise FleetError("exits with a block for every combination of sizes cannot be trained further: --new-exits")
    if bundle.fuse != cloud.fuse:
        raise FleetError(f"exits of {bundle.path} fuse {bundle.fuse} stages, not {cloud.fuse}: --new-exits")
    new = {int(n): encoder.channels for n, encoder in encoders.items() if isinstance(encoder, StageEncoder)}
    old = {n: layout.channels for n, layout in bundle.layouts.items()}
    if set(new) != set(old) or any(new[n] < old[n] for n in old):
        raise FleetError(f"{bundle.path} sends channels {old}, of which {new} would lose some: begin without it")
    for n, layout in bundle.layouts.items():
        encoder = encoders[str(n)]
        assert isinstance(encoder, StageEncoder)
        if (encoder.grid, encoder.levels) != (layout.ladder.finest, layout.quantiser.levels):
            raise FleetError(f"stage {n} of {bundle.path} has another grid or other levels: begin without it")
        _fill_encoder(bundle, n, encoder)
    stored = load_file(bundle.cloud_path).items()
    state = with_trunk({key: value.float() if value.is_floating_point() else value for key, value in stored})
    trunk = {key: value for key, value in cloud.state_dict().items() if key.startswith(IN_BUNDLE)}
    try:
        for n, stages in cloud.fused.items():
            block = cloud.exits[str(n)]
            assert isinstance(block, ExitBlock)
            places = _places([old[m] for m in stages], [new[m] for m in stages])
            for name, tensor in block.state_dict().items():
                if tensor.is_floating_point():
                    _fill(tensor, state.pop(f"exits.{n}.{name}"), places)
        cloud.load_state_dict({key: state[key] for key, v in trunk.items() if v.is_floating_point()}, strict=False)
    except (RuntimeError, KeyError, IndexError) as err:
        raise FleetError(f"{bundle.cloud_path} is of another network: {' '.join(str(err).split())[:160]}") from err


@torch.no_grad()
def _fill_encoder(bundle: Bundle, n: int, encoder: StageEncoder) -> None:
    """The projection from the device's stage, the quantiser from the layout."""
    there = bundle.layouts[n].quantiser
    count = len(there.low)
    model = onnx.load(str(bundle.stage_path(bundle.stages[n - 1], "float")))
    # Kept in half precision under a name of its own: see `fleet.export.half_weights`.
    found = {t.name.removesuffix("_half"): numpy_helper.to_array(t) for t in model.graph.initializer}
    try:
        weight, bias = (
            torch.from_numpy(found[f"encoder.project.{name}"].copy()).float() for name in ("weight", "bias")
        )
    except KeyError as err:
        raise FleetError(f"stage {n} of {bundle.path} has no encoder that can be read") from err
    encoder.project.weight[:count] = weight
    assert encoder.project.bias is not None
    encoder.project.bias[:count] = bias
    encoder.low[:count] = torch.tensor(there.low)
    encoder.log_step[:count] = torch.tensor(there.step).log()


def _places(old: Sequence[int], new: Sequence[int]) -> list[int]:
    """Where an exit's input channels, values and then known shares of every stage, lie once there are more."""
    places, start = [], 0
    for before, now in zip(old, new, strict=True):
        places += [start + half * now + c for half in (0, 1) for c in range(before)]
        start += 2 * now
    return places


@torch.no_grad()
def _fill(tensor: Tensor, value: Tensor, places: Sequence[int]) -> None:
    """Copy a weight of an exit; what it takes of the exit's own layers stands behind the input channels."""
    if tensor.shape == value.shape:
        tensor.copy_(value)
        return
    inner = value.shape[1] - len(places)
    tensor.zero_()
    tensor[:, places] = value[:, : len(places)]
    tensor[:, tensor.shape[1] - inner :] = value[:, len(places) :]
