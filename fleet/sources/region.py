# SPDX-License-Identifier: Apache-2.0
"""Any source with the square around what moved marked in its frames (``roi: motion``)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

from fleet.errors import FleetError
from fleet.motion import MotionFinder, Seen
from fleet.sources.frame import Closing, Frame, Source

Roi = Literal["full", "motion"]


def roi_named(name: str) -> Roi:
    """What is classified of a frame, by its name.

    Raises:
        FleetError: it is neither.
    """
    for roi in get_args(Roi):
        if roi == name:
            return roi  # type: ignore[no-any-return]
    raise FleetError(f"roi is {' or '.join(get_args(Roi))}, not '{name}'")


class RegionSource(Closing):
    """Passes another source's frames on; with ``roi`` at ``motion``, with the square around what moved.

    Args:
        source: whose frames; closed with this one.
        roi: what is to be classified; may be changed at any time.
        finder: of the motion; one with its usual settings if None.
        clock: seconds, for frames of which the source does not know when they were taken.
    """

    def __init__(
        self,
        source: Source,
        roi: Roi,
        *,
        finder: MotionFinder | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.roi = roi
        self.seen: Counter[Seen] = Counter()
        """How often each thing was seen, while looking for motion."""
        self._source = source
        self._finder = finder or MotionFinder()
        self._clock = clock

    @property
    def live(self) -> bool:
        """See :class:`fleet.sources.Source`."""
        return self._source.live

    @property
    def description(self) -> str:
        """See :class:`fleet.sources.Source`."""
        return self._source.description

    @property
    def skipped(self) -> int:
        """See :class:`fleet.sources.Source`."""
        return self._source.skipped

    def read(self, timeout: float | None = None) -> Frame | None:
        """See :class:`fleet.sources.Source`."""
        frame = self._source.read(timeout)
        if frame is None or self.roi == "full":
            return frame
        look = self._finder.look(frame.image, frame.captured if frame.captured is not None else self._clock())
        self.seen[look.seen] += 1
        return replace(frame, region=look.square)

    def close(self) -> None:
        """See :class:`fleet.sources.Source`."""
        self._source.close()

    def __enter__(self) -> RegionSource:
        return self
