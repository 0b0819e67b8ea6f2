# SPDX-License-Identifier: Apache-2.0
"""Video files: played at their own rate in place of a camera, or pulled frame by frame."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from fleet.errors import FleetError
from fleet.sources.capture import FilmStream, frames_per_second, to_rgb
from fleet.sources.frame import Closing, Frame, Report, SkipLog, printable
from fleet.sources.live import LiveSource
from fleet.sources.opencv import opencv

_ENDINGS = "avi mp4 m4v mov mkv webm mpg mpeg ts mts m2ts wmv flv ogv 3gp y4m h264 264 h265 hevc"
VIDEO_SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
_MAGIC = {
    0: (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"FLV\x01", b"OggS", b"YUV4MPEG2 ", b"0&\xb2u"),
    4: (b"ftyp", b"moov", b"mdat", b"wide"),
    8: (b"AVI ",),
}
COMPLETE = 0.9  # of the frames that the file's header promises, which is only an estimate


def is_film(head: bytes, suffix: str) -> bool:
    """Whether a file is a video, by its first bytes or else its name.

    FFmpeg alone must not decide: it plays text as a film, and follows play lists to other files.
    """
    if any(head.startswith(magic, at) for at, magics in _MAGIC.items() for magic in magics):
        return True
    return suffix.lower() in VIDEO_SUFFIXES and b"\0" in head


def open_film(path: Path, *, realtime: bool, loop: bool, on_skip: Report | None) -> LiveSource | PulledFilm:
    """Open a video file.

    Args:
        path: the file.
        realtime: play it as a camera would, leaving out what nobody reads in time, from the first ``read`` on.
        loop: start again at the end.
        on_skip: called with a line when the file ends too early.

    Raises:
        FleetError: it cannot be opened or has no picture.
    """
    if not realtime:
        return PulledFilm(path, loop=loop, on_skip=on_skip)
    name = printable(path.name)
    return LiveSource(
        lambda: FilmStream(_capture(path), name),
        label=f"video {path}",
        description=f"video {path}, played at its own rate",
        loop=loop,
        on_skip=on_skip,
    )


def _capture(path: Path) -> Any:
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        capture.release()
        msg = f"{path} is not a video that can be read, or is damaged"
        raise FleetError(msg)
    return capture


class PulledFilm(Closing):
    """A video file, every frame of it, as fast as it is read."""

    live = False

    def __init__(self, path: Path, *, loop: bool, on_skip: Report | None) -> None:
        """Open the file and decode its first frame.

        Raises:
            FleetError: it is not a video, or has no frame.
        """
        self.description = f"video {path}, frame by frame"
        self._path = path
        self._loop = loop
        self._skips = SkipLog(on_skip)
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._open()
        self._next = self._advance()
        if self._next is None:
            self.close()
            msg = f"video {path} has no picture that can be read"
            raise FleetError(msg)

    @property
    def skipped(self) -> int:
        """Frames that the file promised and did not have."""
        return self._skips.count

    def __enter__(self) -> PulledFilm:
        return self

    def read(self, timeout: float | None = None) -> Frame | None:  # noqa: ARG002 - a file does not keep one waiting
        """Return the next frame, or None after the last one."""
        with self._lock:
            if self._closed.is_set():
                self._capture.release()
                return None
            frame, self._next = self._next, None
            if frame is None:
                frame = self._advance()
            if frame is None and self._count and self._loop:
                self._capture.release()
                self._open()
                frame = self._advance()
            return frame

    def close(self) -> None:
        """Let go of the file."""
        self._closed.set()
        if self._lock.acquire(timeout=1.0):
            try:
                self._capture.release()
            finally:
                self._lock.release()

    def _open(self) -> None:
        self._capture = _capture(self._path)
        self._fps = frames_per_second(self._capture)
        self._promised = float(self._capture.get(opencv().CAP_PROP_FRAME_COUNT))
        self._count = 0

    def _advance(self) -> Frame | None:
        good, picture = self._capture.read()
        if not good or picture is None:
            if 0 < self._count < COMPLETE * self._promised and not self._skips.count:
                self._skips.add(f"video {self._path} ends after {self._count} of {self._promised:.0f} frames")
            return None
        index = self._count
        self._count += 1
        return Frame(to_rgb(picture), f"{printable(self._path.name)}#{index}", None, index / self._fps)
