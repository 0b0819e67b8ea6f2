# SPDX-License-Identifier: Apache-2.0
"""What counts as right: one definition for training, calibration and evaluation (design section 10)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fleet.exits import Classes

NONE = "none"


def judge(
    classes: Classes,
    probabilities: npt.NDArray[np.floating],
    group_of_truth: npt.NDArray[np.int64],
    class_of_truth: npt.NDArray[np.int64],
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which images are right, for each of the three accuracies; empty where no image counts.

    Args:
        classes: what can be recognised.
        probabilities: of the classes, shape (N, classes).
        group_of_truth: shape (N,).
        class_of_truth: -1 where only the group is known, shape (N,).

    Returns:
        ``accuracy_groups``: the argmax of all groups, on all images. ``accuracy_wake_words``: the argmax of the
        groups other than ``none``, on images of those. ``accuracy_classes``: on images of a known class.
    """
    groups = classes.group_probabilities(np.asarray(probabilities, dtype=np.float64))  # (N, groups)
    words = np.asarray([g for g, name in enumerate(classes.groups) if name != NONE], dtype=np.int64)
    of_words = np.isin(group_of_truth, words) if len(words) else np.zeros(len(group_of_truth), dtype=np.bool_)
    named = class_of_truth >= 0
    return {
        "accuracy_groups": groups.argmax(axis=1) == group_of_truth,
        "accuracy_wake_words": words[groups[of_words][:, words].argmax(axis=1)] == group_of_truth[of_words]
        if of_words.any()
        else np.zeros(0, dtype=np.bool_),
        "accuracy_classes": (probabilities.argmax(axis=1) == class_of_truth)[named],
    }
