# SPDX-License-Identifier: Apache-2.0
"""Stage 0: the picture itself travels while the device's first stages still run (design section 12.4; torch).

A small picture is coded in fewer bytes than the features made of it. The device cuts it into blocks and describes each
by a few numbers, as JPEG does (ITU-T T.81), but all of it is learned together with the hub's network that looks at the
result: the transform, the steps, and which numbers are worth their bits. The blocks' numbers are channels of a map of
one cell a block; from there on they are a stage's latent like any other, quantised, coded and cut into packets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fleet.backbones import STD
from fleet.encoder import Encoder

STEP, STEP_GROWTH = 0.6, 0.08
"""With which training begins: the step of a block's mean, in deviations of the input, and how much coarser the next
frequencies are; about JPEG's quality 30."""
_RGB_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # ITU-T T.871


class PictureEncoder(Encoder):
    """The device's stage 0: colour transform, and a linear transform of every block.

    It begins as JPEG's: YCbCr with chroma at half the resolution, and the first frequencies of the discrete cosine
    transform in zigzag order. Low frequencies come first, so the first packets describe the whole picture coarsely.
    Brightness is transformed along rows and down columns one after the other, as there, in half the arithmetic.

    Args:
        input_size: height and width of the picture in pixels.
        grid: blocks a side.
        luma: numbers that describe a block's brightness.
        chroma: numbers that describe it in each of the two colour planes.
        levels: quantiser levels.
    """

    order: Tensor

    def __init__(self, input_size: int, *, grid: int, luma: int, chroma: int, levels: int) -> None:
        super().__init__(luma + 2 * chroma, grid=grid, levels=levels)
        block = input_size // grid
        self.brightness = nn.Conv2d(3, 1, 1, bias=False)
        self.colour = nn.Conv2d(3, 2, 1, bias=False)
        # Separable, as the cosine transform is: along the rows, and of each result down the columns.
        pairs = zigzag(block)[:luma]
        across = [[k for k, (_, column) in enumerate(pairs) if column == u] for u in range(block)]
        across = [of_u for of_u in across if of_u]
        self.rows = nn.Conv2d(1, len(across), (1, block), stride=(1, block), bias=False)
        self.columns = nn.ModuleList(
            nn.Conv2d(1, len(of_u), (block, 1), stride=(block, 1), bias=False) for of_u in across
        )
        self.chroma = nn.Conv2d(2, 2 * chroma, block // 2, stride=block // 2, groups=2, bias=False)
        frequency = torch.tensor([*range(luma), *range(chroma), *range(chroma)], dtype=torch.float32)
        # Interleaved by frequency; of the colours as many as there are, first.
        interleaved = torch.argsort(frequency * torch.where(torch.arange(len(frequency)) < luma, 1, 2), stable=True)
        computed = torch.tensor([*(k for of_u in across for k in of_u), *range(luma, len(frequency))])
        self.register_buffer("order", torch.argsort(computed)[interleaved], persistent=True)
        with torch.no_grad():
            # On normalised input: planes in units of the input's mean deviation.
            matrix = (torch.tensor(_RGB_TO_YCBCR) * torch.tensor(STD) / (sum(STD) / 3))[:, :, None, None]
            self.brightness.weight.copy_(matrix[:1])
            self.colour.weight.copy_(matrix[1:])
            waves = cosine_waves(block)
            self.rows.weight.copy_(waves[: len(across), None, None, :])
            for column, of_u in zip(self.columns, across, strict=True):
                assert isinstance(column, nn.Conv2d)
                column.weight.copy_(waves[[pairs[k][0] for k in of_u]][:, None, :, None])
            # Twice: a block of half the resolution has a quarter of the samples, and so half the amplitude.
            self.chroma.weight.copy_(2 * cosines(block // 2, chroma).repeat(2, 1, 1)[:, None])
            steps = STEP * (1 + STEP_GROWTH * frequency[interleaved])
            self.log_step.copy_(steps.log())
            self.low.copy_(-steps * (levels // 2))  # zero is a level

    @property
    def block(self) -> int:
        """Pixels a side of a block."""
        return int(self.rows.kernel_size[1])

    def forward(self, picture: Tensor) -> Tensor:
        """What travels, before quantisation.

        Args:
            picture: normalised, shape (B, 3, size, size).

        Returns:
            Shape (B, channels, grid, grid).
        """
        rows = self.rows(self.brightness(picture)).split(1, dim=1)
        brightness = [column(row) for column, row in zip(self.columns, rows, strict=True)]
        # Halved before the colours are made, of a quarter as many pixels then.
        colours = self.chroma(self.colour(F.avg_pool2d(picture, 2)))
        numbers: Tensor = torch.cat([*brightness, colours], dim=1)[:, self.order]
        return numbers


class PictureExit(nn.Module):
    """Exit 0: the picture as far as it is known, and first stages of the hub's own that know its faults.

    Every block's numbers are looked at together with its neighbours', and turned back into pixels; the network then
    goes on as on any picture. It joins the shared trunk behind its own stages.

    Args:
        channels: of the latent.
        grid: blocks a side.
        block: pixels a side of a block.
        stages: the hub's own copies of the backbone's first stages.
        width: channels of the two layers that look at neighbours.
    """

    def __init__(self, channels: int, *, grid: int, block: int, stages: Sequence[nn.Module], width: int = 64) -> None:
        super().__init__()
        self.channels, self.grid = channels, grid
        self.look = nn.Sequential(
            nn.Conv2d(2 * channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.Hardswish(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.Hardswish(inplace=True),
        )
        self.paint = nn.ConvTranspose2d(channels + width, 3, block, stride=block)
        self.stages = nn.ModuleList(stages)

    @property
    def joins(self) -> int:
        """The stage behind which this exit goes on in the trunk."""
        return len(self.stages)

    def picture(self, view: Tensor) -> Tensor:
        """The picture.

        Args:
            view: of stage 0 (:func:`fleet.coders.view`), shape (B, 2 channels, grid, grid).

        Returns:
            Normalised, shape (B, 3, size, size).
        """
        painted: Tensor = self.paint(torch.cat([view[:, : self.channels], self.look(view)], dim=1))
        return painted

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The map behind stage :attr:`joins`.

        Args:
            maps: the view of stage 0.
        """
        features = self.picture(maps[0])
        for stage in self.stages:
            features = stage(features)
        return features

    @torch.no_grad()
    def start_as_inverse(self, encoder: PictureEncoder) -> None:
        """Begin by undoing the encoder's transform in the least squares' sense, and with nothing else."""
        size = encoder.block
        probe = torch.eye(3 * size * size).reshape(-1, 3, size, size)
        # An encoder of one block: every pixel's share in every number, shape (3 size², channels).
        forward = encoder(probe)[:, :, 0, 0]
        inverse = torch.linalg.pinv(forward)  # (channels, 3 size²)
        self.paint.weight.zero_()
        self.paint.weight[: self.channels] = inverse.reshape(self.channels, 3, size, size)
        assert self.paint.bias is not None
        self.paint.bias.zero_()


def zigzag(size: int) -> list[tuple[int, int]]:
    """The frequencies of a block, (down, across), the lowest first, in JPEG's order (ITU-T T.81)."""
    return sorted(
        ((row, column) for row in range(size) for column in range(size)),
        key=lambda at: (sum(at), at[0] if sum(at) % 2 else at[1]),
    )


def cosine_waves(size: int) -> Tensor:
    """The basis of the discrete cosine transform (DCT-II, orthonormal) in one dimension, shape (frequency, place)."""
    place = torch.arange(size, dtype=torch.float64)
    wave = torch.cos(math.pi * (place[None, :] + 0.5) * place[:, None] / size)
    wave *= torch.where(place == 0, math.sqrt(1 / size), math.sqrt(2 / size))[:, None]
    return wave.float()


def cosines(size: int, count: int) -> Tensor:
    """The first basis functions in two dimensions in zigzag order.

    Returns:
        Shape (count, size, size).
    """
    wave = cosine_waves(size)
    return torch.stack([wave[row, :, None] * wave[column, None, :] for row, column in zigzag(size)[:count]])
