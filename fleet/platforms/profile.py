# SPDX-License-Identifier: Apache-2.0
"""What a platform is to this project: how long a stage takes on it, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fleet.errors import FleetError

LAYER_TYPES = ("conv", "depthwise", "linear")


@dataclass(frozen=True)
class PlatformProfile:
    """Time and power of one processor.

    Attributes:
        name: as it is chosen and printed.
        power_mw: power of the busy processor in mW; an idle one takes none (design section 10). None if unknown.
        macs_per_second: rate for each layer type of ``LAYER_TYPES``; empty if not known.
        stage_seconds: measured seconds by stage; goes before ``macs_per_second``.
        source: where the numbers come from, for every table that uses them.
        time_scale: multiplies every time: 3.56 makes 64x64 cost what 224x224 costs.
    """

    name: str
    power_mw: float | None
    source: str
    macs_per_second: Mapping[str, float] = field(default_factory=dict)
    stage_seconds: Mapping[int, float] = field(default_factory=dict)
    time_scale: float = 1.0

    @property
    def paced(self) -> bool:
        """Whether the profile says how long a stage takes; ``native`` runs as fast as this machine can."""
        return bool(self.macs_per_second or self.stage_seconds)

    def seconds(self, macs: Mapping[str, int], stage: int) -> float | None:
        """Return how long a stage takes on this platform.

        Args:
            macs: multiply-accumulates of the stage, by layer type.
            stage: its number; the head's is one more than the last stage's.

        Returns:
            Seconds, ``time_scale`` included; None where nothing is to be paced.

        Raises:
            FleetError: the profile does not know this stage or layer type.
        """
        if not self.paced:
            return None
        if stage in self.stage_seconds:
            return self.stage_seconds[stage] * self.time_scale
        if not self.macs_per_second:
            known = ", ".join(str(n) for n in sorted(self.stage_seconds))
            msg = f"platform {self.name} has no time for stage {stage}, only for {known}: profile this bundle"
            raise FleetError(msg)
        total = 0.0
        for kind, count in macs.items():
            if count == 0:
                continue
            if kind not in self.macs_per_second:
                msg = f"platform {self.name} has no rate for {kind} layers; give macs_per_second.{kind}"
                raise FleetError(msg)
            total += count / self.macs_per_second[kind]
        return total * self.time_scale

    def local_exit_seconds(self, macs: Mapping[str, int], behind: int, stage_macs: Mapping[str, int]) -> float | None:
        """Return how long a local exit takes on this platform.

        A profile that was measured on a bundle's stages has no rate; there an exit's multiply-accumulates cost what
        those of the stage before it do.

        Args:
            macs: multiply-accumulates of the exit, by layer type.
            behind: number of the stage that it follows.
            stage_macs: multiply-accumulates of that stage.

        Returns:
            Seconds, ``time_scale`` included; None where nothing is to be paced.

        Raises:
            FleetError: the profile does not know this stage or layer type.
        """
        if self.macs_per_second or not self.paced:
            return replace(self, stage_seconds={}).seconds(macs, behind)
        seconds = self.seconds(stage_macs, behind)
        assert seconds is not None
        return seconds * sum(macs.values()) / max(1, sum(stage_macs.values()))

    def energy_mj(self, busy_s: float) -> float:
        """Return the processor's energy in mJ.

        Args:
            busy_s: seconds of work.

        Returns:
            mW times s, or NaN where the power is unknown.
        """
        return math.nan if self.power_mw is None else self.power_mw * busy_s
