# SPDX-License-Identifier: Apache-2.0
"""Finds a backbone by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fleet.backbones.inceptionv3 import InceptionV3
from fleet.backbones.mobilenetv3 import MobileNetV3Large
from fleet.backbones.resnet34 import ResNet34
from fleet.backbones.stage import Backbone
from fleet.errors import FleetError

MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
"""Per-channel mean and deviation of RGB in 0..1 that every backbone expects its input normalised with;
those of the public weights."""

BACKBONES: Final[dict[str, Callable[..., Backbone]]] = {
    "mobilenetv3": MobileNetV3Large,
    "resnet34": ResNet34,
    "inceptionv3": InceptionV3,
}
INPUT_SIZES: Final = (224, 64, 32)


def build_backbone(name: str, *, input_size: int, classes: int) -> Backbone:
    """Build a backbone with random weights.

    Args:
        name: one of ``BACKBONES``.
        input_size: height and width of the images: 224, 64 or 32 pixels (FLEET section 4.1).
        classes: number of outputs.

    Raises:
        FleetError: unknown name, or a size that has no variant.
    """
    if name not in BACKBONES:
        msg = f"unknown backbone '{name}'; choose one of {', '.join(BACKBONES)}"
        raise FleetError(msg)
    if input_size not in INPUT_SIZES:
        msg = f"{name} has no variant for {input_size} pixels; choose one of {', '.join(map(str, INPUT_SIZES))}"
        raise FleetError(msg)
    if classes < 2:
        msg = f"{name} needs at least two classes, not {classes}"
        raise FleetError(msg)
    return BACKBONES[name](input_size=input_size, classes=classes)
