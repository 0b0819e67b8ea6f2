# SPDX-License-Identifier: Apache-2.0
"""Live sources: one thread grabs, one slot holds the newest frame, and whoever reads never gets an old one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fleet.errors import FleetError
from fleet.sources.frame import Closing, Frame, Report, RgbImage, SourceGone, SourceTimeout

CLOSE_S = 0.9
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 3.0  # a camera that was plugged in again is seen within five seconds, opening it included


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """One grabbed picture: (H, W, 3) uint8 RGB, its name, and its time in seconds on the source's clock."""

    image: RgbImage
    name: str
    captured: float


class Stream(Protocol):
    """An opened device, stream or film. Used and closed by the grabbing thread alone: OpenCV is not thread-safe."""

    @property
    def finite(self) -> bool:
        """Whether running dry is the end; otherwise it is a fault that may pass."""

    def grab(self, stop: threading.Event) -> Sample | None:
        """Wait for the next picture; None when none will come any more, or soon after ``stop`` is set."""

    def close(self) -> None:
        """Release it."""


Opener = Callable[[], Stream]


class LiveSource(Closing):
    """Keeps the newest frame of a stream; opens it again, ever more patiently, when it goes away."""

    live = True
    skipped = 0  # a live source drops what nobody reads, and cannot know what it did not receive

    def __init__(
        self,
        open_stream: Opener,
        *,
        label: str,
        description: str = "",
        loop: bool = False,
        on_skip: Report | None = None,
        open_timeout: float = 5.0,
    ) -> None:
        """Open the stream and wait for its first frame.

        Args:
            open_stream: opens the device or stream, or raises FleetError; runs in the grabbing thread.
            label: the source in messages, such as ``camera 0``.
            description: one line for the user, ``label`` if empty.
            loop: start a film again when it ends.
            on_skip: called from the grabbing thread with one line when the source goes away and comes back.
            open_timeout: seconds until the first frame must be there.

        Raises:
            FleetError: it cannot be opened, or gave no frame in time.
        """
        self.description = description or label
        self._open_stream = open_stream
        self._label = label
        self._loop = loop
        self._report = on_skip or (lambda _line: None)
        self._stop = threading.Event()
        self._wanted = threading.Event()  # a film waits for its first reader, or its beginning would be lost
        self._news = threading.Condition()
        self._slot: Frame | None = None
        self._ended = False
        self._away = False
        self._opened = False
        self._failure: FleetError | None = None
        self._thread = threading.Thread(target=self._run, name=f"grab {label}", daemon=True)
        self._thread.start()
        with self._news:
            self._news.wait_for(lambda: self._opened or self._ended, open_timeout)
            failure = self._failure
            if not self._opened and failure is None:
                failure = FleetError(f"{label} gave no picture within {open_timeout:g} s")
        if failure is not None:
            self._stop.set()
            self._wanted.set()
            raise failure

    def __enter__(self) -> LiveSource:
        return self

    def read(self, timeout: float | None = None) -> Frame | None:
        """Return the newest frame, waiting for one that was not returned yet; None after the end.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            SourceTimeout: no new frame came in time.
            SourceGone: the same, and the camera is away and being looked for.
            FleetError: it broke down for good, and why.
        """
        self._wanted.set()
        with self._news:
            self._news.wait_for(lambda: self._slot is not None or self._ended, timeout)
            frame, self._slot = self._slot, None
            if frame is None and not self._ended:
                if self._away:
                    raise SourceGone(f"{self._label} is gone")
                msg = f"{self._label}: no new picture within {timeout or 0.0:g} s"
                raise SourceTimeout(msg)
            if frame is None and self._failure is not None and not self._stop.is_set():
                raise self._failure
            return frame

    def close(self) -> None:
        """Stop grabbing. A thread that is stuck in a dead device is left to end by itself."""
        self._stop.set()
        self._wanted.set()
        with self._news:
            self._slot = None
            self._ended = True
            self._news.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        stream: Stream | None = None
        try:
            stream = self._open_stream()
            while stream is not None and not self._stop.is_set():
                sample = stream.grab(self._stop)
                if sample is not None:
                    self._publish(sample)
                    if stream.finite and not self._wanted.is_set():
                        self._wanted.wait()
                elif self._stop.is_set():
                    break  # closed, not gone
                elif not self._opened:
                    msg = f"{self._label} was opened but gives no picture"
                    raise FleetError(msg)
                elif not stream.finite:
                    stream.close()
                    stream = self._reopen()
                else:
                    stream.close()
                    stream = self._again() if self._loop else None
        except FleetError as err:
            self._failure = err
        except Exception as err:  # whatever a driver raises must not leave a reader waiting for ever
            self._failure = FleetError(f"{self._label} failed: {err}".splitlines()[0])
        finally:
            if stream is not None:
                stream.close()
            with self._news:
                self._ended = True
                self._news.notify_all()

    def _publish(self, sample: Sample) -> None:
        with self._news:
            if self._stop.is_set():
                return
            self._slot = Frame(sample.image, sample.name, None, sample.captured)
            self._opened = True
            self._away = False
            self._news.notify_all()

    def _again(self) -> Stream | None:
        """A film from its beginning, also where its file is not there just now."""
        try:
            return self._open_stream()
        except FleetError:
            return self._reopen()

    def _reopen(self) -> Stream | None:
        with self._news:
            self._away = True
        self._report(f"{self._label} went away, trying again")
        pause = FIRST_RETRY_S
        while not self._stop.wait(pause):
            pause = min(2 * pause, LONGEST_RETRY_S)
            try:
                stream = self._open_stream()
            except FleetError:
                continue
            sample = stream.grab(self._stop)
            if sample is not None and not self._stop.is_set():
                self._report(f"{self._label} is back")
                self._publish(sample)
                return stream
            stream.close()
        return None
