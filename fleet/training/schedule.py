# SPDX-License-Identifier: Apache-2.0
"""Which step trains on which images with which learning rate: pure functions of the step's number."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from fleet.errors import FleetError
from fleet.training.config import Phase


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    Attributes:
        number: from 1.
        phase: image size and crops.
        first_step: number of its first step in the whole run, from 0.
        steps: how many steps it has.
    """

    number: int
    phase: Phase
    first_step: int
    steps: int


def list_epochs(phases: Sequence[Phase], images: int, batch: int) -> list[Epoch]:
    """All epochs of a run; a last incomplete batch is left out (another order next time).

    Raises:
        FleetError: fewer images than one batch.
    """
    steps = images // batch
    if not steps:
        msg = f"{images} training images do not fill one batch of {batch}; lower optimiser.batch"
        raise FleetError(msg)
    epochs: list[Epoch] = []
    for phase in phases:
        for _ in range(phase.epochs):
            epochs.append(Epoch(len(epochs) + 1, phase, len(epochs) * steps, steps))
    return epochs


def epoch_batches(epoch: Epoch, images: int, batch: int, seed: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (step in the run, image indices (batch,)): a permutation drawn from seed and epoch alone."""
    random = torch.Generator().manual_seed(step_seed(seed, epoch.number, 0))
    order = torch.randperm(images, generator=random)
    for i in range(epoch.steps):
        yield epoch.first_step + i, order[i * batch : (i + 1) * batch]


def step_seed(seed: int, stream: int, step: int) -> int:
    """A seed for one step, so that a resumed run needs no stored generator state."""
    mixed = (seed * 0x9E3779B97F4A7C15 + stream * 0xBF58476D1CE4E5B9 + step * 0x94D049BB133111EB) % 2**64
    mixed ^= mixed >> 31
    return (mixed * 0xD6E8FEB86659FD93) % 2**63


def one_cycle(step: int, steps: int, *, peak: float, warm_up: float) -> float:
    """Learning rate of a step: a tenth of the peak, up along a cosine, down along another to nearly zero.

    After Smith and Topin (2018), without the last annihilation phase, which the second cosine contains.
    """
    rise = max(1.0, warm_up * steps)
    if step < rise:
        return peak * (0.1 + 0.9 * (1 - math.cos(math.pi * step / rise)) / 2)
    fall = (step - rise) / (steps - rise) if steps > rise else 1.0
    return peak * max(1e-3, (1 + math.cos(math.pi * min(1.0, fall))) / 2)


def fit_to_budget(
    phases: Sequence[Phase], images: int, rates: Mapping[int, float], *, budget_s: float, share: float
) -> tuple[Phase, ...]:
    """Scale the epochs of all phases to a time budget.

    The number of steps is then fixed, so that the learning rate reaches its end; it does not follow the
    clock, which would make a run depend on what else the machine did.

    Args:
        phases: the wanted epochs; only their proportions count.
        images: training images an epoch.
        rates: measured images per second for every phase's size.
        budget_s: seconds for all of training.
        share: the share of the measured speed to count on.

    Raises:
        FleetError: not even one epoch of every phase fits.
    """
    seconds = [images / (rates[phase.size] * share) for phase in phases]
    wanted = sum(phase.epochs * s for phase, s in zip(phases, seconds, strict=True))
    scaled = [max(1, int(phase.epochs * budget_s / wanted)) for phase in phases]
    spent = sum(n * s for n, s in zip(scaled, seconds, strict=True))
    if spent > budget_s:
        msg = (
            f"one epoch of each phase takes about {spent / 60:.0f} minutes here, more than the budget of "
            f"{budget_s / 60:.0f}; raise --budget-minutes or drop a phase"
        )
        raise FleetError(msg)
    # What rounding down left over goes to the last phases, which count most for the finished network.
    for i in reversed(range(len(scaled))):
        more = int((budget_s - spent) / seconds[i])
        scaled[i] += more
        spent += more * seconds[i]
    return tuple(dataclasses.replace(phase, epochs=n) for phase, n in zip(phases, scaled, strict=True))


def refit(
    phases: Sequence[Phase], done: int, images: int, rates: Mapping[int, float], *, budget_s: float, share: float
) -> tuple[Phase, ...]:
    """Fit the epochs still ahead to a time budget and keep those that are done or begun.

    Args:
        phases: the run's phases.
        done: epochs done or begun.
        images: training images an epoch.
        rates: measured images per second for every phase's size.
        budget_s: seconds for the rest of training.
        share: the share of the measured speed to count on.

    Raises:
        FleetError: not even one epoch of every phase ahead fits.
    """
    past = []
    for phase in phases:
        past.append(min(phase.epochs, done))
        done -= past[-1]
    ahead = [dataclasses.replace(p, epochs=p.epochs - n) for p, n in zip(phases, past, strict=True) if p.epochs > n]
    fitted = iter(fit_to_budget(ahead, images, rates, budget_s=budget_s, share=share) if ahead else ())
    return tuple(
        dataclasses.replace(p, epochs=n + (next(fitted).epochs if p.epochs > n else 0))
        for p, n in zip(phases, past, strict=True)
    )
