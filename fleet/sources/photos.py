# SPDX-License-Identifier: Apache-2.0
"""The sample photographs inside scikit-image's wheel, panned and zoomed: pictures where there is no camera.

Only the installed files are read; scikit-image itself, which would download what is missing, is never imported. Of its
photographs those are used whose content is beyond doubt. Pictures of people (``astronaut``, ``camera``) are left out
because the data that the models are trained on has no people in it, so that no answer would be right; so are the
rocket, which is a vehicle or not as one likes, and pictures that no camera in a yard would see (microscopy, the sky).
"""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import numpy as np

from fleet.errors import FleetError
from fleet.sources.decode import UnreadableImage, decode_image
from fleet.sources.frame import Closing, Frame, RgbImage
from fleet.sources.opencv import opencv

FRAMES_EACH = 12
SIZE = (640, 480)  # width, height
CLOSEST = 0.7  # smallest part of the picture's height or width that is shown

# Every second photograph is one to wake up for, so that a short run shows both kinds.
_WAKING = (
    ("chelsea.png", "pet"),
    ("motorcycle_left.png", "vehicle"),
    ("chelsea.png", "pet"),
    ("motorcycle_right.png", "vehicle"),
)
_OTHER = tuple((name, "none") for name in ("coffee.png", "grass.png", "gravel.png", "brick.png", "coins.png"))


class PhotoSource(Closing):
    """An endless, repeatable walk over the photographs: frame n of a seed is always the same picture."""

    live = False
    skipped = 0

    def __init__(self, *, seed: int = 0, resolution: tuple[int, int] | None = None, why: str = "") -> None:
        """Find and decode the photographs.

        Args:
            seed: chooses the order and the way over each photograph.
            resolution: width and height of the frames in pixels.
            why: ends the description, where the choice was automatic.

        Raises:
            FleetError: scikit-image is not installed, or has none of the photographs.
        """
        self.description = f"photos: sample photographs of scikit-image{why}"
        self._seed = seed % 2**32
        self._width, self._height = resolution or SIZE
        self._photos = _load({name for name, _ in _WAKING + _OTHER})
        self._waking = [entry for entry in _WAKING if entry[0] in self._photos]
        self._other = [entry for entry in _OTHER if entry[0] in self._photos]
        order = np.random.default_rng([self._seed]).permutation(len(self._other))
        self._other = [self._other[i] for i in order]
        self._number = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def __enter__(self) -> PhotoSource:
        return self

    def read(self, timeout: float | None = None) -> Frame | None:  # noqa: ARG002 - it is made when it is asked for
        """Return the next frame, or None after ``close``."""
        with self._lock:
            number = self._number
            self._number += 1
        return None if self._closed.is_set() else self.frame(number)

    def close(self) -> None:
        """End it."""
        self._closed.set()

    def frame(self, number: int) -> Frame:
        """Return frame ``number``, counted from 0."""
        place, step = divmod(number, FRAMES_EACH)
        name, truth = self._chosen(place)
        photo = self._photos[name]
        window = self._window(photo, place, step / (FRAMES_EACH - 1))
        image: RgbImage = opencv().warpAffine(
            photo,
            window,
            (self._width, self._height),
            flags=opencv().INTER_LINEAR | opencv().WARP_INVERSE_MAP,
            borderMode=opencv().BORDER_REFLECT_101,
        )
        return Frame(image, name, truth, None)

    def _chosen(self, place: int) -> tuple[str, str]:
        lists = [entries for entries in (self._waking, self._other) if entries]
        entries = lists[place % len(lists)]
        return entries[place // len(lists) % len(entries)]

    def _window(self, photo: RgbImage, place: int, t: float) -> Any:
        """Part of the photograph that fills the frame at time ``t`` in [0, 1] of its stay.

        Returns:
            (2, 3) affine map from frame to photograph.
        """
        random = np.random.default_rng([self._seed, 1 + place])
        (x0, x1), (y0, y1) = random.uniform(0.0, 1.0, (2, 2))
        zoom0, zoom1 = random.uniform(CLOSEST, 1.0, 2)
        mirrored = bool(random.integers(2))
        height, width = photo.shape[:2]
        largest = min(width / self._width, height / self._height)
        scale = largest * (zoom0 + (zoom1 - zoom0) * t)
        left = (x0 + (x1 - x0) * t) * (width - scale * self._width)
        top = (y0 + (y1 - y0) * t) * (height - scale * self._height)
        if mirrored:
            return np.array([[-scale, 0.0, left + scale * (self._width - 1)], [0.0, scale, top]])
        return np.array([[scale, 0.0, left], [0.0, scale, top]])


def _load(names: set[str]) -> dict[str, RgbImage]:
    found = importlib.util.find_spec("skimage")  # looks for it without importing it
    if found is None or not found.submodule_search_locations:
        msg = "the sample photographs come with scikit-image, which is not installed: pip install scikit-image"
        raise FleetError(msg)
    folder = Path(found.submodule_search_locations[0]) / "data"
    photos: dict[str, RgbImage] = {}
    for name in sorted(names):
        try:
            photos[name] = decode_image((folder / name).read_bytes())
        except (OSError, UnreadableImage):
            continue  # releases differ in what they bring
    if not photos:
        msg = f"scikit-image brings none of its sample photographs in {folder}: reinstall it with pip"
        raise FleetError(msg)
    return photos
