# SPDX-License-Identifier: Apache-2.0
"""A number with its 95 % interval, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NOT_RUN = "not run"
NOT_REACHED = "not reached"
NOT_RECORDED = "not recorded"
NONE = "–"


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
        value: the number.
        low: lower end of its 95 % bootstrap interval; None where none was recorded.
        high: upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, value: object, interval: object = None) -> Estimate | None:
        """From what a file holds; None where the value is no finite number."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        if (
            isinstance(interval, Sequence)
            and len(interval) == 2
            and all(isinstance(end, int | float) for end in interval)
        ):
            return cls(float(value), float(interval[0]), float(interval[1]))
        return cls(float(value))

    def over(self, other: Estimate) -> Estimate:
        """This divided by another, with the widest interval that the two allow: their pairing is not known."""
        if None in (self.low, self.high, other.low, other.high) or not other.low or not other.high:
            return Estimate(self.value / other.value)
        assert self.low is not None
        assert self.high is not None
        return Estimate(self.value / other.value, self.low / other.high, self.high / other.low)

    def written(self, digits: int = 2, unit: str = "") -> str:
        """The number and its interval: ``3.12× (3.05–3.20)``."""
        return f"{self.value:.{digits}f}{unit}{self.interval(digits)}"

    def percent(self, digits: int = 1) -> str:
        """A share: ``87.1 % (85.8–88.4)``."""
        scaled = Estimate(*(None if v is None else 100 * v for v in (self.value, self.low, self.high)))  # type: ignore[arg-type]
        return scaled.written(digits, "\u00a0%")

    def interval(self, digits: int = 2) -> str:
        """The interval alone, with a space before it; empty where there is none."""
        return "" if self.low is None else f" ({self.low:.{digits}f}–{self.high:.{digits}f})"


def times(estimate: Estimate | None) -> str:
    """A ratio."""
    return NONE if estimate is None else estimate.written(2, "×")


def interval_ms(ci_ms: float) -> str:
    """A connection interval: ``7.5 ms``, ``4 s``."""
    return f"{ci_ms / 1000:g} s" if ci_ms >= 1000 else f"{ci_ms:g} ms"


def span_ms(first: float, last: float) -> str:
    """A range of connection intervals: ``7.5–65 ms``."""
    if first == last:
        return interval_ms(first)
    if first < 1000 and last < 1000:
        return f"{first:g}–{last:g} ms"
    return f"{interval_ms(first)}–{interval_ms(last)}"
