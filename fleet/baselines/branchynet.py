# SPDX-License-Identifier: Apache-2.0
"""BranchyNet (Teerapittayanon et al., ICPR 2016) as FLEET compares with it: exits behind stages, trained jointly.

Loss weights as FLEET section 4.1 gives them: 0.05 for the first two exits, 0.1 for those in between, 0.4 for the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from fleet.backbones import Backbone
from fleet.baselines.exit_network import EXIT_STAGES, ExitNetwork, all_logits, exits_of
from fleet.baselines.heads import DEEP_STAGE, PooledHead
from fleet.baselines.scheme import Answers, Images
from fleet.baselines.training import Batch, Task

NAME = "branchynet"
NOTE = "joint fine-tuning from the base network, loss weights 0.05, 0.1, 0.4"
_FIRST, _BETWEEN, _LAST = 0.05, 0.1, 0.4


def loss_weights(exits: int) -> tuple[float, ...]:
    """Weight of every exit's loss, the whole network's last."""
    return (_FIRST,) * 2 + (_BETWEEN,) * (exits - 3) + (_LAST,)


def pooled_head(backbone: Backbone, stage: int) -> PooledHead:
    """An untrained head behind a stage, pooled by its depth."""
    spec = backbone.stage_specs[stage - 1]
    cells = 2 if stage >= DEEP_STAGE else 4
    return PooledHead(spec.channels, cells=min(cells, spec.size), classes=backbone.classes)


def build(backbone: Backbone) -> ExitNetwork:
    """The network with untrained heads, around a backbone that it changes in training."""
    return ExitNetwork(backbone, {n: pooled_head(backbone, n) for n in EXIT_STAGES})


class Joint:
    """Joint training of backbone and heads (see :class:`fleet.baselines.training.Recipe`)."""

    name = NAME
    trained = "backbone and heads jointly, all exits' losses weighted"

    def __init__(self, backbone: Backbone) -> None:
        self.network = build(backbone)
        self.model: nn.Module = self.network

    def parameters(self) -> tuple[Sequence[nn.Parameter], Sequence[nn.Parameter]]:
        """The backbone's weights and the heads'."""
        return list(self.network.backbone.parameters()), list(self.network.heads.parameters())

    def set_training(self) -> None:
        """All of it is trained."""
        self.network.train()

    def loss(self, batch: Batch, task: Task) -> Tensor:
        """Weighted sum over all exits (BranchyNet section III.C)."""
        logits = self.network(task.augmented(batch))
        weights = loss_weights(len(logits))
        total: Tensor = sum(w * task.loss(one, batch.labels) for w, one in zip(weights, logits, strict=True))  # type: ignore[assignment]
        return total


class BranchyNet:
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
