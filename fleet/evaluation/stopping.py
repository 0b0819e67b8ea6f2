# SPDX-License-Identifier: Apache-2.0
"""Early exit as a stopping problem: runs in the order of time, one threshold an exit, the first sure run answers.

FLEET's hub, local early exit and a race of the two are all of this kind, so all are given their thresholds by the same
search (design section 8): the fastest mean latency on the calibration split with which a given accuracy is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatVector = npt.NDArray[np.float64]
NEVER = float("inf")
SINGLE = tuple(round(0.1 * k, 1) for k in range(1, 10))
"""The paper's thresholds, the same for all exits (FLEET section 4.1)."""
PRICES = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Prices of an error that the search tries, in the longest time that an image can take."""
ROUNDS = 2
POLISHED = 3
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

    def half(self, odd: int) -> Runs:
        """Those of every second image, the first one's (0) or the second one's (1)."""
        chosen = self.image % 2 == odd
        return Runs(
            self.image[chosen] // 2,
            self.exit[chosen],
            self.certainty[chosen],
            self.right[chosen],
            self.cost[chosen],
            self.exits,
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
    def levels(self) -> tuple[Levels, ...]:
        """Thresholds that are worth trying, by exit."""
        return tuple(Levels.of(self, n) for n in range(self.exits))

    def scan(self, thresholds: FloatVector, exit_: int) -> tuple[FloatVector, FloatVector]:
        """Mean cost and accuracy for every level of one exit, the other thresholds staying, shapes (levels,)."""
        found = self.levels[exit_]
        others = thresholds.copy()
        others[exit_] = NEVER
        chosen = self.first_sure(others)  # (N,)
        cost, right = self.cost[chosen].sum(), float(self.right[chosen].sum())
        without = chosen[self.image[found.runs]]  # who answers instead, (M,)
        counts = found.runs < without
        gained = np.where(counts, self.cost[found.runs] - self.cost[without], 0.0)
        righted = np.where(counts, self.right[found.runs] - self.right[without].astype(float), 0.0)
        return (cost + found.sums(gained)) / self.images, (right + found.sums(righted)) / self.images


@dataclass(frozen=True)
class Levels:
    """An exit's thresholds that make any difference, and which of its runs is the first sure one at each.

    A run that is less certain than one before it of the same image is never that, whatever the threshold. The others
    are for thresholds above the certainty of the one before and up to their own.

    Attributes:
        grid: certainties, ascending, and never, shape (L,).
        runs: those of the exit that may be an image's first sure one, shape (M,).
        lowest: the place in the grid from which on each is, shape (M,).
        behind: the place from which on it no longer is, shape (M,).
    """

    grid: FloatVector
    runs: npt.NDArray[np.intp]
    lowest: npt.NDArray[np.intp]
    behind: npt.NDArray[np.intp]

    @classmethod
    def of(cls, runs: Runs, exit_: int) -> Levels:
        """An exit's levels."""
        own = np.flatnonzero((runs.exit == exit_) & np.isfinite(runs.certainty))
        image = runs.image[own]
        # What a threshold was chosen as is written with six digits, and must mean the same then.
        seen = np.floor(runs.certainty[own] * 1e6) / 1e6
        before = np.full(len(own), -NEVER)
        for back in range(1, int(np.bincount(image).max(initial=0))):
            same = image[back:] == image[:-back]
            before[back:] = np.maximum(before[back:], np.where(same, seen[:-back], -NEVER))
        record = seen > before
        own, seen, before = own[record], seen[record], before[record]
        grid = np.unique(np.append(seen, NEVER))
        return cls(grid, own, np.searchsorted(grid, before, "right"), np.searchsorted(grid, seen, "right"))

    def sums(self, weights: FloatVector) -> FloatVector:
        """The weights of the runs that are first sure ones at each level, added up, shape (L,)."""
        ends = len(self.grid) + 1
        change = np.bincount(self.lowest, weights, ends) - np.bincount(self.behind, weights, ends)
        out: FloatVector = np.cumsum(change)[:-1]
        return out


