# SPDX-License-Identifier: Apache-2.0
"""InceptionV3 (Szegedy et al., CVPR 2016, figures 5 to 7) as a list of 16 stages and a head.

Stages 1 to 5 are the five convolutions of the stem, each with the max-pooling that follows it; stages 6 to 16
are the mixed blocks. Parameter names and shapes equal those of torchvision's ``inception_v3``, so its public
weights load. Those were trained on values from -1 to 1, into which the network turns its input itself: all
backbones take images normalised alike.

Small images drop max-pooling layers (FLEET section 4.1): 32 pixels both, 64 pixels one. The paper does not
say which; it is the first here, so that stages 1 to 4 keep maps above 16 cells, the largest rung of the ladder.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fleet.backbones.stage import Backbone

_Size: TypeAlias = int | tuple[int, int]

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class _Conv(nn.Module):
    """Convolution, batch norm, ReLU; the padding keeps the size unless it is switched off."""

    def __init__(self, into: int, out: int, kernel: _Size = 1, *, stride: int = 1, same: bool = True) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if same else (0, 0)
        self.conv = nn.Conv2d(into, out, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(features)))


class _Pooled(_Conv):
    """The 1x1 convolution of a block's pooling branch, after a mean over 3x3 cells."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(F.avg_pool2d(features, 3, 1, 1))


