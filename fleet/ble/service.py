# SPDX-License-Identifier: Apache-2.0
"""The GATT service on the air: UUIDs, and the bytes of what is read and written.

One primary service, three characteristics:

==============  =========================================  =============================================
characteristic  properties                                 value
==============  =========================================  =============================================
features        notify                                     one packet of :mod:`fleet.packet` a notification
exit            write, write without response              an exit notice (6 bytes), or *ready* (9 bytes)
link            read, notify                               :class:`LinkReport` (20 bytes)
==============  =========================================  =============================================

The camera sends features only after the hub has subscribed **and** written *ready*: subscriptions are known to be
reported before the other side's stack passes notifications on. *Ready* carries the identity of the hub's bundle, so
that both ends refuse a stranger, not only the hub.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Final

from fleet.errors import FleetError
from fleet.link.airtime import PHYS, Phy
from fleet.link.parameters import CI_STEP_MS
from fleet.packet import MAX_PAYLOAD, MIN_PAYLOAD, PacketError

SERVICE: Final = "f1ee7000-6d0b-4b5c-8a57-2c1f3e9d4b60"
FEATURES: Final = "f1ee7001-6d0b-4b5c-8a57-2c1f3e9d4b60"
EXIT: Final = "f1ee7002-6d0b-4b5c-8a57-2c1f3e9d4b60"
LINK: Final = "f1ee7003-6d0b-4b5c-8a57-2c1f3e9d4b60"

IDENTITY_BYTES = 8
READY_OPCODE = 0x01
READY_BYTES = 1 + IDENTITY_BYTES
ERROR_OTHER_BUNDLE = 0x80
"""ATT application error: *ready* named another bundle than the camera's."""

WANTED_MTU = 247
WANTED_OCTETS = 251
ATT_OVERHEAD = 3
L2CAP_OVERHEAD = 4
MIN_SUPERVISION_MS = 6000.0
MAX_SUPERVISION_MS = 32000.0

_LINK = struct.Struct("<8sBBHHHBBBB")
LINK_BYTES = _LINK.size
_VERSION = 1
_ENCRYPTED = 0x01
_SECURE = 0x02
_SUPERVISION_STEP_MS = 10.0


def supervision_ms(ci_ms: float, latency: int = 0) -> float:
    """The supervision time-out to ask for, in ms and in steps of 10.

    Short ones drop links that would have recovered; one below two intervals is not even allowed.

    Args:
        ci_ms: connection interval.
        latency: connection events that the peripheral may sleep through.

    Source: max(6 s, 2.5 CI (1 + latency)); Core 5.4 Vol 6 Part B 4.5.2 has 2 CI (1 + latency) and 32 s as limits.
    """
    wanted = max(MIN_SUPERVISION_MS, 2.5 * ci_ms * (1 + latency))
    return min(MAX_SUPERVISION_MS, math.ceil(wanted / _SUPERVISION_STEP_MS) * _SUPERVISION_STEP_MS)


def payload_of(mtu: int, octets: int) -> int:
    """Bytes of the longest packet on a link as it was negotiated, 20 to 244.

    A packet never takes more than one link-layer packet: then losing one costs one, and an event carries as many
    as the link model says.

    Args:
        mtu: ATT MTU, 23 and more.
        octets: link-layer octets of the camera's packets, 27 to 251.
    """
    fits = min(mtu - ATT_OVERHEAD, octets - L2CAP_OVERHEAD - ATT_OVERHEAD)
    return max(MIN_PAYLOAD, min(MAX_PAYLOAD, fits))


@dataclass(frozen=True, slots=True)
class LinkReport:
    """What the camera says of itself and its link: the value of the *link* characteristic.

    Attributes:
        identity: first eight bytes of the SHA-256 of the camera's manifest.
        ci_ms: connection interval in ms, as the controller reports it.
        latency: connection events that the camera may sleep through, 0 to 499.
        supervision_ms: supervision time-out in ms, 100 to 32000.
        octets: link-layer octets of the camera's packets, 27 to 251.
        phy: on which the camera sends.
        payload: bytes of the longest packet that it will send, 20 to 244.
        packets: packets that it hands to the controller for one connection event, 1 to 64.
        encrypted: the link is encrypted now.
        secure: the camera talks on encrypted links only.
    """

    identity: bytes
    ci_ms: float
    latency: int
    supervision_ms: float
    octets: int
    phy: Phy
    payload: int
    packets: int
    encrypted: bool = False
    secure: bool = False

    def pack(self) -> bytes:
        """Twenty bytes: what a notification holds on the smallest MTU.

        Raises:
            PacketError: a field is out of its range.
        """
        if len(self.identity) != IDENTITY_BYTES:
            raise PacketError(f"a bundle's identity has {IDENTITY_BYTES} bytes, not {len(self.identity)}")
        try:
            data = _LINK.pack(
                self.identity,
                _VERSION,
                _ENCRYPTED * self.encrypted | _SECURE * self.secure,
                round(self.ci_ms / CI_STEP_MS),
                self.latency,
                round(self.supervision_ms / _SUPERVISION_STEP_MS),
                self.octets,
                1 + PHYS.index(self.phy),
                self.payload,
                self.packets,
            )
        except (struct.error, ValueError, OverflowError) as err:
            raise PacketError(f"link report out of range: {self}") from err
        LinkReport.unpack(data)
        return data

    @classmethod
    def unpack(cls, data: bytes) -> LinkReport:
        """The report in the value of the characteristic; a later version may have appended to it.

        Raises:
            PacketError: too short, of no known version, or a field is out of its range.
        """
        if len(data) < LINK_BYTES:
            raise PacketError(f"a link report has {LINK_BYTES} bytes, this one {len(data)}")
        identity, version, flags, interval, latency, timeout, octets, phy, payload, packets = _LINK.unpack_from(data)
        if version < _VERSION:
            raise PacketError(f"a link report of version {version}")
        _check("interval", interval, 6, 3200)
        _check("latency", latency, 0, 499)
        _check("supervision time-out", timeout, 10, 3200)
        _check("octets", octets, 27, WANTED_OCTETS)
        _check("PHY", phy, 1, len(PHYS))
        _check("payload", payload, MIN_PAYLOAD, MAX_PAYLOAD)
        _check("packets", packets, 1, 64)
        return cls(
            identity=identity,
            ci_ms=interval * CI_STEP_MS,
            latency=latency,
            supervision_ms=timeout * _SUPERVISION_STEP_MS,
            octets=octets,
            phy=PHYS[phy - 1],
            payload=payload,
            packets=packets,
            encrypted=bool(flags & _ENCRYPTED),
            secure=bool(flags & _SECURE),
        )


def ready(identity: bytes) -> bytes:
    """What the hub writes once it listens: nine bytes.

    Raises:
        PacketError: no identity of a bundle.
    """
    if len(identity) != IDENTITY_BYTES:
        raise PacketError(f"a bundle's identity has {IDENTITY_BYTES} bytes, not {len(identity)}")
    return bytes([READY_OPCODE]) + identity


def identity_in_ready(data: bytes) -> bytes | None:
    """The identity that a write of *ready* carries, or None where it is none."""
    return data[1:] if len(data) == READY_BYTES and data[0] == READY_OPCODE else None


def missing(library: str) -> FleetError:
    """What to say where a radio's library is not installed."""
    return FleetError(f"a real radio needs {library}, which is not installed: run python3 -m pip install {library}")


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise PacketError(f"{name} {value} of a link report is outside {low} to {high}")
