# SPDX-License-Identifier: Apache-2.0
"""Where FLEET wins, by how much, and what limits it: pure functions over rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fleet.evaluation.report.estimate import NONE, NOT_REACHED, NOT_RUN, Estimate, span_ms
from fleet.evaluation.report.sweeps import Comparison, Result, Row, Setting

SLOWER = 1.02
"""How much slower than the best baseline still counts as not slower (design section 12.7)."""
PHASES = 0.05
"""Share of the bound by which a mean over a finite number of random phases may lie below it."""
MOSTLY = 0.5
"""Share of the images that the hub has to answer for a speed-up to be the link's doing."""
TERMS: Mapping[str, str] = {
    "compute": "work on the device",
    "wait": "waiting for connection events",
    "cloud": "the hub's exits",
    "downlink": "the answer's way down",
    "first": "mean wait for the first event",
    "interval": "one connection interval",
    "beyond": "beyond the bound: work before there is something to send, further events",
}


@dataclass(frozen=True)
class Wins:
    """Ours against one family over all intervals of a setting.

    Attributes:
        points: row and comparison, by interval.
    """

    points: tuple[tuple[Row, Comparison], ...]

    @property
    def compared(self) -> tuple[tuple[Row, Comparison], ...]:
        """Those with a ratio."""
        return tuple((row, c) for row, c in self.points if c.ratio is not None)

    @property
    def best(self) -> tuple[Row, Comparison] | None:
        """The interval with the largest ratio, of those at which the hub answers most images.

        Where the device answers by itself the link bounds nothing, and a ratio over a rival that waits for a radio that
        sleeps for seconds says nothing of ours.
        """
        there = (p for p in self.compared if hub_share(p[0].schemes[p[1].ours]) >= MOSTLY)
        return max(there, key=lambda p: (_ratio(p[1]), -p[0].ci_ms), default=None)

    @property
    def won(self) -> tuple[tuple[float, float], ...]:
        """Ranges of neighbouring intervals of the grid in which ours is faster."""
        return _runs([(row.ci_ms, c.ratio is not None and c.ratio.value > 1) for row, c in self.points])

    @property
    def status(self) -> str:
        """Why there is no ratio at all; empty where there is one."""
        if self.compared:
            return "" if self.best is not None else "the device answers most images"
        statuses = {c.status for _, c in self.points} - {"missing"}
        if not statuses:
            return NOT_RUN
        return NOT_REACHED if statuses == {"ours"} else "no rival reaches the target"

    @property
    def unreached(self) -> int:
        """At how many intervals ours misses the target."""
        return sum(c.status == "ours" for _, c in self.points)

    def range_text(self) -> str:
        """``7.5–65 ms``, several where there are gaps, or why there is none."""
        if not self.compared:
            return self.status
        return ", ".join(span_ms(*run) for run in self.won) or NONE

    def last_not_slower(self) -> tuple[float | None, float | None]:
        """The largest interval up to which ours is not slower, from the smallest on, and the next of the grid.

        Intervals at which no rival reaches the target are passed over. None first: already the smallest is lost. None
        second: the grid ends there.
        """
        last: float | None = None
        for row, c in self.points:
            if c.status in ("rival", "missing"):
                continue
            if c.ratio is None or c.ratio.value < 1 / SLOWER:
                return last, row.ci_ms
            last = row.ci_ms
        return last, None


def wins(rows: Sequence[Row], ours: str, family: str) -> Wins:
    """Compare at every interval."""
    return Wins(tuple((row, row.compare(ours, family)) for row in rows))


def _ratio(comparison: Comparison) -> float:
    assert comparison.ratio is not None
    return comparison.ratio.value


def _runs(flags: Sequence[tuple[float, bool]]) -> tuple[tuple[float, float], ...]:
    found: list[list[float]] = []
    inside = False
    for ci, won in flags:
        if won and inside:
            found[-1][1] = ci
        elif won:
            found.append([ci, ci])
        inside = won
    return tuple((first, last) for first, last in found)


def energy_ratio(row: Row, ours: str, family: str, members: Sequence[str]) -> Comparison:
    """Energy of the most frugal rival of a family over ours.

    Args:
        row: of a sweep.
        ours: which of ours.
        family: of the rivals.
        members: its schemes.
    """
    mine = row.schemes.get(ours)
    if mine is None:
        return Comparison(ours, family, "missing")
    if not mine.reached:
        return Comparison(ours, family, "ours")
    found = row.entries.get("energy_saving", {}).get(ours, {}).get(family)
    if found is not None and (ratio := Estimate.of(found.get("value"), found.get("95"))) is not None:
        return Comparison(ours, family, "ok", ratio, rival=found.get("scheme"))
    rival = frugal(row, members)
    own = mine.estimate("energy_mj")
    theirs = None if rival is None else rival.estimate("energy_mj")
    if rival is None or own is None or theirs is None:
        return Comparison(ours, family, "rival" if rival is None else "missing")
    return Comparison(ours, family, "ok", theirs.over(own), rival=rival.name)


