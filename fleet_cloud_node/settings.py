# SPDX-License-Identifier: Apache-2.0
"""Parameters of the cloud node."""

from __future__ import annotations

import dataclasses

import torch

from fleet.errors import FleetError
from fleet_ros.cameras import check_cameras
from fleet_ros.settings import setting


@dataclasses.dataclass(frozen=True)
class CloudSettings:
    """Parameters of the cloud node."""

    model: str = setting("backyard", "model bundle: a directory, or the name of one that is installed", read_only=True)
    threshold: float = setting(
        0.0, "certainty from which an exit answers, 0 to 1; 0 takes each exit's own from the bundle", within=(0.0, 1.0)
    )
    hold: bool = setting(
        True, "an exit on the picture waits for packets that the camera says follow in the same connection event"
    )
    threads: int = setting(1, "threads of one forward pass", read_only=True, within=(1, 64))
    cameras: tuple[str, ...] = setting(
        ("",), "namespaces of the cameras; an empty name is the node's own namespace", read_only=True
    )
    torch_device: str = setting(
        "auto", "what exits run on: auto (a GPU where there is one), cpu or cuda", read_only=True
    )

    def __post_init__(self) -> None:
        """Check what a type cannot say.

        Raises:
            FleetError: no camera, one that is named twice, or a name that is no namespace.
        """
        check_cameras(self.cameras or ())


def pick_device(name: str) -> str:
    """The torch device behind the parameter ``torch_device``.

    Raises:
        FleetError: there is none of that name, or not on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise FleetError("torch_device is cuda, but this machine has no GPU that torch can use: say auto or cpu")
    if name not in ("cpu", "cuda"):
        raise FleetError(f"torch_device is auto, cpu or cuda, not '{name}'")
    return name
