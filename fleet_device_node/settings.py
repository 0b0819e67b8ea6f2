# SPDX-License-Identifier: Apache-2.0
"""Parameters of the device node."""

from __future__ import annotations

import dataclasses

from fleet.coders import coder_named
from fleet.errors import FleetError
from fleet.platforms.loading import LARGEST_TIME_SCALE
from fleet.sources import roi_named
from fleet_ros.settings import setting


@dataclasses.dataclass(frozen=True)
class DeviceSettings:
    """Parameters of the device node."""

    source: str = setting(
        "auto",
        "auto, photos, a camera index, a file, directory or tar of images, a video, a URL, or ros:/TOPIC",
        read_only=True,
    )
    loop: bool = setting(False, "begin a finite source again when it ends", read_only=True)
    roi: str = setting("full", "what is classified: the full frame, or the square around what moved (motion)")
    frame_rate: float = setting(8.0, "frames a second at most; 0: as fast as inference goes", within=(0.0, 1000.0))
    model: str = setting("backyard", "model bundle: a directory, or the name of one that is installed", read_only=True)
    precision: str = setting("float", "which ONNX stages run: float or int8", read_only=True)
    codec: str = setting("", "fleet, plain, paper or paper-deflate; empty: the model's own", read_only=True)
    threads: int = setting(1, "threads of one stage", read_only=True, within=(1, 64))
    race: bool = setting(
        False,
        "the model's local exits run beside the radio, and the first confident answer wins; for models that have them",
        read_only=True,
    )
    thrifty: bool = setting(
        False,
        "the picture goes bit by bit, 180 bytes or a packet at a time, as far as it must; for models with a stage 0",
        read_only=True,
    )
    platform: str = setting("native", "platform profile to pace the stages to: a name or a YAML file", read_only=True)
    time_scale: float = setting(
        1.0,
        "factor on the profile's times; 3.56 makes 64x64 cost what 224x224 costs",
        read_only=True,
        within=(0.0, LARGEST_TIME_SCALE),
    )
    interruptible: bool = setting(True, "an exit notice cuts the running stage short", read_only=True)
    answer_timeout: float = setting(
        0.5, "time after which the device publishes its own answer unless the hub was heard [s]", within=(0.0, 60.0)
    )
    wait_for_hub: float = setting(
        0.0, "time that the first frame waits at most for a hub to be there [s]", read_only=True, within=(0.0, 600.0)
    )

    def __post_init__(self) -> None:
        """Check what a range cannot say.

        Raises:
            FleetError: an unknown precision, codec or region, or a time scale that is not positive.
        """
        if self.codec:
            coder_named(self.codec)
        if self.precision not in ("float", "int8"):
            raise FleetError(f"precision is float or int8, not '{self.precision}'")
        roi_named(self.roi)
        if not self.time_scale > 0:
            raise FleetError(f"time_scale must be positive, not {self.time_scale:g}")
