# SPDX-License-Identifier: Apache-2.0
"""What the three backbones share: a network as a list of stages, with its multiply-accumulates counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates by layer type, for one image.

    Microcontrollers run these three at very different speeds, which is why platform profiles
    (design section 9) price them apart. Additions, activations and batch norm are not counted: the
    norm folds into its convolution.

    Attributes:
        conv: dense convolutions, 1x1 (pointwise) ones and those of squeeze-and-excite blocks included.
        depthwise: convolutions whose groups equal their input channels.
        linear: fully connected layers.
    """

    conv: int = 0
    depthwise: int = 0
    linear: int = 0

    @property
    def total(self) -> int:
        """All multiply-accumulates, whatever the layer type."""
        return self.conv + self.depthwise + self.linear

    def __add__(self, other: Macs) -> Macs:
        return Macs(self.conv + other.conv, self.depthwise + other.depthwise, self.linear + other.linear)


@dataclass(frozen=True)
class StageSpec:
    """One stage of a backbone.

    Attributes:
        n: the stage's number, from 1; the head carries the number after the last stage.
        channels: output channels (classes for the head).
        size: height and width of the output map in cells (1 for the head).
        macs: multiply-accumulates for one image.
    """

    n: int
    channels: int
    size: int
    macs: Macs


class Backbone(nn.Module):
    """A classification network cut into stages.

    Subclasses build their modules under torchvision's names, so that public weights load, and then say
    which of them, in which order, make up the stages.

    Args:
        name: the network's name, as in ``build_backbone``.
        input_size: height and width of the input image in pixels.
        classes: number of outputs.
        exit_stages: N of the paper, the last stage that the device offers for exit.
    """

    def __init__(self, name: str, *, input_size: int, classes: int, exit_stages: int) -> None:
        super().__init__()
        self.name = name
        self.input_size = input_size
        self.classes = classes
        self.exit_stages = exit_stages
        # A plain list: torch must not register the stages' modules under a second name.
        self._stages: list[nn.Module] = []
        self._specs: tuple[StageSpec, ...] = ()

    @property
    def stages(self) -> Sequence[nn.Module]:
        """The stages in order; stage n is ``stages[n - 1]``."""
        return self._stages

    def run_head(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from the last stage's output (B, C, H, W)."""
        raise NotImplementedError

    @property
    def head(self) -> Head:
        """What follows the last stage, as a module that shares this network's parameters."""
        return Head(self)

    @property
    def stage_specs(self) -> tuple[StageSpec, ...]:
        """One entry a stage, and one more for the head; computed by a traced forward at first use."""
        if not self._specs:
            self._specs = tuple(_measure(self))
        return self._specs

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, 3, H, W)."""
        return self.from_stage(0, image)

    def from_stage(self, n: int, features: Tensor) -> Tensor:
        """Logits (B, classes) from the output of stage n; n = 0 starts at the image."""
        for stage in self.stages[n:]:
            features = stage(features)  # (B, C_n, H_n, W_n)
        return self.run_head(features)


class Head(nn.Module):
    """The end of a backbone as a module of its own, for export; it owns no copy of the parameters."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from the last stage's output (B, C, H, W)."""
        return self.backbone.run_head(features)


@contextmanager
def counting(module: nn.Module) -> Iterator[list[Macs]]:
    """Collect the multiply-accumulates of every layer that runs inside, in order; for a batch of one."""
    found: list[Macs] = []

    def conv(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        cells = output.shape[1] * output.shape[2] * output.shape[3]
        macs = cells * layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
        found.append(Macs(depthwise=macs) if 1 < layer.groups == layer.in_channels else Macs(conv=macs))

    def linear(layer: nn.Module, _inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        found.append(Macs(linear=layer.in_features * layer.out_features))

    hooks = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            hooks.append(layer.register_forward_hook(conv))
        elif isinstance(layer, nn.Linear):
            hooks.append(layer.register_forward_hook(linear))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _measure(backbone: Backbone) -> Iterator[StageSpec]:
    """Run one blank image through and note each stage's output shape and multiply-accumulates."""
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        parameter = next(backbone.parameters())
        size = backbone.input_size
        features = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
        with torch.no_grad(), counting(backbone) as found:
            for n, stage in enumerate(backbone.stages, start=1):
                found.clear()
                features = stage(features)
                yield StageSpec(n, features.shape[1], features.shape[2], sum(found, Macs()))
            found.clear()
            logits = backbone.run_head(features)
            yield StageSpec(len(backbone.stages) + 1, logits.shape[1], 1, sum(found, Macs()))
    finally:
        for module, training in modes.items():
            module.training = training
