# SPDX-License-Identifier: Apache-2.0
"""What moved is found, with a margin around it; where nothing or everything did, the whole frame is looked at."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import FleetError
from fleet.motion import MotionFinder, MotionSettings, Seen, Square
from fleet.sources.opencv import opencv
from fleet.sources.photos import PhotoSource

cv2 = opencv()
WIDTH, HEIGHT = 320, 240


def scene(seed=0, width=WIDTH, height=HEIGHT):
    """A yard: smooth patches and some texture."""
    rng = np.random.default_rng(seed)
    rough = cv2.resize(rng.integers(60, 190, (6, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    grain = rng.integers(-12, 13, (height, width, 1))
    return np.clip(rough.astype(int) + grain, 0, 255).astype(np.uint8)


def noisy(image, rng, sigma=4.0):
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def with_cat(image, x, y, width=40, height=30):
    """The scene with something dark and light in it."""
    out = image.copy()
    out[y : y + height, x : x + width] = 20
    out[y + height // 3 : y + 2 * height // 3, x : x + width] = 235
    return out


def holds(square, x, y, width, height):
    right, bottom = square.left + square.side, square.top + square.side
    return square.left <= x and square.top <= y and right >= x + width and bottom >= y + height


def inside(square, image):
    height, width = image.shape[:2]
    return (
        square.left >= 0
        and square.top >= 0
        and square.left + square.side <= width
        and square.top + square.side <= height
    )


@pytest.fixture
def finder():
    """One that has seen the empty yard for two seconds, five pictures a second."""
    made, rng = MotionFinder(), np.random.default_rng(1)
    for k in range(10):
        made.look(noisy(scene(), rng), 0.2 * k)
    return made


# What moves ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("x", "y"), [(140, 100), (0, 0), (280, 210), (0, 210), (5, 100)])
def test_the_square_holds_what_came_with_a_margin_where_there_is_room(finder, x, y):
    look = finder.look(with_cat(scene(), x, y), 2.2)
    assert look.seen is Seen.MOVED
    assert inside(look.square, scene())
    assert holds(look.square, x, y, 40, 30)
    if (x, y) == (140, 100):
        assert holds(look.square, x - 6, y - 6, 52, 42)
        assert abs(look.square.left + look.square.side / 2 - 160) < 6
        assert abs(look.square.top + look.square.side / 2 - 115) < 6
    assert look.square.of(scene()).shape == (look.square.side, look.square.side, 3)


def test_something_that_walks_through_is_followed_from_picture_to_picture(finder):
    rng = np.random.default_rng(2)
    for k in range(14):
        x = 20 * k
        look = finder.look(noisy(with_cat(scene(), x, 90), rng), 2.2 + 0.2 * k)
        assert look.seen is Seen.MOVED, k
        assert holds(look.square, x, 90, 40, 30), (k, look)


def test_a_small_thing_gets_the_smallest_square_and_not_a_few_pixels(finder):
    look = finder.look(with_cat(scene(), 150, 110, 12, 12), 2.2)
    assert look.square.side == round(0.25 * HEIGHT)


def test_two_things_are_both_in_the_square(finder):
    look = finder.look(with_cat(with_cat(scene(), 100, 80), 190, 120), 2.2)
    assert holds(look.square, 100, 80, 130, 70)


def test_a_thing_too_wide_for_any_square_is_looked_at_in_the_whole_frame(finder):
    look = finder.look(with_cat(scene(), 20, 100, 280, 30), 2.2)
    assert (look.seen, look.square) == (Seen.EVERYWHERE, None)


# What does not ------------------------------------------------------------------------------------------------
def test_the_first_picture_is_looked_at_as_a_whole():
    assert MotionFinder().look(scene(), 5.0).square is None


@pytest.mark.parametrize("sigma", [0.0, 4.0, 10.0])
def test_the_noise_of_a_sensor_is_not_motion(sigma):
    finder, rng = MotionFinder(), np.random.default_rng(3)
    finder.look(noisy(scene(), rng, sigma), 0.0)
    for k in range(1, 30):
        look = finder.look(noisy(scene(), rng, sigma), 0.2 * k)
        assert (look.seen, look.square) == (Seen.STILL, None), k


def test_a_few_pixels_are_a_speck(finder):
    assert finder.look(with_cat(scene(), 150, 110, 3, 3), 2.2).seen is Seen.STILL


@pytest.mark.parametrize("light", [lambda s: s + 60.0, lambda s: s * 1.7, lambda s: s * 0.4])
def test_a_light_that_goes_on_is_the_whole_frame_once_and_then_the_scene_as_it_is_now(finder, light):
    lit = np.clip(light(scene().astype(float)), 0, 255).astype(np.uint8)
    assert finder.look(lit, 2.2).seen is Seen.EVERYWHERE
    assert finder.look(lit, 2.4).seen is Seen.STILL
    look = finder.look(with_cat(lit, 140, 100), 2.6)
    assert look.seen is Seen.MOVED
    assert holds(look.square, 140, 100, 40, 30)


def test_an_exposure_that_drifts_is_not_motion(finder):
    for k in range(20):
        brighter = np.clip(scene().astype(int) + k, 0, 255).astype(np.uint8)
        assert finder.look(brighter, 2.2 + 0.2 * k).seen is Seen.STILL


def shaken(image, dx, dy):
    return cv2.warpAffine(
        image, np.float32([[1, 0, dx], [0, 1, dy]]), image.shape[1::-1], borderMode=cv2.BORDER_REFLECT
    )


def test_a_camera_that_shakes_is_the_whole_frame():
    source = PhotoSource(seed=1)
    for photo in (source.frame(0).image, source.frame(40).image):
        finder = MotionFinder()
        finder.look(photo, 0.0)
        assert finder.look(photo, 0.2).seen is Seen.STILL
        for k, (dx, dy) in enumerate([(24, 8), (-20, 10), (16, -24)]):
            assert finder.look(shaken(photo, dx, dy), 0.4 + 0.2 * k).square is None, (k, dx, dy)


def test_a_picture_of_another_size_or_from_before_begins_anew(finder):
    assert finder.look(scene(width=160, height=120), 2.2).seen is Seen.FIRST
    assert finder.look(scene(), 2.4).seen is Seen.FIRST
    assert finder.look(with_cat(scene(), 140, 100), 1.0).seen is Seen.FIRST
    assert finder.look(with_cat(scene(), 140, 100), math.nan).seen is Seen.FIRST


# The background -----------------------------------------------------------------------------------------------
def test_what_stays_becomes_part_of_the_scene_and_what_comes_then_is_found_alone(finder):
    parked = with_cat(scene(), 40, 40)
    time, looks = 2.2, []
    while not looks or (looks[-1].seen is not Seen.STILL and time < 200):
        looks.append(finder.look(parked, time))
        time += 0.5
    assert looks[0].seen is Seen.MOVED
    assert 10 < time < 90
    for _ in range(40):
        finder.look(parked, time := time + 0.5)
    look = finder.look(with_cat(parked, 200, 150), time + 0.5)
    assert holds(look.square, 200, 150, 40, 30)
    assert not holds(look.square, 40, 40, 40, 30)


def test_how_fast_it_adapts_depends_on_time_and_not_on_how_many_pictures_came():
    def until_still(rate):
        finder = MotionFinder()
        finder.look(scene(), 0.0)
        time = 1 / rate
        while finder.look(with_cat(scene(), 40, 40), time).seen is not Seen.STILL:
            time += 1 / rate
            assert time < 300
        return time

    assert until_still(1.0) == pytest.approx(until_still(10.0), rel=0.1)


# Real pictures ------------------------------------------------------------------------------------------------
def test_an_animal_that_crosses_a_real_photograph_is_found_wherever_it_is():
    source = PhotoSource(seed=1)
    frames = [source.frame(n) for n in range(120)]
    yard = next(f for f in frames if "coffee" in f.name or "gravel" in f.name or "brick" in f.name).image
    animal = cv2.resize(next(f for f in frames if "chelsea" in f.name).image, (120, 100))
    finder = MotionFinder()
    for k in range(5):
        finder.look(yard, 0.2 * k)
    for k in range(8):
        x, y = 20 + 60 * k, 30 + 35 * k
        picture = yard.copy()
        picture[y : y + 100, x : x + 120] = animal
        look = finder.look(picture, 1.0 + 0.2 * k)
        assert look.seen is Seen.MOVED, k
        inner = (x + 12, y + 10, 96, 80)  # where it has the colour of the ground, its edge is not seen
        assert holds(look.square, *inner), (k, look)
        assert look.square.side <= 320


# Whatever comes -----------------------------------------------------------------------------------------------
@settings(max_examples=60)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    steps=st.lists(st.floats(-1, 1e6), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_a_square_always_lies_within_the_picture(width, height, steps, seed):
    finder, rng = MotionFinder(), np.random.default_rng(seed)
    for time in steps:
        image = scene(0, width, height)
        x, y = rng.integers(0, width), rng.integers(0, height)
        image[y : y + rng.integers(1, 200), x : x + rng.integers(1, 200)] = rng.integers(0, 256)
        look = finder.look(image, time)
        assert (look.square is not None) == (look.seen is Seen.MOVED)
        if look.square is not None:
            assert inside(look.square, image)
            assert look.square.side >= 1


@pytest.mark.parametrize(
    "changes", [{"adapt_s": 0.0}, {"threshold": -1.0}, {"most": 1.5}, {"speck": math.nan}, {"margin": math.inf}]
)
def test_settings_that_are_none_are_refused(changes):
    with pytest.raises(FleetError):
        MotionSettings(**changes)


def test_a_square_is_a_view_of_the_picture():
    image = scene()
    assert np.shares_memory(Square(3, 4, 10).of(image), image)
