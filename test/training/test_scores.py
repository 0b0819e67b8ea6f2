# SPDX-License-Identifier: Apache-2.0
"""Accuracies and losses over classes and groups, on tables small enough to work out by hand."""

import numpy as np
import pytest
import torch

from fleet.training.data import ClassTable
from fleet.training.scores import accuracies, class_and_group_loss, group_matrix, smoothed_targets

TABLE = ClassTable(
    names=("van", "bus", "cat", "cup"),
    groups=("vehicle", "pet", "none"),
    group_of=np.array([0, 0, 1, 2]),
    words=("van", "bus", "cat", "cup"),
)


def test_a_groups_probability_is_the_sum_of_its_classes() -> None:
    # The likeliest class is the cat, the likeliest group the vehicles.
    probabilities = np.array([[0.3, 0.3, 0.4, 0.0]], np.float32)
    found = accuracies(probabilities, np.array([1]), TABLE)
    assert found == {"accuracy_classes": 0.0, "accuracy_groups": 1.0, "accuracy_wake_words": 1.0}


def test_wake_words_are_judged_on_their_own_images_without_the_choice_of_none() -> None:
    probabilities = np.array([[0.2, 0.0, 0.1, 0.7], [0.0, 0.0, 0.1, 0.9], [0.5, 0.0, 0.5, 0.0]], np.float32)
    found = accuracies(probabilities, np.array([0, 3, 3]), TABLE)
    assert found["accuracy_wake_words"] == 1.0
    assert found["accuracy_groups"] == pytest.approx(1 / 3)


def test_data_without_groups_has_only_class_accuracy() -> None:
    bare = ClassTable(TABLE.names, (), np.array([], np.int64), TABLE.words)
    assert accuracies(np.eye(4, dtype=np.float32), np.arange(4), bare) == {"accuracy_classes": 1.0}


def test_the_group_term_ignores_confusion_within_a_group() -> None:
    groups = group_matrix(TABLE)
    targets = smoothed_targets(torch.tensor([0]), 4, 0.0)
    within = torch.tensor([[0.0, 9.0, -9.0, -9.0]])
    across = torch.tensor([[0.0, -9.0, 9.0, -9.0]])

    def extra(logits: torch.Tensor) -> float:
        both = class_and_group_loss(logits, targets, groups, 1.0)
        return float(both - class_and_group_loss(logits, targets, groups, 0.0))

    assert abs(extra(within)) < 1e-3
    assert extra(across) > 5


def test_smoothed_targets_are_probabilities() -> None:
    targets = smoothed_targets(torch.tensor([2, 0]), 4, 0.1)
    torch.testing.assert_close(targets.sum(1), torch.ones(2))
    torch.testing.assert_close(targets[0], torch.tensor([0.025, 0.025, 0.925, 0.025]))
