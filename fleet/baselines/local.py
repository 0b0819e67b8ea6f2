# SPDX-License-Identifier: Apache-2.0
"""The Shallow-Deep heads as local exits of a bundle: what races against the radio (design 12.7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fleet.baselines.finish import scores
from fleet.baselines.shallow_deep import NAME, ShallowDeep
from fleet.baselines.store import load_schemes
from fleet.bundle import Bundle
from fleet.errors import FleetError
from fleet.local_exits import LocalHead
from fleet.packet import LOCAL_ANSWER_STAGE
from fleet.training.calibrate import MAX_LOSS, judged, thresholds, with_temperatures
from fleet.training.data import ImageSet


def parse_stages(text: str) -> tuple[int, ...]:
    """Stages of a list as ``5,8,11``.

    Raises:
        FleetError: no such list.
    """
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as err:
        raise FleetError(f"stages must be numbers with commas between, as 5,8,11, not '{text}'") from err
    return found


def local_heads(
    bundle: Bundle, stored: Path, calibration: ImageSet, stages: Sequence[int], *, max_loss: float = MAX_LOSS
) -> dict[int, LocalHead]:
    """Trained heads with temperatures and thresholds, by the rule of :func:`fleet.training.calibrate.thresholds`.

    Args:
        bundle: whose base network they were trained on; its trigger and unit apply.
        stored: folder of the baselines.
        calibration: images that nothing was trained on.
        stages: behind which exits are wanted.
        max_loss: accepted loss of accuracy against the whole network on the images that an exit answers.

    Raises:
        FleetError: there is no trained head behind one of the stages.
    """
    scheme = load_schemes(bundle, stored, (NAME,))[NAME]
    assert isinstance(scheme, ShallowDeep)
    rows = {exit_.stage: exit_ for exit_ in scheme.exits[:-1]}
    if odd := [n for n in stages if n not in rows]:
        raise FleetError(f"there is no trained head behind stage {odd[0]}; there are {', '.join(map(str, rows))}")
    found, _ = scores(scheme, calibration)
    logits = {n: found[rows[n].row] for n in stages} | {LOCAL_ANSWER_STAGE: found[-1]}
    truths = np.asarray(bundle.classes.group_of)[calibration.labels]
    decider = with_temperatures(bundle.decider, logits, truths, calibration.labels)
    chosen = thresholds(judged(decider, logits, truths), max_loss=max_loss)
    return {
        n: LocalHead(
            module=scheme.network.heads[str(n)].eval(),
            macs=asdict(rows[n].own[0].macs),
            temperature=decider.temperatures[n],
            threshold=chosen.get(n, math.inf),
        )
        for n in stages
    }
