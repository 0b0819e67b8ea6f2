# SPDX-License-Identifier: Apache-2.0
"""How sure recorded logits are, and how right: the rules by which an exit may be judged (design section 12.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fleet.evaluation.scores import NONE
from fleet.exits import Classes, normalised_entropy, softmax

Rule = Literal["confidence", "entropy", "margin", "agreement"]
"""``margin``: likeliest less second likeliest; ``agreement``: confidence, where the exit before said the same."""
Unit = Literal["group", "class", "wake_words"]
"""What is judged: the four groups, the classes, or which of the wake words it is on images that show one."""
CHUNK = 8


@dataclass(frozen=True)
class Truth:
    """What is on the images.

    Attributes:
        groups: index of the true group, shape (N,).
        classes: index of the true class, -1 where only the group is known, shape (N,).
    """

    groups: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]

    def counted(self, classes: Classes, unit: Unit) -> npt.NDArray[np.intp]:
        """The images that a unit judges, as indices."""
        if unit == "group":
            return np.arange(len(self.groups))
        return np.flatnonzero(self.classes >= 0 if unit == "class" else np.isin(self.groups, words_of(classes)))

    def take(self, images: npt.NDArray[np.intp]) -> Truth:
        """The truth of some of the images."""
        return Truth(self.groups[images], self.classes[images])

    def wanted(self, classes: Classes, unit: Unit) -> npt.NDArray[np.int64]:
        """What a right answer is, as :attr:`Judged.answer` says it."""
        if unit == "class":
            return self.classes
        return self.groups if unit == "group" else np.searchsorted(words_of(classes), self.groups)


@dataclass(frozen=True)
class Judged:
    """Logits as an exit's trigger sees them.

    Attributes:
        certainty: 0..1, NaN where there are no logits, shape (rows, N).
        answer: group or class that is said, shape (rows, N).
        right: shape (rows, N).
    """

    certainty: npt.NDArray[np.float64]
    answer: npt.NDArray[np.int16]
    right: npt.NDArray[np.bool_]


def words_of(classes: Classes) -> npt.NDArray[np.int64]:
    """The groups that are wake words, as indices."""
    return np.asarray([g for g, name in enumerate(classes.groups) if name != NONE], np.int64)


def judge_rows(
    logits: npt.NDArray[np.floating],
    temperatures: npt.ArrayLike,
    classes: Classes,
    truth: Truth,
    *,
    unit: Unit,
    rule: Rule = "confidence",
) -> Judged:
    """Judge logits.

    Args:
        logits: shape (rows, N, classes).
        temperatures: one a row.
        classes: of the bundle.
        truth: of the images.
        unit: whether groups or classes are judged, by trigger and truth alike.
        rule: what certainty is.
    """
    rows, images = logits.shape[:2]
    certainty, answer = np.full((rows, images), np.nan), np.zeros((rows, images), np.int16)
    scale = np.asarray(temperatures, float).reshape(-1, 1, 1)
    for start in range(0, rows, CHUNK):
        part = slice(start, min(rows, start + CHUNK))
        scores = np.asarray(logits[part], np.float64)
        there = ~np.isnan(scores[..., 0])
        probabilities = softmax(np.where(there[..., None], scores, 0.0) / scale[part])
        if unit != "class":
            # A sum of probabilities may come out a rounding error above one.
            probabilities = classes.group_probabilities(probabilities).clip(max=1.0)
        if unit == "wake_words":
            probabilities = probabilities[..., words_of(classes)]
            probabilities = probabilities / probabilities.sum(axis=-1, keepdims=True)
        certainty[part] = np.where(there, _certainty(probabilities, rule), np.nan)
        answer[part] = probabilities.argmax(axis=-1)
    return Judged(certainty, answer, answer == truth.wanted(classes, unit))


def _certainty(probabilities: npt.NDArray[np.float64], rule: Rule) -> npt.NDArray[np.float64]:
    if rule == "entropy":
        return 1.0 - normalised_entropy(probabilities)
    if rule == "margin":
        best = np.partition(probabilities, -2, axis=-1)
        margin: npt.NDArray[np.float64] = best[..., -1] - best[..., -2]
        return margin
    out: npt.NDArray[np.float64] = probabilities.max(axis=-1)
    return out
