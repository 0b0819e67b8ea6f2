# SPDX-License-Identifier: Apache-2.0
"""What a frame would have cost without FLEET.

The clock starts when the frame is ready on the device and ends when the device holds the answer. Energy is the
device's: its processor while it is busy (an idle one takes none), and its radio in every event until the answer. Two
other ways to use the same device, link and picture:

*always local*
    the device runs its whole network and never turns the radio on.
*always JPEG*
    the device compresses the picture to the network's input size and sends every byte (a transfer that is
    acknowledged); the hub classifies it and its answer comes back in the next connection event. Compression is counted
    as free, in favour of JPEG. The first event comes when it came for FLEET.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fleet.bundle import StageFile
from fleet.link.airtime import NOTICE_OCTETS, exchange_ends_us, ll_octets
from fleet.link.energy import RadioProfile, event_energy_uj
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF5340
from fleet.link.transfer import reliable_bursts
from fleet.platforms import PlatformProfile

HOPELESS_LOSS = 0.95
"""From here on a transfer of every byte is taken to never end."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one frame costs.

    Attributes:
        latency_ms: from the frame being ready until the device holds the answer.
        energy_mj: of the device; None where it is unknown.
    """

    latency_ms: float
    energy_mj: float | None


def always_local(stages: Sequence[StageFile], profile: PlatformProfile) -> Cost | None:
    """The whole network on the device.

    A stage that is sent counts with its encoder, which the device could leave out: some hundredths of the whole.

    Args:
        stages: of the bundle, the head last.
        profile: of the platform.

    Returns:
        None where the profile does not say how long a stage takes.

    Raises:
        FleetError: the profile does not know one of the stages.
    """
    seconds = [profile.seconds(stage.macs, stage.n) for stage in stages]
    known = [time for time in seconds if time is not None]
    if len(known) < len(seconds) or not known:
        return None
    return measured_local(sum(known), profile)


def measured_local(seconds: float, profile: PlatformProfile) -> Cost:
    """The same where the whole network took ``seconds`` on this machine."""
    energy = profile.energy_mj(seconds)
    return Cost(seconds * 1e3, energy if math.isfinite(energy) else None)


def always_jpeg(
    n_bytes: int,
    link: LinkParameters,
    *,
    wait_s: float,
    hub_s: float,
    rng: np.random.Generator,
    radio: RadioProfile = NRF5340,
) -> Cost | None:
    """The picture as a JPEG file, every byte of it.

    Args:
        n_bytes: of the file.
        link: parameters and acknowledgement model.
        wait_s: from the frame being ready until the first connection event.
        hub_s: that the hub takes for its answer.
        rng: of the losses.
        radio: whose energy is counted.

    Returns:
        None where the link loses so much that the transfer would hardly ever end.
    """
    if link.loss >= HOPELESS_LOSS:
        return None
    bursts = reliable_bursts(n_bytes, link, rng=rng)
    last = exchange_ends_us(link.phy, [ll_octets(size) for size in bursts[-1]])[1] if bursts else [0.0]
    ready = max(0, len(bursts) - 1) * link.ci_s + last[-1] * 1e-6 + hub_s  # after the first event's anchor
    answer = max(len(bursts), math.ceil(ready / link.ci_s))
    notices = 1
    while rng.random() < link.loss:
        notices += 1
    down = exchange_ends_us(link.phy, [], [NOTICE_OCTETS])[0][0] * 1e-6
    latency = wait_s + (answer + notices - 1) * link.ci_s + down

    def energy(up: Sequence[int] = (), downlink: Sequence[int] = ()) -> float:
        return event_energy_uj(radio, link.phy, up, downlink, ci_ms=link.ci_ms)

    total = sum(energy([ll_octets(size) for size in burst]) for burst in bursts)
    total += (answer - len(bursts)) * energy() + notices * energy(downlink=[NOTICE_OCTETS])
    return Cost(latency * 1e3, total * 1e-3)


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Mean, median and 95th percentile, rounded; None of nothing."""
    if not values:
        return None
    middle, high = np.percentile(values, [50, 95])
    return {"mean": round(float(np.mean(values)), 4), "p50": round(float(middle), 4), "p95": round(float(high), 4)}


def rate(times: Sequence[float]) -> float | None:
    """Frames a second from the times at which they came, in any order; None of fewer than two."""
    gaps = [b - a for a, b in pairwise(sorted(times))]
    return round(len(gaps) / sum(gaps), 2) if gaps and sum(gaps) > 0 else None
