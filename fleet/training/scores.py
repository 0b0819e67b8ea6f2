# SPDX-License-Identifier: Apache-2.0
"""Losses and accuracies over classes and groups."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fleet.evaluation.scores import judge
from fleet.training.data import ClassTable


def group_matrix(table: ClassTable) -> Tensor:
    """Membership of classes in groups, shape (classes, groups), entries 0 or 1."""
    return F.one_hot(torch.from_numpy(table.group_of), max(1, len(table.groups))).to(torch.float32)


def smoothed_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Target probabilities (B, classes) of labels (B,)."""
    return F.one_hot(labels, classes).to(torch.float32) * (1 - smoothing) + smoothing / classes


def class_and_group_loss(logits: Tensor, targets: Tensor, groups: Tensor | None, group_weight: float) -> Tensor:
    """Cross-entropy of the classes plus a weighted one of the groups.

    A group's probability is the sum of its classes' probabilities, so the second term pushes only where a
    confusion crosses a group's border.

    Args:
        logits: shape (B, classes).
        targets: probabilities, shape (B, classes).
        groups: membership, shape (classes, groups), or None.
        group_weight: weight of the second term.
    """
    log_p = F.log_softmax(logits, 1)  # (B, classes)
    loss = -(targets * log_p).sum(1).mean()
    if groups is not None and group_weight > 0:
        p = log_p.exp() @ groups  # (B, groups)
        loss = loss - group_weight * ((targets @ groups) * (p + 1e-6).log()).sum(1).mean()
    return loss


def accuracies(probabilities: NDArray[np.float32], labels: NDArray[np.int64], table: ClassTable) -> dict[str, float]:
    """The three accuracies of design section 10, as shares from 0 to 1.

    Args:
        probabilities: of the classes, shape (N, classes).
        labels: true classes, shape (N,).
        table: the classes and their groups.

    Returns:
        ``accuracy_classes``; with groups also ``accuracy_groups`` (argmax over all groups) and
        ``accuracy_wake_words`` (argmax over the groups other than ``none``, on images of those).
    """
    right = judge(table.classes(), probabilities, table.group_of[labels] if table.groups else labels, labels)
    wanted = right if table.groups else {"accuracy_classes": right["accuracy_classes"]}
    return {key: float(r.mean()) for key, r in wanted.items() if len(r)}
