# SPDX-License-Identifier: Apache-2.0
"""Weights of a backbone in files: safetensors of ours, and public checkpoints of torchvision's models."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fleet.backbones.stage import Backbone
from fleet.errors import FleetError


def save_weights(backbone: Backbone, path: Path) -> None:
    """Write the weights as safetensors in half precision: half the size, and no loss that accuracies show.

    Running variances stay in single precision, because half precision ends at 65,504.
    """
    state = {}
    for key, value in backbone.state_dict().items():
        narrow = value.is_floating_point() and not key.endswith(("running_mean", "running_var"))
        state[key] = (value.half() if narrow else value).cpu().contiguous()
    about = {"backbone": backbone.name, "input_size": str(backbone.input_size), "classes": str(backbone.classes)}
    save_file(state, path, metadata=about)


def load_weights(backbone: Backbone, path: Path) -> tuple[str, ...]:
    """Load weights that fit the backbone, of this input size or another, in any precision.

    Args:
        backbone: takes the weights.
        path: ``.safetensors``, or a ``.pth`` with a plain state dictionary (no code in it is run). The hub's file
            of a bundle will do: the base network is in it.

    Returns:
        Names of the last layer's tensors that were left as they are, because the file has other classes.

    Raises:
        FleetError: unreadable, or weights of another network.
    """
    state = _read(path)
    of_bundle = {key.removeprefix(IN_BUNDLE): value for key, value in state.items() if key.startswith(IN_BUNDLE)}
    state = of_bundle or state
    own = backbone.state_dict()
    if set(state) != set(own):
        odd = sorted(set(state) ^ set(own))
        msg = f"{path} is not a {backbone.name}: {odd[0]} and {len(odd) - 1} more names differ"
        raise FleetError(msg)
    last = [key for key in own if own[key].shape[:1] == (backbone.classes,) and key.split(".")[0] in _HEADS]
    left = tuple(key for key in last if state[key].shape != own[key].shape)
    for key, value in own.items():
        if key not in left and state[key].shape != value.shape:
            msg = (
                f"{path} is not a {backbone.name}: {key} has shape {tuple(state[key].shape)}, not {tuple(value.shape)}"
            )
            raise FleetError(msg)
    backbone.load_state_dict({key: state[key] for key in own if key not in left}, strict=False)
    return left


IN_BUNDLE = "backbone."  # how :class:`fleet.fusion.CloudNetwork` names its base network's weights
_HEADS = frozenset({"classifier", "fc", "AuxLogits"})


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as err:
        msg = f"no weights at {path}"
        raise FleetError(msg) from err
    except SafetensorError as err:
        msg = f"{path} is damaged or no safetensors file; fetch it again"
        raise FleetError(msg) from err
    except Exception as err:  # torch raises whatever the damaged part of the file leads to
        msg = f"{path} is damaged or no file of weights; fetch it again"
        raise FleetError(msg) from err
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        msg = f"{path} is not a plain state dictionary; save model.state_dict() alone"
        raise FleetError(msg)
    return loaded
