# SPDX-License-Identifier: Apache-2.0
"""When connection events are due: by multiplication from an anchor, so that nothing drifts."""

from __future__ import annotations

import math


class EventClock:
    """The sequence of connection events of one link; it reads no clock.

    Event k after the anchor is due at ``anchor + k * ci``. Connection intervals are multiples of
    1.25 ms and so exact in binary, which leaves one rounding however large k gets.
    """

    def __init__(self, first: float, ci_ms: float) -> None:
        """A link whose first event is due at ``first`` (s)."""
        if not math.isfinite(first):
            raise ValueError(f"the first event is due at {first}")
        self._anchor = first
        self._ci_ms = ci_ms
        self._steps = 0
        self._index = 0
        self._last: float | None = None

    @property
    def next(self) -> float:
        """When the next event is due, in s."""
        return self._at(self._steps)

    @property
    def index(self) -> int:
        """Events before the next one."""
        return self._index

    def advance(self, events: int = 1) -> None:
        """Go past that many events."""
        if events > 0:
            self._last = self._at(self._steps + events - 1)
            self._steps += events
            self._index += events

    def overdue(self, now: float) -> int:
        """Events that another due event already follows.

        Args:
            now: s. The newest event that is due at ``now`` can still take place and is not counted.
        """
        if not math.isfinite(now):
            raise ValueError(f"no event can be due at {now}")
        k = max(self._steps, math.floor((now - self._anchor) * 1000.0 / self._ci_ms))
        while self._at(k + 1) <= now:
            k += 1
        while k > self._steps and self._at(k) > now:
            k -= 1
        return k - self._steps

    def change_interval(self, ci_ms: float) -> None:
        """Continue with another interval, counted from the event before; the first event stays where it is."""
        if ci_ms != self._ci_ms:
            if self._last is not None:
                self._anchor = self._last + ci_ms / 1000.0
                self._steps = 0
            self._ci_ms = ci_ms

    def align(self, time: float) -> None:
        """The next event is due at ``time`` (s): a real radio's events were seen to come at another phase."""
        if not math.isfinite(time):
            raise ValueError(f"no event can be due at {time}")
        if self._last is not None:
            self._last = time - self._ci_ms / 1000.0
        self._anchor = time
        self._steps = 0

    def _at(self, step: int) -> float:
        return self._anchor + step * self._ci_ms / 1000.0
