# SPDX-License-Identifier: Apache-2.0
"""What the trainings behind a finished base network share: the loop over their steps, and their log."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fleet.training.saving import Saving

ROW_EVERY = 50  # steps


@dataclass(frozen=True)
class StepProgress:
    """What a listener hears after every step.

    Attributes:
        step: steps done.
        steps: of the whole run.
        loss: running mean.
        images_per_s: so far.
    """

    step: int
    steps: int
    loss: float
    images_per_s: float


class Plan(Protocol):
    """How long a training is."""

    @property
    def steps(self) -> int:
        """Updates."""

    @property
    def batch(self) -> int:
        """Images a step."""


class Stepwise(Protocol):
    """A training that goes step by step."""

    step: int
    loss: float
    rows: list[dict[str, float]]

    @property
    def plan(self) -> Plan:
        """How long it is."""

    def train_step(self) -> float:
        """One update; returns the loss."""

    def running(self) -> dict[str, float]:
        """What a row of the log says beside step and loss."""

    def save(self) -> None:
        """Write checkpoint and log."""


def run_steps(
    training: Stepwise, listen: Callable[[StepProgress], None], *, save_every_s: float, row_every: int = ROW_EVERY
) -> None:
    """Train to the last step.

    Args:
        training: where it stands.
        listen: called after every step; what it raises ends the run.
        save_every_s: seconds between checkpoints.
        row_every: steps between rows of the log.
    """
    begun = time.monotonic()
    first, plan = training.step, training.plan
    with Saving(training.save, save_every_s) as saving:
        while training.step < plan.steps:
            with saving.step():
                value = training.train_step()
                training.loss = value if training.step == 1 else training.loss + 0.02 * (value - training.loss)
                if training.step % row_every == 0:
                    training.rows.append({"step": float(training.step), "loss": training.loss, **training.running()})
            rate = (training.step - first) * plan.batch / (time.monotonic() - begun)
            listen(StepProgress(training.step, plan.steps, training.loss, rate))
            saving.now_and_then()
        if training.step > first:
            saving.now()  # what is done behind the last step may take minutes, and be interrupted


def write_log(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write rows, whose columns may differ, as a table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
