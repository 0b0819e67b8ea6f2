# SPDX-License-Identifier: Apache-2.0
"""Pictures for the hub: the image travels as JPEG or WebP and one network, fine-tuned on such images, answers.

FLEET section 4.2: "we use the different quality parameters in JPEG compression to generate the images of different
sizes to fine-tune the model". One network serves all qualities, sizes and both formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fleet.backbones import MEAN, STD, Backbone, Macs
from fleet.baselines.pictures import Format, Setting, compressed, decode, encode, operations
from fleet.baselines.scheme import Answers, Images, Step, Upload
from fleet.baselines.training import Batch, Task
from fleet.training.augment import normalise

NAME = "jpeg"
NOTE = "one network over all qualities, sizes and both formats; fine-tuned whole from the base network"
FORMATS: Final[tuple[Format, ...]] = ("jpeg", "webp")
_QUALITIES: Final[dict[Format, tuple[tuple[int, ...], ...]]] = {
    "jpeg": (
        (5, 10, 15, 20, 22, 24, 28, 32, 36, 40, 45, 50, 65, 80, 90),
        (15, 20, 25, 30, 35, 40, 50, 65),
        (10, 20, 30, 40, 45, 50, 60, 75),
        (20, 40, 60, 80, 95),
    ),
    "webp": ((1, 5, 10, 20, 30, 50, 75, 90), (10, 30, 50), (5, 20, 50, 75), (20, 50, 80)),
}
"""Qualities at the network's input size, at seven eighths, three quarters and half of it."""
_HEADERS: Final = ("standard", "stripped")
_WEBP_SHARE, _SMALL_SHARE = 0.25, 0.3
"""Shares of the training images that are WebP, and that are coded smaller than the input."""


def settings_of(format: Format, input_size: int) -> tuple[Setting, ...]:
    """All settings of a format that are evaluated, for images of so many pixels a side."""
    sizes = (input_size, input_size * 7 // 8, input_size * 3 // 4, input_size // 2)
    return tuple(
        Setting(format, quality, size)
        for size, qualities in zip(sizes, _QUALITIES[format], strict=True)
        for quality in qualities
    )


class Compressed:
    """Fine-tuning on compressed images (see :class:`fleet.baselines.training.Recipe`)."""

    name = NAME
    trained = "the whole network, on JPEG and WebP images of random quality and size"

    def __init__(self, backbone: Backbone) -> None:
        self.network = backbone
        self.model: nn.Module = backbone

    def parameters(self) -> tuple[Sequence[nn.Parameter], Sequence[nn.Parameter]]:
        """All of the network's."""
        return list(self.network.parameters()), []

    def set_training(self) -> None:
        """All of it is trained."""
        self.network.train()

    def loss(self, batch: Batch, task: Task) -> Tensor:
        """The base network's loss on images that went through a codec after they were changed at random."""
        pictures = to_bytes(task.augmented(batch))
        settings = random_settings(len(pictures), pictures.shape[1], batch.random)
        seen = compressed(pictures, settings)
        return task.loss(self.network(normalise(torch.from_numpy(seen))), batch.labels)


def to_bytes(inputs: Tensor) -> Images:
    """RGB bytes (B, H, W, 3) of normalised images (B, 3, H, W): the inverse of ``normalise``."""
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    pixels = ((inputs * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())


def random_settings(count: int, size: int, random: torch.Generator) -> list[Setting]:
    """Settings to train on, every quality of the range as likely as another.

    Args:
        count: how many.
        size: of the images, in pixels.
        random: source of every random number.
    """
    drawn = torch.rand(count, 3, generator=random).tolist()
    settings = []
    for webp, small, quality in drawn:
        side = size if small > _SMALL_SHARE else size * 3 // 4 if small > _SMALL_SHARE / 2 else size // 2
        settings.append(Setting("webp" if webp < _WEBP_SHARE else "jpeg", 4 + round(91 * quality), side))
    return settings


class Picture:
    """The trained scheme for one format (see :class:`fleet.baselines.scheme.OffloadScheme`).

    Args:
        format: of the pictures.
        network: fine-tuned on compressed images.
        temperatures: one a setting.
        note: for the footnote.
    """

    kind: Literal["offload"] = "offload"

    def __init__(self, format: Format, network: Backbone, temperatures: tuple[float, ...], note: str = NOTE) -> None:
        self.name: str = format
        self.note, self.temperatures = note, temperatures
        self.network = network.eval()
        self.settings = settings_of(format, network.input_size)
        self.rows = tuple(setting.name for setting in self.settings)
        self.uploads = tuple(
            Upload(
                f"{setting.name}, {headers} headers",
                row,
                (encoder_step(setting, network.input_size),),
                settings={"quality": setting.quality, "size": setting.size, "headers": headers},
            )
            for row, setting in enumerate(self.settings)
            for headers in _HEADERS
        )

    @torch.inference_mode()
    def answer(self, images: Images) -> Answers:
        """Logits of all settings; the bytes are those of pictures that were coded, sent and decoded."""
        logits, sizes = [], []
        for setting in self.settings:
            sent = {headers: [encode(image, setting, headers) for image in images] for headers in _HEADERS}
            sizes += [[len(one) for one in sent[headers]] for headers in _HEADERS]
            seen = [decode(one, setting, "stripped", size=images.shape[1]) for one in sent["stripped"]]
            logits.append(self.network(normalise(torch.from_numpy(np.stack(seen)))).numpy())
        return Answers(np.stack(logits), np.asarray(sizes, np.int32))


def encoder_step(setting: Setting, input_size: int) -> Step:
    """The device's work: coding the picture. It holds the picture and the planes it is made into."""
    pixels = input_size**2
    return Step(f"{setting.format} encoder", Macs(conv=operations(setting, input_size=input_size)), None, 5 * pixels)
