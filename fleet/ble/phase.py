# SPDX-License-Identifier: Apache-2.0
"""When the next connection event is due, from what a host sees of the ones before.

A host is not told of connection events. It sees their traces: the controller reports packets as completed, or
hands over what the hub wrote, shortly after an event's anchor and never before it. The earliest traces give the
anchor; between them two crystals drift apart by some ten parts in a million.

Knowing the phase, the camera hands its packets to the controller just before an event and not one interval too
early: what the controller holds can no longer be replaced by a newer stage.
"""

from __future__ import annotations

import math

DRIFT = 100e-6
"""Of two sleep clocks against each other, s a second; twice the 50 ppm of a good crystal."""

TRUSTED_S = 30.0
"""Without a trace for so long the phase is unknown: by then it may be 3 ms off."""


class EventPhase:
    """The anchor of the newest known connection event; it reads no clock."""

    def __init__(self) -> None:
        self._anchor = 0.0
        self._seen: float | None = None

    def forget(self) -> None:
        """The connection interval has changed, or the link is new."""
        self._seen = None

    def known(self, now: float) -> bool:
        """Whether a trace of an event was seen not too long before ``now`` (s)."""
        return self._seen is not None and now - self._seen <= TRUSTED_S

    def saw(self, time: float, ci_s: float, *, early_s: float) -> None:
        """A trace of a connection event.

        Args:
            time: when the host saw it, s.
            ci_s: connection interval, s.
            early_s: a trace so much before the expected anchor still counts as that event's; one that comes
                earlier is a late trace of the event before.
        """
        if self._seen is None or not self.known(time):
            self._anchor = self._seen = time
            return
        # An estimate that is too early is never corrected by traces, for those may be late: so let it drift later.
        anchor = self._anchor + DRIFT * (time - self._seen)
        anchor += ci_s * math.floor((time - anchor + early_s) / ci_s)
        self._anchor = min(anchor, time)
        self._seen = time

    def first_after(self, time: float, ci_s: float) -> float:
        """The first event that is due after ``time`` (s).

        Raises:
            ValueError: no trace was seen yet.
        """
        if self._seen is None:
            raise ValueError("no connection event was seen yet")
        return self._anchor + ci_s * (math.floor((time - self._anchor) / ci_s) + 1)
