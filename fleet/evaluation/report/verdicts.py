# SPDX-License-Identifier: Apache-2.0
"""A line of the scoreboard and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleet.evaluation.report.document import Tone
from fleet.evaluation.report.estimate import NOT_RUN


@dataclass(frozen=True)
class Mark:
    """A floor or a goal.

    Attributes:
        value: to be reached; None where this line has none, or it is not known yet.
        text: how it is written.
    """

    value: float | None
    text: str


@dataclass(frozen=True)
class Outcome:
    """What one of ours did.

    Attributes:
        value: the number; None with a status.
        text: how it is written.
        note: its interval's place, bound or rival.
        status: why there is no number, or why it must not be judged.
    """

    value: float | None
    text: str
    note: str = ""
    status: str = ""
    floor: Mark | None = None
    goal: Mark | None = None


@dataclass(frozen=True)
class Measure:
    """One line.

    Attributes:
        name: of the measure.
        setting: link and scale in words.
        scale: time scale.
        paper: the paper's number in words.
        floor: what must be held.
        goal: what is wanted.
        outcomes: by which of ours.
        higher: whether more is better.
    """

    name: str
    setting: str
    scale: float
    paper: str
    floor: Mark
    goal: Mark
    outcomes: Mapping[str, Outcome]
    higher: bool = True


def verdict(outcome: Outcome, floor: Mark, goal: Mark, *, higher: bool = True) -> tuple[str, Tone]:
    """``goal held``, ``floor held, goal missed by 3 %``, ``floor missed by 12 %``, or why neither can be said.

    Args:
        outcome: the number; its own floor and goal (shares of its bound) go first.
        floor: of the measure.
        goal: of the measure.
        higher: whether more is better.
    """
    if outcome.value is None:
        return outcome.status, "quiet" if outcome.status == NOT_RUN else "bad"
    if outcome.status:
        return f"not judged: {outcome.status}", "quiet"
    floor, goal = outcome.floor or floor, outcome.goal or goal
    if floor.value is None or goal.value is None:
        return "shown for comparison", "quiet"
    misses = [_missed(outcome.value, mark.value, higher) for mark in (floor, goal) if mark.value is not None]
    if misses[0] > 0:
        return f"floor missed by {_percent(misses[0])}", "bad"
    return ("goal held", "good") if misses[1] <= 0 else (f"floor held, goal missed by {_percent(misses[1])}", "fair")


def _missed(value: float, mark: float, higher: bool) -> float:
    return (mark - value if higher else value - mark) / mark


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%" if share < 0.0995 else f"{100 * share:.0f}\u00a0%"
