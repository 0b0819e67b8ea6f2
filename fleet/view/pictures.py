# SPDX-License-Identifier: Apache-2.0
"""Pictures for the page: decoded once and written anew, so that a browser gets nothing but small JPEG files of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fleet.sources.decode import UnreadableImage, decode_image
from fleet.sources.opencv import opencv

SHOWN_SIDE = 640
SHOWN_QUALITY = 80
THUMB_SIDE = 160
THUMB_QUALITY = 78
JPEG_QUALITY = 75
"""Of the picture that *always JPEG* sends, with Huffman tables made for it."""


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """One frame in the sizes that are needed.

    Attributes:
        shown: JPEG file, its longer side at most 640 pixels.
        thumb: JPEG file, its longer side at most 160 pixels.
        sent: bytes of the JPEG file that *always JPEG* sends; None where the network's input size is unknown.
    """

    shown: bytes
    thumb: bytes
    sent: int | None


def prepare(data: bytes, input_size: int | None) -> Picture | None:
    """Make a picture of an image file.

    Args:
        data: as it was published.
        input_size: height and width of the network's input; None if unknown.

    Returns:
        None for what is no image.
    """
    try:
        image = decode_image(data)
    except UnreadableImage:
        return None
    sent = None if input_size is None else len(_jpeg(_square(image, input_size), JPEG_QUALITY, optimise=True))
    shown = _at_most(image, SHOWN_SIDE)
    return Picture(_jpeg(shown, SHOWN_QUALITY), _jpeg(_at_most(shown, THUMB_SIDE), THUMB_QUALITY), sent)


def _square(image: Any, size: int) -> Any:
    """The central square, scaled as the network sees it (:meth:`fleet.runtime.DeviceNetwork.prepare`)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return opencv().resize(image[top : top + side, left : left + side], (size, size), interpolation=opencv().INTER_AREA)


def _at_most(image: Any, side: int) -> Any:
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1.0:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return opencv().resize(image, size, interpolation=opencv().INTER_AREA)


def _jpeg(image: Any, quality: int, *, optimise: bool = False) -> bytes:
    cv2 = opencv()
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, int(optimise)]
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), options)
    return bytes(data) if done else b""
