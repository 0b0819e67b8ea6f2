# SPDX-License-Identifier: Apache-2.0
"""Random crops, flips and colours for a whole batch at once: one resampling, no loop over images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fleet.backbones import MEAN, STD
from fleet.training.config import AugmentConfig


def normalise(images: Tensor) -> Tensor:
    """Turn RGB bytes (B, H, W, 3) into the network's input (B, 3, H, W), channels last in memory."""
    floats = images.permute(0, 3, 1, 2).to(torch.float32)  # a view: (B, 3, H, W) with channels last
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1) * 255
    return ((floats - mean) / std).contiguous(memory_format=torch.channels_last)


def augment(
    images: Tensor, config: AugmentConfig, *, size: int, smallest_crop: float, random: torch.Generator
) -> Tensor:
    """Crop, resize, flip and recolour a batch.

    Args:
        images: RGB bytes, shape (B, H, W, 3).
        config: how much.
        size: height and width of the result, in pixels.
        smallest_crop: least share of the area that a crop keeps.
        random: source of every random number.

    Returns:
        Normalised images, shape (B, 3, size, size), channels last in memory.
    """
    floats = normalise(images)  # (B, 3, H, W)
    cropped = F.grid_sample(
        floats,
        _crops(len(images), images.shape[1], config, size, smallest_crop, random).to(images.device),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )  # (B, 3, size, size)
    return _jitter(cropped, config.jitter, random).contiguous(memory_format=torch.channels_last)


def mix(images: Tensor, targets: Tensor, config: AugmentConfig, *, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., 2018) or CutMix (Yun et al., 2019) with the same batch in reverse order.

    Args:
        images: normalised, shape (B, 3, H, W).
        targets: class probabilities, shape (B, classes).
        config: how often and how much.
        random: source of every random number.

    Returns:
        The mixed images and targets, same shapes.
    """
    if config.cutmix > 0 and float(torch.rand((), generator=random)) < config.cutmix:
        size = images.shape[-1]
        side = int(size * math.sqrt(float(torch.rand((), generator=random))))
        top, left = (int(torch.randint(size - side + 1, (), generator=random)) for _ in range(2))
        images = images.clone()
        images[:, :, top : top + side, left : left + side] = images.flip(0)[:, :, top : top + side, left : left + side]
        keep = 1 - side * side / (size * size)
    elif config.mixup > 0:
        keep = _beta(config.mixup, random)
        images = images * keep + images.flip(0) * (1 - keep)
    else:
        return images, targets
    return images, targets * keep + targets.flip(0) * (1 - keep)


def _crops(
    count: int, side: int, config: AugmentConfig, size: int, smallest_crop: float, random: torch.Generator
) -> Tensor:
    """Sampling grids (B, size, size, 2) of random crops, half of them mirrored."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=random) * (high - low) + low

    share = uniform(smallest_crop, 1.0).sqrt()
    stretch = torch.exp(uniform(-0.5, 0.5) * 2 * math.log(config.aspect)).sqrt()
    width, height = share * stretch, share / stretch  # in half-images, as grid_sample counts
    reach = 2 * config.padding / side
    slack_x, slack_y = (1 - width).clamp(min=0) + reach, (1 - height).clamp(min=0) + reach
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = width * mirror
    affine[:, 1, 1] = height
    affine[:, 0, 2] = uniform(-1, 1) * slack_x
    affine[:, 1, 2] = uniform(-1, 1) * slack_y
    return F.affine_grid(affine, [count, 3, size, size], align_corners=False)


def _jitter(images: Tensor, most: float, random: torch.Generator) -> Tensor:
    """Random brightness, contrast and saturation, in the normalised space (where grey is near zero)."""
    if most <= 0:
        return images
    count = len(images)
    factor = (torch.rand(3, count, 1, 1, 1, generator=random) * 2 - 1) * most
    factor = factor.to(images.device)
    brightness, contrast, saturation = factor[0], 1 + factor[1], 1 + factor[2]
    grey = images.mean(1, keepdim=True)  # (B, 1, H, W)
    images = torch.lerp(grey, images, saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    # A deviation of the data is about a quarter of the byte range, so half of it is a visible change.
    return (images - mean) * contrast + mean + brightness


def _beta(alpha: float, random: torch.Generator) -> float:
    """A draw from Beta(alpha, alpha), as the share of two gamma draws by Johnk's method."""
    while True:
        a, b = (float(torch.rand((), generator=random)) ** (1 / alpha) for _ in range(2))
        if 0 < a + b <= 1:
            return float(a / (a + b))
