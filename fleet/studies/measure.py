# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a study's exits on the test split, and what one difference brings, paired image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fleet.evaluation.resampling import Bootstrap, interval
from fleet.evaluation.scores import judge
from fleet.exits import softmax
from fleet.layout import StageLayout
from fleet.studies.config import Study, Variant
from fleet.studies.depth import Depths
from fleet.training.augment import normalise
from fleet.training.data import ImageSet
from fleet.training.exit_model import Arrival
from fleet.training.exits import ExitTraining
from fleet.training.parts import first_part, in_place

RUN = 60
"""Coefficients that are lost together: a packet of 20 bytes at under 3 bits each."""
LOST = 0.3
KINDS = ("accuracy_groups", "accuracy_classes")
Right = dict[str, npt.NDArray[np.bool_]]
"""Which images are right, by kind of accuracy, shapes (N,)."""


def _complete(layout: StageLayout, count: int, _: torch.Generator) -> Tensor:
    return first_part(layout, np.ones(count))


def _begun(share: float) -> Arrival:
    return lambda layout, count, _: first_part(layout, np.full(count, share))


def _halved(layout: StageLayout, count: int, _: torch.Generator) -> Tensor:
    """Everything up to half the finest size, as published; the smallest where there is none."""
    rung = max((r for r in layout.rungs if 2 * r <= layout.ladder.finest), default=layout.rungs[0])
    return (torch.arange(layout.ladder.count) < rung * rung).expand(count, layout.channels, -1)


def _lossy(layout: StageLayout, count: int, random: torch.Generator) -> Tensor:
    packets = -(-layout.count // RUN)
    there = torch.rand(count, packets, generator=random) >= LOST
    return in_place(layout, there.repeat_interleave(RUN, dim=1)[:, : layout.count])


ARRIVALS: Mapping[str, tuple[str, Arrival]] = {
    "complete": ("everything", _complete),
    "size": ("everything up to half the finest size, as published", _halved),
    "half": ("the first half of the coefficients as they travel", _begun(0.5)),
    "quarter": ("the first quarter", _begun(0.25)),
    "lossy": (f"all but {LOST:.0%} of runs of {RUN} coefficients, lost at random", _lossy),
}
"""States of the exit's own stage, the stages before it complete."""


def right_of(images: ImageSet, logits: npt.NDArray[np.floating[Any]]) -> Right:
    """Which images some logits (N, classes) are right about."""
    classes = images.table.classes()
    groups = np.asarray(classes.group_of)[images.labels]
    found = judge(classes, softmax(logits.astype(np.float64)), groups, images.labels)
    return {kind: found[kind] for kind in KINDS}


@torch.no_grad()
def depth_right(
    depths: Depths, heads: nn.ModuleDict, images: ImageSet, *, batch: int = 125
) -> dict[tuple[int, int], Right]:
    """Which images every exit of :class:`Depths` is right about, by stage and number of convolutions."""
    heads.eval()
    found: dict[tuple[int, int], list[npt.NDArray[np.float32]]] = {}
    for start in range(0, len(images), batch):
        part = normalise(torch.from_numpy(np.array(images.images[start : start + batch])))
        for key, logits in depths.logits(heads, part).items():
            found.setdefault(key, []).append(logits.numpy())
    return {key: right_of(images, np.concatenate(parts)) for key, parts in found.items()}


def variant_right(training: ExitTraining, images: ImageSet) -> dict[str, dict[int, Right]]:
    """Which images every exit of a finished training is right about, by state of its stage and exit."""
    answers = training.answers(images, {name: arrival for name, (_, arrival) in ARRIVALS.items()})
    return {state: {n: right_of(images, logits) for n, logits in exits.items()} for state, exits in answers.items()}


def estimate(values: npt.NDArray[np.floating[Any]] | npt.NDArray[np.bool_]) -> list[float]:
    """Mean and 95 % percentile bootstrap interval of one number an image."""
    key = "", ""
    values = values.astype(np.float64)
    means = _resamples(len(values)).means({key: values})[key]
    return [round(float(v), 4) for v in (values.mean(), *interval(means))]


@lru_cache(maxsize=2)
def _resamples(images: int) -> Bootstrap:
    """The same for everything: gains are paired image by image."""
    return Bootstrap.of(images, seed=0)


def _numbers(right: Right) -> dict[str, list[float]]:
    return {kind: estimate(values) for kind, values in right.items()}


def _gain(right: Right, before: Right) -> dict[str, list[float]]:
    return {kind: estimate(right[kind].astype(np.float64) - before[kind]) for kind in KINDS}


def depth_numbers(found: Mapping[tuple[int, int], Right], convolutions: tuple[int, ...]) -> list[dict[str, Any]]:
    """Accuracies of :func:`depth_right`, and each depth's gain over the one before."""
    rows = []
    for stage, count in found:
        row = {"stage": stage, "convolutions": count, **_numbers(found[stage, count])}
        if place := convolutions.index(count):
            row["gain"] = _gain(found[stage, count], found[stage, convolutions[place - 1]])
        rows.append(row)
    return rows


def variant_numbers(study: Study, found: Mapping[str, Mapping[str, Mapping[int, Right]]]) -> dict[str, dict[str, Any]]:
    """Accuracies of :func:`variant_right` by variant, and each one's gain over what it is compared with.

    Args:
        study: which variants there are.
        found: of those that are finished, by name.
    """
    numbers: dict[str, dict[str, Any]] = {}
    for variant in study.variants:
        if variant.name not in found:
            continue
        states = found[variant.name]
        before = found.get(variant.against)
        numbers[variant.name] = {
            **_told(variant),
            "states": {
                state: [
                    {"stage": n, **_numbers(right), **({"gain": _gain(right, before[state][n])} if before else {})}
                    for n, right in exits.items()
                ]
                for state, exits in states.items()
            },
            "mean": {
                state: {
                    **_numbers(_pooled(exits)),
                    **({"gain": _gain(_pooled(exits), _pooled(before[state]))} if before else {}),
                }
                for state, exits in states.items()
            },
        }
    return numbers


def _pooled(exits: Mapping[int, Right]) -> Any:
    """The share of an image's exits that are right."""
    return {kind: np.mean([right[kind] for right in exits.values()], axis=0) for kind in KINDS}


def _told(variant: Variant) -> dict[str, Any]:
    plan = variant.exits
    settings = {key: value for key, value in asdict(plan).items() if key != "depth" or not plan.channels}
    images = plan.steps * plan.batch
    return {"about": variant.about, "against": variant.against, "images": images, "settings": settings}
