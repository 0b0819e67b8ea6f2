# SPDX-License-Identifier: Apache-2.0
"""Trained heads as local exits of a bundle: what races against the radio (design 12.7). Our own, or Shallow-Deep's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fleet.baselines import own
from fleet.baselines.finish import scores
from fleet.baselines.registry import fill
from fleet.baselines.shallow_deep import NAME, ShallowDeep
from fleet.baselines.store import base_network, load_schemes
from fleet.bundle import Bundle
from fleet.errors import FleetError
from fleet.local_exits import LocalHead
from fleet.packet import LOCAL_ANSWER_STAGE
from fleet.training.calibrate import MAX_LOSS, judged, thresholds, with_temperatures
from fleet.training.checkpoint import load_checkpoint
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
    """Shallow-Deep's heads with temperatures and thresholds (:func:`fleet.training.calibrate.thresholds`).

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
    return _chosen(bundle, scheme, calibration, stages, max_loss)


def own_heads(
    bundle: Bundle, checkpoint: Path, calibration: ImageSet, stages: Sequence[int], *, max_loss: float = MAX_LOSS
) -> tuple[dict[int, LocalHead], str]:
    """Our own heads from their training's checkpoint, and how they were trained, in words.

    Args:
        bundle: whose base network they were trained on; its trigger and unit apply.
        checkpoint: of the part ``local-exits`` (``fleet baselines train --only local-exits``).
        calibration: images that nothing was trained on.
        stages: behind which exits are wanted.
        max_loss: as :func:`local_heads` takes it.

    Raises:
        FleetError: no such checkpoint, an unfinished one or one of another network, or no head behind a stage.
    """
    state = load_checkpoint(checkpoint)
    spent = state.get("spent", {})
    if spent.get("scheme") != own.NAME:
        raise FleetError(f"{checkpoint} is of another training: give the one of `--only {own.NAME}`")
    if state["step"] < state["run"]["steps"]:
        raise FleetError(f"{own.NAME} has done {state['step']} of {state['run']['steps']} steps: train it first")
    network = own.build(base_network(bundle))
    fill(network.heads, state["ema"]["model"], own.NAME)
    scheme = ShallowDeep(network, (1.0,) * (len(network.exit_stages) + 1))
    told = f"{spent['trained']}: {spent['images']:,} images, {spent['epochs']} epochs"
    return _chosen(bundle, scheme, calibration, stages, max_loss), told


def _chosen(
    bundle: Bundle, scheme: ShallowDeep, calibration: ImageSet, stages: Sequence[int], max_loss: float
) -> dict[int, LocalHead]:
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
