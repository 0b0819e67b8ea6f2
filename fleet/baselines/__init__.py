# SPDX-License-Identifier: Apache-2.0
"""What FLEET is compared with: BranchyNet, Shallow-Deep, Ensemble, CLIO, Neurosurgeon, JPEG and WebP."""

from fleet.baselines.registry import SCHEMES, AnyScheme
from fleet.baselines.scheme import (
    Answers,
    Exit,
    LocalScheme,
    OffloadScheme,
    Step,
    Upload,
    first_sure,
    step_seconds,
    steps_until,
)
from fleet.baselines.store import load_schemes

__all__ = [
    "SCHEMES",
    "Answers",
    "AnyScheme",
    "Exit",
    "LocalScheme",
    "OffloadScheme",
    "Step",
    "Upload",
    "first_sure",
    "load_schemes",
    "step_seconds",
    "steps_until",
]
