# SPDX-License-Identifier: Apache-2.0
"""From finished trainings to ``models/baselines``: weights, temperatures and accuracies, all without the test split."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.backbones import Backbone
from fleet.baselines.registry import FAMILIES, AnyScheme, Family
from fleet.baselines.store import (
    INDEX,
    Entry,
    Index,
    base_network,
    digest,
    load_index,
    load_states,
    save_index,
    save_states,
)
from fleet.bundle import Bundle, sha256_of
from fleet.errors import FleetError
from fleet.exits import softmax
from fleet.training.calibrate import temperature
from fleet.training.checkpoint import load_checkpoint
from fleet.training.data import ImageSet
from fleet.training.finish import DATA_NOTE
from fleet.training.scores import accuracies

BATCH = 125
Done = Callable[[int], None]


def scores(
    scheme: AnyScheme, images: ImageSet, done: Done = lambda _images: None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Logits of a scheme on images, shape (rows, N, classes), and mean bytes of its uploads, shape (uploads,)."""
    logits, sizes = [], []
    for start in range(0, len(images), BATCH):
        found = scheme.answer(np.ascontiguousarray(images.images[start : start + BATCH]))
        logits.append(found.logits)
        sizes.append(found.bytes)
        done(found.logits.shape[1])
    return np.concatenate(logits, axis=1), np.concatenate(sizes, axis=1).mean(axis=1)


def summary(
    scheme: AnyScheme, logits: npt.NDArray[np.float32], sizes: npt.NDArray[np.float64], images: ImageSet
) -> Any:
    """Accuracies of every row, and the mean bytes of every upload."""
    rows = {
        name: {key: round(value, 4) for key, value in _accuracies(row, images).items()}
        for name, row in zip(scheme.rows, logits, strict=True)
    }
    found: dict[str, Any] = {"pictures": len(images), "rows": rows}
    if scheme.kind == "offload":
        found["bytes"] = {up.name: round(float(size), 1) for up, size in zip(scheme.uploads, sizes, strict=True)}
    return found


def _accuracies(logits: npt.NDArray[np.float32], images: ImageSet) -> dict[str, float]:
    probabilities = softmax(logits.astype(np.float64)).astype(np.float32)
    return accuracies(probabilities, images.labels, images.table)


def finished(run: Path, family: Family) -> bool:
    """Whether every part of a family has its checkpoint at the last step."""
    return all(
        (run / f"{part}.pt").is_file() and _part(run, part)["run"]["steps"] == _part(run, part)["step"]
        for part in family.parts
    )


def is_stored(folder: Path, family: Family) -> bool:
    """Whether a folder of baselines has a family."""
    return (folder / INDEX).is_file() and family.name in load_index(folder).entries


def _part(run: Path, part: str) -> dict[str, Any]:
    return load_checkpoint(run / f"{part}.pt")


def export_family(
    run: Path, family: Family, bundle: Bundle, calibration: ImageSet, output: Path, done: Done = lambda _images: None
) -> Index:
    """Write one finished family into the folder of baselines, in place of what is there of it.

    Args:
        run: folder of the checkpoints.
        family: whose parts are all trained.
        bundle: whose base network they began with.
        calibration: images for temperatures and accuracies.
        output: ``models/baselines``.
        done: called with the images of each batch.

    Raises:
        FleetError: a part is not trained, or the folder belongs to another base network.
    """
    base = base_network(bundle)
    index = _index(output, bundle, digest(base))
    checkpoints = {part: _part(run, part) for part in family.parts}
    for part, state in checkpoints.items():
        if state["step"] < state["run"]["steps"]:
            raise FleetError(f"{part} has done {state['step']} of {state['run']['steps']} steps: train it first")
    path = output / f"{family.name}.safetensors"
    save_states(path, {part: state["ema"]["model"] for part, state in checkpoints.items()})
    spent = tuple(state["spent"] for state in checkpoints.values())
    return _measured(index, family, base, path, spent, calibration, done)


def measure_again(
    family: Family, bundle: Bundle, calibration: ImageSet, output: Path, done: Done = lambda _images: None
) -> Index:
    """Temperatures and accuracies of stored weights anew: what a scheme with other operating points needs.

    Args:
        family: which.
        bundle: whose base network they began with.
        calibration: images for temperatures and accuracies.
        output: ``models/baselines``.
        done: called with the images of each batch.

    Raises:
        FleetError: the folder has no such weights, changed ones, or those of another base network.
    """
    base = base_network(bundle)
    index = _index(output, bundle, digest(base))
    if (entry := index.entries.get(family.name)) is None:
        raise FleetError(f"{output} has no {family.name}: train and export it first")
    path = output / entry.file
    if not path.is_file() or sha256_of(path) != entry.sha256:
        raise FleetError(f"{path} is not the file that {output / INDEX} names")
    return _measured(index, family, base, path, entry.spent, calibration, done)


def _measured(
    index: Index,
    family: Family,
    base: Backbone,
    path: Path,
    spent: tuple[Mapping[str, Any], ...],
    calibration: ImageSet,
    done: Done,
) -> Index:
    temperatures, accuracy = {}, {}
    for scheme in family.assemble(copy.deepcopy(base), load_states(path, family), {}):
        logits, sizes = scores(scheme, calibration, done)
        temperatures[scheme.name] = tuple(round(temperature(row, calibration.labels), 4) for row in logits)
        accuracy[scheme.name] = summary(scheme, logits, sizes, calibration)
    entry = Entry(path.name, sha256_of(path), temperatures, spent, accuracy)
    index = replace(index, entries={**index.entries, family.name: entry})
    save_index(path.parent, index)
    return index


def _index(output: Path, bundle: Bundle, base: str) -> Index:
    output.mkdir(parents=True, exist_ok=True)
    notes = {"licence": "Apache-2.0 (code and weights)", "data": DATA_NOTE}
    fresh = Index(base, tuple(bundle.classes.ids), notes)
    if not (output / INDEX).is_file():
        return fresh
    found = load_index(output)
    if found.base != base:
        raise FleetError(f"{output} belongs to another base network than {bundle.path}; remove it or choose another")
    return replace(fresh, entries=found.entries)


def families(names: tuple[str, ...]) -> tuple[Family, ...]:
    """Families by name, all of them where none is named.

    Raises:
        FleetError: no such family.
    """
    known = {family.name: family for family in FAMILIES}
    if odd := [name for name in names if name not in known]:
        raise FleetError(f"no baseline '{odd[0]}'; there are {', '.join(known)}")
    return tuple(family for family in FAMILIES if not names or family.name in names)
