# SPDX-License-Identifier: Apache-2.0
"""How a camera presents itself, and what its radio is doing; needs no Bluetooth library."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from fleet.ble.pump import LEAD_S
from fleet.errors import FleetError
from fleet.link.parameters import LinkParameters
from fleet.sources.frame import printable

NAME_BYTES = 26
"""Of a camera's name, in UTF-8, what a scan response takes."""


def check_name(name: str) -> None:
    """Refuse a camera's name that a scanner could not show whole.

    Raises:
        FleetError: it is empty, unprintable or too long.
    """
    if not name.strip() or not name.isprintable():
        raise FleetError(f"'{printable(name)}' is no name that a scanner can show")
    length = len(name.encode())
    if length > NAME_BYTES:
        raise FleetError(f"the name '{printable(name)}' has {length} bytes, a scanner is shown {NAME_BYTES} at most")


def static_address(seed: str) -> str:
    """A static random device address that is always the same for the same seed.

    A hub knows a bonded camera by its address, so it must survive a restart.
    """
    digest = bytearray(hashlib.sha256(b"fleet camera " + seed.encode()).digest()[:6])
    digest[0] |= 0xC0
    return ":".join(f"{byte:02X}" for byte in digest)


def machine_address(name: str) -> str:
    """The static address of the camera of that name on this machine."""
    for path in (Path("/etc/machine-id"), Path("/etc/hostname")):
        with contextlib.suppress(OSError):
            return static_address(f"{path.read_text().strip()} {name}")
    return static_address(name)


@dataclass(frozen=True)
class CameraSettings:
    """How the camera presents itself.

    Attributes:
        identity: of its bundle, eight bytes.
        wish: the link it asks for; ``packets`` is what it hands over for one event.
        name: that a scanner shows, see :func:`check_name`.
        address: static random device address.
        secure: talk on encrypted links with a bonded hub only.
        pairing: take a new bond although there is one already.
        bonds: file that keeps the bonds; in memory only where None.
        lead_s: see :data:`fleet.ble.pump.LEAD_S`.
    """

    identity: bytes
    wish: LinkParameters = field(default_factory=lambda: LinkParameters(ci_ms=30.0, phy="2M", transport="bumble"))
    name: str = "fleet camera"
    address: str = field(default_factory=lambda: static_address("camera"))
    secure: bool = False
    pairing: bool = False
    bonds: Path | None = None
    lead_s: float = LEAD_S


class Phase(Enum):
    """What the camera's radio is doing."""

    OFF = "off"
    ADVERTISING = "no hub, advertising"
    CONNECTED = "a hub is connected and not ready yet"
    SENDING = "connected"


@dataclass(frozen=True)
class CameraState:
    """The camera's radio at a glance.

    Attributes:
        phase: what it is doing.
        link: as it was negotiated; the wish where there is no hub.
        hub: address of the hub, empty where there is none.
        encrypted: whether the link is encrypted.
        connections: hubs that connected since the start, each return counted.
        message: what the user should know, empty when all is well.
    """

    phase: Phase
    link: LinkParameters
    hub: str = ""
    encrypted: bool = False
    connections: int = 0
    message: str = ""
