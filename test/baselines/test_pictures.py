# SPDX-License-Identifier: Apache-2.0
"""Pictures for the hub: every byte that is counted is one from which the hub makes the picture again."""

from __future__ import annotations

import io

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fleet.baselines.jpeg import FORMATS, Picture, settings_of
from fleet.baselines.pictures import Setting, compressed, decode, encode, operations, restore, strip
from fleet.errors import FleetError

Pictures = npt.NDArray[np.uint8]
ALL = [setting for kind in FORMATS for setting in settings_of(kind, 32)]


@pytest.mark.parametrize("setting", ALL, ids=lambda s: s.name)
def test_the_hub_puts_back_every_byte_of_the_headers(setting: Setting, pictures: Pictures) -> None:
    for picture in pictures:
        sent = encode(picture, setting, "stripped")
        whole = restore(sent, setting)
        assert strip(whole, setting) == sent
        opened = np.asarray(Image.open(io.BytesIO(whole)).convert("RGB"))  # another program than the one that wrote it
        assert opened.shape == (setting.size, setting.size, 3)


@pytest.mark.parametrize("setting", [s for s in ALL if s.format == "jpeg"], ids=lambda s: s.name)
def test_a_stripped_jpeg_is_restored_to_what_the_library_wrote(setting: Setting, pictures: Pictures) -> None:
    pixels = cv2.cvtColor(pictures[0], cv2.COLOR_RGB2BGR)
    if setting.size != 32:
        pixels = cv2.resize(pixels, (setting.size, setting.size), interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, setting.quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    written = bytes(cv2.imencode(".jpg", pixels, options)[1])
    assert restore(encode(pictures[0], setting, "stripped"), setting) == written


@pytest.mark.parametrize("setting", ALL, ids=lambda s: s.name)
def test_with_and_without_headers_the_hub_sees_the_same_picture(setting: Setting, pictures: Pictures) -> None:
    for picture in pictures:
        standard, stripped = encode(picture, setting, "standard"), encode(picture, setting, "stripped")
        assert len(stripped) < len(standard)
        seen = decode(standard, setting, "standard", size=32)
        np.testing.assert_array_equal(seen, decode(stripped, setting, "stripped", size=32))


def test_a_standard_jpeg_has_the_smaller_of_the_two_kinds_of_tables(pictures: Pictures) -> None:
    setting = Setting("jpeg", 30, 32)
    for picture in pictures:
        assert len(encode(picture, setting, "standard")) < len(restore(encode(picture, setting, "stripped"), setting))


def test_headers_of_another_quality_are_not_stripped(pictures: Pictures) -> None:
    whole = restore(encode(pictures[0], Setting("jpeg", 30, 32), "stripped"), Setting("jpeg", 30, 32))
    with pytest.raises(FleetError, match="other headers than quality 40"):
        strip(whole, Setting("jpeg", 40, 32))


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(FleetError, match="no webp picture"):
        decode(b"\0" * 40, Setting("webp", 30, 32), "stripped", size=32)


def test_training_sees_what_the_hub_sees(pictures: Pictures) -> None:
    settings = [ALL[i] for i in (0, 12, 17, 20, 29, 34)]
    seen = compressed(pictures, settings)
    for picture, setting, one in zip(pictures, settings, seen, strict=True):
        there = decode(encode(picture, setting, "stripped"), setting, "stripped", size=32)
        np.testing.assert_array_equal(one, there)


def test_operations_of_a_jpeg_by_hand() -> None:
    # 32x32, 4:2:0: 16 luma and 8 chroma blocks
    by_hand = 9 * 1024 + 3 * 512 + 24 * 544 + 24 * 64 * 5
    assert operations(Setting("jpeg", 30, 32), input_size=32) == by_hand
    assert operations(Setting("jpeg", 90, 32), input_size=64) == by_hand + 4 * 3 * 1024
    assert operations(Setting("webp", 30, 32), input_size=32) == 14 * by_hand


def test_answers_come_from_the_pictures_that_arrived(base: object, pictures: Pictures) -> None:
    from fleet.backbones import Backbone  # noqa: PLC0415

    assert isinstance(base, Backbone)
    rows = len(settings_of("jpeg", 32))
    scheme = Picture("jpeg", base, (1.0,) * rows)
    answers = scheme.answer(pictures)
    assert answers.logits.shape == (rows, 6, 4)
    assert answers.bytes.shape == (len(scheme.uploads), 6)
    for upload, sizes in zip(scheme.uploads, answers.bytes, strict=True):
        setting = scheme.settings[upload.row]
        headers = upload.settings["headers"]
        assert headers in ("standard", "stripped")
        assert sizes.tolist() == [len(encode(picture, setting, headers)) for picture in pictures]  # type: ignore[arg-type]
    # finer pictures cost more bytes, and give what the picture itself gives
    stripped = {
        u.settings["quality"]: s.mean()
        for u, s in zip(scheme.uploads, answers.bytes, strict=True)
        if u.settings["headers"] == "stripped" and u.settings["size"] == 32
    }
    assert list(stripped.values()) == sorted(stripped.values())
