# SPDX-License-Identifier: Apache-2.0
"""Shallow-Deep networks (Kaya, Hong and Dumitras, ICML 2019): internal classifiers with feature reduction.

Two trainings, both as published. *IC-only*: the backbone stays as it is and its classifiers are trained, which costs a
third. *Joint*: everything is trained, and each classifier's weight grows with the training up to its share of the
network's work (section 4.2), so that early ones do not spoil the later ones while they are poor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fleet.backbones import Backbone
from fleet.baselines.exit_network import EXIT_STAGES, ExitNetwork, all_logits, exits_of
from fleet.baselines.heads import ReductionHead
from fleet.baselines.scheme import Answers, Images
from fleet.baselines.training import Batch, Task

NAME = "shallow-deep"
NOTE = "internal classifiers on the frozen base network (the published IC-only training)"
_LEAST = 0.01


def reduction_head(backbone: Backbone, stage: int) -> ReductionHead:
    """An untrained head behind a stage."""
    spec = backbone.stage_specs[stage - 1]
    return ReductionHead(spec.channels, size=spec.size, classes=backbone.classes)


def build(backbone: Backbone) -> ExitNetwork:
    """The network with untrained heads."""
    return ExitNetwork(backbone, {n: reduction_head(backbone, n) for n in EXIT_STAGES})


class ClassifiersOnly:
    """IC-only training (see :class:`fleet.baselines.training.Recipe`). One head's loss does not touch another's."""

    name = NAME
    trained = "internal classifiers only, the base network frozen"

    def __init__(self, backbone: Backbone) -> None:
        self.network = self.build(backbone)
        self.network.backbone.requires_grad_(False)
        self.model: nn.Module = self.network.heads

    @staticmethod
    def build(backbone: Backbone) -> ExitNetwork:
        """The network with untrained heads."""
        return build(backbone)

    def parameters(self) -> tuple[Sequence[nn.Parameter], Sequence[nn.Parameter]]:
        """Only new weights."""
        return [], list(self.network.heads.parameters())

    def set_training(self) -> None:
        """The backbone works as it will be used."""
        self.network.backbone.eval()
        self.network.heads.train()

    def loss(self, batch: Batch, task: Task) -> Tensor:
        """Sum of the classifiers' losses; the network's own end has nothing to learn."""
        features = task.augmented(batch)
        losses = []
        stages = self.network.exit_stages
        for n, stage in enumerate(self.network.backbone.stages[: max(stages)], start=1):
            with torch.no_grad():
                features = stage(features)
            if n in stages:
                losses.append(task.loss(self.network.heads[str(n)](features), batch.labels))
        return torch.stack(losses).sum()


class Joint:
    """Training of everything with weights that grow (see :class:`fleet.baselines.training.Recipe`)."""

    name = f"{NAME}-joint"
    trained = "backbone and internal classifiers jointly, weights that grow to each one's share of the work"

    def __init__(self, backbone: Backbone) -> None:
        self.network = build(backbone)
        self.model: nn.Module = self.network
        self._shares = work_shares(backbone)

    def parameters(self) -> tuple[Sequence[nn.Parameter], Sequence[nn.Parameter]]:
        """The backbone's weights and the heads'."""
        return list(self.network.backbone.parameters()), list(self.network.heads.parameters())

    def set_training(self) -> None:
        """All of it is trained."""
        self.network.train()

    def loss(self, batch: Batch, task: Task) -> Tensor:
        """Weighted sum over all exits, the network's own end with weight one."""
        logits = self.network(task.augmented(batch))
        weights = [*adaptive_weights(self._shares, batch.progress), 1.0]
        losses = [w * task.loss(one, batch.labels) for w, one in zip(weights, logits, strict=True)]
        return torch.stack(losses).sum()


def work_shares(backbone: Backbone) -> tuple[float, ...]:
    """The share of the network's multiply-accumulates that is done at each exit."""
    totals = [spec.macs.total for spec in backbone.stage_specs]
    return tuple(sum(totals[:n]) / sum(totals) for n in EXIT_STAGES)


def adaptive_weights(shares: Sequence[float], progress: float) -> tuple[float, ...]:
    """Weights of the classifiers' losses: from 0.01 up to each one's share, along with the training (section 4.2).

    Args:
        shares: of the network's work, at each classifier.
        progress: share of the training that is done, 0..1.
    """
    return tuple(min(share, _LEAST + share * progress) for share in shares)


class ShallowDeep:
    """The trained scheme (see :class:`fleet.baselines.scheme.LocalScheme`)."""

    kind: Literal["local"] = "local"

    def __init__(self, network: ExitNetwork, temperatures: tuple[float, ...], note: str = NOTE) -> None:
        self.name, self.note, self.temperatures = NAME, note, temperatures
        self.network = network.eval()
        self.exits = exits_of(network)
        self.rows = tuple(one.name for one in self.exits)

    def answer(self, images: Images) -> Answers:
        """Logits of all exits."""
        return all_logits(self.network, images)
