# SPDX-License-Identifier: Apache-2.0
"""The photographs: endless, repeatable, smooth, and never downloaded."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_files import refusal

from fleet.sources import open_source, photos
from fleet.sources.photos import FRAMES_EACH, PhotoSource

TRUTHS = {"chelsea.png": "pet", "motorcycle_left.png": "vehicle", "motorcycle_right.png": "vehicle"}

pytestmark = pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="scikit-image is not installed")


@pytest.fixture(scope="module")
def source():
    return PhotoSource(seed=3)


def test_a_cat_a_motorcycle_and_nothing_in_particular_come_in_turn(source):
    frames = [source.frame(n) for n in range(0, 20 * FRAMES_EACH, FRAMES_EACH)]

    assert {frame.truth for frame in frames} == {"pet", "vehicle", "none"}
    assert all(frame.truth == TRUTHS.get(frame.name, "none") for frame in frames)
    assert sum(frame.truth != "none" for frame in frames) == 10
    assert len({frame.name for frame in frames}) >= 6


def test_people_are_not_among_them(source):
    assert not {"astronaut.png", "camera.png"} & set(source._photos)


def test_each_photograph_stays_for_a_while_and_moves_smoothly(source):
    frames = [source.frame(n) for n in range(2 * FRAMES_EACH)]

    assert len({frame.name for frame in frames[:FRAMES_EACH]}) == 1
    assert frames[0].name != frames[FRAMES_EACH].name
    step = np.abs(frames[0].image.astype(int) - frames[1].image).mean()
    jump = np.abs(frames[0].image.astype(int) - frames[FRAMES_EACH].image).mean()
    assert 0.0 < step < jump / 2


@settings(deadline=None, max_examples=4)
@given(seed=st.integers(-(2**40), 2**40), number=st.integers(0, 10**6))
def test_the_same_seed_and_number_are_the_same_picture(seed, number):
    first, second = PhotoSource(seed=seed).frame(number), PhotoSource(seed=seed).frame(number)

    assert first.name == second.name
    assert np.array_equal(first.image, second.image)


def test_reading_counts_through_the_frames_and_ends_when_closed():
    source = open_source("photos", seed=3)
    reference = PhotoSource(seed=3)

    for n in range(3):
        assert np.array_equal(source.read().image, reference.frame(n).image)
    source.close()

    assert not source.live
    assert source.read() is None


def test_frames_have_the_size_that_was_asked_for():
    assert open_source("photos", resolution=(96, 64)).read().image.shape == (64, 96, 3)


def test_scikit_image_and_its_downloader_are_never_imported():
    code = (
        "import sys; from fleet.sources import open_source; open_source('photos').read();"
        "sys.exit(any(name in sys.modules for name in ('skimage', 'pooch', 'requests', 'torch')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_wheel_with_fewer_photographs_shows_those_it_has(monkeypatch):
    monkeypatch.setattr(photos, "_OTHER", (("missing.png", "none"),))
    source = PhotoSource()

    assert {source.frame(n).truth for n in range(0, 100, FRAMES_EACH)} == {"pet", "vehicle"}


def test_without_scikit_image_or_its_photographs_the_cure_is_named(monkeypatch):
    monkeypatch.setattr(photos, "_OTHER", ())
    monkeypatch.setattr(photos, "_WAKING", ())
    assert "reinstall" in refusal(open_source, "photos")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install scikit-image" in refusal(open_source, "photos")
