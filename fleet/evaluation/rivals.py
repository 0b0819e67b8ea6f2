# SPDX-License-Identifier: Apache-2.0
"""Records what other schemes give, and describes them in the index so that a replay needs neither weights nor code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fleet.errors import FleetError
from fleet.evaluation.recorder import Recorder
from fleet.evaluation.trace import SPLITS, Array, Split, rival_bytes, rival_logits

BATCH = 125


class Answers(Protocol):
    """What a scheme gives for some images; :class:`fleet.baselines.Answers`."""

    @property
    def logits(self) -> npt.NDArray[np.float32]:
        """Shape (rows, B, classes)."""

    @property
    def bytes(self) -> npt.NDArray[np.int32]:
        """Shape (uploads, B); no uploads where everything stays on the device."""


class Scheme(Protocol):
    """A rival; :class:`fleet.baselines.LocalScheme` or :class:`fleet.baselines.OffloadScheme`."""

    name: str
    kind: str
    note: str
    rows: tuple[str, ...]
    temperatures: tuple[float, ...]

    def answer(self, images: npt.NDArray[np.uint8]) -> Answers:
        """Logits and bytes of images (B, size, size, 3)."""


def describe(scheme: Scheme) -> dict[str, Any]:
    """A scheme for the index.

    Raises:
        FleetError: it is neither local nor offloading.
    """
    found = {
        "kind": scheme.kind,
        "note": scheme.note,
        "rows": list(scheme.rows),
        "temperatures": [float(t) for t in scheme.temperatures],
    }
    if scheme.kind not in ("local", "offload"):
        raise FleetError(f"scheme {scheme.name} is of the unknown kind '{scheme.kind}'")
    key = "exits" if scheme.kind == "local" else "uploads"
    return {**found, key: [_plain(part) for part in getattr(scheme, key)]}


def _plain(part: Any) -> Any:
    """Dataclasses and mappings to what JSON has."""
    if is_dataclass(part) and not isinstance(part, type):
        return _plain(asdict(part))
    if isinstance(part, Mapping):
        return {str(key): _plain(value) for key, value in part.items()}
    if isinstance(part, tuple | list):
        return [_plain(value) for value in part]
    return part.item() if isinstance(part, np.generic) else part


def save_rivals(
    recorder: Recorder,
    schemes: Iterable[Scheme],
    split: Split,
    images: npt.NDArray[np.uint8],
    done: Callable[[int], None] = lambda _images: None,
) -> None:
    """Write what schemes give for a split; those that are there already are passed over.

    Args:
        recorder: of the trace.
        schemes: the rivals.
        split: which images these are.
        images: RGB, shape (N, size, size, 3).
        done: called with the images of each batch.

    Raises:
        FleetError: a scheme of that name is there, but does something else.
    """
    for scheme in schemes:
        known = describe(scheme)
        if recorder.index.rivals.get(scheme.name, known) != known:
            raise FleetError(f"{recorder.path} has another {scheme.name}: remove it from the index, or record anew")
        if recorder.has(f"{split}/{rival_logits(scheme.name)}"):
            done(len(images))
            continue
        logits: list[Array] = []
        sizes: list[Array] = []
        for start in range(0, len(images), BATCH):
            answers = scheme.answer(np.ascontiguousarray(images[start : start + BATCH]))
            logits.append(np.asarray(answers.logits, np.float16))
            sizes.append(np.asarray(answers.bytes, np.int32))
            done(answers.logits.shape[1])
        arrays = {
            rival_logits(scheme.name): np.concatenate(logits, axis=1),
            rival_bytes(scheme.name): np.concatenate(sizes, axis=1),
        }
        recorder.save(
            {f"{split}/{name}": array for name, array in arrays.items()},
            rivals={**recorder.index.rivals, scheme.name: known},
        )


def forget(recorder: Recorder, name: str) -> None:
    """Take a scheme out of the index, for it to be recorded anew."""
    gone = {f"{split}/{array}" for split in SPLITS for array in (rival_logits(name), rival_bytes(name))}
    recorder.change(
        rivals={k: v for k, v in recorder.index.rivals.items() if k != name},
        arrays={k: v for k, v in recorder.index.arrays.items() if k not in gone},
    )
