# SPDX-License-Identifier: Apache-2.0
"""What moved: the square of a picture that differs from a background which slowly follows the scene.

Grey, small and blurred pictures are compared with a running mean of those before. Where the picture changed everywhere,
because the camera moved or a light went on, there is no place to look at and the background begins anew; where nothing
changed there is none either. In both cases the whole frame is what is to be classified.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.errors import FleetError

LONGER_SIDE = 160
"""Pixels of the picture that is compared; a moving thing of a fortieth of the frame still covers 4 of them."""
BLUR = (5, 5)


class Seen(Enum):
    """What a look at a picture found."""

    FIRST = "the first picture"
    STILL = "nothing moved"
    MOVED = "something moved"
    EVERYWHERE = "everything changed"


@dataclass(frozen=True, slots=True)
class Square:
    """A square of a picture, in its pixels; it lies within the picture."""

    left: int
    top: int
    side: int

    def of(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The part of an image, shape (side, side, ...); a view."""
        return image[self.top : self.top + self.side, self.left : self.left + self.side]


@dataclass(frozen=True)
class MotionSettings:
    """What counts as motion.

    Attributes:
        adapt_s: seconds in which the background takes over 63 % of a change; what stands still for longer than about
            this is part of the scene, and so is the place that something has left.
        threshold: grey levels of 255 by which a place must differ.
        speck: share of the picture that a connected piece must cover; smaller ones are noise.
        margin: how much is added on each side of what moved, as a share of its longer side.
        smallest: side of the smallest square, as a share of the frame's shorter side.
        most: share of the picture that changed, or that the box around all of it covers less than; from there on the
            whole picture has changed.
    """

    adapt_s: float = 20.0
    threshold: float = 18.0
    speck: float = 0.0015
    margin: float = 0.25
    smallest: float = 0.25
    most: float = 0.6

    def __post_init__(self) -> None:
        """Refuse what is no share or no time.

        Raises:
            FleetError: a number that is not finite, below zero, or a share above one.
        """
        values = (self.adapt_s, self.threshold, self.speck, self.margin, self.smallest, self.most)
        if not all(math.isfinite(value) and value >= 0 for value in values) or self.adapt_s == 0:
            raise FleetError("times, levels and shares of motion must be numbers of zero or more, adapt_s above zero")
        if max(self.speck, self.smallest, self.most) > 1:
            raise FleetError("speck, smallest and most are shares of the picture, at most 1")


@dataclass(frozen=True, slots=True)
class Look:
    """One picture's result.

    Attributes:
        seen: what was found.
        square: around what moved; None where the whole frame is to be classified.
    """

    seen: Seen
    square: Square | None = None


@dataclass
class MotionFinder:
    """Compares one camera's pictures with its background. Time is an argument; nothing here waits.

    Attributes:
        settings: what counts as motion.
    """

    settings: MotionSettings = field(default_factory=MotionSettings)
    _background: npt.NDArray[np.float32] | None = None  # (h, w)
    _size: tuple[int, int] = (0, 0)
    _time: float = math.nan

    def look(self, image: npt.NDArray[np.uint8], time: float) -> Look:
        """Look at the next picture.

        Args:
            image: RGB, shape (H, W, 3).
            time: when it was taken, in seconds. A clock that runs backwards, like another size, begins anew.
        """
        small = _small(image)  # (h, w)
        background, since = self._background, time - self._time
        self._time = time
        if background is None or self._size != image.shape[:2] or not since >= 0:
            return self._begin(small, image.shape[:2], Seen.FIRST)
        difference = small - background
        brighter = float(np.median(difference))  # the exposure, which a camera sets by itself
        changed = (np.abs(difference - brighter) > self.settings.threshold).astype(np.uint8)
        if abs(brighter) > self.settings.threshold or changed.mean() >= self.settings.most:
            return self._begin(small, image.shape[:2], Seen.EVERYWHERE)
        _cv2().accumulateWeighted(small, background, 1.0 - math.exp(-since / self.settings.adapt_s))
        box = self._box(changed)
        if box is None:
            return Look(Seen.STILL)
        left, top, width, height = box
        scale_x, scale_y = image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]
        square = self._square(left * scale_x, top * scale_y, width * scale_x, height * scale_y, image.shape[:2])
        if width * height >= self.settings.most * changed.size or square is None:
            return self._begin(small, image.shape[:2], Seen.EVERYWHERE)
        return Look(Seen.MOVED, square)

    def _begin(self, small: npt.NDArray[np.float32], size: tuple[int, int], seen: Seen) -> Look:
        self._background, self._size = small, size
        return Look(seen)

    def _box(self, changed: npt.NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
        """Left, top, width and height of the box around every piece that is no speck."""
        cv2 = _cv2()
        joined = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8), iterations=2)
        _, _, pieces, _ = cv2.connectedComponentsWithStats(joined)  # (pieces, 5); the first is what did not change
        large = pieces[1:][pieces[1:, cv2.CC_STAT_AREA] >= self.settings.speck * changed.size]
        if not len(large):
            return None
        left, top = large[:, cv2.CC_STAT_LEFT], large[:, cv2.CC_STAT_TOP]
        right = (left + large[:, cv2.CC_STAT_WIDTH]).max()
        bottom = (top + large[:, cv2.CC_STAT_HEIGHT]).max()
        return int(left.min()), int(top.min()), int(right - left.min()), int(bottom - top.min())

    def _square(self, left: float, top: float, width: float, height: float, size: tuple[int, int]) -> Square | None:
        """The square around a box with its margin, moved into the picture; None where no square can hold the box."""
        shorter = min(size)
        if max(width, height) > shorter:
            return None
        wanted = max(max(width, height) * (1 + 2 * self.settings.margin), self.settings.smallest * shorter)
        side = max(1, min(round(wanted), shorter))
        x, y = left + width / 2 - side / 2, top + height / 2 - side / 2
        return Square(min(max(round(x), 0), size[1] - side), min(max(round(y), 0), size[0] - side), side)


def _small(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Grey, blurred, its longer side at most :data:`LONGER_SIDE`, shape (h, w)."""
    cv2 = _cv2()
    height, width = image.shape[:2]
    scale = min(1.0, LONGER_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small: Any = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    blurred: npt.NDArray[np.float32] = cv2.GaussianBlur(grey, BLUR, 0)
    return blurred


def _cv2() -> Any:
    """OpenCV as the sources load it: at first use, and quiet."""
    from fleet.sources.opencv import opencv  # noqa: PLC0415 - frames name the square that is defined here

    return opencv()