class _Mixed(nn.Module):
    """Branches side by side; each entry of the result is concatenated along the channels."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat(self.branches(features), 1)

    def branches(self, features: Tensor) -> list[Tensor]:
        """One output (B, C_i, H, W) a branch."""
        raise NotImplementedError


class _MixedA(_Mixed):
    """Figure 5: 1x1, 5x5, two 3x3, pooling."""

    def __init__(self, into: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(into, 64)
        self.branch5x5_1 = _Conv(into, 48)
        self.branch5x5_2 = _Conv(48, 64, 5)
        self.branch3x3dbl_1 = _Conv(into, 64)
        self.branch3x3dbl_2 = _Conv(64, 96, 3)
        self.branch3x3dbl_3 = _Conv(96, 96, 3)
        self.branch_pool = _Pooled(into, pooled)

    def branches(self, features: Tensor) -> list[Tensor]:
        five = self.branch5x5_2(self.branch5x5_1(features))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(features)))
        return [self.branch1x1(features), five, double, self.branch_pool(features)]


class _MixedB(_Mixed):
    """Figure 10: halves the size."""

    def __init__(self, into: int) -> None:
        super().__init__()
        self.branch3x3 = _Conv(into, 384, 3, stride=2, same=False)
        self.branch3x3dbl_1 = _Conv(into, 64)
        self.branch3x3dbl_2 = _Conv(64, 96, 3)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2, same=False)

    def branches(self, features: Tensor) -> list[Tensor]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(features)))
        return [self.branch3x3(features), double, F.max_pool2d(features, 3, 2)]


class _MixedC(_Mixed):
    """Figure 6: 7x7 filters as rows and columns."""

    def __init__(self, into: int, narrow: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(into, 192)
        self.branch7x7_1 = _Conv(into, narrow)
        self.branch7x7_2 = _Conv(narrow, narrow, (1, 7))
        self.branch7x7_3 = _Conv(narrow, 192, (7, 1))
        self.branch7x7dbl_1 = _Conv(into, narrow)
        self.branch7x7dbl_2 = _Conv(narrow, narrow, (7, 1))
        self.branch7x7dbl_3 = _Conv(narrow, narrow, (1, 7))
        self.branch7x7dbl_4 = _Conv(narrow, narrow, (7, 1))
        self.branch7x7dbl_5 = _Conv(narrow, 192, (1, 7))
        self.branch_pool = _Pooled(into, 192)

    def branches(self, features: Tensor) -> list[Tensor]:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(features)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(features)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return [self.branch1x1(features), seven, double, self.branch_pool(features)]


class _MixedD(_Mixed):
    """Halves the size a second time."""

    def __init__(self, into: int) -> None:
        super().__init__()
        self.branch3x3_1 = _Conv(into, 192)
        self.branch3x3_2 = _Conv(192, 320, 3, stride=2, same=False)
        self.branch7x7x3_1 = _Conv(into, 192)
        self.branch7x7x3_2 = _Conv(192, 192, (1, 7))
        self.branch7x7x3_3 = _Conv(192, 192, (7, 1))
        self.branch7x7x3_4 = _Conv(192, 192, 3, stride=2, same=False)

    def branches(self, features: Tensor) -> list[Tensor]:
        three = self.branch3x3_2(self.branch3x3_1(features))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(features)))
        return [three, self.branch7x7x3_4(seven), F.max_pool2d(features, 3, 2)]


class _MixedE(_Mixed):
    """Figure 7: branches that end in a row and a column filter side by side."""

    def __init__(self, into: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(into, 320)
        self.branch3x3_1 = _Conv(into, 384)
        self.branch3x3_2a = _Conv(384, 384, (1, 3))
        self.branch3x3_2b = _Conv(384, 384, (3, 1))
        self.branch3x3dbl_1 = _Conv(into, 448)
        self.branch3x3dbl_2 = _Conv(448, 384, 3)
        self.branch3x3dbl_3a = _Conv(384, 384, (1, 3))
        self.branch3x3dbl_3b = _Conv(384, 384, (3, 1))
        self.branch_pool = _Pooled(into, 192)

    def branches(self, features: Tensor) -> list[Tensor]:
        three = self.branch3x3_1(features)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(features))
        return [
            self.branch1x1(features),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(features),
        ]


class _Auxiliary(nn.Module):
    """The published network's side classifier, which public weights contain; FLEET's exits replace it.

    It is held so that state dictionaries fit in both directions, and never run.
    """

    def __init__(self, into: int, classes: int) -> None:
        super().__init__()
        self.conv0 = _Conv(into, 128)
        self.conv1 = _Conv(128, 768, 5, same=False)
        self.fc = nn.Linear(768, classes)


class _Rescale(nn.Module):
    """From the common normalisation to values from -1 to 1."""

    def forward(self, image: Tensor) -> Tensor:
        deviation = image.new_tensor(_STD).view(1, 3, 1, 1)
        mean = image.new_tensor(_MEAN).view(1, 3, 1, 1)
        return (image * deviation + mean - 0.5) / 0.5


class InceptionV3(Backbone):
    """InceptionV3 for images of 224, 64 or 32 pixels.

    Args:
        input_size: 224 (as published, for 299), 64 (first max-pooling left out) or 32 (both left out).
        classes: number of outputs.
    """

    def __init__(self, *, input_size: int, classes: int) -> None:
        super().__init__("inceptionv3", input_size=input_size, classes=classes, exit_stages=5)
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2, same=False)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, same=False)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = _Conv(64, 80)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, same=False)
        self.Mixed_5b = _MixedA(192, 32)
        self.Mixed_5c = _MixedA(256, 64)
        self.Mixed_5d = _MixedA(288, 64)
        self.Mixed_6a = _MixedB(288)
        self.Mixed_6b = _MixedC(768, 128)
        self.Mixed_6c = _MixedC(768, 160)
        self.Mixed_6d = _MixedC(768, 160)
        self.Mixed_6e = _MixedC(768, 192)
        self.AuxLogits = _Auxiliary(768, classes)
        self.Mixed_7a = _MixedD(768)
        self.Mixed_7b = _MixedE(1280)
        self.Mixed_7c = _MixedE(2048)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2048, classes)
        first = [nn.MaxPool2d(3, 2)] if input_size == 224 else []
        second = [nn.MaxPool2d(3, 2)] if input_size != 32 else []
        self._stages = [
            nn.Sequential(_Rescale(), self.Conv2d_1a_3x3),
            self.Conv2d_2a_3x3,
            nn.Sequential(self.Conv2d_2b_3x3, *first),
            self.Conv2d_3b_1x1,
            nn.Sequential(self.Conv2d_4a_3x3, *second),
        ]
        self._stages += [self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a, self.Mixed_6b]
        self._stages += [self.Mixed_6c, self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c]
        self._initialise()

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)

    def run_head(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from stage 16's output (B, 2048, H, W)."""
        pooled = F.adaptive_avg_pool2d(features, 1).flatten(1)
        logits: Tensor = self.fc(self.dropout(pooled))
        return logits
