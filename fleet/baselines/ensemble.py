# SPDX-License-Identifier: Apache-2.0
"""Ensemble (FLEET section 4.1): networks of increasing depth that share nothing.

"A series of models from the original model but the number of layers are reduced to generate predictions at different
compute levels." Each member is the base network cut off behind a stage, with a head there; head and the last two
stages are fine-tuned, the stages before them are the base network's. The last one is the base network. Tried one after
another, each pays for itself from the image on.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fleet.backbones import Backbone
from fleet.baselines.branchynet import pooled_head
from fleet.baselines.cost import backbone_steps, step_of
from fleet.baselines.exit_network import EXIT_STAGES, as_input
from fleet.baselines.scheme import Answers, Exit, Images
from fleet.baselines.training import Batch, Task

NAME = "ensemble"
NOTE = "networks cut from the base network, head and last two stages of each trained; the deepest is the base network"
WHOLE = "-whole"
"""Behind a member's name: all of its stages are trained."""
TRAINED_STAGES = 2
"""The last so many stages of a member are fine-tuned: training all of them costs two and a half times as much."""


class Member(nn.Module):
    """The first stages of a backbone, copied, and a head.

    Args:
        backbone: whose weights it begins with.
        stage: the last one that it has.
    """

    def __init__(self, backbone: Backbone, stage: int) -> None:
        super().__init__()
        self.stage = stage
        self.stages = nn.ModuleList(copy.deepcopy(backbone.stages[n]) for n in range(stage))
        self.head = pooled_head(backbone, stage)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, 3, H, W)."""
        features = images
        for stage in self.stages:
            features = stage(features)
        logits: Tensor = self.head(features)
        return logits


def member_name(stage: int) -> str:
    """Of a member's training."""
    return f"{NAME}-{stage}"


class TrainMember:
    """Fine-tuning of one member's end (see :class:`fleet.baselines.training.Recipe`)."""

    def __init__(self, backbone: Backbone, stage: int, *, whole: bool = False) -> None:
        tuned = stage if whole else min(stage, TRAINED_STAGES)
        self.name = member_name(stage) + (WHOLE if whole else "")
        self.trained = f"a head on {stage} stages, and the last {tuned} of these"
        self.member = Member(backbone, stage)
        self.frozen = self.member.stages[:-tuned].requires_grad_(False)
        self.tuned = self.member.stages[-tuned:]
        self.model: nn.Module = self.member

    def parameters(self) -> tuple[Sequence[nn.Parameter], Sequence[nn.Parameter]]:
        """The stages' weights and the head's."""
        return list(self.tuned.parameters()), list(self.member.head.parameters())

    def set_training(self) -> None:
        """The first stages work as they will be used."""
        self.member.train()
        self.frozen.eval()

    def loss(self, batch: Batch, task: Task) -> Tensor:
        """The base network's loss."""
        features = task.augmented(batch)
        with torch.no_grad():
            for stage in self.frozen:
                features = stage(features)
        for stage in self.tuned:
            features = stage(features)
        return task.loss(self.member.head(features), batch.labels)


class Ensemble:
    """The trained scheme (see :class:`fleet.baselines.scheme.LocalScheme`).

    Args:
        members: by the stage at which they end.
        backbone: the deepest member.
        temperatures: one a member, the deepest last.
        note: for the footnote.
    """

    kind: Literal["local"] = "local"

    def __init__(
        self, members: Mapping[int, Member], backbone: Backbone, temperatures: tuple[float, ...], note: str = NOTE
    ) -> None:
        self.name, self.note, self.temperatures = NAME, note, temperatures
        self.members = [members[n].eval() for n in sorted(members)]
        self.backbone = backbone.eval()
        steps = backbone_steps(backbone)
        specs = backbone.stage_specs
        exits = []
        for row, member in enumerate(self.members):
            n, spec = member.stage, specs[member.stage - 1]
            head, _ = step_of(f"head of {n} stages", member.head, (spec.channels, spec.size, spec.size))
            exits.append(Exit(f"{n} stages", n, row, shared=(), own=(*steps[:n], head)))
        self.exits = (*exits, Exit("whole network", len(backbone.stages), len(exits), shared=(), own=steps))
        self.rows = tuple(one.name for one in self.exits)

    @torch.inference_mode()
    def answer(self, images: Images) -> Answers:
        """Logits of all members."""
        inputs = as_input(images)
        logits = [network(inputs) for network in (*self.members, self.backbone)]
        return Answers(torch.stack(logits).numpy(), np.zeros((0, len(images)), np.int32))


def build_members(backbone: Backbone) -> dict[int, Member]:
    """Members with untrained heads."""
    return {n: Member(backbone, n) for n in EXIT_STAGES}
