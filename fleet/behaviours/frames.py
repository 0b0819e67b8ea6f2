# SPDX-License-Identifier: Apache-2.0
"""k of the last n frames."""

from __future__ import annotations

from collections import deque
from itertools import accumulate

from fleet.errors import FleetError

MAX_FRAMES = 32


def check_k_of_n(k: int, n: int) -> None:
    """Refuse what can never or always be reached.

    Raises:
        FleetError: not 1 <= k <= n <= 32.
    """
    if not 1 <= n <= MAX_FRAMES:
        raise FleetError(f"n must be 1 to {MAX_FRAMES} frames, not {n}")
    if not 1 <= k <= n:
        raise FleetError(f"k must be 1 to n frames: {k} of {n} cannot be; set both together")


class LastFrames:
    """Counts the frames that showed something among n consecutive ones.

    Labels come from the hub or from the device, so a frame may be heard after a later one. Consecutive therefore
    means by stamp, among the ``n + 32`` frames heard last: a late frame counts where it belongs, and a camera whose
    clock was set back is counted on by itself.
    """

    def __init__(self, n: int) -> None:
        """Counts among ``n`` frames."""
        self._n = n
        self._heard: deque[tuple[float, int, bool]] = deque(maxlen=n + MAX_FRAMES)
        self._arrivals = 0

    def add(self, stamp: float, *, shows: bool) -> int:
        """Take a frame in.

        Args:
            stamp: when the picture was taken, s.
            shows: whether it counts; a frame that does not still takes its place among the n.

        Returns:
            The largest count among n consecutive frames of which this one is one.
        """
        self._arrivals += 1
        frame = (stamp, self._arrivals, shows)
        self._heard.append(frame)
        frames = sorted(self._heard)
        at = frames.index(frame)
        before = [0, *accumulate(shown for _, _, shown in frames)]  # counted before frame i
        starts = range(max(0, at - self._n + 1), at + 1)
        return max(before[min(start + self._n, len(frames))] - before[start] for start in starts)
