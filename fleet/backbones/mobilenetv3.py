# SPDX-License-Identifier: Apache-2.0
"""MobileNetV3-Large (Howard et al., ICCV 2019, table 1) as a list of 17 stages and a head.

Parameter names and shapes equal those of torchvision's ``mobilenet_v3_large``, so its public weights load.
Smaller inputs change strides only (FLEET section 4.1), never a shape: the same weights fit every variant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from fleet.backbones.stage import Backbone


@dataclass(frozen=True)
class _Row:
    """One bottleneck of the published table: kernel, expansion, output, squeeze-and-excite, swish, stride."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    swish: bool
    stride: int


_STEM = 16
_TABLE = (
    _Row(3, 16, 16, False, False, 1),  # stage 2
    _Row(3, 64, 24, False, False, 2),
    _Row(3, 72, 24, False, False, 1),
    _Row(5, 72, 40, True, False, 2),  # stage 5
    _Row(5, 120, 40, True, False, 1),
    _Row(5, 120, 40, True, False, 1),
    _Row(3, 240, 80, False, True, 2),  # stage 8, the last exit
    _Row(3, 200, 80, False, True, 1),
    _Row(3, 184, 80, False, True, 1),
    _Row(3, 184, 80, False, True, 1),
    _Row(3, 480, 112, True, True, 1),
    _Row(3, 672, 112, True, True, 1),
    _Row(5, 672, 160, True, True, 2),  # stage 14
    _Row(5, 960, 160, True, True, 1),
    _Row(5, 960, 160, True, True, 1),  # stage 16
)
_LAST = 960
_HIDDEN = 1280

_STRIDE_ONE: dict[int, frozenset[int]] = {
    224: frozenset(),
    64: frozenset({5}),
    32: frozenset({3, 14}),
}
"""Stages whose stride becomes 1, by input size (FLEET section 4.1)."""


def _eighths(value: float) -> int:
    """Nearest multiple of eight, never below eight or 10 % under the value (the network's own rule)."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * value else rounded + 8


def _conv(
    into: int, out: int, kernel: int = 1, *, act: type[nn.Module] | None, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(into, out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out, eps=0.001, momentum=0.01),
    ]
    if act is not None:
        layers.append(act(inplace=True))
    return nn.Sequential(*layers)


class _SqueezeExcite(nn.Module):
    """Channel gates from the map's mean, with the hard sigmoid of MobileNetV3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _eighths(channels // 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        gates = F.adaptive_avg_pool2d(features, 1)  # (B, C, 1, 1)
        gates = self.fc2(F.relu(self.fc1(gates)))
        return features * F.hardsigmoid(gates)


class _Bottleneck(nn.Module):
    """Expand, filter each channel, gate, project; with a shortcut where the shapes allow one."""

    def __init__(self, into: int, row: _Row, stride: int) -> None:
        super().__init__()
        act: type[nn.Module] = nn.Hardswish if row.swish else nn.ReLU
        layers: list[nn.Module] = []
        if row.expanded != into:
            layers.append(_conv(into, row.expanded, act=act))
        layers.append(_conv(row.expanded, row.expanded, row.kernel, act=act, stride=stride, groups=row.expanded))
        if row.squeeze:
            layers.append(_SqueezeExcite(row.expanded))
        layers.append(_conv(row.expanded, row.out, act=None))
        self.block = nn.Sequential(*layers)
        self.shortcut = stride == 1 and into == row.out

    def start_as_identity(self) -> None:
        """Zero the last norm's scale, which shortens the slow start of training (Goyal et al., 2017)."""
        last = self.block[-1]
        assert isinstance(last, nn.Sequential)
        assert isinstance(last[1], nn.BatchNorm2d)
        nn.init.zeros_(last[1].weight)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.block(features)
        return features + result if self.shortcut else result


class MobileNetV3Large(Backbone):
    """MobileNetV3-Large for images of 224, 64 or 32 pixels.

    Args:
        input_size: 224 (as published), 64 (stage 5 keeps its size) or 32 (stages 3 and 14 keep theirs).
        classes: number of outputs.
    """

    def __init__(self, *, input_size: int, classes: int) -> None:
        super().__init__("mobilenetv3", input_size=input_size, classes=classes, exit_stages=8)
        keep = _STRIDE_ONE[input_size]
        stages: list[nn.Module] = [_conv(3, _STEM, 3, act=nn.Hardswish, stride=2)]
        channels = _STEM
        for n, row in enumerate(_TABLE, start=2):
            stages.append(_Bottleneck(channels, row, 1 if n in keep else row.stride))
            channels = row.out
        stages.append(_conv(channels, _LAST, act=nn.Hardswish))
        self.features = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(_LAST, _HIDDEN), nn.Hardswish(inplace=True), nn.Dropout(0.2), nn.Linear(_HIDDEN, classes)
        )
        self._stages = stages
        self._initialise()

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                # Counted over the inputs: the outputs' count would make depthwise filters vanishingly small.
                nn.init.kaiming_normal_(layer.weight, mode="fan_in")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0.0, 0.01)
                nn.init.zeros_(layer.bias)
        for layer in self.modules():
            if isinstance(layer, _Bottleneck) and layer.shortcut:
                layer.start_as_identity()

    def run_head(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from stage 17's output (B, 960, H, W)."""
        logits: Tensor = self.classifier(self.avgpool(features).flatten(1))
        return logits
