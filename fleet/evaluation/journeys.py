# SPDX-License-Identifier: Apache-2.0
"""Latency, energy and bytes of whole frames over one link and platform, in virtual time (design section 10)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fleet.bundle import Bundle
from fleet.codec import FloatArray
from fleet.evaluation.accuracy import Recorded
from fleet.fusion import CloudNetwork
from fleet.inference import Device
from fleet.link.parameters import LinkParameters
from fleet.packet import LOCAL_ANSWER_STAGE, PICTURE
from fleet.platforms import PlatformProfile
from fleet.runtime import StageOutput
from fleet.session import CloudSession
from fleet.simulation import Simulation


@dataclass
class RecordedNetwork:
    """The device's network as it was recorded: nothing is computed twice.

    Attributes:
        recorded: of all images.
        stage_numbers: the stages in order, the head last.
        image: the one that is being looked at.
    """

    recorded: Recorded
    stage_numbers: tuple[int, ...]
    image: int = 0

    def run_picture(self, image: FloatArray) -> FloatArray:  # noqa: ARG002 - it is known which one is meant
        """See :class:`fleet.inference.Network`."""
        latent: FloatArray = self.recorded.latents[PICTURE][self.image]
        return latent

    def run(self, n: int, features: FloatArray) -> StageOutput:
        """See :class:`fleet.inference.Network`."""
        if n == self.stage_numbers[-1]:
            return StageOutput(self.recorded.local[self.image][None], None)
        latents = self.recorded.latents.get(n)
        return StageOutput(features, None if latents is None else latents[self.image])


def journeys(
    bundle: Bundle,
    cloud: CloudNetwork,
    recorded: Recorded,
    link: LinkParameters,
    profile: PlatformProfile,
    *,
    exit_s: float,
    seed: int = 0,
    done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Send images through device, radio and hub, and sum up what became of them.

    Args:
        bundle: the model, with the codec that its device uses.
        cloud: the hub's network.
        recorded: images.
        link: the radio.
        profile: of the device; one that says how long a stage takes.
        exit_s: seconds that an exit takes on the hub.
        seed: of phases and losses.
        done: called once an image.
    """
    network = RecordedNetwork(recorded, tuple(stage.n for stage in bundle.stages))
    simulation = Simulation(
        Device(bundle, network, profile),
        CloudSession(bundle, cloud.fused),
        _forward(cloud),
        link,
        exit_s=exit_s,
        seed=seed,
    )
    blank = np.zeros((1, 3, bundle.input_size, bundle.input_size), np.float32)
    frames = []
    for network.image in range(len(recorded)):
        frames.append(simulation.run(blank))
        done()
    groups = bundle.classes.groups
    said = np.asarray([groups.index(frame.outcome.prediction.group) for frame in frames])
    accounts = [frame.account for frame in frames if frame.account is not None]
    power = profile.power_mw
    return {
        "conditions": {
            "link": {key: getattr(link, key) for key in ("ci_ms", "packets", "payload", "phy", "loss", "ack")}
            | {"effective_packets": link.effective_packets},
            "platform": profile.name,
            "time_scale": profile.time_scale,
            "codec": bundle.coder.name,
            "exit_ms": round(1000 * exit_s, 3),
            "phase": "uniformly random",
            "seed": seed,
            "pictures": len(recorded),
        },
        "accuracy_groups": round(float((said == recorded.truths).mean()), 4),
        "by_hub": round(float(np.mean([frame.outcome.by_hub for frame in frames])), 4),
        "exits": _histogram([frame.outcome.stage for frame in frames]),
        "latency_ms": _spread([1000 * frame.outcome.latency for frame in frames]),
        "stages_run": round(float(np.mean([frame.outcome.stages_run for frame in frames])), 2),
        "packets": round(float(np.mean([account.packets_sent for account in accounts])), 2),
        "bytes": round(float(np.mean([account.bytes_sent for account in accounts])), 1),
        "energy_mj": None if power is None else _spread([frame.energy_mj(power) for frame in frames]),
    }


def _forward(cloud: CloudNetwork) -> Callable[[int, Sequence[FloatArray]], FloatArray]:
    @torch.inference_mode()
    def forward(stage: int, maps: Sequence[FloatArray]) -> FloatArray:
        logits: FloatArray = cloud(stage, [torch.from_numpy(m[None]) for m in maps])[0].numpy()
        return logits

    return forward


def _histogram(stages: Sequence[int]) -> dict[str, float]:
    """Share of the frames by who answered."""
    counted = Counter(stages)
    names = {n: "device" if n == LOCAL_ANSWER_STAGE else f"exit {n}" for n in sorted(counted)}
    return {name: round(counted[n] / len(stages), 4) for n, name in names.items()}


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, median and 95th percentile."""
    middle, high = np.percentile(values, [50, 95])
    return {
        "mean": round(float(np.mean(values)), 3),
        "median": round(float(middle), 3),
        "p95": round(float(high), 3),
    }
