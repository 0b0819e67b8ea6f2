# SPDX-License-Identifier: Apache-2.0
"""Energy of one connection event at the camera (the BLE peripheral), phase by phase.

The order of the phases is that of Nordic's SoftDevice documentation and of the energy profiler that
the paper used (FLEET 4.5): pre-processing, crystal ramp, standby, radio start, receive, switch,
transmit, ..., post-processing, and idle until the next event. Which numbers are data-sheet values,
which are assumed and which calibrated is said by each profile in :mod:`fleet.link.radios`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.errors import FleetError
from fleet.link.airtime import T_IFS_US, Phy, air_us

CLOCK_PPM = 40.0
"""Sleep-clock error of both ends together, assumed; the specification allows up to 1000."""
CLOCK_JITTER_US = 16.0
"""Core 5.4 Vol 6 Part B 4.2.2."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of one current.

    Attributes:
        name: what the radio does.
        duration_us: µs.
        current_ma: mean current in mA.
    """

    name: str
    duration_us: float
    current_ma: float

    @property
    def charge_nc(self) -> float:
        """Charge in nC."""
        return self.duration_us * self.current_ma


@dataclass(frozen=True, slots=True)
class RadioProfile:
    """A radio as currents and times.

    Attributes:
        name: as the manufacturer writes it.
        voltage_v: supply.
        idle_ua: between events, with RAM kept and the sleep clock running.
        before: phases from waking up to the first microsecond of listening.
        after: phases from the last packet to sleep.
        switch_ma: between receiving and transmitting, either way.
        rx_ma: receiving, by PHY. A PHY that is not in it is one that the radio does not have.
        tx_ma: transmitting at 0 dBm, by PHY.
        source: where the numbers come from.
        note: how far to trust a joule, printed wherever one is.
    """

    name: str
    voltage_v: float
    idle_ua: float
    before: tuple[Phase, ...]
    after: tuple[Phase, ...]
    switch_ma: float
    rx_ma: Mapping[Phy, float]
    tx_ma: Mapping[Phy, float]
    source: str
    note: str

    @property
    def fixed_nc(self) -> float:
        """Charge of an event before and after its packets, in nC."""
        return sum(phase.charge_nc for phase in self.before + self.after)

    def check(self, phy: Phy) -> None:
        """Make sure that the radio has a PHY.

        Raises:
            FleetError: it has not.
        """
        if phy not in self.rx_ma or phy not in self.tx_ma:
            raise FleetError(f"the {self.name} has no {phy} PHY: choose one of {', '.join(self.rx_ma)}")


def window_widening_us(interval_ms: float) -> float:
    """How long before the expected anchor the peripheral starts to listen, in µs.

    Args:
        interval_ms: time since it last heard the central.

    Source: Core 5.4 Vol 6 Part B 4.2.4.
    """
    return interval_ms * 1000.0 * CLOCK_PPM * 1e-6 + CLOCK_JITTER_US


def event_phases(
    radio: RadioProfile,
    phy: Phy,
    uplink: Sequence[int] = (),
    downlink: Sequence[int] = (),
    *,
    ci_ms: float,
    encrypted: bool = True,
) -> tuple[Phase, ...]:
    """What the camera's radio does from one wake-up to the next.

    Args:
        radio: its currents.
        phy: the physical layer.
        uplink: link-layer octets of the camera's packets; none is one empty packet.
        downlink: link-layer octets of the hub's packets, filled up with one empty poll a packet.
        ci_ms: connection interval; what the event leaves of it is idle.
        encrypted: whether packets that carry something have a MIC.

    Raises:
        FleetError: the radio does not have the PHY.
    """
    radio.check(phy)
    exchanges = max(1, len(uplink), len(downlink))
    empty = air_us(phy, 0)
    receive = sum(air_us(phy, n, encrypted) for n in downlink) + (exchanges - len(downlink)) * empty
    transmit = sum(air_us(phy, n, encrypted) for n in uplink) + (exchanges - len(uplink)) * empty
    busy = (
        *radio.before,
        Phase("receive", receive + window_widening_us(ci_ms), radio.rx_ma[phy]),
        Phase("transmit", transmit, radio.tx_ma[phy]),
        Phase("switch", (2 * exchanges - 1) * T_IFS_US, radio.switch_ma),
        *radio.after,
    )
    rest = max(0.0, ci_ms * 1000.0 - sum(phase.duration_us for phase in busy))
    return (*busy, Phase("idle", rest, radio.idle_ua / 1000.0))


def event_energy_uj(
    radio: RadioProfile,
    phy: Phy,
    uplink: Sequence[int] = (),
    downlink: Sequence[int] = (),
    *,
    ci_ms: float,
    encrypted: bool = True,
) -> float:
    """Energy of one connection event and the sleep after it, in µJ; arguments as :func:`event_phases`."""
    phases = event_phases(radio, phy, uplink, downlink, ci_ms=ci_ms, encrypted=encrypted)
    return sum(phase.charge_nc for phase in phases) * radio.voltage_v / 1000.0


def mean_power_uw(energy_uj: float, ci_ms: float) -> float:
    """Mean power in µW of a radio that spends this energy every connection interval."""
    return energy_uj / ci_ms * 1000.0
