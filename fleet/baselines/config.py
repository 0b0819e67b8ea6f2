# SPDX-License-Identifier: Apache-2.0
"""How the baselines are trained: one file says what each may spend, beside the base network's own configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from fleet import strict_yaml
from fleet.errors import FleetError
from fleet.training.config import read_settings


@dataclass(frozen=True)
class Budget:
    """What the training of one scheme may spend, and how.

    Attributes:
        epochs: passes over the training images.
        batch: images a step.
        peak: highest learning rate of AdamW for weights that were trained before.
        new_peak: the same for weights that begin at random.
        weight_decay: of AdamW.
        ema: decay of the averaged weights, a step.
        smallest_crop: least share of an image's area in a random crop.
    """

    epochs: int
    batch: int = 64
    peak: float = 0.001
    new_peak: float = 0.003
    weight_decay: float = 0.02
    ema: float = 0.99
    smallest_crop: float = 0.4

    def check(self, name: str) -> None:
        """Refuse what cannot be trained.

        Args:
            name: what to call it in a message.

        Raises:
            FleetError: a number out of its range.
        """
        for fits, what in (
            (min(self.epochs, self.batch) >= 1, "needs at least one epoch and one image a step"),
            (self.peak > 0 and self.new_peak > 0, "needs learning rates above 0"),
            (0 <= self.ema < 1, "needs an ema from 0 to less than 1"),
            (0 < self.smallest_crop <= 1, "needs a smallest_crop above 0, of 1 at most"),
        ):
            if not fits:
                raise FleetError(f"{name} {what}")


@dataclass(frozen=True)
class BaselinesConfig:
    """All schemes' budgets.

    Attributes:
        training: configuration of the base network, relative to the file: data, augmentation, loss, seed.
        schemes: by name of the scheme, or of one of its parts that are trained apart (Ensemble's members).
    """

    training: str
    schemes: dict[str, Budget] = field(default_factory=dict)


def load_baselines_config(path: Path) -> BaselinesConfig:
    """Read the file.

    Raises:
        FleetError: missing, not YAML, or with an unknown or ill-typed key.
    """
    try:
        loaded = strict_yaml.load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise FleetError(f"cannot read the baselines' configuration {path}: {err.strerror}") from err
    except (ValueError, RecursionError, yaml.YAMLError) as err:
        raise FleetError(f"{path} is not valid YAML: {' '.join(str(err).split())}") from err
    found: BaselinesConfig = read_settings(BaselinesConfig, loaded, str(path))
    for name, budget in found.schemes.items():
        budget.check(f"{path}: {name}")
    return found
