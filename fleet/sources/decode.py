# SPDX-License-Identifier: Apache-2.0
"""From the bytes of an image file to RGB."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from fleet.sources.frame import RgbImage
from fleet.sources.opencv import MAX_PIXELS, opencv

MAX_FILE_BYTES = 64 << 20
_ENDINGS = "jpg jpeg jpe jfif png bmp dib webp tif tiff ppm pgm pbm pnm jp2"
IMAGE_SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TOO_LARGE = f"has more than {MAX_PIXELS / 1e6:.0f} million pixels"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf")


class UnreadableImage(Exception):  # noqa: N818 - never reaches a user as an exception
    """Why one image cannot be used: the end of a sentence that begins with its name."""


def is_image_name(name: str) -> bool:
    """Whether a file or member name promises an image. Hidden files never do (``._x.jpg`` is macOS's shadow of x)."""
    base = name.rsplit("/", 1)[-1]
    dot = base.rfind(".")
    return dot > 0 and not base.startswith(".") and base[dot:].lower() in IMAGE_SUFFIXES


def decode_image(data: bytes) -> RgbImage:
    """Decode one image file.

    16-bit, greyscale, palette and CMYK images become 8-bit RGB, EXIF orientation is applied, transparent pixels are
    laid on white.

    Args:
        data: the whole file.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UnreadableImage: not an image, damaged, or too large.
    """
    if not data:
        msg = "is empty (0 bytes)"
        raise UnreadableImage(msg)
    if data.startswith(_PNG):
        data = _pixels_of_png(data)
    _check_size(data)
    cv2 = opencv()
    image = _decode(data, cv2.IMREAD_COLOR)
    if image is None:
        image = _deep_image(data)
    elif not data.startswith(_JPEG):
        image = _on_white(data, image)
    rgb: RgbImage = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def _decode(data: bytes, flags: int) -> Any:
    """OpenCV's decoder: a BGR array, or None where it has no reader for these bytes or finds them damaged."""
    cv2 = opencv()
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as err:
        big = isinstance(err, MemoryError) or "MAX_IMAGE" in str(err)
        raise UnreadableImage(_TOO_LARGE if big else "is damaged") from err


def _check_size(data: bytes) -> None:
    """Look at the size that a PNG or JPEG claims: OpenCV's own limit stands only if nobody loaded OpenCV before us."""
    height = width = 0
    if data.startswith(_PNG):
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    elif data.startswith(_JPEG):
        height, width = _jpeg_size(data)
    if height * width > MAX_PIXELS:
        raise UnreadableImage(_TOO_LARGE)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width from the start-of-frame segment, 0 and 0 without one (ITU-T T.81, B.2.2)."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0


def _pixels_of_png(data: bytes) -> bytes:
    """Check a PNG's chunks and keep only those that make pixels: libpng writes its complaints about the others,
    colour profiles above all, and about broken ones straight to the terminal (PNG specification, section 5).
    """  # noqa: D205
    kept = [_PNG]
    at = len(_PNG)
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        end = at + 12 + length
        stored = data[end - 4 : end]
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]).to_bytes(4, "big") != stored:
            msg = "is damaged"
            raise UnreadableImage(msg)
        if kind in _PNG_PIXELS:
            kept.append(data[at:end])
        if kind == b"IEND":
            return b"".join(kept)
        at = end
    msg = "is cut short"
    raise UnreadableImage(msg)


def _deep_image(data: bytes) -> Any:
    """Images that OpenCV only decodes as they are, such as TIFFs of 32-bit numbers: scaled to 8 bits."""
    cv2 = opencv()
    image = _decode(data, cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim not in (2, 3) or image.shape[-1] == 2:
        msg = "is not an image that OpenCV can read, or is damaged"
        raise UnreadableImage(msg)
    values = np.nan_to_num(image.astype(np.float64), posinf=0.0, neginf=0.0)
    top = max(float(values.max()), 1.0)  # floating-point pictures run from 0 to 1
    image = np.clip(values * (255.0 / top), 0, 255).round().astype(np.uint8)
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., :3])


def _on_white(data: bytes, image: Any) -> Any:
    """Lay transparent pixels on white: the colours hidden beneath them are arbitrary.

    Args:
        data: the whole file.
        image: (H, W, 3) uint8 BGR, turned as EXIF says.
    """
    cv2 = opencv()
    raw = _decode(data, cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 3 or raw.shape[2] != 4 or raw.dtype not in (np.uint8, np.uint16):
        return image
    alpha = raw[..., 3].astype(np.float32) / np.iinfo(raw.dtype).max  # (H, W), not turned
    if alpha.min() == 1.0:
        return image
    straight = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    alpha = _turned_alike(alpha, straight, image)[..., None]
    return (image * alpha + 255.0 * (1.0 - alpha)).round().astype(np.uint8)


def _turned_alike(alpha: Any, straight: Any, turned: Any) -> Any:
    """Turn the alpha plane the way that makes ``straight`` into ``turned``: OpenCV does not tell the orientation."""
    for quarter in range(4):
        rotated = np.rot90(straight, quarter)
        if np.array_equal(rotated, turned):
            return np.rot90(alpha, quarter)
        if np.array_equal(np.fliplr(rotated), turned):
            return np.fliplr(np.rot90(alpha, quarter))
    return alpha
