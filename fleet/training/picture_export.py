# SPDX-License-Identifier: Apache-2.0
"""From a finished training of stage 0 to a bundle: the one that it was trained for, and the picture before it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from fleet.baselines.store import base_network
from fleet.bundle import Bundle
from fleet.errors import FleetError
from fleet.export import PICTURE_EXIT, counted, export_picture, guessed
from fleet.fusion import load_cloud
from fleet.packet import LOCAL_ANSWER_STAGE, PICTURE
from fleet.training.base import predict
from fleet.training.calibrate import judged, two_thresholds, with_temperatures
from fleet.training.checkpoint import load_checkpoint
from fleet.training.config import parse_config
from fleet.training.data import load_training_sets
from fleet.training.picture import CHECKPOINT, PICTURE_IMAGES_NOTE, PICTURE_NOTE, PictureTraining

COUNTED = 4000
"""Training images that the codec's frequency tables are counted on."""


def export_picture_run(run: Path, bundle: Bundle, output: Path, *, data: Path | None, cache: Path) -> Bundle:
    """Calibrate a finished training of stage 0 and write its bundle with it.

    Args:
        run: output folder of the training.
        bundle: the one that it was trained for.
        output: folder of the new bundle; may be that of the old one.
        data: folder of the data set, the configuration's own where None.
        cache: folder for decoded images.

    Raises:
        FleetError: no finished training there or one for another bundle, no data, or the bundle cannot be written.
    """
    state = load_checkpoint(run / CHECKPOINT)
    config = parse_config(state["config"], str(run / CHECKPOINT))
    plain = bundle.without_picture()
    if state["beside"] != bundle.checksums[bundle.cloud_file]:
        raise FleetError(f"{run} was trained for another hub's network than that of {bundle.path}")
    sets = load_training_sets(config.data, data or Path(config.data.root), size=config.input_size, cache=cache)
    train, calibration = sets
    training = PictureTraining(config, base_network(bundle), load_cloud(plain).backbone, *sets, run)
    training.resume()
    if not training.settled:
        raise FleetError(f"{run} has done {training.step} of {training.plan.steps} steps: fleet train --resume first")
    logits = {
        PICTURE: training.logits(calibration, partial=True),
        LOCAL_ANSWER_STAGE: np.log(np.maximum(predict(training.base, calibration), 1e-30)),
    }
    truths = np.asarray(bundle.classes.group_of)[calibration.labels]
    fitted = with_temperatures(replace(bundle.decider, trigger="confidence"), logits, truths, calibration.labels)
    fitted = replace(bundle.decider, temperatures=fitted.temperatures)
    whole, begun = two_thresholds(judged(fitted, logits, truths, partial=True))
    before = plain.decider
    decider = replace(
        before,
        temperatures={PICTURE: fitted.temperatures[PICTURE], **before.temperatures},
        thresholds={**whole, **before.thresholds},
        begun={**begun, **before.begun},
    )
    seen = training.latents(train.part(0, COUNTED))
    layouts = counted({PICTURE: guessed(training.make_layout(), seen)}, {PICTURE: seen})
    try:
        output.mkdir(parents=True, exist_ok=True)
        if output.resolve() != bundle.path.resolve():
            for name in plain.checksums:
                if name not in (bundle.picture_file, *(bundle.picture.files.values() if bundle.picture else ())):
                    shutil.copyfile(bundle.path / name, output / name)
    except OSError as err:
        raise FleetError(f"cannot write the bundle to {output}: {err.strerror}") from err
    stage = export_picture(output, training.encoder.cpu(), training.exit.cpu(), base_network(bundle), layouts[PICTURE])
    images = training.step * training.plan.batch
    kept = f"; of the weights it began with, {training.plan.keep:.0%} are kept" if training.start is not None else ""
    note = (
        f"stage 0 was trained on {images:,} images behind the finished networks of {training.began_with}: "
        f"{training.plan.steps} steps, batch {training.plan.batch}, about {training.plan.bytes} bytes a picture, seed "
        f"{config.seed}; the first {training.plan.stages} stages of its exit are its own{kept}"
    )
    return replace(
        plain,
        path=output,
        layouts={**layouts, **plain.layouts},
        decider=decider,
        picture=stage,
        picture_file=PICTURE_EXIT,
        notes={**plain.notes, PICTURE_NOTE: note, PICTURE_IMAGES_NOTE: str(images + training.images_before)},
    ).save()