@dataclass(frozen=True)
class Score:
    """Mean seconds and share of right answers."""

    cost: float
    accuracy: float

    def rank(self, target: float) -> tuple[bool, float, float]:
        """Less is better: what reaches a target by its time, the rest by how far it falls short."""
        if self.accuracy >= target - ALIKE:
            return False, self.cost, -self.accuracy
        return True, -self.accuracy, self.cost

    def better(self, other: Score | None, target: float) -> bool:
        """Whether it is the faster of two that reach a target, or the more accurate where not both do."""
        return other is None or self.rank(target) < other.rank(target)


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

    Coordinate descent on time + price · errors, for several prices; the best are then moved as far as the target
    allows. Each step looks at every threshold of an exit that makes a difference, so for one exit what is found is the
    best there is; for several it is good, not provably the best.

    Args:
        runs: on the calibration split.
        target: accuracy to reach.
        hints: thresholds that were good for something similar.
    """
    singles = [np.full(runs.exits, level) for level in SINGLE]
    known = [np.asarray(hint, float) for hint in hints if len(hint) == runs.exits]
    waiting = np.full(runs.exits, NEVER)
    best = _best(runs, target, [*singles, *known, waiting])
    found = {best.thresholds: best}
    longest = float(runs.cost.max())
    # Errors get dearer from what is fast, and cheaper from waiting: the two ends meet at different thresholds.
    for start, prices in ((np.asarray(best.thresholds), PRICES), (waiting, PRICES[::-1])):
        at = start
        for price in prices:
            at = _descend(runs, at, price * longest)
            choice = Choice(tuple(at.tolist()), runs.score(at))
            found[choice.thresholds] = choice
    ranked = sorted(found.values(), key=lambda choice: choice.score.rank(target))
    polished = [_polish(runs, choice, target) for choice in ranked[:POLISHED]]
    near = [choice for choice in ranked[POLISHED:] if choice.score.accuracy < target - ALIKE][:1]
    polished += [_polish(runs, choice, target) for choice in near]
    return min(polished, key=lambda choice: choice.score.rank(target))


def optimism(runs: Runs, target: float, choose: Callable[[Runs, float], Choice]) -> float:
    """How much of a choice's accuracy is owed to its having been made on these very images, 0 or more.

    By two-fold cross-validation: thresholds of each half are tried on the other, so that every image is judged once by
    thresholds that know it and once by some that do not. Half as many images are twice as easy to fit, so half of that
    difference is what the choice on all of them gains.
    """
    if runs.images < 2:
        return 0.0
    halves = runs.half(0), runs.half(1)
    choices = [choose(half, target) for half in halves]
    known = sum(choice.score.accuracy for choice in choices)
    unknown = sum(
        half.score(np.asarray(choice.thresholds)).accuracy for half, choice in zip(halves, choices[::-1], strict=True)
    )
    return max(0.0, (known - unknown) / 2.0 / 2.0)


def _best(runs: Runs, target: float, tried: Iterable[FloatVector]) -> Choice:
    best: Choice | None = None
    for thresholds in tried:
        score = runs.score(thresholds)
        if best is None or score.better(best.score, target):
            best = Choice(tuple(thresholds.tolist()), score)
    assert best is not None
    return best


def _descend(runs: Runs, start: FloatVector, price: float) -> FloatVector:
    """Coordinate descent on mean cost + price · errors."""
    thresholds = start.copy()
    for _ in range(ROUNDS):
        for n in range(runs.exits):
            costs, accuracies = runs.scan(thresholds, n)
            thresholds[n] = runs.levels[n].grid[int(np.argmin(costs - price * accuracies))]
    return thresholds


def _polish(runs: Runs, best: Choice, target: float) -> Choice:
    """Move one threshold after the other to where it saves most time, as far as the target allows."""
    thresholds, at = np.asarray(best.thresholds), best.score
    for _ in range(ROUNDS):
        for n in range(runs.exits):
            place, found = _best_level(*runs.scan(thresholds, n), target)
            if found.better(at, target):
                at = found
                thresholds[n] = runs.levels[n].grid[place]
    return Choice(tuple(thresholds.tolist()), runs.score(thresholds))


def _best_level(costs: FloatVector, accuracies: FloatVector, target: float) -> tuple[int, Score]:
    """The first of a score's best, in the order of :meth:`Score.rank`."""
    reached = accuracies >= target - ALIKE
    first, then = (costs, -accuracies) if reached.any() else (-accuracies, costs)
    if reached.any():
        first = np.where(reached, first, NEVER)
    ties = np.flatnonzero(first == first.min())
    place = int(ties[np.argmin(then[ties])])
    return place, Score(float(costs[place]), float(accuracies[place]))
