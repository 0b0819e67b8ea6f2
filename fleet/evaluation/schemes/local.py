# SPDX-License-Identifier: Apache-2.0
"""Local early exit: which exits are asked, with which thresholds; the same search as FLEET's (design section 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.evaluation.air import FloatVector
from fleet.evaluation.certainty import Judged
from fleet.evaluation.stopping import ALIKE, Choice, Runs, choose_each, choose_single
from fleet.platforms import PlatformProfile

NO_STAGE = -1
"""Stage number of work that is no stage of the base network, as in :mod:`fleet.baselines`."""
MOST_ASKED = 3
"""Exits beside the last that a subset may ask; and all of them."""
REFINED = 12
"""Subsets that are searched for a threshold an exit, the best with one threshold for all."""


@dataclass(frozen=True)
class LocalExits:
    """A local scheme on one platform.

    Attributes:
        names: of its exits, in order.
        judged: its exits, one row each.
        shared: seconds of the work up to each exit that is done whether or not it is asked, since the exit before.
        own: seconds of what an exit takes if it is asked.
    """

    names: tuple[str, ...]
    judged: Judged
    shared: tuple[float, ...]
    own: tuple[float, ...]

    @classmethod
    def of(cls, scheme: Mapping[str, Any], judged: Judged, profile: PlatformProfile) -> LocalExits:
        """A scheme as the trace's index describes it.

        Args:
            scheme: of ``index.rivals``.
            judged: its rows.
            profile: of the platform.
        """
        exits = scheme["exits"]
        rows = [int(e["row"]) for e in exits]
        own_rows = Judged(judged.certainty[rows], judged.answer[rows], judged.right[rows])
        return cls(
            tuple(str(e["name"]) for e in exits),
            own_rows,
            tuple(sum(step_seconds(profile, step) for step in e["shared"]) for e in exits),
            tuple(sum(step_seconds(profile, step) for step in e["own"]) for e in exits),
        )

    def times(self, asked: Sequence[int]) -> FloatVector:
        """When each of the asked exits has its answer, in s."""
        shared, own = np.cumsum(self.shared), np.asarray(self.own)
        chosen = list(asked)
        out: FloatVector = shared[chosen] + np.cumsum(own[chosen])
        return out

    def runs(self, asked: Sequence[int]) -> Runs:
        """The stopping problem of a subset of exits; the last of them always answers."""
        chosen, images = list(asked), self.judged.certainty.shape[1]
        certainty = self.judged.certainty[chosen].T.copy()
        certainty[:, -1] = np.inf
        cost = np.broadcast_to(self.times(asked), certainty.shape)
        exit_ = np.broadcast_to(np.arange(len(chosen)), certainty.shape)
        assert certainty.shape[0] == images
        return Runs.of_table(exit_, certainty, self.judged.right[chosen].T, cost, exits=len(chosen))

    def end(
        self, asked: Sequence[int], thresholds: Sequence[float]
    ) -> tuple[FloatVector, npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
        """When each image is answered, whether rightly, and by which exit (an index of ``names``), shapes (N,)."""
        runs = self.runs(asked)
        chosen = runs.first_sure(np.asarray(thresholds))
        return runs.cost[chosen], runs.right[chosen], np.asarray(list(asked))[runs.exit[chosen]]


@dataclass(frozen=True)
class LocalPoint:
    """An operating point of local early exit.

    Attributes:
        asked: the exits that are asked, in order; the last always answers.
        choice: their thresholds, and what came of them on the calibration split.
    """

    asked: tuple[int, ...]
    choice: Choice


def step_seconds(profile: PlatformProfile, step: Mapping[str, Any]) -> float:
    """How long a step of ``index.rivals`` takes."""
    stage = NO_STAGE if step["stage"] is None else int(step["stage"])
    return profile.seconds(step["macs"], stage) or 0.0


def subsets(exits: int) -> list[tuple[int, ...]]:
    """The subsets that are tried: every exit alone, few exits with any last one, and all of them up to it."""
    found: dict[tuple[int, ...], None] = {}
    for last in range(exits):
        for count in range(MOST_ASKED + 1):
            for before in combinations(range(last), count):
                found[(*before, last)] = None
        found[tuple(range(last + 1))] = None
    return list(found)


def best_accuracy(exits: LocalExits) -> float:
    """The best accuracy that any subset reaches with one threshold for all exits; the target hangs on it."""
    return max(found.choice.score.accuracy for found in single_points(exits, target=np.inf))


def single_points(exits: LocalExits, target: float) -> list[LocalPoint]:
    """Every subset with the best single threshold."""
    return [LocalPoint(asked, choose_single(exits.runs(asked), target)) for asked in subsets(len(exits.names))]


def choose_alone(exits: LocalExits, target: float) -> LocalPoint | None:
    """The fastest exit that reaches a target by itself, for every image; None where none does."""
    points = [LocalPoint((n,), choose_single(exits.runs((n,)), target)) for n in range(len(exits.names))]
    reached = [p for p in points if p.choice.score.accuracy >= target - ALIKE]
    return min(reached, key=lambda p: p.choice.score.cost, default=None)


def choose_local(exits: LocalExits, target: float) -> LocalPoint:
    """The fastest point that reaches a target on the calibration split, or the most accurate."""
    first = single_points(exits, target)
    first.sort(key=lambda p: p.choice.score.rank(target))
    best = first[0]
    for point in first[:REFINED]:
        found = choose_each(exits.runs(point.asked), target, [point.choice.thresholds])
        if found.score.better(best.choice.score, target):
            best = LocalPoint(point.asked, found)
    return best
