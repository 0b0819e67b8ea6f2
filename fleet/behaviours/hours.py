# SPDX-License-Identifier: Apache-2.0
"""Active hours: a part of every day by the clock on the wall."""

from __future__ import annotations

import datetime
import re
import zoneinfo
from dataclasses import dataclass

from fleet.errors import FleetError

_PATTERN = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")
_DAY = 24 * 60


@dataclass(frozen=True)
class ActiveHours:
    """From one time of day until another, which may be past midnight.

    Attributes:
        begin: minutes after midnight, 0..1439; this minute is active.
        end: minutes after midnight, 0..1440; this minute no longer is.
    """

    begin: int
    end: int

    @classmethod
    def parse(cls, text: str) -> ActiveHours | None:
        """Read ``HH:MM-HH:MM``.

        Args:
            text: for example ``22:00-06:00``; empty for always.

        Raises:
            FleetError: something else, or a range that begins where it ends.
        """
        if not text.strip():
            return None
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise FleetError(f"active_hours is HH:MM-HH:MM or empty, not '{text}'")
        h0, m0, h1, m1 = map(int, match.groups())
        begin, end = 60 * h0 + m0, 60 * h1 + m1
        if begin >= _DAY or end > _DAY or max(m0, m1) >= 60:
            raise FleetError(f"active_hours has no time of day: '{text}' (00:00 to 24:00)")
        if begin == end:
            raise FleetError(f"active_hours '{text}' ends where it begins: leave it empty for always")
        return cls(begin, end)

    def __str__(self) -> str:
        return f"{_clock(self.begin)}-{_clock(self.end)}"

    def include(self, time: datetime.time) -> bool:
        """Whether a time of day is active."""
        minute = 60 * time.hour + time.minute
        if self.begin < self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end


def zone_named(name: str) -> datetime.tzinfo | None:
    """A time zone.

    Args:
        name: of the IANA data base, for example ``Europe/Vienna``; empty for this machine's own.

    Returns:
        The zone, None for this machine's own.

    Raises:
        FleetError: there is no such zone on this machine.
    """
    if not name:
        return None
    try:
        return zoneinfo.ZoneInfo(name)
    except (LookupError, ValueError, OSError) as err:
        raise FleetError(f"time_zone '{name}' is unknown: give a name like Europe/Vienna, or leave it empty") from err


def time_of_day(seconds: float, zone: datetime.tzinfo | None) -> datetime.time:
    """The time on the wall clock.

    Args:
        seconds: since 1970, UTC.
        zone: None for this machine's own.
    """
    return datetime.datetime.fromtimestamp(seconds, zone).time()


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
