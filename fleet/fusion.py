# SPDX-License-Identifier: Apache-2.0
"""The hub's network: merge what arrived of two stages, fuse, go on with the backbone (FLEET sections 3.3, 3.4)."""

from __future__ import annotations

import copy
import math
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
from fleet.packet import PICTURE
from fleet.picture import PictureExit


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


class CombinationBlocks(nn.Module):
    """As published: a block for every combination of sizes at which the fused stages have arrived (section 3.3).

    The paper sends nothing but whole sizes. Where packets are missing, a stage counts as arrived at the largest size
    that has no more coefficients than are known of it, whichever those are, and at the smallest where those are fewer.

    Args:
        channels: channels of each fused view, oldest first.
        out: channels of stage n's map, the input of stage n+1.
        size: cells a side of that map.
        sizes: of each fused stage, the sizes that it may arrive at, ascending; the last is its finest.
    """

    def __init__(self, channels: Sequence[int], out: int, *, size: int, sizes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.sizes = tuple(tuple(of_stage) for of_stage in sizes)
        self.blocks = nn.ModuleList(
            ExitBlock(channels, out, size=size) for _ in range(math.prod(len(of_stage) for of_stage in self.sizes))
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """As :meth:`ExitBlock.forward`; the images of a batch may have arrived at different sizes."""
        chosen = self.combination(maps)
        there = sorted(set(chosen.tolist()))
        if len(there) == 1:
            whole: Tensor = self.blocks[there[0]](maps)
            return whole
        order = torch.cat([(chosen == k).nonzero().flatten() for k in there])
        parts = [self.blocks[k]([m[chosen == k] for m in maps]) for k in there]
        return torch.cat(parts)[order.argsort()]

    def combination(self, maps: Sequence[Tensor]) -> Tensor:
        """Which block each image gets, shape (B,)."""
        chosen = torch.zeros(len(maps[0]), dtype=torch.long, device=maps[0].device)
        for view, sizes in zip(maps, self.sizes, strict=True):
            known = view[:, view.shape[1] // 2 :].mean((1, 2, 3)) * sizes[-1] ** 2  # coefficients a channel, (B,)
            ends = torch.tensor([s * s for s in sizes[1:]], device=known.device)
            chosen = chosen * len(sizes) + (known[:, None] > ends - 0.5).sum(1)
        return chosen


class CloudNetwork(nn.Module):
    """All exits over one shared trunk: the remaining stages and head of the backbone, or of the hub's own copy.

    Args:
        backbone: the trained backbone or the hub's copy; its stages and head are shared, not copied.
        channels: channels that travel, by stage.
        fuse: k of the paper, how many stages an exit fuses (2; fewer where there are not so many).
        sizes: by stage, the sizes that it may arrive at; then exits have a block for each combination of them
            (:class:`CombinationBlocks`) in place of one that is told how much is known.
        picture: exit 0, where the picture itself travels too; it looks at that alone, and no other exit does.
    """

    def __init__(
        self,
        backbone: Backbone,
        channels: Mapping[int, int],
        *,
        fuse: int = 2,
        sizes: Mapping[int, Sequence[int]] | None = None,
        picture: PictureExit | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.fuse, self.combinations = backbone, fuse, sizes is not None
        self.fused = {n: tuple(range(max(min(channels), n - fuse + 1), n + 1)) for n in channels}
        specs = {spec.n: spec for spec in backbone.stage_specs}
        self.exits = nn.ModuleDict()
        for n, stages in self.fused.items():
            views, out, size = [2 * channels[m] for m in stages], specs[n].channels, specs[n].size
            self.exits[str(n)] = (
                ExitBlock(views, out, size=size)
                if sizes is None
                else CombinationBlocks(views, out, size=size, sizes=[sizes[m] for m in stages])
            )
        if picture is not None:
            self.exits[str(PICTURE)] = picture
            self.fused = {PICTURE: (PICTURE,), **self.fused}

    def _joins(self, exit_stage: int) -> int:
        """The stage behind which an exit goes on in the trunk: its own, but for that of the picture."""
        block = self.exits[str(exit_stage)]
        return block.joins if isinstance(block, PictureExit) else exit_stage

    def forward(self, exit_stage: int, maps: Sequence[Tensor]) -> Tensor:
        """Logits of one exit.

        Args:
            exit_stage: n.
            maps: views of the stages ``fused[n]``, oldest first, shapes (B, 2 c_i, g_i, g_i).

        Returns:
            Shape (B, classes).
        """
        block = self.exits[str(exit_stage)]
        return self.backbone.from_stage(self._joins(exit_stage), block(maps))

    def forward_many(self, views: Mapping[int, Sequence[Tensor]]) -> dict[int, Tensor]:
        """Logits of several exits in one pass through the trunk, which every exit joins behind its own stage.

        Args:
            views: by exit, as :meth:`forward` takes them, each with a batch of its own.

        Returns:
            By exit, shape (B, classes).
        """
        batch: Tensor | None = None
        order: list[int] = []
        for n in range(min(map(self._joins, views)), len(self.backbone.stages) + 1):
            if batch is not None:
                batch = self.backbone.stages[n - 1](batch)
            for exit_stage in sorted(e for e in views if self._joins(e) == n):
                joined = self.exits[str(exit_stage)](views[exit_stage])  # (B, C_n, H_n, W_n)
                order.append(exit_stage)
                batch = joined if batch is None else torch.cat([batch, joined])
        assert batch is not None
        sizes = [len(views[exit_stage][0]) for exit_stage in order]
        return dict(zip(order, torch.split(self.backbone.run_head(batch), sizes), strict=True))


TRUNK, TRUNK_CHANGE, TRUNK_NIBBLES, TRUNK_STEP = "trunk.", "trunk_change.", "trunk_nibbles.", "trunk_step."
"""How the hub's files of a bundle name the trunk's weights where they are not the base network's: small ones as they
are, large ones as their change from the base network's, in whole steps of a byte or of half a byte, and the step of
each output channel."""
_LARGE = 4096  # weights
_LEVELS, _FEW_LEVELS = 127, 7  # of a change that fits a byte, and half a byte


PICTURE_STAGES = "stages."
"""How the hub's file of a picture names the weights of its exit's own stages, packed as a trunk is."""


def has_own_trunk(bundle: Bundle) -> bool:
    """Whether a bundle's hub has other weights behind its exits than the device has."""
    with safe_open(bundle.cloud_path, "pt") as file:
        return any(key.startswith((TRUNK, TRUNK_CHANGE)) for key in file.keys())  # noqa: SIM118 - no mapping


def with_trunk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The hub's weights from the file's: a trunk of its own takes the base network's place."""
    base = {key.removeprefix(IN_BUNDLE): value for key, value in state.items() if key.startswith(IN_BUNDLE)}
    trunk, rest = unpacked_trunk(state, base)
    return rest | {f"{IN_BUNDLE}{key}": value for key, value in trunk.items()}


def unpacked_trunk(
    state: Mapping[str, Tensor], base: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights that :func:`packed_trunk` packed, and whatever else a file holds.

    Args:
        state: of the file.
        base: the base network's weights, as they are stored.
    """
    trunk = {key.removeprefix(TRUNK): value for key, value in state.items() if key.startswith(TRUNK)}
    for name, change in state.items():
        if name.startswith(TRUNK_CHANGE):
            key = name.removeprefix(TRUNK_CHANGE)
            trunk[key] = base[key].float() + change.float() * state[f"{TRUNK_STEP}{key}"].float()
        if name.startswith(TRUNK_NIBBLES):
            key = name.removeprefix(TRUNK_NIBBLES)
            levels = torch.stack([change & 15, change >> 4], dim=1).flatten()[: base[key].numel()].float() - 8
            trunk[key] = base[key].float() + levels.reshape(base[key].shape) * state[f"{TRUNK_STEP}{key}"].float()
    parts = (TRUNK, TRUNK_CHANGE, TRUNK_NIBBLES, TRUNK_STEP)
    return trunk, {key: value for key, value in state.items() if not key.startswith(parts)}


def packed_trunk(
    trunk: Mapping[str, Tensor], base: Mapping[str, Tensor], *, nibbles: bool = False
) -> dict[str, Tensor]:
    """A trunk's weights as the hub's file has them beside the base network's; the inverse of :func:`unpacked_trunk`.

    A trunk has moved little from where it began: a byte for the change is finer than half precision for the whole.

    Args:
        trunk: its weights.
        base: the base network's, as they are stored.
        nibbles: half a byte a weight, for copies that have moved little.
    """
    packed = {}
    levels = _FEW_LEVELS if nibbles else _LEVELS
    for key, value in trunk.items():
        if value.numel() < _LARGE or value.ndim < 2:
            packed[f"{TRUNK}{key}"] = value
            continue
        change = value.float() - base[key].float()  # (out, ...)
        step = change.abs().amax(dim=tuple(range(1, value.ndim)), keepdim=True).clamp_min(1e-12) / levels
        whole = (change / step).round()
        if nibbles:
            pairs = F.pad((whole + 8).flatten(), (0, whole.numel() % 2)).to(torch.uint8).reshape(-1, 2)
            packed[f"{TRUNK_NIBBLES}{key}"] = pairs[:, 0] | pairs[:, 1] << 4
        else:
            packed[f"{TRUNK_CHANGE}{key}"] = whole.to(torch.int8)
        packed[f"{TRUNK_STEP}{key}"] = step
    return packed


def _floats(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _picture(bundle: Bundle, backbone: Backbone, state: Mapping[str, Tensor]) -> PictureExit:
    """Exit 0 of a bundle; ``state`` is the hub's other file, which holds the base network that its stages began as."""
    layout = bundle.layouts[PICTURE]
    packed = _floats(load_file(bundle.picture_path, device="cpu"))
    keys = module_keys(backbone)
    base = {keys.get(key, key): state[f"{IN_BUNDLE}{key}"] for key in backbone.state_dict()}
    own, rest = unpacked_trunk(packed, base)
    depth = 1 + max(int(key.removeprefix(PICTURE_STAGES).split(".", 1)[0]) for key in own)
    found = PictureExit(
        layout.channels,
        grid=layout.ladder.finest,
        block=bundle.input_size // layout.ladder.finest,
        stages=copy.deepcopy(list(backbone.stages[:depth])),
    )
    found.load_state_dict(rest | own)
    return found


def module_keys(backbone: Backbone) -> dict[str, str]:
    """By name of a stage's weight in the backbone, its name in an exit's own copy of that stage."""
    names = {id(tensor): name for name, tensor in backbone.state_dict(keep_vars=True).items()}
    return {
        names[id(tensor)]: f"{PICTURE_STAGES}{k}.{name}"
        for k, stage in enumerate(backbone.stages)
        for name, tensor in stage.state_dict(keep_vars=True).items()
    }


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
        channels = {n: layout.channels for n, layout in bundle.layouts.items() if n != PICTURE}
        state = _floats(load_file(bundle.cloud_path, device="cpu"))
        picture = None if bundle.picture is None else _picture(bundle, backbone, state)
        sizes = {n: bundle.layouts[n].rungs for n in channels} if bundle.combinations else None
        cloud = CloudNetwork(backbone, channels, fuse=bundle.fuse, sizes=sizes, picture=picture)
        state = with_trunk(state)
        if picture is not None:
            state |= {f"exits.{PICTURE}.{key}": value for key, value in picture.state_dict().items()}
        cloud.load_state_dict(state)
    except Exception as err:  # safetensors raises its own class, torch RuntimeError
        # Torch lists every parameter, one a line: the first says enough.
        cause = " ".join(str(err).split())[:200] or type(err).__name__
        raise FleetError(f"{bundle.cloud_path} does not fit the manifest: {cause}") from err
    cloud.eval()
    cloud.to(device=device)
    return cloud.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
