# SPDX-License-Identifier: Apache-2.0
"""Any image file becomes RGB, the right way up, or is refused with a reason."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_files import cv2, encoded, picture

from fleet.sources.decode import UnreadableImage, decode_image, is_image_name


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def turned(jpeg: bytes, orientation: int) -> bytes:
    """Put an EXIF block that says how the camera was held behind the JPEG's first marker."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0) + b"\0" * 4
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def refusal(data: bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_image(data)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm"])
def test_colours_come_out_as_they_went_in(suffix):
    image = picture()

    assert np.array_equal(decode_image(encoded(image, suffix)), image)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_come_out_nearly_as_they_went_in(suffix):
    image = picture()

    assert np.abs(decode_image(encoded(image, suffix)).astype(int) - image).mean() < 4


def test_grey_becomes_three_equal_channels():
    grey = picture()[..., 0]

    assert np.array_equal(decode_image(encoded(grey)), np.dstack([grey] * 3))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_cut_to_8(suffix, channels):
    image = picture()
    deep = image.astype(np.uint16) * 257
    if channels == 1:
        deep, image = deep[..., 0], np.dstack([image[..., 0]] * 3)

    assert np.abs(decode_image(encoded(deep, suffix)).astype(int) - image).max() <= 1


def test_floating_point_pictures_are_scaled_from_0_to_1():
    image = picture()

    assert np.abs(decode_image(encoded(image.astype(np.float32) / 255, ".tiff")).astype(int) - image).max() <= 1


def test_transparent_pixels_are_white_and_half_transparent_ones_halfway():
    image = np.dstack([picture(), np.full((24, 32), 255, np.uint8)])
    image[:, :10, 3] = 0
    image[:, 10:20, 3] = 128

    out = decode_image(encoded(image))

    assert (out[:, :10] == 255).all()
    assert np.abs(out[:, 10:20] - (image[:, 10:20, :3] + 255.0) / 2).max() <= 2
    assert np.array_equal(out[:, 20:], image[:, 20:, :3])


def test_cmyk_becomes_rgb():
    image_module = pytest.importorskip("PIL.Image", reason="nothing else writes CMYK files")
    import io  # noqa: PLC0415

    buffer = io.BytesIO()
    image_module.new("CMYK", (16, 16), (0, 255, 255, 0)).save(buffer, "JPEG", quality=95)

    assert np.abs(decode_image(buffer.getvalue()).astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda image: image),
        (2, np.fliplr),
        (3, lambda image: np.rot90(image, 2)),
        (4, np.flipud),
        (5, lambda image: np.rot90(np.fliplr(image))),
        (6, lambda image: np.rot90(image, -1)),
        (7, lambda image: np.rot90(np.fliplr(image), -1)),
        (8, np.rot90),
    ],
)
def test_photographs_are_turned_the_way_the_camera_was_held(orientation, upright):
    jpeg = encoded(picture(), ".jpg")

    assert np.array_equal(decode_image(turned(jpeg, orientation)), upright(decode_image(jpeg)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_transparency_turns_with_the_picture(orientation):
    image = np.dstack([picture(), np.full((24, 32), 255, np.uint8)])
    image[:4, :8, 3] = 0
    png = encoded(image)
    exif = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0) + b"\0" * 4
    png = png[:33] + chunk(b"eXIf", exif) + png[33:]

    out = decode_image(png)

    white = (out == 255).all(axis=2)
    if out.shape[:2] != (24, 32) and orientation < 5:
        pytest.fail("turned on its side")
    assert white.sum() == 32
    assert white[[0, 0, -1, -1], [0, -1, 0, -1]].sum() == 1  # still one corner, in one piece


def test_what_libpng_complains_about_does_not_reach_the_terminal(capfd):
    image = picture()
    png = encoded(image)
    noisy = png[:33] + chunk(b"iCCP", b"bad\0\0" + zlib.compress(b"no profile")) + chunk(b"gAMA", b"\0") + png[33:]

    assert np.array_equal(decode_image(noisy), image)
    broken = bytearray(png)
    broken[len(png) // 2] ^= 0xFF
    assert refusal(bytes(broken)) == "is damaged"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff"])
def test_half_a_file_is_no_image(suffix, capfd):
    data = encoded(picture(0, 256, 256), suffix)

    assert refusal(data[: len(data) // 2]).startswith("is ")
    assert capfd.readouterr().err == ""


def test_nothing_and_text_are_no_images():
    assert refusal(b"") == "is empty (0 bytes)"
    assert "not an image" in refusal(b"to whom it may concern" * 9)


def test_a_picture_of_too_many_pixels_is_refused_before_it_fills_the_memory():
    png = bytearray(encoded(picture()))
    png[8:33] = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    jpeg = bytearray(encoded(picture(), ".jpg"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 30_000, 30_000)

    for data in (png, jpeg):
        assert "134 million pixels" in refusal(bytes(data))


@given(
    data=st.binary(max_size=200), magic=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0"])
)
def test_no_bytes_raise_anything_but_the_reason(data, magic):
    try:
        image = decode_image(magic + data)
    except UnreadableImage:
        return
    assert image.dtype == np.uint8
    assert image.shape[2] == 3


def test_names_of_images_are_told_from_others():
    assert is_image_name("n01/x.JPEG")
    assert not any(map(is_image_name, ["classes.tsv", "a/.hidden.jpg", "a/._x.jpg", "jpg", ".jpg", "a.jpg/readme"]))


def test_opencv_is_kept_quiet():
    decode_image(encoded(picture()))

    assert cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_SILENT
