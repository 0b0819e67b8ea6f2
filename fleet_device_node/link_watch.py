# SPDX-License-Identifier: Apache-2.0
"""Whether there is a hub at the other end, as the device can know it."""

from __future__ import annotations

from dataclasses import dataclass

SILENT_S = 3.0
"""Seconds without a sign of life after which the bridge counts as gone; it sends its statistics every second."""


@dataclass
class LinkWatch:
    """The bridge says whether a hub is there; a bridge that was killed says nothing any more.

    Attributes:
        connected: a hub is there, and the bridge that said so lives.
    """

    connected: bool = False
    _told: bool = False
    _last_beat: float | None = None

    @property
    def why(self) -> str:
        """Why there is no hub, in words."""
        return "the bridge is gone" if self._told and not self.connected else "no hub"

    def told(self, now: float, *, connected: bool) -> str | None:
        """The bridge's word. Returns a line to log if it is news."""
        if self._last_beat is not None:
            self._last_beat = now
        self._told = connected
        return self._become(connected, "the hub is there" if connected else "no hub: the device answers by itself")

    def beat(self, now: float) -> str | None:
        """The bridge's statistics have come. Returns a line to log if that is news."""
        self._last_beat = now
        return self._become(self._told, "the bridge is back")

    def look(self, now: float) -> str | None:
        """Look at the time. Returns a line to log if the bridge has been silent for too long."""
        if self._last_beat is None or now - self._last_beat <= SILENT_S:
            return None
        return self._become(False, f"the bridge has been silent for {SILENT_S:g} s: the device answers by itself")

    def _become(self, connected: bool, line: str) -> str | None:
        news, self.connected = connected != self.connected, connected
        return line if news else None
