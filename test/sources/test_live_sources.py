# SPDX-License-Identifier: Apache-2.0
"""Live sources: the newest frame, never an old one, whatever the camera does."""

import queue
import threading
import time

import numpy as np
import pytest
from source_files import refusal

from fleet.errors import FleetError
from fleet.sources import SourceGone, SourceTimeout
from fleet.sources.live import LiveSource, Sample

GONE = "gone"


class Camera:
    """A camera whose pictures come when the test says so."""

    finite = False

    def __init__(self) -> None:
        self.pictures: queue.Queue = queue.Queue()
        self.grabbed = threading.Semaphore(0)
        self.closed = 0
        self.broken_opens = 0
        self.opens = 0

    def open(self):
        self.opens += 1
        if self.broken_opens > 0:
            self.broken_opens -= 1
            msg = "camera 0 cannot be opened"
            raise FleetError(msg)
        return self

    def show(self, number: int) -> None:
        """Let the camera take picture ``number`` and wait until it is in the slot."""
        self.pictures.put(number)

    def grab(self, stop):
        self.grabbed.release()  # whatever came before is in the slot by now
        while not stop.is_set():
            try:
                number = self.pictures.get(timeout=0.02)
            except queue.Empty:
                continue
            if number == GONE:
                return None
            if isinstance(number, Exception):
                raise number
            return Sample(np.full((2, 2, 3), number, np.uint8), "", float(number))
        return None

    def close(self) -> None:
        self.closed += 1

    def wait_for_grabs(self, count: int) -> None:
        for _ in range(count):
            assert self.grabbed.acquire(timeout=10), "the grabbing thread stands still"


@pytest.fixture
def camera():
    return Camera()


def opened(camera, **options) -> LiveSource:
    camera.show(0)
    return LiveSource(camera.open, label="camera 0", **options)


def test_frames_that_nobody_reads_are_dropped(camera):
    with opened(camera) as source:
        for number in range(1, 6):
            camera.show(number)
        camera.wait_for_grabs(7)  # the first six are done when the seventh begins

        frame = source.read(5)

    assert frame.captured == 5.0
    assert (frame.image == 5).all()
    assert (frame.name, frame.truth) == ("", None)


def test_a_frame_is_returned_once(camera):
    with opened(camera) as source:
        assert source.read(5).captured == 0.0
        with pytest.raises(SourceTimeout, match=r"camera 0: no new picture within 0\.01 s"):
            source.read(0.01)
        camera.show(1)
        assert source.read(5).captured == 1.0


def test_closing_from_another_thread_ends_a_waiting_read(camera):
    source = opened(camera)
    source.read(5)
    result: queue.Queue = queue.Queue()
    reader = threading.Thread(target=lambda: result.put(source.read(None)))
    reader.start()

    source.close()

    assert result.get(timeout=5) is None
    reader.join(5)
    assert camera.closed == 1


def test_closing_takes_less_than_a_second_even_when_the_driver_hangs(camera):
    release = threading.Event()
    source = opened(camera)
    source.read(5)
    camera.grab = lambda stop: release.wait(20) and None
    camera.show(1)
    source.read(5)  # from here on the thread is in the hanging grab

    before = time.monotonic()
    source.close()
    took = time.monotonic() - before
    release.set()

    assert took < 1.0
    assert source.read(5) is None


def test_a_camera_that_goes_away_is_tried_again_until_it_is_back(camera, monkeypatch):
    monkeypatch.setattr("fleet.sources.live.FIRST_RETRY_S", 0.001)
    lines: queue.Queue = queue.Queue()
    with opened(camera, on_skip=lines.put) as source:
        source.read(5)
        camera.broken_opens = 3
        camera.show(GONE)
        assert lines.get(timeout=5) == "camera 0 went away, trying again"
        camera.show(7)
        assert source.read(5).captured == 7.0
        assert lines.get(timeout=5) == "camera 0 is back"

    assert camera.opens == 5


def test_whoever_reads_is_told_that_the_camera_is_gone_and_not_only_slow(camera, monkeypatch):
    monkeypatch.setattr("fleet.sources.live.FIRST_RETRY_S", 0.001)
    lines: queue.Queue = queue.Queue()
    with opened(camera, on_skip=lines.put) as source:
        source.read(5)
        with pytest.raises(SourceTimeout) as slow:
            source.read(0.01)
        assert not isinstance(slow.value, SourceGone)
        camera.broken_opens = 10**6
        camera.show(GONE)
        lines.get(timeout=5)
        with pytest.raises(SourceGone, match="camera 0 is gone"):
            source.read(0.01)
        camera.broken_opens = 0
        camera.show(7)
        assert source.read(5).captured == 7.0
        with pytest.raises(SourceTimeout) as slow:
            source.read(0.01)
        assert not isinstance(slow.value, SourceGone)


def test_a_camera_that_opens_and_shows_nothing_is_closed_and_tried_again(camera, monkeypatch):
    monkeypatch.setattr("fleet.sources.live.FIRST_RETRY_S", 0.001)
    lines: queue.Queue = queue.Queue()
    with opened(camera, on_skip=lines.put) as source:
        source.read(5)
        for _ in range(4):  # it goes away, and three times comes back for nothing
            camera.show(GONE)
        camera.show(7)
        assert source.read(5).captured == 7.0
    assert [lines.get(timeout=5), lines.get(timeout=5)] == ["camera 0 went away, trying again", "camera 0 is back"]
    assert lines.empty()
    assert (camera.opens, camera.closed) == (5, 5)


def test_the_pauses_between_two_attempts_grow_to_a_bound(camera, monkeypatch):
    pauses = []

    class Stop(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)
            return len(pauses) > 6

    source = opened(camera)
    source.read(5)
    source.close()
    source._stop = Stop()
    camera.broken_opens = 10**6
    assert source._reopen() is None
    assert pauses == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0]


def test_closing_while_a_camera_is_away_is_quick(camera):
    lines: queue.Queue = queue.Queue()
    source = opened(camera, on_skip=lines.put)
    camera.broken_opens = 10**6
    camera.show(GONE)
    lines.get(timeout=5)

    before = time.monotonic()
    source.close()

    assert time.monotonic() - before < 1.0


def test_a_camera_that_cannot_be_opened_is_refused(camera):
    camera.broken_opens = 1

    assert refusal(LiveSource, camera.open, label="camera 0") == "camera 0 cannot be opened"


def test_a_camera_that_opens_but_shows_nothing_is_refused(camera):
    camera.show(GONE)
    assert "gives no picture" in refusal(LiveSource, camera.open, label="camera 0")
    assert camera.closed == 1

    assert "no picture within 0.05 s" in refusal(LiveSource, camera.open, label="camera 0", open_timeout=0.05)


def test_an_error_inside_a_driver_reaches_the_reader_as_one_line(camera):
    source = opened(camera)
    source.read(5)
    camera.show(RuntimeError("select\nfailed"))

    assert refusal(source.read, 5) == "camera 0 failed: select"
    assert camera.closed == 1


def test_a_source_leaves_no_thread_behind(camera):
    source = opened(camera)
    source.close()

    assert not source._thread.is_alive()
