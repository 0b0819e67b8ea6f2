# SPDX-License-Identifier: Apache-2.0
"""The hub's network: merge what arrived of two stages, fuse, go on with the backbone (FLEET sections 3.3, 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from fleet.backbones import IN_BUNDLE, build_backbone
from fleet.backbones.stage import Backbone
from fleet.bundle import Bundle
from fleet.errors import FleetError


class ExitBlock(nn.Module):
    """Fuses the newest stages' maps into what the backbone's next stage expects.

    Every map is brought to the next stage's input size (the paper's UpSample, bilinear), concatenated
    (eq. 7), and goes through a dense block, f_n of eq. 8, with batch norm of this exit's own.

    Args:
        channels: channels of each fused view, oldest first.
        out: channels of stage n's map, the input of stage n+1.
        size: cells a side of that map.
        growth: channels that each layer of the dense block adds.
        layers: layers of the dense block.
    """

    def __init__(self, channels: Sequence[int], out: int, *, size: int, growth: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.size = size
        width = sum(channels)
        self.layers = nn.ModuleList()
        for _ in range(layers):
            self.layers.append(
                nn.Sequential(
                    nn.Conv2d(width, growth, 3, padding=1, bias=False),
                    nn.BatchNorm2d(growth),
                    nn.Hardswish(inplace=True),
                )
            )
            width += growth
        self.project = nn.Sequential(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The fused map.

        Args:
            maps: views (:func:`fleet.coders.view`), oldest first, shapes (B, 2 c_i, g_i, g_i).

        Returns:
            Shape (B, out, size, size).
        """
        sized = [self._resize(m) for m in maps]
        known = torch.cat(sized, dim=1)  # (B, sum c_i, size, size)
        for layer in self.layers:
            known = torch.cat([known, layer(known)], dim=1)
        fused: Tensor = self.project(known)
        return fused

    def _resize(self, features: Tensor) -> Tensor:
        if features.shape[-1] == self.size:
            return features
        return F.interpolate(features, size=(self.size, self.size), mode="bilinear", align_corners=False)


class CloudNetwork(nn.Module):
    """All exits over one shared trunk: the remaining stages and head of the backbone, or of the hub's own copy.

    Args:
        backbone: the trained backbone or the hub's copy; its stages and head are shared, not copied.
        channels: channels that travel, by stage.
        fuse: k of the paper, how many stages an exit fuses (2; fewer where there are not so many).
    """

    def __init__(self, backbone: Backbone, channels: Mapping[int, int], *, fuse: int = 2) -> None:
        super().__init__()
        self.backbone = backbone
        self.fused = {n: tuple(range(max(min(channels), n - fuse + 1), n + 1)) for n in channels}
        specs = {spec.n: spec for spec in backbone.stage_specs}
        self.exits = nn.ModuleDict(
            {
                str(n): ExitBlock([2 * channels[m] for m in stages], specs[n].channels, size=specs[n].size)
                for n, stages in self.fused.items()
            }
        )

    def forward(self, exit_stage: int, maps: Sequence[Tensor]) -> Tensor:
        """Logits of one exit.

        Args:
            exit_stage: n.
            maps: views of the stages ``fused[n]``, oldest first, shapes (B, 2 c_i, g_i, g_i).

        Returns:
            Shape (B, classes).
        """
        block = self.exits[str(exit_stage)]
        return self.backbone.from_stage(exit_stage, block(maps))

    def forward_many(self, views: Mapping[int, Sequence[Tensor]]) -> dict[int, Tensor]:
        """Logits of several exits in one pass through the trunk, which every exit joins behind its own stage.

        Args:
            views: by exit, as :meth:`forward` takes them, each with a batch of its own.

        Returns:
            By exit, shape (B, classes).
        """
        batch: Tensor | None = None
        sizes = []
        for n in range(min(views), len(self.backbone.stages) + 1):
            if batch is not None:
                batch = self.backbone.stages[n - 1](batch)
            if n in views:
                joined = self.exits[str(n)](views[n])  # (B, C_n, H_n, W_n)
                sizes.append(len(joined))
                batch = joined if batch is None else torch.cat([batch, joined])
        assert batch is not None
        return dict(zip(sorted(views), torch.split(self.backbone.run_head(batch), sizes), strict=True))


