# SPDX-License-Identifier: Apache-2.0
"""ResNet34 (He et al., CVPR 2016, table 1) as a list of 17 stages and a head.

Stage 1 is the stem, each later stage one residual block, as a stage of MobileNetV3 is one bottleneck.
Parameter names and shapes equal those of torchvision's ``resnet34``, so its public weights load.

The paper names no change for small images. Here 64 pixels drop the max-pooling layer and 32 pixels also keep
the stem at stride 1. The whole network then divides the size by 16 and 8, as the paper's MobileNetV3 does,
and no weight changes its shape.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fleet.backbones.stage import Backbone

_GROUPS = ((64, 3), (128, 4), (256, 6), (512, 3))  # channels and blocks


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride != 1 or into != out:
            self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(features)))
        shortcut = features if self.downsample is None else self.downsample(features)
        return F.relu(self.bn2(self.conv2(inner)) + shortcut)


class ResNet34(Backbone):
    """ResNet34 for images of 224, 64 or 32 pixels.

    Args:
        input_size: 224 (as published), 64 (no max-pooling) or 32 (no max-pooling, stem with stride 1).
        classes: number of outputs.
    """

    def __init__(self, *, input_size: int, classes: int) -> None:
        super().__init__("resnet34", input_size=input_size, classes=classes, exit_stages=5)
        self.conv1 = nn.Conv2d(3, 64, 7, 1 if input_size == 32 else 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        stem: list[nn.Module] = [self.conv1, self.bn1, nn.ReLU()]
        if input_size == 224:
            stem.append(nn.MaxPool2d(3, 2, 1))
        self._stages = [nn.Sequential(*stem)]
        channels = 64
        for group, (out, count) in enumerate(_GROUPS, start=1):
            blocks: list[nn.Module] = []
            for i in range(count):
                blocks.append(_Block(channels, out, 2 if i == 0 and group > 1 else 1))
                channels = out
            self.add_module(f"layer{group}", nn.Sequential(*blocks))
            self._stages += blocks
        self.fc = nn.Linear(channels, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def run_head(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from stage 17's output (B, 512, H, W)."""
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits
