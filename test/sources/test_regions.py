# SPDX-License-Identifier: Apache-2.0
"""``roi: motion`` on any source: the frames are the same, with the square around what moved."""

import itertools

import numpy as np
import pytest
from source_files import encoded, film

from fleet.errors import FleetError
from fleet.motion import Seen
from fleet.sources import Frame, RegionSource, SourceTimeout, open_source, roi_named


class Camera:
    """Gives a bright square on grey ground, further right in every picture."""

    live, description, skipped = True, "a camera", 3

    def __init__(self, stamps=None):
        self.number, self.closed = 0, False
        self.stamps = stamps or itertools.count(0.0, 0.2)

    def read(self, timeout=None):
        if timeout == 0:
            raise SourceTimeout("nothing")
        if self.closed:
            return None
        image = np.full((120, 160, 3), 90, np.uint8)
        if self.number > 2:
            x = 10 * self.number
            image[50:70, x : x + 20] = 220
        self.number += 1
        return Frame(image, "", None, next(self.stamps))

    def close(self):
        self.closed = True


def test_the_square_is_marked_and_the_picture_stays_whole():
    source = RegionSource(Camera(), "motion")
    frames = [source.read(1.0) for _ in range(6)]
    assert [frame.region for frame in frames[:3]] == [None] * 3
    for k in (3, 4, 5):
        assert frames[k].image.shape == (120, 160, 3)
        assert (frames[k].view == 220).all(axis=2).sum() == 400  # all of it
        assert frames[k].view.shape[0] < 90
    assert source.seen == {Seen.FIRST: 1, Seen.STILL: 2, Seen.MOVED: 3}


def test_full_marks_nothing_and_can_be_changed_at_any_time():
    source = RegionSource(Camera(), "full")
    for _ in range(5):
        frame = source.read(1.0)
        assert frame.view is frame.image
    source.roi = "motion"
    assert source.read(1.0).region is None  # the first picture to compare with
    assert source.read(1.0).region is not None
    source.roi = "full"
    assert source.read(1.0).region is None


def test_everything_else_is_the_source_s_own():
    camera = Camera()
    with RegionSource(camera, "motion") as source:
        assert (source.live, source.description, source.skipped) == (True, "a camera", 3)
        with pytest.raises(SourceTimeout):
            source.read(0)
    assert camera.closed
    assert source.read(1.0) is None


def test_frames_without_a_time_take_the_clock_s():
    times = itertools.count(0.0, 0.2)
    source = RegionSource(Camera(itertools.repeat(None)), "motion", clock=lambda: next(times))
    assert [source.read(1.0).region is not None for _ in range(6)] == [False, False, False, True, True, True]


def test_any_source_can_be_opened_with_it(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(np.zeros((20, 20, 3), np.uint8)))
    with open_source(str(tmp_path / "a.png"), roi="motion") as source:
        assert isinstance(source, RegionSource)
        assert source.read().region is None
    path = film(tmp_path / "film.avi", frames=3)
    with open_source(str(path), roi="motion", realtime=False) as source:
        assert source.read().image.shape == (48, 64, 3)


def test_roi_has_two_names():
    assert (roi_named("full"), roi_named("motion")) == ("full", "motion")
    with pytest.raises(FleetError, match="roi is full or motion, not 'face'"):
        roi_named("face")
