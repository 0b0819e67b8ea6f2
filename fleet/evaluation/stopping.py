# SPDX-License-Identifier: Apache-2.0
"""Early exit as a stopping problem: runs in the order of time, one threshold an exit, the first sure run answers.

FLEET's hub, local early exit and a race of the two are all of this kind, so all are given their thresholds by the same
search (design section 8): the fastest mean latency on the calibration split with which a given accuracy is reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatVector = npt.NDArray[np.float64]
NEVER = float("inf")
SINGLE = tuple(round(0.1 * k, 1) for k in range(1, 10))
"""The paper's thresholds, the same for all exits (FLEET section 4.1)."""
QUANTILES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Thresholds that the search tries: these quantiles of what an exit's certainties are."""
PRICES = 5
"""Trade-offs between time and errors that the search tries, by bisection."""
ALIKE = 1e-9


@dataclass(frozen=True)
class Runs:
    """Everything that may answer, image by image and within an image in the order of time.

    The last run of every image answers in any case: its certainty is infinite.

    Attributes:
        image: of each run, ascending, shape (M,).
        exit: which threshold holds for it, 0 and up, shape (M,).
        certainty: shape (M,).
        right: whether its answer is right, shape (M,).
        cost: seconds until its answer is there, shape (M,).
        exits: how many thresholds there are.
    """

    image: npt.NDArray[np.intp]
    exit: npt.NDArray[np.intp]
    certainty: FloatVector
    right: npt.NDArray[np.bool_]
    cost: FloatVector
    exits: int

    @classmethod
    def of_table(
        cls,
        exit_: npt.NDArray[np.integer],
        certainty: npt.NDArray[np.floating],
        right: npt.NDArray[np.bool_],
        cost: npt.NDArray[np.floating],
        *,
        exits: int,
    ) -> Runs:
        """Runs from tables of shape (N, R), in any order; what has no finite cost is no run.

        The first infinite certainty of an image is its last run.
        """
        order = np.argsort(cost, axis=1, kind="stable")
        seconds, sure = (np.take_along_axis(t, order, axis=1).astype(float) for t in (cost, certainty))
        forced = np.isposinf(sure) & np.isfinite(seconds)
        after = np.cumsum(forced, axis=1) - forced > 0
        image, place = np.nonzero(np.isfinite(seconds) & ~after)
        column = order[image, place]
        return cls(
            image,
            exit_[image, column].astype(np.intp),
            sure[image, place],
            right[image, column],
            seconds[image, place],
            exits,
        )

    @cached_property
    def images(self) -> int:
        """How many images."""
        return int(self.image[-1]) + 1

    def first_sure(self, thresholds: FloatVector) -> npt.NDArray[np.intp]:
        """The run that answers each image, shape (N,)."""
        sure = np.flatnonzero(self.certainty >= thresholds[self.exit])
        of = self.image[sure]
        new = np.empty(len(of), np.bool_)
        new[0] = True
        np.not_equal(of[1:], of[:-1], out=new[1:])
        return sure[new]

    def score(self, thresholds: FloatVector) -> Score:
        """Mean cost and accuracy with these thresholds."""
        chosen = self.first_sure(thresholds)
        return Score(float(self.cost[chosen].mean()), float(self.right[chosen].mean()))

    @cached_property
    def grids(self) -> tuple[FloatVector, ...]:
        """Thresholds that are worth trying, by exit."""
        found = []
        for n in range(self.exits):
            seen = self.certainty[(self.exit == n) & np.isfinite(self.certainty)]
            quantiles = np.quantile(seen, QUANTILES) if len(seen) else np.zeros(0)
            found.append(np.unique(np.append(np.floor(quantiles * 1e6) / 1e6, NEVER)))
        return tuple(found)


@dataclass(frozen=True)
class Score:
    """Mean seconds and share of right answers."""

    cost: float
    accuracy: float

    def better(self, other: Score | None, target: float) -> bool:
        """Whether it is the faster of two that reach a target, or the more accurate where not both do."""
        if other is None:
            return True
        reaches, reached = self.accuracy >= target - ALIKE, other.accuracy >= target - ALIKE
        if reaches != reached:
            return reaches
        if not reaches:
            return self.accuracy > other.accuracy
        return (self.cost, -self.accuracy) < (other.cost, -other.accuracy)


@dataclass(frozen=True)
class Choice:
    """Thresholds, and what came of them on the calibration split."""

    thresholds: tuple[float, ...]
    score: Score


def choose_single(runs: Runs, target: float) -> Choice:
    """The paper's way: the best of nine thresholds for all exits alike."""
    return _best(runs, target, (np.full(runs.exits, level) for level in SINGLE))


def choose_each(runs: Runs, target: float, hints: Iterable[Sequence[float]] = ()) -> Choice:
    """A threshold for every exit.

    Coordinate descent on time + price · errors, for several prices, and at the end on time alone among what reaches the
    target. That finds good thresholds, not provably the best.

    Args:
        runs: on the calibration split.
        target: accuracy to reach.
        hints: thresholds that were good for something similar.
    """
    starts = [np.full(runs.exits, level) for level in SINGLE]
    starts += [np.asarray(hint, float) for hint in hints if len(hint) == runs.exits]
    best = _best(runs, target, starts)
    low, high = 0.0, _highest_price(runs)
    price = high / 8.0
    for _ in range(PRICES):
        found = _descend(runs, np.asarray(best.thresholds), price)
        if found.score.better(best.score, target):
            best = found
        # A price that is too low buys too many errors; one that is too high, time that is not needed.
        low, high = (price, high) if found.score.accuracy < target - ALIKE else (low, price)
        price = (low + high) / 2.0
    return _polish(runs, best, target)


def _highest_price(runs: Runs) -> float:
    """Seconds that an error costs at most: far more than any image takes."""
    return 50.0 * float(runs.cost.max())


def _best(runs: Runs, target: float, tried: Iterable[FloatVector]) -> Choice:
    best: Choice | None = None
    for thresholds in tried:
        score = runs.score(thresholds)
        if best is None or score.better(best.score, target):
            best = Choice(tuple(thresholds.tolist()), score)
    assert best is not None
    return best


def _descend(runs: Runs, start: FloatVector, price: float) -> Choice:
    """One round of coordinate descent on mean cost + price · errors."""
    thresholds = start.copy()
    at = runs.score(thresholds)
    for n, grid in enumerate(runs.grids):
        kept = thresholds[n]
        for level in grid:
            thresholds[n] = level
            score = runs.score(thresholds)
            if score.cost + price * (1 - score.accuracy) < at.cost + price * (1 - at.accuracy):
                at, kept = score, level
        thresholds[n] = kept
    return Choice(tuple(thresholds.tolist()), at)


def _polish(runs: Runs, best: Choice, target: float) -> Choice:
    """Take one threshold after the other down as far as the target allows."""
    thresholds = np.asarray(best.thresholds)
    at = best.score
    for n, grid in enumerate(runs.grids):
        kept = thresholds[n]
        for level in grid:
            thresholds[n] = level
            score = runs.score(thresholds)
            if score.better(at, target):
                at, kept = score, level
        thresholds[n] = kept
    return Choice(tuple(thresholds.tolist()), at)