def frugal(row: Row, members: Sequence[str]) -> Result | None:
    """The scheme with the least energy among those that reach the target."""
    energies = [
        (energy.value, result)
        for name in members
        if (result := row.schemes.get(name)) is not None
        and result.reached
        and (energy := result.estimate("energy_mj")) is not None
    ]
    return min(energies, key=lambda pair: pair[0], default=(0.0, None))[1]


def latency_terms(row: Row, result: Result) -> Mapping[str, float]:
    """Mean terms of a latency in ms: recorded ones, else the terms of the bound and what lies beyond it.

    Empty where neither is known, or where the latency is below the bound because the device answers by itself.
    """
    if result.parts_ms:
        return {name: float(ms) for name, ms in result.parts_ms.items()}
    latency = result.estimate("latency_ms")
    if latency is None or row.cloud_ms is None:
        return {}
    shortest = 1.5 * row.ci_ms + row.cloud_ms
    beyond = latency.value - shortest
    if -PHASES * shortest < beyond < 0:
        beyond = 0.0
    return (
        {} if beyond < 0 else {"first": row.ci_ms / 2, "interval": row.ci_ms, "cloud": row.cloud_ms, "beyond": beyond}
    )


def largest_term(terms: Mapping[str, float]) -> str:
    """``waiting for connection events, 61 %``; empty where nothing is known."""
    total = sum(terms.values())
    if not total:
        return ""
    name = max(terms, key=lambda n: terms[n])
    return f"{TERMS.get(name, name)}, {terms[name] / total:.0%}"


@dataclass(frozen=True)
class Tolerance:
    """Up to which loss ours is at least as fast as local early exit.

    Attributes:
        loss: by straight line between the neighbouring losses; None where it is slower without any loss.
        ended: ``slower``, ``target missed`` or ``never`` (up to the largest loss that was run).
        estimate: the same on the ends of the ratios' intervals.
    """

    loss: float | None
    ended: str
    estimate: Estimate | None


def tolerated_loss(rows: Sequence[Row], ours: str, family: str = "local") -> Tolerance | None:
    """Where the ratio falls below 1; None without rows.

    Args:
        rows: one link with different losses.
        ours: which of ours.
        family: of the rivals.
    """
    points = [(r.setting.loss, r.compare(ours, family)) for r in sorted(rows, key=lambda r: r.setting.loss)]
    points = [(loss, c) for loss, c in points if c.status != "missing"]
    if not points:
        return None
    ends = [_crossing(points, end) for end in (lambda e: e.value, lambda e: e.low, lambda e: e.high)]
    loss, ended = ends[0]
    low, high = ends[1][0], ends[2][0]
    estimate = None if loss is None else Estimate(loss, low if low is not None else 0.0, high)
    return Tolerance(loss, ended, estimate)


def _crossing(
    points: Sequence[tuple[float, Comparison]], end: Callable[[Estimate], float | None]
) -> tuple[float | None, str]:
    def ratio(c: Comparison) -> float | None:
        if c.ratio is None:
            return None
        found = end(c.ratio)
        return c.ratio.value if found is None else found

    first = ratio(points[0][1])
    if first is None or first < 1:
        return None, "target missed" if first is None else "slower"
    for (loss, c), (later, d) in pairwise(points):
        here, there = ratio(c), ratio(d)
        assert here is not None
        if there is None:
            return loss, "target missed"
        if there < 1:
            return loss + (later - loss) * (here - 1) / (here - there), "slower"
    return points[-1][0], "never"


def hub_stage(name: str) -> int | None:
    """The stage of a hub's exit from the name under which a sweep counts it, as ``3`` or ``3 begun``; else None."""
    number = name.partition(" ")[0]
    return int(number) if number.isdigit() else None


def hub_share(result: Result) -> float:
    """Share of the images that the hub answers; 1 where it was not recorded."""
    if not result.exits:
        return 1.0
    return sum(float(share) for name, share in result.exits.items() if hub_stage(name) is not None)


def early_share(result: Result, stages: int = 3) -> float | None:
    """Share of the images that a hub's exit of the first stages answers, that on the picture itself counted, too."""
    if not result.exits:
        return None
    shares = [(hub_stage(name), float(share)) for name, share in result.exits.items()]
    return sum(share for stage, share in shares if stage is not None and stage <= stages)


def settings_text(setting: Setting, *, without: Sequence[str] = ()) -> tuple[str, ...]:
    """A setting as conditions of a table, less what differs inside of it."""
    parts = {
        "platform": f"platform {setting.platform}",
        "phy": f"PHY {setting.phy}",
        "packets": f"{setting.packets} payloads an event",
        "account": f"acknowledgements {setting.account}",
        "time_scale": f"time_scale {setting.time_scale:g}",
        "unit": f"judged by {setting.unit}",
    }
    return tuple(text for name, text in parts.items() if name not in without)
