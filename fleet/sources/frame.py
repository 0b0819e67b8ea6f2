# SPDX-License-Identifier: Apache-2.0
"""What every image source has in common: the frame it gives and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fleet.errors import FleetError
from fleet.motion import Square

MAX_SKIP_LINES = 20

Report = Callable[[str], None]
RgbImage = NDArray[np.uint8]  # (H, W, 3)


class SourceTimeout(FleetError):  # noqa: N818 - read by callers as the name of what happened
    """A live source is still open, but gave no new frame in time."""


class SourceGone(SourceTimeout):
    """A live source went away and is being looked for; reading goes on as soon as it is back."""


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One picture from a source.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        name: file or member name for messages; '' for a camera.
        truth: folder name as found (``NAME/FILE``), or None. The model bundle turns it into a class or a group.
        captured: seconds on the source's own clock: ``time.monotonic()`` for a camera or a stream, time since the
            beginning of the film for a video file, None for single pictures.
        region: the square that is to be classified; None for the whole picture.
    """

    image: RgbImage
    name: str
    truth: str | None
    captured: float | None
    region: Square | None = None

    @property
    def view(self) -> RgbImage:
        """What is to be classified: the region, or the whole picture."""
        return self.image if self.region is None else self.region.of(self.image)


class Source(Protocol):
    """A camera, film, archive, directory or anything else that gives frames. Closing from another thread is safe."""

    @property
    def live(self) -> bool:
        """Whether frames that nobody reads in time are dropped (only the newest is kept)."""

    @property
    def description(self) -> str:
        """One line for the user: what is being read, and why that where it was chosen automatically."""

    @property
    def skipped(self) -> int:
        """How many items could not be read so far. Their names went to ``on_skip``."""

    def read(self, timeout: float | None = None) -> Frame | None:
        """Return the next frame; of a live source one that is newer than the last one returned.

        Args:
            timeout: seconds to wait for a live source's next frame; None waits as long as it takes. Others ignore it.

        Returns:
            The frame, or None when the source has ended or was closed.

        Raises:
            SourceTimeout: no newer frame came in time; the source stays open.
            SourceGone: the same, and it is known to be away.
            FleetError: nothing more can be read, and why.
        """

    def close(self) -> None:
        """Release the device or file; a waiting ``read`` returns None. May be called twice and from any thread."""

    def __enter__(self) -> Source: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Closing:
    """Context-manager half of a source."""

    def close(self) -> None:
        """Release what the source holds."""
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SkipLog:
    """Counts the items that were passed over and says why, but never without end."""

    def __init__(self, report: Report | None) -> None:
        self.count = 0
        self._report = report

    def add(self, line: str) -> None:
        """Count one item, and report it while there are not too many."""
        self.count += 1
        if self._report is None or self.count > MAX_SKIP_LINES:
            return
        self._report(line)
        if self.count == MAX_SKIP_LINES:
            self._report("any more items that cannot be read are only counted")


def printable(text: str, limit: int = 160) -> str:
    """Make a name from outside fit for one line of a terminal: no control characters, no undecodable bytes.

    Args:
        text: file or member name, possibly hostile.
        limit: longest result, in characters; the middle gives way.
    """
    clean = "".join(c if c.isprintable() else "?" for c in text)
    if len(clean) <= limit:
        return clean
    half = (limit - 1) // 2
    return f"{clean[:half]}…{clean[-half:]}"
