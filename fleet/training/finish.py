# SPDX-License-Identifier: Apache-2.0
"""From a finished run to a bundle: calibrate, export, note where everything came from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fleet.backbones import MEAN, STD, build_backbone
from fleet.bundle import Bundle
from fleet.codec import coder_named
from fleet.errors import FleetError
from fleet.exits import Decider
from fleet.export import export_bundle
from fleet.int8 import IMAGES, quantise_bundle
from fleet.packet import LOCAL_ANSWER_STAGE
from fleet.training.base import CHECKPOINT as BASE_CHECKPOINT
from fleet.training.base import predict
from fleet.training.calibrate import judged, two_thresholds, with_temperatures
from fleet.training.checkpoint import load_checkpoint
from fleet.training.config import TrainingConfig, parse_config
from fleet.training.data import load_training_sets
from fleet.training.exits import CHECKPOINT, IMAGES_NOTE, ExitTraining

COUNTED = 2000
"""Training images that the codec's frequency tables are counted on."""
DATA_NOTE = (
    "Trained on photographs of Tiny-ImageNet (ImageNet), which are for non-commercial research; check their terms "
    "before you use these weights for anything else. There are no people among the classes."
)


def export_run(run: Path, output: Path, *, name: str, data: Path | None, cache: Path, int8: bool = True) -> Bundle:
    """Calibrate a run with trained exits on its calibration split and write the bundle.

    Args:
        run: output folder of the training.
        output: folder of the bundle.
        name: of the bundle.
        data: folder of the data set, the configuration's own where None.
        cache: folder for decoded images.
        int8: whether to add int8 stages; their ranges come from training images.

    Raises:
        FleetError: no trained exits there, no data, or the bundle cannot be written.
    """
    state = load_checkpoint(run / CHECKPOINT)
    config = parse_config(state["config"], str(run / CHECKPOINT))
    train, calibration = load_training_sets(
        config.data, data or Path(config.data.root), size=config.input_size, cache=cache
    )
    table = train.table
    backbone = build_backbone(config.backbone, input_size=config.input_size, classes=len(table.names))
    training = ExitTraining(config, backbone, train, calibration, run)
    training.resume()
    if training.step < training.plan.steps or not training.settled:
        raise FleetError(f"{run} has done {training.step} of {training.plan.steps} steps: fleet train --resume first")
    classes = table.classes()
    labels = calibration.labels
    logits = {n: training.logits(calibration, n, partial=True) for n in training.stages}
    # predict() gives probabilities; their logarithm is a set of logits like any other.
    logits[LOCAL_ANSWER_STAGE] = np.log(np.maximum(predict(training.backbone, calibration), 1e-30))
    truths = np.asarray(classes.group_of)[labels]
    decider = with_temperatures(Decider(classes, {}, {}), logits, truths, labels)
    whole, begun = two_thresholds(judged(decider, logits, truths, partial=True))
    decider = replace(decider, thresholds=whole, begun=begun)
    training.cloud.cpu()
    training.backbone.cpu()
    with torch.no_grad():
        bundle = export_bundle(
            output,
            name=name,
            cloud=training.cloud,
            base=training.backbone,
            encoders={n: training.encoder(n) for n in training.stages},
            layouts=training.counted_layouts(train.part(0, min(COUNTED, len(train)))),
            classes=classes,
            decider=decider,
            coder=coder_named("fleet"),
            mean=MEAN,
            std=STD,
            trained=True,
            notes={
                "licence": "Apache-2.0 (code and weights)",
                "data": DATA_NOTE,
                "training": _history(run, config, training),
                IMAGES_NOTE: str(training.images_seen),
            },
        )
    if not int8:
        return bundle
    chosen = np.random.default_rng(0).choice(len(train), min(IMAGES, len(train)), replace=False)
    return quantise_bundle(bundle, train.images[np.sort(chosen)])


def _history(run: Path, config: TrainingConfig, training: ExitTraining) -> str:
    """How the weights came about, in words."""
    assert config.exits is not None
    base = run / BASE_CHECKPOINT
    begun = load_checkpoint(base).get("began_with", "") if base.is_file() else ""
    epochs = ", ".join(f"{phase.epochs} epochs at {phase.size} pixels" for phase in config.phases)
    base_part = f"{f'from {begun}, ' if begun else ''}{epochs}, batch {config.optimiser.batch}"
    if training.began_with:
        before = training.notes_before.get("training", "not known").partition("; then `fleet export`")[0]
        base_part = f"the bundle {training.began_with} ({before.removeprefix('`fleet train`: ')}) with `--bundle`"
    trained = "encoders, exits and the hub's trunk" if config.exits.trunk_peak > 0 else "encoders and exits"
    return (
        f"`fleet train`: {base_part}, then {config.exits.steps} steps for {trained} on the frozen base network "
        f"(of these {config.exits.close_steps} on features alone), batch {config.exits.batch}, seed {config.seed}; "
        "then `fleet export`, with temperatures and thresholds from the calibration split."
    )
