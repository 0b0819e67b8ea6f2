# SPDX-License-Identifier: Apache-2.0
"""What modules cost on a device: multiply-accumulates by layer type, and the values that are alive at their peak."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fleet.backbones import Backbone, Macs
from fleet.backbones.stage import counting
from fleet.baselines.scheme import Step

_MATERIAL = (nn.Conv2d, nn.Linear, nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d)
"""Layers that read one buffer and write another. Norms fold into convolutions; activations work in place."""


def step_of(name: str, module: nn.Module, shape: tuple[int, ...], *, stage: int | None = None) -> tuple[Step, Tensor]:
    """Run a module on one blank input and note what it costs.

    Args:
        name: of the step.
        module: is left in the mode that it was in.
        shape: of the input, without the batch.
        stage: number of the base network's stage, where it is one.

    Returns:
        The step, and the module's output (1, ...).
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    peaks = [0]
    blank = torch.zeros(1, *shape)
    held = blank.numel() if getattr(module, "shortcut", False) else 0

    def note(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        first = inputs[0].data_ptr() == blank.data_ptr()
        peaks.append(inputs[0].numel() + output.numel() + (0 if first else held))

    hooks = [part.register_forward_hook(note) for part in module.modules() if isinstance(part, _MATERIAL)]
    try:
        with torch.no_grad(), counting(module) as macs:
            output: Tensor = module(blank)
    finally:
        for hook in hooks:
            hook.remove()
        for part, training in modes.items():
            part.training = training
    return Step(name, sum(macs, Macs()), stage, max(peaks)), output


def backbone_steps(backbone: Backbone) -> tuple[Step, ...]:
    """One step a stage, and the head's as the last."""
    steps = []
    shape: tuple[int, ...] = (3, backbone.input_size, backbone.input_size)
    for n, module in enumerate([*backbone.stages, backbone.head], start=1):
        last = n == len(backbone.stages) + 1
        step, output = step_of("head" if last else f"stage {n}", module, shape, stage=n)
        steps.append(step)
        shape = tuple(output.shape[1:])
    return tuple(steps)
