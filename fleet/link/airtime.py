# SPDX-License-Identifier: Apache-2.0
"""How long a packet is on the air, how many fit one connection event, and what a link then carries.

An exchange on a connection is: the central's packet, 150 µs, the peripheral's packet, 150 µs. The
camera is the peripheral, so every one of its payloads costs one poll by the central (an empty packet
that also acknowledges). Formulas are those of Core 5.4 Vol 6 Part B 2.1, 2.2 and 4.1; every
published figure they were checked against is in ``docs/link.md`` with its residual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from fleet.errors import FleetError
from fleet.packet import EXIT_NOTICE_BYTES, MAX_PAYLOAD, MIN_PAYLOAD

Phy = Literal["1M", "2M", "500k", "125k"]
PHYS: tuple[Phy, ...] = get_args(Phy)

T_IFS_US = 150.0
"""Inter-frame space, Core 5.4 Vol 6 Part B 4.1.1."""
L2CAP_OCTETS = 4
ATT_OCTETS = 3
"""Opcode and handle of a notification or a write command."""
OVERHEAD_OCTETS = L2CAP_OCTETS + ATT_OCTETS
MIC_OCTETS = 4
NOTICE_OCTETS = EXIT_NOTICE_BYTES + OVERHEAD_OCTETS
CI_STEP_US = 1250.0


@dataclass(frozen=True, slots=True)
class Controller:
    """When a controller starts no further exchange in a connection event.

    Attributes:
        name: what a table prints.
        guard_us: time it keeps free before the next event.
        reserves_full_reply: whether it also wants room for a reply as long as the data (Nordic's
            SoftDevice does), not only for the empty acknowledgement that will come.
        source: where the numbers come from.
    """

    name: str
    guard_us: float
    reserves_full_reply: bool
    source: str


GENERIC = Controller(
    "generic",
    800.0,
    False,
    "guard of Silicon Labs' and Nordic's published throughputs; FLEET's own choice of the milder rule",
)
SOFTDEVICE = Controller("S132", 800.0, True, "Nordic S132 SoftDevice specification 7.1, throughput tables")
SOFTDEVICE_OLD = Controller("S130", 1700.0, True, "Nordic S130 SoftDevice specification, throughput tables")
NO_GUARD = Controller("none", 0.0, False, "the specification alone; Silicon Labs' 12.5 ms figure")


@lru_cache(maxsize=4096)
def air_us(phy: Phy, octets: int, encrypted: bool = True) -> float:
    """Time on the air of one data packet, in µs.

    Args:
        phy: the physical layer.
        octets: link-layer payload, 0..251; 0 is an empty packet, which has no MIC.
        encrypted: adds the four octets of the MIC.

    Source: Core 5.4 Vol 6 Part B 2.1 (uncoded: preamble 1 or 2, access address 4, header 2, CRC 3)
    and 2.2 (coded: preamble 80 µs, access address, CI and TERM1 always at S = 8).
    """
    body = octets + (MIC_OCTETS if encrypted and octets else 0)
    if phy == "1M":
        return 8.0 * (10 + body)
    if phy == "2M":
        return 4.0 * (11 + body)
    per_bit = 2 if phy == "500k" else 8
    preamble_address_ci_term1 = 80 + 256 + 16 + 24
    return float(preamble_address_ci_term1 + ((2 + body + 3) * 8 + 3) * per_bit)


def pair_us(phy: Phy, octets: int, reply_octets: int = 0, encrypted: bool = True) -> float:
    """One exchange with both inter-frame spaces, in µs.

    Args:
        phy: the physical layer.
        octets: link-layer payload one way.
        reply_octets: link-layer payload the other way, 0 for a bare acknowledgement.
        encrypted: whether packets that carry something have a MIC.
    """
    return air_us(phy, octets, encrypted) + air_us(phy, reply_octets, encrypted) + 2 * T_IFS_US


def ll_octets(payload: int) -> int:
    """Link-layer octets of a notification of ``payload`` bytes."""
    return payload + OVERHEAD_OCTETS


def pairs_that_fit(
    ci_ms: float,
    phy: Phy,
    octets: int,
    *,
    reply_octets: int = 0,
    taken_us: float = 0.0,
    encrypted: bool = True,
    controller: Controller = GENERIC,
) -> int:
    """Exchanges that one connection event has room for.

    Args:
        ci_ms: connection interval in ms.
        phy: the physical layer.
        octets: link-layer payload one way.
        reply_octets: link-layer payload the other way.
        taken_us: time of the event that something else takes.
        encrypted: whether packets have a MIC.
        controller: its guard time and what it insists on before it starts another exchange.
    """
    one = pair_us(phy, octets, reply_octets, encrypted)
    needed = pair_us(phy, octets, octets, encrypted) if controller.reserves_full_reply else one
    spare = ci_ms * 1000.0 - controller.guard_us - taken_us - needed
    return 0 if spare < 0 else 1 + int(spare // one)


def payloads_that_fit(
    ci_ms: float,
    phy: Phy,
    payload: int,
    *,
    encrypted: bool = True,
    controller: Controller = GENERIC,
    with_notice: bool = False,
) -> int:
    """Notifications of ``payload`` bytes that one connection event has room for.

    Args:
        ci_ms: connection interval in ms.
        phy: the physical layer.
        payload: bytes of each notification.
        encrypted: whether packets have a MIC.
        controller: its guard time and rule.
        with_notice: whether the hub's first packet carries an exit notice in place of an empty poll.
            On a slow PHY that can take the room of a payload.
    """
    longer_us = air_us(phy, NOTICE_OCTETS, encrypted) - air_us(phy, 0) if with_notice else 0.0
    octets = ll_octets(payload)
    return pairs_that_fit(ci_ms, phy, octets, taken_us=longer_us, encrypted=encrypted, controller=controller)


def smallest_ci_ms(phy: Phy, payload: int, *, encrypted: bool = True, controller: Controller = GENERIC) -> float:
    """The shortest connection interval in which one such payload fits, in ms and in steps of 1.25."""
    octets = ll_octets(payload)
    needed = pair_us(phy, octets, octets if controller.reserves_full_reply else 0, encrypted)
    steps = -(-(needed + controller.guard_us) // CI_STEP_US)
    return max(7.5, steps * CI_STEP_US / 1000.0)


def largest_payload(ci_ms: float, phy: Phy, *, encrypted: bool = True, controller: Controller = GENERIC) -> int | None:
    """The longest payload of which one fits, or None where not even the shortest does."""
    for payload in range(MAX_PAYLOAD, MIN_PAYLOAD - 1, -1):
        if payloads_that_fit(ci_ms, phy, payload, encrypted=encrypted, controller=controller):
            return payload
    return None


def why_nothing_fits(ci_ms: float, phy: Phy, payload: int, *, encrypted: bool = True) -> str:
    """One line for a link on which no such payload fits, with what would."""
    cures = [f"ci_ms={smallest_ci_ms(phy, payload, encrypted=encrypted):g} or more"]
    longest = largest_payload(ci_ms, phy, encrypted=encrypted)
    if longest is not None:
        cures.append(f"payload={longest} or less")
    return (
        f"no payload of {payload} bytes fits a connection interval of {ci_ms:g} ms at {phy} "
        f"({'' if encrypted else 'unencrypted, '}guard {GENERIC.guard_us:g} µs): use {' or '.join(cures)}"
    )


def throughput_bps(payloads: int, payload: int, ci_ms: float) -> float:
    """Application bits a second when every event carries ``payloads`` notifications."""
    return payloads * payload * 8 / (ci_ms / 1000.0)


def exchange_ends_us(
    phy: Phy, uplink: Sequence[int], downlink: Sequence[int] = (), *, encrypted: bool = True
) -> tuple[list[float], list[float]]:
    """When each packet of a connection event ends, in µs after the event's anchor.

    The central speaks first in every exchange. The shorter list is filled up with empty packets; an
    event without data is one poll and one empty reply.

    Args:
        phy: the physical layer.
        uplink: link-layer octets of the peripheral's packets, in order.
        downlink: link-layer octets of the central's packets, in order.
        encrypted: whether packets that carry something have a MIC.

    Returns:
        The ends of the central's packets and those of the peripheral's, one of each for every exchange.
    """
    down_ends: list[float] = []
    up_ends: list[float] = []
    now = 0.0
    for k in range(max(1, len(uplink), len(downlink))):
        now += air_us(phy, downlink[k] if k < len(downlink) else 0, encrypted)
        down_ends.append(now)
        now += T_IFS_US + air_us(phy, uplink[k] if k < len(uplink) else 0, encrypted)
        up_ends.append(now)
        now += T_IFS_US
    return down_ends, up_ends


def check_phy(phy: str) -> Phy:
    """The same string, known to be a PHY.

    Raises:
        FleetError: it is none.
    """
    for known in PHYS:
        if phy == known:
            return known
    raise FleetError(f"no PHY is called '{phy}': choose one of {', '.join(PHYS)}")
