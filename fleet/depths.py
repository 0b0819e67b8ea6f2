# SPDX-License-Identifier: Apache-2.0
"""How many channels travel behind each stage (FLEET sections 3.2, eq. 1, and 4.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fleet.errors import FleetError


def most_bytes(next_stage_s: float, *, ci_s: float, packets: int, payload: int) -> int:
    """Bytes that travel while the next stage runs: eq. 1, with the packets of an event that the text names.

    A stage that is shorter than a connection interval still gets one event: "this is not a strict limit".

    Args:
        next_stage_s: execution time of the next stage in seconds.
        ci_s: connection interval in seconds, the shortest that the camera is to be used with.
        packets: a connection event.
        payload: bytes of a packet.
    """
    return payload * packets * max(1, math.floor(next_stage_s / ci_s))


def stage_depths(
    seconds: Mapping[int, float],
    grids: Mapping[int, int],
    *,
    first: int,
    bits: float,
    ci_s: float,
    packets: int,
    payload: int,
) -> dict[int, int]:
    """Channels of every stage that is sent: in proportion to the next stage's time, and no more than eq. 1 allows.

    "The execution latency of the third layer is roughly 3.6 times that of the second, so the depth of the second layer
    will be 3.6 times the first" (section 4.1).

    Args:
        seconds: execution time of every stage, the one behind the last that is sent included.
        grids: side of the finest grid of every stage that is sent.
        first: channels behind stage 1.
        bits: what a coefficient takes on the air, on average.
        ci_s: connection interval in seconds.
        packets: a connection event.
        payload: bytes of a packet.

    Raises:
        FleetError: a time is missing or not positive, or not even one channel of a stage fits.
    """
    if not all(math.isfinite(seconds.get(n + 1, math.nan)) and seconds[n + 1] > 0 for n in grids):
        raise FleetError("depths by stage time need a platform that says how long every stage takes")
    depths = {}
    for n, side in sorted(grids.items()):
        room = most_bytes(seconds[n + 1], ci_s=ci_s, packets=packets, payload=payload) * 8
        most = math.floor(room / (bits * side * side))
        if most < 1:
            raise FleetError(
                f"not one channel of {side}x{side} cells fits the time behind stage {n}; allow more packets"
            )
        wanted = round(first * seconds[n + 1] / seconds[min(grids) + 1])
        depths[n] = min(max(first, wanted), most)
    return depths
