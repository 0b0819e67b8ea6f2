# SPDX-License-Identifier: Apache-2.0
"""Temperatures and thresholds from the calibration split (FLEET section 3.4; never from the test split)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fleet.exits import Classes, softmax

FloatArray = npt.NDArray[np.float64]
_TEMPERATURES = np.geomspace(0.25, 4.0, 121)
MAX_LOSS = 0.01


def temperature(logits: npt.ArrayLike, labels: npt.NDArray[np.int64]) -> float:
    """The temperature with the least negative log-likelihood (temperature scaling, Guo et al., ICML 2017).

    Args:
        logits: shape (N, classes).
        labels: shape (N,).
    """
    scores = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(labels))

    def loss(t: float) -> float:
        return float(-np.log(np.maximum(softmax(scores / t)[rows, labels], 1e-12)).mean())

    return float(min(_TEMPERATURES, key=loss))


def thresholds(
    probabilities: Mapping[int, FloatArray],
    final: FloatArray,
    labels: npt.NDArray[np.int64],
    classes: Classes,
    *,
    max_loss: float = MAX_LOSS,
) -> dict[int, float]:
    """One threshold an exit: it may answer where waiting for the whole network would gain next to nothing.

    The smallest certainty such that, on the images that are at least as certain, the exit is right as often as
    the whole network on the same images, less ``max_loss``. An exit that is never that good gets none.

    Args:
        probabilities: class probabilities after temperature scaling, by exit, shapes (N, classes).
        final: of the whole network, shape (N, classes).
        labels: shape (N,).
        classes: whose groups are judged.
        max_loss: accepted loss of group accuracy, 0..1.
    """
    truth = np.asarray(classes.group_of)[labels]
    best = classes.group_probabilities(final).argmax(axis=1) == truth
    found = {}
    for exit_stage, p in probabilities.items():
        groups = classes.group_probabilities(p)
        certainty = groups.max(axis=1)
        order = np.argsort(-certainty)
        answered = np.arange(1, len(order) + 1)
        gain = np.cumsum(best[order].astype(int) - (groups.argmax(axis=1) == truth)[order]) / answered
        # A handful of images says nothing about a threshold.
        allowed = np.flatnonzero((gain <= max_loss) & (answered >= max(20, len(order) // 100)))
        if len(allowed):
            found[exit_stage] = round(float(certainty[order[allowed[-1]]]), 4)
    return found
