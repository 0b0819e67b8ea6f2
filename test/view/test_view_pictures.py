# SPDX-License-Identifier: Apache-2.0
"""A browser gets small JPEG files of ours, whatever was published."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from fleet.sources.decode import decode_image
from fleet.view.pictures import JPEG_QUALITY, SHOWN_SIDE, THUMB_SIDE, prepare


def photo(height: int, width: int) -> np.ndarray:
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    image = np.repeat(ramp[None], height, axis=0)
    return np.dstack([image, image[:, ::-1], np.full_like(image, 90)])


def as_jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


@pytest.mark.parametrize(("height", "width"), [(480, 640), (2000, 3000), (1, 1), (3000, 2), (64, 64)])
def test_a_picture_of_any_size_becomes_one_that_fits_the_page(height, width):
    picture = prepare(as_jpeg(photo(height, width)), 64)
    for data, side in ((picture.shown, SHOWN_SIDE), (picture.thumb, THUMB_SIDE)):
        assert data.startswith(b"\xff\xd8\xff")
        shape = decode_image(data).shape
        assert max(shape[:2]) == min(side, max(height, width))
    assert picture.sent > 100


def test_always_jpeg_sends_the_square_that_the_network_sees():
    image = photo(480, 640)
    square = cv2.resize(image[:, 80:560], (64, 64), interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    sent = prepare(cv2.imencode(".png", image)[1].tobytes(), 64).sent
    assert sent == len(cv2.imencode(".jpg", square, options)[1])
    assert prepare(as_jpeg(image), None).sent is None


def test_what_is_no_picture_is_none():
    bomb = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, 60000, 60000, 3) + bytes(20)
    for data in (b"", b"<svg onload=alert(1)>", as_jpeg(photo(32, 32))[:40], bomb):
        assert prepare(data, 64) is None


def test_what_hides_behind_a_picture_does_not_reach_the_page():
    data = as_jpeg(photo(40, 40)) + b"<script>alert(1)</script>"
    picture = prepare(data, 32)
    assert b"script" not in picture.shown + picture.thumb
