# SPDX-License-Identifier: Apache-2.0
"""What lost packets cost: a random half of an exit's packets against the same share of them sent in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.bundle import Bundle
from fleet.codec import FloatArray, runs_of
from fleet.coders import Coder, view
from fleet.evaluation.accuracy import Recorded, exit_logits
from fleet.evaluation.scores import judge
from fleet.exits import softmax
from fleet.fusion import CloudNetwork
from fleet.layout import StageLayout

FEWEST = 4
PAYLOAD = 60
DRAWS = 20
Cuts = list[npt.NDArray[np.intp]]


def packet_ends(layout: StageLayout, latents: FloatArray, coder: Coder, payload: int) -> Cuts:
    """For every image, the place behind the last coefficient of each packet."""
    ends = []
    for latent in latents:
        runs = runs_of(layout, coder.coefficients(layout, latent), coder, payload, 0, layout.count)
        ends.append(np.asarray([run.first + run.count for run in runs for _ in run.bodies]))
    return ends


def kept_in_order(ends: Cuts, count: int) -> npt.NDArray[np.bool_]:
    """Which coefficients the first half of the packets holds (of an odd number the smaller), shape (N, count)."""
    return np.arange(count) < np.asarray([e[len(e) // 2 - 1] for e in ends])[:, None]


def kept_at_random(ends: Cuts, count: int, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which coefficients as many packets, drawn at random, hold, shape (N, count)."""
    have = np.zeros((len(ends), count), dtype=np.bool_)
    for row, e in zip(have, ends, strict=True):
        kept = np.zeros(len(e), dtype=np.bool_)
        kept[random.permutation(len(e))[: len(e) // 2]] = True
        row[:] = np.repeat(kept, np.diff(e, prepend=0))
    return have


def cost_of_losses(
    bundle: Bundle,
    cloud: CloudNetwork,
    recorded: Recorded,
    coder: Coder,
    *,
    draws: int = DRAWS,
    payload: int = PAYLOAD,
    done: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Accuracies of every exit with half of its own stage's packets; the stage before has arrived whole.

    Args:
        bundle: the model.
        cloud: the hub's network.
        recorded: images.
        coder: one whose packets decode alone; stages for which they do not are left out.
        draws: of the packets that arrive.
        payload: bytes of a packet.
        done: called once an exit.

    Returns:
        One entry an exit: packets, and ``lost`` and ``in_order`` with the accuracy of groups; exits of fewer than
        four packets are left out.
    """
    values = {n: coder.coefficients(layout, recorded.latents[n]) for n, layout in bundle.layouts.items()}
    whole = {n: view(coder, o, values[n], np.ones_like(values[n], bool)) for n, o in bundle.layouts.items()}
    random = np.random.default_rng(0)
    found = []
    for n, layout in bundle.layouts.items():
        if not coder.decodes_alone(layout):
            continue
        ends = packet_ends(layout, recorded.latents[n], coder, payload)
        if min(map(len, ends)) >= FEWEST:

            def groups(have: npt.NDArray[np.bool_], n: int = n, layout: StageLayout = layout) -> float:
                own = view(coder, layout, values[n], have)
                return _accuracy(bundle, cloud, n, {**whole, n: own}, recorded)

            lost = [groups(kept_at_random(ends, layout.count, random)) for _ in range(draws)]
            found.append(
                {
                    "stage": n,
                    "packets": round(float(np.mean([len(e) for e in ends])), 2),
                    "in_order": round(groups(kept_in_order(ends, layout.count)), 4),
                    "lost": round(float(np.mean(lost)), 4),
                    "lost_range": [round(min(lost), 4), round(max(lost), 4)],
                }
            )
        done()
    return found


def _accuracy(bundle: Bundle, cloud: CloudNetwork, n: int, maps: Mapping[int, FloatArray], recorded: Recorded) -> float:
    logits = exit_logits(cloud, n, [maps[m] for m in cloud.fused[n]])
    right = judge(bundle.classes, softmax(logits), recorded.truths, recorded.classes)["accuracy_groups"]
    return float(right.mean())
