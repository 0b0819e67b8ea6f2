# SPDX-License-Identifier: Apache-2.0
"""Temperatures and thresholds from the calibration split (FLEET section 3.4; never from the test split)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fleet.errors import FleetError
from fleet.exits import BEGUN_PARTS, Classes, Decider, part_of, softmax
from fleet.packet import LOCAL_ANSWER_STAGE

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_TEMPERATURES = np.geomspace(0.25, 4.0, 121)
MAX_LOSS = 0.01
MIN_PICTURES = 20
"""A handful of images says nothing about a threshold."""
ENOUGH_FOR_TWO = 250
"""Of fewer pictures of either kind one threshold for both is the better guess."""
ENOUGH_FOR_PARTS = 500
"""Of fewer pictures of each part of a stage one threshold for all parts is."""
SWEPT = tuple(round(0.1 + 0.05 * k, 2) for k in range(17))
"""Thresholds that are tried for all exits at once: 0.1 to 0.9."""


@dataclass(frozen=True)
class Judged:
    """How sure and how right every exit is on labelled images.

    Attributes:
        stages: the exits in order.
        certainty: what each compares with its threshold, shape (exits, N).
        right: whether its group is the true one, shape (exits, N).
        whole: whether the whole network's group is the true one, shape (N,).
        arrived: how much of each exit's own stage had arrived, shape (exits, N).
    """

    stages: tuple[int, ...]
    certainty: FloatArray
    right: BoolArray
    whole: BoolArray
    arrived: FloatArray

    def part(self, stage: int, images: BoolArray) -> Judged:
        """One exit alone, on some of the images."""
        row = self.stages.index(stage)
        here = row, images
        return Judged(
            (stage,),
            self.certainty[here][None],
            self.right[here][None],
            self.whole[images],
            self.arrived[here][None],
        )


@dataclass(frozen=True)
class Outcome:
    """What comes of a set of thresholds when the first exit that is sure answers, or else the whole network.

    Attributes:
        accuracy: share of images whose group is right.
        answered: share of images that each exit answers, by exit.
        whole: share that is left to the whole network.
    """

    accuracy: float
    answered: Mapping[int, float]
    whole: float

    def mean_stage(self, last: int) -> float:
        """The mean stage that answers, the whole network counted as stage ``last``."""
        return sum(stage * share for stage, share in self.answered.items()) + last * self.whole


def begun_shares(images: int, *, newest: bool, seed: int) -> FloatArray:
    """How much of a stage has arrived, in order, when its exit or the next one runs: what exits meet on a slow radio.

    Every second picture's stages are complete. Of the others, the exit's own stage has arrived up to a tenth at least,
    and the stage before was overtaken somewhere by it, or was complete, once in two.

    Args:
        images: how many.
        newest: whether it is the exit's own stage.
        seed: of the shares.

    Returns:
        0..1, shape (images,).
    """
    random = np.random.default_rng(seed)
    drawn = random.uniform(0.1, 1.0, images) if newest else random.uniform(0.0, 2.0, images).clip(max=1.0)
    drawn[::2] = 1.0
    return drawn


def temperature(logits: npt.ArrayLike, labels: IntArray, *, groups_of: Classes | None = None) -> float:
    """The temperature with the least negative log-likelihood (temperature scaling, Guo et al., ICML 2017).

    Args:
        logits: shape (N, classes).
        labels: indices of classes, or of groups where ``groups_of`` is given, shape (N,).
        groups_of: the classes whose probabilities are summed to groups first.
    """
    scores = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(labels))

    def loss(t: float) -> float:
        probabilities = softmax(scores / t)
        if groups_of is not None:
            probabilities = groups_of.group_probabilities(probabilities)
        return float(-np.log(np.maximum(probabilities[rows, labels], 1e-12)).mean())

    return float(min(_TEMPERATURES, key=loss))


def with_temperatures(
    decider: Decider, logits: Mapping[int, npt.ArrayLike], truths: IntArray, labels: IntArray
) -> Decider:
    """The same decider with a temperature for every exit and the whole network, and without thresholds.

    They are fitted on class probabilities, or on group probabilities where any image is labelled by group only.

    Args:
        decider: its classes, trigger and unit stay.
        logits: by exit, the whole network's under ``LOCAL_ANSWER_STAGE``, shapes (N, classes).
        truths: index of the true group, shape (N,).
        labels: index of the true class, -1 where only the group is known, shape (N,).
    """
    by_group = bool((labels < 0).any())
    wanted, groups_of = (truths, decider.classes) if by_group else (labels, None)
    found = {n: temperature(scores, wanted, groups_of=groups_of) for n, scores in logits.items()}
    return replace(decider, temperatures=found, thresholds={}, begun={})


def judged(decider: Decider, logits: Mapping[int, npt.ArrayLike], truths: IntArray, *, partial: bool = False) -> Judged:
    """How sure and how right every exit is, with the decider's temperatures, trigger and unit.

    Args:
        decider: its thresholds do not matter.
        logits: by exit, the whole network's under ``LOCAL_ANSWER_STAGE``, shapes (N, classes).
        truths: index of the true group, shape (N,).
        partial: every second image's stages had only begun to arrive (:func:`begun_shares`, with the exit as seed).
    """
    scaled = {
        n: softmax(np.asarray(scores, dtype=np.float64) / decider.temperatures.get(n, 1.0))
        for n, scores in logits.items()
    }
    right = {n: decider.classes.group_probabilities(p).argmax(axis=1) == truths for n, p in scaled.items()}
    stages = tuple(sorted(set(logits) - {LOCAL_ANSWER_STAGE}))
    return Judged(
        stages,
        np.stack([decider.certainty(scaled[n]) for n in stages]),
        np.stack([right[n] for n in stages]),
        right[LOCAL_ANSWER_STAGE],
        np.stack([begun_shares(len(truths), newest=True, seed=n) if partial else np.ones(len(truths)) for n in stages]),
    )


def two_thresholds(
    found: Judged, *, max_loss: float = MAX_LOSS
) -> tuple[dict[int, float], dict[int, tuple[float, ...]]]:
    """Thresholds of every exit for a complete stage, and for one that has only begun to arrive.

    An exit that has seen half of its stage is as sure as it was trained to be, but its successors know better: what
    is worth waiting for differs, and the more so the less has arrived. So what suffices of little suffices of more.

    Args:
        found: of :func:`judged`, with ``partial``.
        max_loss: as :func:`thresholds` takes it.

    Returns:
        Both by exit. The second is empty where there are too few pictures to tell the two apart, and else has one
        number an exit, or as many as :data:`fleet.exits.BEGUN_PARTS` (:attr:`fleet.exits.Decider.begun`) where there
        are pictures enough for each part and all exits together lose no more than ``max_loss`` with them.
    """
    begun = found.arrived < 1.0
    if min(begun.sum(axis=1).min(), (~begun).sum(axis=1).min()) < ENOUGH_FOR_TWO:
        return thresholds(found, max_loss=max_loss), {}
    parts = part_of(found.arrived, BEGUN_PARTS)
    fewest = min((begun & (parts == k)).sum(axis=1).min() for k in range(BEGUN_PARTS))
    if fewest >= ENOUGH_FOR_PARTS:
        whole, several = _by_arrival(found, BEGUN_PARTS, max_loss)
        if found.whole.mean() - outcome(found, whole, several).accuracy <= max_loss:
            return whole, several
    return _by_arrival(found, 1, max_loss)


def _by_arrival(found: Judged, many: int, max_loss: float) -> tuple[dict[int, float], dict[int, tuple[float, ...]]]:
    """Thresholds for complete stages, and so many for such as have begun to arrive."""
    whole: dict[int, float] = {}
    begun: dict[int, tuple[float, ...]] = {}
    for n, arrived in zip(found.stages, found.arrived, strict=True):
        there = arrived >= 1.0
        least = thresholds(found.part(n, there), max_loss=max_loss).get(n, float("inf"))
        if least < float("inf"):
            whole[n] = least
        levels: list[float] = []
        for part in range(many - 1, -1, -1):
            kind = ~there & (part_of(arrived, many) == part)
            least = max(least, thresholds(found.part(n, kind), max_loss=max_loss).get(n, float("inf")))
            levels.insert(0, least)
        # An exit that may answer late but never early must say so: what is missing is taken from the other.
        if n in whole:
            begun[n] = tuple(levels)
    return whole, begun


def thresholds(found: Judged, *, max_loss: float = MAX_LOSS) -> dict[int, float]:
    """One threshold an exit: it may answer where waiting for the whole network would gain next to nothing.

    The smallest certainty such that, on the images that are at least as certain, the exit is right as often as
    the whole network on the same images, less ``max_loss``. An exit that is never that good gets none.

    Args:
        found: of :func:`judged`.
        max_loss: accepted loss of group accuracy, 0..1.
    """
    chosen = {}
    for stage, certainty, right in zip(found.stages, found.certainty, found.right, strict=True):
        order = np.argsort(-certainty)
        answered = np.arange(1, len(order) + 1)
        gain = np.cumsum(found.whole[order].astype(int) - right[order]) / answered
        allowed = np.flatnonzero((gain <= max_loss) & (answered >= max(MIN_PICTURES, len(order) // 100)))
        if len(allowed):
            chosen[stage] = round(float(certainty[order[allowed[-1]]]), 4)
    return chosen


def outcome(
    found: Judged, chosen: Mapping[int, float], begun: Mapping[int, tuple[float, ...]] | None = None
) -> Outcome:
    """Replay thresholds: each image is answered by its first exit that is sure, or else by the whole network.

    Args:
        found: of :func:`judged`.
        chosen: threshold by exit; an exit without one never answers.
        begun: the same for images whose stages had only begun to arrive; ``chosen`` where missing.
    """
    waiting = np.ones(len(found.whole), dtype=np.bool_)
    right = found.whole.copy()
    answered = {}
    for stage, certainty, of_exit, arrived in zip(
        found.stages, found.certainty, found.right, found.arrived, strict=True
    ):
        level = chosen.get(stage, np.inf)
        early = np.asarray((begun or {}).get(stage, (level,)))
        levels = np.where(arrived < 1.0, early[part_of(arrived, len(early))], level)
        here = waiting & (certainty >= levels)
        right[here] = of_exit[here]
        answered[stage] = float(here.mean())
        waiting &= ~here
    return Outcome(float(right.mean()), answered, float(waiting.mean()))


def sweep(found: Judged) -> dict[float, Outcome]:
    """What comes of one threshold for all exits, by threshold."""
    return {level: outcome(found, dict.fromkeys(found.stages, level)) for level in SWEPT}


def single_threshold(found: Judged, *, max_loss: float = MAX_LOSS) -> dict[int, float]:
    """The same threshold for every exit: the lowest with which all together lose little.

    Args:
        found: of :func:`judged`.
        max_loss: accepted loss of group accuracy against the whole network on all images, 0..1.

    Raises:
        FleetError: every threshold loses more.
    """
    best = float(found.whole.mean())
    tried = sweep(found)
    for level, result in tried.items():
        if result.accuracy >= best - max_loss - 1e-9:
            return dict.fromkeys(found.stages, level)
    least = max(tried, key=lambda level: tried[level].accuracy)
    raise FleetError(
        f"every single threshold from {SWEPT[0]:g} to {SWEPT[-1]:g} loses more than {max_loss * 100:g} points; "
        f"the best, {least:g}, loses {(best - tried[least].accuracy) * 100:.1f}: give that to --max-loss, "
        "or leave out --single"
    )
