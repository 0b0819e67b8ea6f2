# SPDX-License-Identifier: Apache-2.0
"""JPEG and WebP as they would travel: whole files, and files without the headers that both ends know anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from fleet.errors import FleetError

Format = Literal["jpeg", "webp"]
Headers = Literal["standard", "stripped"]
Image = npt.NDArray[np.uint8]

_END_OF_JPEG = b"\xff\xd9"
_SCAN = 0xDA
_BEFORE_FRAME = 20  # bytes of a WebP file before its VP8 frame: RIFF, size, WEBP, "VP8 ", size
_TAG = 3  # of a VP8 frame, holds the length of its first partition
_KNOWN = 7  # bytes of a VP8 frame behind its tag: start code, width, height


@dataclass(frozen=True)
class Setting:
    """How a picture is compressed.

    Attributes:
        format: JPEG with 4:2:0 chroma, or lossy WebP.
        quality: 0 to 100, as libjpeg and libwebp count.
        size: height and width at which it is coded, in pixels.
    """

    format: Format
    quality: int
    size: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.format} {self.quality} at {self.size}"


def encode(image: Image, setting: Setting, headers: Headers) -> bytes:
    """What travels of a picture.

    With standard headers a JPEG has Huffman tables of its own: at these sizes the tables of the standard, which hold
    every symbol there is, are longer than the picture.

    Args:
        image: RGB, shape (H, W, 3).
        setting: how it is compressed.
        headers: ``standard``: a file that anybody can open. ``stripped``: without what the hub can put back.

    Raises:
        FleetError: OpenCV was built without this format.
    """
    whole = _file(image, setting, own_tables=headers == "standard")
    return whole if headers == "standard" else strip(whole, setting)


def decode(sent: bytes, setting: Setting, headers: Headers, *, size: int) -> Image:
    """The picture at the hub, at the network's input size.

    Args:
        sent: of :func:`encode`, with the same setting and headers.
        setting: how it was compressed.
        headers: which headers travelled.
        size: height and width of the result.

    Returns:
        RGB, shape (size, size, 3).

    Raises:
        FleetError: the bytes are no such picture.
    """
    whole = sent if headers == "standard" else restore(sent, setting)
    found = cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR)
    if found is None:
        raise FleetError(f"what arrived is no {setting.format} picture")
    if found.shape[0] != size:
        found = cv2.resize(found, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8)


def strip(whole: bytes, setting: Setting) -> bytes:
    """Leave out what :func:`restore` can put back.

    Of a JPEG with the standard's Huffman tables the entropy-coded scan is left, without byte stuffing and end marker;
    of a WebP file the VP8 frame without start code and dimensions.

    Raises:
        FleetError: the file does not begin as files of this setting do.
    """
    if setting.format == "webp":
        frame = whole[_BEFORE_FRAME : _BEFORE_FRAME + int.from_bytes(whole[16:20], "little")]
        return frame[:_TAG] + frame[_TAG + _KNOWN :]
    head = _jpeg_header(setting)
    if not whole.startswith(head) or not whole.endswith(_END_OF_JPEG):
        raise FleetError(f"this JPEG has other headers than quality {setting.quality} at {setting.size} pixels")
    return whole[len(head) : -len(_END_OF_JPEG)].replace(b"\xff\x00", b"\xff")


def restore(sent: bytes, setting: Setting) -> bytes:
    """The file again, byte by byte (the inverse of :func:`strip`)."""
    if setting.format == "jpeg":
        return _jpeg_header(setting) + sent.replace(b"\xff", b"\xff\x00") + _END_OF_JPEG
    side = setting.size.to_bytes(2, "little")
    frame = sent[:_TAG] + b"\x9d\x01\x2a" + side + side + sent[_TAG:]
    chunk = b"WEBPVP8 " + len(frame).to_bytes(4, "little") + frame + b"\0" * (len(frame) % 2)
    return b"RIFF" + len(chunk).to_bytes(4, "little") + chunk


def operations(setting: Setting, *, input_size: int) -> int:
    """Arithmetic operations of the encoder for one picture.

    JPEG, 4:2:0: nine a pixel for the colours, three a chroma value for its mean, 544 a block of 8x8 for the cosine
    transform (Arai, Agui and Nakajima 1988: sixteen transforms of 5 multiplications and 29 additions), one a
    coefficient to quantise and four to scan and code it. WebP searches its predictions: fourteen times that, which is
    the ratio of the two encoders' times (libwebp 1 at its default method, libjpeg-turbo 3) on x86-64. A smaller
    picture takes four operations a value to make.
    """
    pixels = setting.size**2
    coefficients = pixels * 3 // 2
    jpeg = 9 * pixels + 3 * (pixels // 2) + (544 * coefficients) // 64 + 5 * coefficients
    resize = 4 * 3 * pixels if setting.size != input_size else 0
    return resize + (jpeg if setting.format == "jpeg" else 14 * jpeg)


def compressed(images: Image, settings: Sequence[Setting]) -> Image:
    """Each picture as the hub would see it.

    Args:
        images: RGB, shape (B, H, W, 3).
        settings: one a picture.
    """
    size = images.shape[1]
    return np.stack(
        [
            decode(_file(image, setting, own_tables=False), setting, "standard", size=size)
            for image, setting in zip(images, settings, strict=True)
        ]
    )


def _file(image: Image, setting: Setting, *, own_tables: bool) -> bytes:
    pixels = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    if pixels.shape[0] != setting.size:
        pixels = cv2.resize(pixels, (setting.size, setting.size), interpolation=cv2.INTER_AREA)
    if setting.format == "webp":
        options = [cv2.IMWRITE_WEBP_QUALITY, max(1, setting.quality)]  # OpenCV takes 0 for lossless
    else:
        options = [cv2.IMWRITE_JPEG_QUALITY, setting.quality, cv2.IMWRITE_JPEG_OPTIMIZE, int(own_tables)]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    done, found = cv2.imencode(f".{setting.format}", pixels, options)
    if not done:
        raise FleetError(f"OpenCV cannot write {setting.format} here; install another build of it")
    return bytes(found)


@lru_cache(maxsize=64)
def _jpeg_header(setting: Setting) -> bytes:
    """Everything of a JPEG before its scan: the same for every picture of a quality and size."""
    grey = np.full((setting.size, setting.size, 3), 128, np.uint8)
    whole = _file(grey, setting, own_tables=False)
    at = 2
    while True:
        marker, length = whole[at + 1], int.from_bytes(whole[at + 2 : at + 4], "big")
        at += 2 + length
        if marker == _SCAN:
            return whole[:at]
