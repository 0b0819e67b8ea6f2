# SPDX-License-Identifier: Apache-2.0
"""Pictures of plain colours with noise, in four classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fleet.training.config import AugmentConfig, DataConfig, TrainingConfig

COLOURS = {"van": (200, 30, 30), "cat": (30, 200, 30), "cow": (30, 30, 200), "cup": (128, 128, 128)}
GROUPS = {"van": "vehicle", "cat": "pet", "cow": "animal", "cup": "none"}
SIZE = 32
CONFIG = TrainingConfig(
    input_size=SIZE,
    data=DataConfig(train=("train.tar.gz",), calibration=8, classes="classes.tsv"),
    augment=AugmentConfig(padding=2, jitter=0.1),
    group_weight=0.3,
)


def picture(name: str, number: int) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(number).integers(-20, 20, (SIZE, SIZE, 3))
    return np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
