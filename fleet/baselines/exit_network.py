# SPDX-License-Identifier: Apache-2.0
"""A backbone with heads behind some of its stages: what BranchyNet and Shallow-Deep networks share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fleet.backbones import Backbone
from fleet.baselines.cost import backbone_steps, step_of
from fleet.baselines.scheme import Answers, Exit, Images
from fleet.training.augment import normalise

EXIT_STAGES = (1, 2, 3, 5, 8, 11, 13)
"""Where the paper's local exits sit, besides the end of the network (FLEET section 4.1)."""


class ExitNetwork(nn.Module):
    """A backbone and its heads.

    Args:
        backbone: shared, not copied.
        heads: by stage.
    """

    def __init__(self, backbone: Backbone, heads: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict({str(n): head for n, head in sorted(heads.items())})

    @property
    def exit_stages(self) -> tuple[int, ...]:
        """The stages with a head."""
        return tuple(int(n) for n in self.heads)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits (B, classes) of every head in order, the whole network's last.

        Args:
            images: normalised, shape (B, 3, H, W).
        """
        logits = []
        features = images
        for n, stage in enumerate(self.backbone.stages, start=1):
            features = stage(features)  # (B, C_n, H_n, W_n)
            if str(n) in self.heads:
                logits.append(self.heads[str(n)](features))
        return [*logits, self.backbone.run_head(features)]


def exits_of(network: ExitNetwork) -> tuple[Exit, ...]:
    """The exits with their work on the device."""
    steps = backbone_steps(network.backbone)
    specs = {spec.n: spec for spec in network.backbone.stage_specs}
    exits: list[Exit] = []
    done = 0
    for row, n in enumerate(network.exit_stages):
        spec = specs[n]
        head, _ = step_of(f"head behind stage {n}", network.heads[str(n)], (spec.channels, spec.size, spec.size))
        exits.append(Exit(f"exit {n}", n, row, shared=steps[done:n], own=(head,)))
        done = n
    last = len(network.backbone.stages)
    return (*exits, Exit("whole network", last, len(exits), shared=steps[done:last], own=steps[last:]))


def as_input(images: Images) -> Tensor:
    """Normalised images (B, 3, H, W) of RGB bytes (B, H, W, 3), which may lie in a file that nobody may change."""
    return normalise(torch.from_numpy(np.array(images)))


@torch.inference_mode()
def all_logits(network: ExitNetwork, images: Images) -> Answers:
    """Run every exit of a network on images (B, H, W, 3)."""
    network.eval()
    logits = network(as_input(images))
    found = torch.stack(logits).float().numpy()  # (exits, B, classes)
    return Answers(found, np.zeros((0, len(images)), np.int32))
