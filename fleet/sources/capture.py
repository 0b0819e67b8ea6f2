# SPDX-License-Identifier: Apache-2.0
"""OpenCV's video capture as streams: cameras, network streams and films."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

from fleet.sources.frame import RgbImage
from fleet.sources.live import Sample
from fleet.sources.opencv import opencv

USUAL_FPS = 25.0
HIGHEST_FPS = 1000.0


def to_rgb(picture: Any) -> RgbImage:
    """Turn what a capture gives, BGR or grey, into RGB.

    Args:
        picture: (H, W, 3) or (H, W) uint8.
    """
    cv2 = opencv()
    grey = picture.ndim == 2 or picture.shape[2] == 1
    rgb: RgbImage = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB if grey else cv2.COLOR_BGR2RGB)
    return rgb


def frames_per_second(capture: Any) -> float:
    """A film's rate, or the usual one where the file does not say."""
    fps = float(capture.get(opencv().CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0.0 < fps <= HIGHEST_FPS else USUAL_FPS


def is_finite(capture: Any) -> bool:
    """Whether a capture knows its end: a film does, a camera or a live stream does not."""
    return float(capture.get(opencv().CAP_PROP_FRAME_COUNT)) > 0


class CameraStream:
    """A camera or an endless network stream."""

    finite = False

    def __init__(self, capture: Any) -> None:
        self._capture = capture

    def grab(self, stop: threading.Event) -> Sample | None:  # noqa: ARG002 - OpenCV waits by its own time-out
        """Wait for the next picture; its time is when it was complete, on the monotonic clock."""
        good, picture = self._capture.read()
        now = time.monotonic()
        return Sample(to_rgb(picture), "", now) if good and picture is not None else None

    def close(self) -> None:
        """Release the device."""
        self._capture.release()


class FilmStream:
    """A film played at its own rate, in place of a camera: pictures that come too late are left out."""

    finite = True

    def __init__(self, capture: Any, name: str) -> None:
        self._capture = capture
        self._name = name
        self._fps = frames_per_second(capture)
        self._index = 0  # of the next picture
        self._begin = math.nan  # when picture 0 was due, on the monotonic clock

    def grab(self, stop: threading.Event) -> Sample | None:
        """Wait until the next picture is due."""
        if self._index == 1:
            self._begin = time.monotonic() - 1.0 / self._fps  # the first picture may have waited for a reader
        if self._index > 0:
            late = time.monotonic() - self._begin - self._index / self._fps
            while late > 1.0 / self._fps and self._capture.grab():
                self._index += 1
                late -= 1.0 / self._fps
            if late < 0.0 and stop.wait(-late):
                return None
        good, picture = self._capture.read()
        if not good or picture is None:
            stop.wait(1.0 / self._fps)  # the last picture stays as long as the others
            return None
        index = self._index
        self._index += 1
        return Sample(to_rgb(picture), f"{self._name}#{index}", index / self._fps)

    def close(self) -> None:
        """Release the file."""
        self._capture.release()
