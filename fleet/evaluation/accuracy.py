# SPDX-License-Identifier: Apache-2.0
"""Accuracy of every exit at every rung, with the bytes that it takes (design section 13)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fleet.bundle import Bundle
from fleet.codec import Coder, FloatArray, StageLayout, encode_stage
from fleet.coders import view
from fleet.errors import FleetError
from fleet.evaluation.scores import judge
from fleet.exits import Classes, softmax
from fleet.fusion import CloudNetwork
from fleet.ladder import IntArray
from fleet.packet import MAX_PAYLOAD, PICTURE
from fleet.runtime import DeviceNetwork
from fleet.sources import Frame

BOOTSTRAP = 10_000
SIZED = 500
"""Images whose packets are counted: bytes vary little, and every rung is encoded by itself."""
Logits = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recorded:
    """What the device gives for a set of labelled images.

    Attributes:
        truths: index of the true group of each image, shape (N,).
        classes: index of the true class, -1 where the folder names a group only, shape (N,).
        latents: by stage, what travels before quantisation, shapes (N, c, g, g).
        local: logits of the device's own answer, shape (N, classes).
        local_exits: logits of its exits for the race, by stage, shapes (N, classes); most bundles have none.
    """

    truths: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    latents: dict[int, FloatArray]
    local: FloatArray
    local_exits: dict[int, FloatArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.truths)

    def first(self, count: int) -> Recorded:
        """The first so many images, or all."""
        latents = {n: maps[:count] for n, maps in self.latents.items()}
        exits = {n: logits[:count] for n, logits in self.local_exits.items()}
        return Recorded(self.truths[:count], self.classes[:count], latents, self.local[:count], exits)


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
    local_exits: dict[int, list[FloatArray]] = {n: [] for n in bundle.local_exits}
    known = bundle.classes
    for frame in frames:
        seen()
        group = known.group_named(frame.truth)
        if group is None:
            continue
        truths.append(known.groups.index(group))
        classes.append(known.ids.index(frame.truth) if frame.truth in known.ids else -1)
        features = network.prepare(frame.image)
        if bundle.picture is not None:
            latents[PICTURE].append(network.run_picture(features))
        for n in network.stage_numbers:
            output = network.run(n, features)
            features = output.features
            if n in latents and output.latent is not None:
                latents[n].append(output.latent)
            if n in local_exits:
                local_exits[n].append(network.run_local(n, features)[0])
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
        {n: np.stack(logits) for n, logits in local_exits.items()},
    )


@dataclass(frozen=True)
class Encoded:
    """One stage of all images as it travels.

    Attributes:
        coder: how its coefficients are coded.
        values: coefficients in the coder's order, shape (N, count).
        bytes: by rung, payload bytes where the device stops behind it, for the first ``sized`` images.
        packets: by rung, packets.
    """

    coder: Coder
    values: IntArray
    bytes: dict[int, npt.NDArray[np.int64]]
    packets: dict[int, npt.NDArray[np.int64]]


def encode(
    layout: StageLayout, latents: FloatArray, coder: Coder, *, payload: int = MAX_PAYLOAD, sized: int = SIZED
) -> Encoded:
    """Encode one stage of all images into packets.

    Args:
        layout: of the stage.
        latents: shape (N, c, g, g).
        coder: how coefficients are coded.
        payload: bytes of a packet.
        sized: how many images' packets are counted.
    """
    rungs = coder.rungs(layout)
    sizes: dict[int, list[list[int]]] = {rung: [] for rung in rungs}
    for latent in latents[:sized]:
        for rung in rungs:
            packets = encode_stage(layout, latent, inference_id=0, payload=payload, coder=coder, rung=rung)
            sizes[rung].append([len(packet) for packet in packets])
    return Encoded(
        coder,
        coder.coefficients(layout, latents),
        {rung: np.asarray([sum(row) for row in rows], dtype=np.int64) for rung, rows in sizes.items()},
        {rung: np.asarray([len(row) for row in rows], dtype=np.int64) for rung, rows in sizes.items()},
    )


def received(layout: StageLayout, encoded: Encoded, rung: int) -> FloatArray:
    """What exits are given when everything up to a rung has arrived, as :meth:`fleet.codec.StageBuffer.view` gives it.

    Args:
        layout: of the stage.
        encoded: of all images.
        rung: size, one of the coder's.

    Returns:
        Shape (N, 2 c, g, g).
    """
    have = np.broadcast_to(np.arange(layout.count) < layout.rung_end(rung), encoded.values.shape)
    return view(encoded.coder, layout, encoded.values, have)


def begun(layout: StageLayout, encoded: Encoded, shares: npt.NDArray[np.float64]) -> FloatArray:
    """What exits are given when the first part of a stage has arrived.

    Args:
        layout: of the stage.
        encoded: of all images.
        shares: of the coefficients in order, 0..1, shape (N,).

    Returns:
        Shape (N, 2 c, g, g).
    """
    have = np.arange(layout.count) < np.rint(shares * layout.count)[:, None]
    return view(encoded.coder, layout, encoded.values, have)


@torch.inference_mode()
def exit_logits(cloud: CloudNetwork, exit_stage: int, maps: Sequence[FloatArray], *, batch: int = 125) -> Logits:
    """Logits of one exit for all images, shape (N, classes).

    Args:
        cloud: the hub's network.
        exit_stage: n.
        maps: views of the fused stages, oldest first, shapes (N, 2 c_i, g_i, g_i).
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