TRUNK, TRUNK_CHANGE, TRUNK_STEP = "trunk.", "trunk_change.", "trunk_step."
"""How the hub's file of a bundle names the trunk's weights where they are not the base network's: small ones as they
are, large ones as their change from the base network's, in whole steps, and the step of each output channel."""
_LARGE = 4096  # weights
_LEVELS = 127  # of a change that fits a byte


def has_own_trunk(bundle: Bundle) -> bool:
    """Whether a bundle's hub has other weights behind its exits than the device has."""
    with safe_open(bundle.cloud_path, "pt") as file:
        return any(key.startswith((TRUNK, TRUNK_CHANGE)) for key in file.keys())  # noqa: SIM118 - no mapping


def with_trunk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The hub's weights from the file's: a trunk of its own takes the base network's place."""
    trunk = {key.removeprefix(TRUNK): value for key, value in state.items() if key.startswith(TRUNK)}
    for name, change in state.items():
        if name.startswith(TRUNK_CHANGE):
            key = name.removeprefix(TRUNK_CHANGE)
            trunk[key] = state[f"{IN_BUNDLE}{key}"].float() + change.float() * state[f"{TRUNK_STEP}{key}"].float()
    rest = {key: value for key, value in state.items() if not key.startswith((TRUNK, TRUNK_CHANGE, TRUNK_STEP))}
    return rest | {f"{IN_BUNDLE}{key}": value for key, value in trunk.items()}


def packed_trunk(trunk: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A trunk's weights as the hub's file has them beside the base network's; the inverse of :func:`with_trunk`.

    A trunk has moved little from where it began: a byte for the change is finer than half precision for the whole.

    Args:
        trunk: its weights.
        base: the base network's, as they are stored.
    """
    packed = {}
    for key, value in trunk.items():
        if value.numel() < _LARGE or value.ndim < 2:
            packed[f"{TRUNK}{key}"] = value
            continue
        change = value.float() - base[key].float()  # (out, ...)
        step = change.abs().amax(dim=tuple(range(1, value.ndim)), keepdim=True).clamp_min(1e-12) / _LEVELS
        packed[f"{TRUNK_CHANGE}{key}"] = (change / step).round().to(torch.int8)
        packed[f"{TRUNK_STEP}{key}"] = step
    return packed


def load_cloud(bundle: Bundle, *, device: str = "cpu") -> CloudNetwork:
    """The hub's network of a bundle, ready to run.

    Args:
        bundle: the bundle.
        device: a torch device.

    Raises:
        FleetError: its weights do not fit its manifest.
    """
    backbone = build_backbone(bundle.backbone, input_size=bundle.input_size, classes=len(bundle.classes))
    if len(bundle.stages) != len(backbone.stages) + 1:
        raise FleetError(
            f"{bundle.path} has {len(bundle.stages)} stages with its head, {bundle.backbone} has "
            f"{len(backbone.stages) + 1}: export it again"
        )
    try:
        cloud = CloudNetwork(backbone, {n: layout.channels for n, layout in bundle.layouts.items()})
        state = {
            key: value.float() if value.is_floating_point() else value
            for key, value in load_file(bundle.cloud_path, device="cpu").items()
        }
        cloud.load_state_dict(with_trunk(state))
    except Exception as err:  # safetensors raises its own class, torch RuntimeError
        # Torch lists every parameter, one a line: the first says enough.
        cause = " ".join(str(err).split())[:200] or type(err).__name__
        raise FleetError(f"{bundle.cloud_path} does not fit the manifest: {cause}") from err
    cloud.eval()
    cloud.to(device=device)
    return cloud.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
