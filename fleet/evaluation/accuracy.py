# SPDX-License-Identifier: Apache-2.0
"""Accuracy of every exit at every rung, with the bytes that it takes (design section 13)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fleet.bundle import Bundle
from fleet.codec import Coder, FloatArray, StageLayout, encode_stage
from fleet.errors import FleetError
from fleet.evaluation.scores import judge
from fleet.exits import Classes, softmax
from fleet.fusion import CloudNetwork
from fleet.ladder import IntArray
from fleet.packet import MAX_PAYLOAD, Header
from fleet.runtime import DeviceNetwork
from fleet.sources import Frame

BOOTSTRAP = 10_000
Logits = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recorded:
    """What the device gives for a set of labelled images.

    Attributes:
        truths: index of the true group of each image, shape (N,).
        classes: index of the true class, -1 where the folder names a group only, shape (N,).
        latents: by stage, what travels before quantisation, shapes (N, c, g, g).
        local: logits of the device's own answer, shape (N, classes).
    """

    truths: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    latents: dict[int, FloatArray]
    local: FloatArray

    def __len__(self) -> int:
        return len(self.truths)


def record(bundle: Bundle, network: DeviceNetwork, frames: Iterable[Frame], seen: Callable[[], None]) -> Recorded:
    """Run the device's network over labelled images.

    Args:
        bundle: the model.
        network: its stages.
        frames: pictures; those without a known label are passed over.
        seen: called once a picture.

    Raises:
        FleetError: not one picture has a label of this bundle.
    """
    truths: list[int] = []
    classes: list[int] = []
    latents: dict[int, list[FloatArray]] = {n: [] for n in bundle.layouts}
    local: list[FloatArray] = []
    known = bundle.classes
    for frame in frames:
        seen()
        group = known.group_named(frame.truth)
        if group is None:
            continue
        truths.append(known.groups.index(group))
        classes.append(known.ids.index(frame.truth) if frame.truth in known.ids else -1)
        features = network.prepare(frame.image)
        for n in network.stage_numbers:
            output = network.run(n, features)
            features = output.features
            if n in latents and output.latent is not None:
                latents[n].append(output.latent)
        local.append(features[0])
    if not truths:
        raise FleetError(
            "none of these pictures lies in a folder that is named like a class or a group of the bundle "
            f"({', '.join(known.groups)}, or {known.ids[0]})"
        )
    return Recorded(
        np.asarray(truths, np.int64),
        np.asarray(classes, np.int64),
        {n: np.stack(maps) for n, maps in latents.items()},
        np.stack(local),
    )


@dataclass(frozen=True)
class Encoded:
    """One stage of all images as it travels.

    Attributes:
        values: coefficients in the stage's order, shape (N, count).
        ends: by rung, how many coefficients had arrived with the packet that completes it, shape (N,).
        bytes: by rung, payload bytes up to that packet, shape (N,).
        packets: by rung, packets up to that one, shape (N,).
    """

    values: IntArray
    ends: dict[int, npt.NDArray[np.int64]]
    bytes: dict[int, npt.NDArray[np.int64]]
    packets: dict[int, npt.NDArray[np.int64]]


def encode(layout: StageLayout, latents: FloatArray, coder: Coder, *, payload: int = MAX_PAYLOAD) -> Encoded:
    """Encode one stage of all images into packets.

    Args:
        layout: of the stage.
        latents: shape (N, c, g, g).
        coder: how coefficients are coded.
        payload: bytes of a packet.
    """
    values = np.empty((len(latents), layout.count), dtype=np.int32)
    table: dict[int, list[tuple[int, int, int]]] = {rung: [] for rung in layout.rungs}
    for k, latent in enumerate(latents):
        values[k] = layout.coefficients(latent)
        packets = encode_stage(layout, latent, inference_id=0, payload=payload, coder=coder)
        headers = [Header.unpack(packet) for packet in packets]
        ends = np.cumsum([header.count for header in headers])
        sizes = np.cumsum([len(packet) for packet in packets])
        for rung in layout.rungs:
            last = int(np.searchsorted(ends, layout.rung_end(rung)))
            table[rung].append((int(ends[last]), int(sizes[last]), last + 1))
    columns = {rung: np.asarray(rows, dtype=np.int64) for rung, rows in table.items()}
    return Encoded(
        values,
        {rung: c[:, 0] for rung, c in columns.items()},
        {rung: c[:, 1] for rung, c in columns.items()},
        {rung: c[:, 2] for rung, c in columns.items()},
    )


def received(layout: StageLayout, encoded: Encoded, rung: int) -> FloatArray:
    """The hub's maps when the packets up to a rung have arrived, as :class:`fleet.codec.StageBuffer` gives them.

    Args:
        layout: of the stage.
        encoded: of all images.
        rung: size.

    Returns:
        Shape (N, c, g, g).
    """
    count, ladder = len(encoded.values), layout.ladder
    start = np.zeros((layout.channels, ladder.count), dtype=np.int32)
    start[:, : ladder.base**2] = np.asarray(layout.mean_levels)[:, None]
    here = np.arange(layout.count)[None, :] < encoded.ends[rung][:, None]
    flat = np.empty((count, layout.count), dtype=np.int32)
    flat[:, layout.order] = np.where(here, encoded.values, start.ravel()[layout.order])
    levels = ladder.merge(flat.reshape(count, layout.channels, ladder.count))
    return layout.quantiser.dequantise(np.clip(levels, 0, layout.quantiser.levels - 1))


@torch.inference_mode()
def exit_logits(cloud: CloudNetwork, exit_stage: int, maps: Sequence[FloatArray], *, batch: int = 125) -> Logits:
    """Logits of one exit for all images, shape (N, classes).

    Args:
        cloud: the hub's network.
        exit_stage: n.
        maps: of the fused stages, oldest first, shapes (N, c_i, g_i, g_i).
        batch: images at a time.
    """
    parts = []
    for start in range(0, len(maps[0]), batch):
        chosen = [torch.from_numpy(np.ascontiguousarray(m[start : start + batch])) for m in maps]
        parts.append(cloud(exit_stage, chosen).double().numpy())
    return np.concatenate(parts)


def accuracies(classes: Classes, logits: Logits, recorded: Recorded) -> dict[str, Any]:
    """The accuracies of :func:`fleet.evaluation.scores.judge` with 95 % bootstrap intervals.

    Args:
        classes: of the bundle.
        logits: shape (N, classes).
        recorded: the truth.
    """
    result: dict[str, Any] = {}
    for key, right in judge(classes, softmax(logits), recorded.truths, recorded.classes).items():
        result[key] = round(float(right.mean()), 4) if len(right) else None
        result[f"{key}_95"] = _interval(right) if len(right) else None
    return result


def _interval(right: npt.NDArray[np.bool_]) -> list[float]:
    """Percentile bootstrap of a share; resampling zeros and ones is drawing from a binomial distribution."""
    drawn = np.random.default_rng(0).binomial(len(right), right.mean(), BOOTSTRAP) / len(right)
    return [round(float(q), 4) for q in np.percentile(drawn, [2.5, 97.5])]
