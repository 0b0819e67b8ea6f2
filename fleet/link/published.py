# SPDX-License-Identifier: Apache-2.0
"""Published figures of real BLE stacks beside what this package computes for the same conditions.

``benchmarks/link_residuals.py`` prints them into ``docs/link.md`` and a test holds the worst residual.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fleet.link.airtime import (
    GENERIC,
    NO_GUARD,
    SOFTDEVICE,
    SOFTDEVICE_OLD,
    Controller,
    Phy,
    air_us,
    pair_us,
    pairs_that_fit,
    throughput_bps,
)
from fleet.link.energy import RadioProfile, event_phases
from fleet.link.radios import NRF52832

_CORE = "Bluetooth Core 5.4 Vol 6 Part B 4.5.10"
_PRIMER = "Memfault Interrupt, A practical guide to BLE throughput"
_SILABS = "Silicon Labs, Bluetooth throughput"
_S132 = "Nordic S132 SoftDevice specification 7.1"
_S130 = "Nordic S130 SoftDevice specification"
_NCS = "nRF Connect SDK, Bluetooth throughput sample"
_PUNCH = "Punch Through, Maximizing BLE throughput 3"
_PROFILER = "Nordic Online Power Profiler"


@dataclass(frozen=True, slots=True)
class Figure:
    """One published number.

    Attributes:
        what: quantity and conditions.
        unit: of both numbers.
        computed: by this package.
        published: by ``source``.
        source: who published it.
    """

    what: str
    unit: str
    computed: float
    published: float
    source: str

    @property
    def residual(self) -> float:
        """Relative difference, positive when the model is above the published figure."""
        return (self.computed - self.published) / self.published


def timing_figures() -> tuple[Figure, ...]:
    """Air times, throughputs of a saturated link, and throughputs cut into connection events."""
    return (*_air_times(), *_saturated(), *_in_events())


def _air_times() -> Iterator[Figure]:
    packets: tuple[tuple[Phy, int, float, str], ...] = (
        ("1M", 27, 328, _CORE),
        ("1M", 251, 2120, _NCS),
        ("125k", 27, 2704, _CORE),
        ("125k", 251, 17040, _CORE),
    )
    for phy, octets, published, source in packets:
        yield Figure(f"packet, {phy}, {octets} octets", "µs", air_us(phy, octets), published, source)
    pairs: tuple[tuple[Phy, int, float, str], ...] = (
        ("1M", 27, 708, _PRIMER),
        ("1M", 38, 796, _SILABS),
        ("2M", 38, 548, _SILABS),
        ("1M", 128, 1516, _SILABS),
        ("2M", 128, 908, _SILABS),
        ("1M", 160, 1772, _SILABS),
        ("2M", 160, 1036, _SILABS),
        ("1M", 251, 2500, _SILABS),
        ("2M", 251, 1400, _SILABS),
    )
    for phy, octets, published, source in pairs:
        yield Figure(f"data and ack, {phy}, {octets} octets", "µs", pair_us(phy, octets), published, source)
    plain = pair_us("2M", 27, encrypted=False)
    yield Figure("data and ack, 2M, 27 octets, unencrypted", "µs", plain, 496, _PUNCH)


def _saturated() -> Iterator[Figure]:
    rates: tuple[tuple[str, Phy, int, int, float, str], ...] = (
        ("attribute bytes", "1M", 27, 20, 226, _PRIMER),
        ("link-layer bytes", "1M", 251, 251, 803, _PRIMER),
        ("link-layer bytes", "2M", 251, 251, 1434, _PRIMER),
        ("attribute bytes", "1M", 251, 244, 780.8, _SILABS),
        ("attribute bytes", "2M", 251, 244, 1394.28, _SILABS),
    )
    for kind, phy, octets, counted, published, source in rates:
        kbps = counted * 8 / pair_us(phy, octets) * 1000.0
        yield Figure(f"{kind}, {phy}, {octets} octets, no gaps", "kbit/s", kbps, published, source)


def _in_events() -> Iterator[Figure]:
    events: tuple[tuple[float, Phy, int, int, Controller, float, str], ...] = (
        (7.5, "1M", 27, 0, SOFTDEVICE, 192.0, _S132),
        (50, "1M", 251, 0, SOFTDEVICE, 702.8, _S132),
        (50, "2M", 251, 0, SOFTDEVICE, 1327.5, _S132),
        (7.5, "1M", 27, 0, SOFTDEVICE_OLD, 149.2, _S130),
        (7.5, "1M", 27, 27, SOFTDEVICE_OLD, 127.9, _S130 + ", both ways"),
        (12.5, "2M", 251, 0, NO_GUARD, 1249.28, _SILABS),
        (7.5, "2M", 251, 0, GENERIC, 1041.066, _SILABS),
    )
    for ci_ms, phy, octets, reply, controller, published, source in events:
        fit = pairs_that_fit(ci_ms, phy, octets, reply_octets=reply, controller=controller)
        kbps = throughput_bps(fit, octets - 7, ci_ms) / 1000.0
        what = f"{phy}, {octets} octets, CI {ci_ms:g} ms, guard {controller.name}: {fit} an event"
        yield Figure(what, "kbit/s", kbps, published, source)
    three = throughput_bps(3, 20, 7.5) / 1000.0
    yield Figure("1M, 27 octets, CI 7.5 ms, capped at 3 an event", "kbit/s", three, 63.9, _S130)
    request = throughput_bps(1, 20, 15.0) / 1000.0
    yield Figure("write request every second event, CI 7.5 ms", "kbit/s", request, 10.6, _S130)
    # An attribute value of 495 bytes is 502 L2CAP octets: two full packets.
    halves = pairs_that_fit(400, "2M", 251, encrypted=False, controller=SOFTDEVICE)
    sample = throughput_bps(halves // 2, 495, 400) / 1000.0
    yield Figure("2M, 495-byte values, CI 400 ms, unencrypted", "kbit/s", sample, 1415.583, _NCS)


def energy_figures() -> tuple[Figure, ...]:
    """Mean currents and energies of the nRF52832; the first one is what the phases are calibrated on."""
    radio = NRF52832
    advertising = "own sum of three channels, "
    return (
        Figure("calibration: CI 1000 ms, 3 octets up", "µA", _mean_ua(radio, (3,), (), 1000.0), 6.4, _PROFILER),
        Figure(
            "wakes every 375 ms, 251 octets both ways",
            "µA",
            _mean_ua(radio, (251,), (251,), 375.0),
            89.0,
            _PROFILER,
        ),
        Figure(
            advertising + "31 bytes, every 165 ms",
            "µA",
            _advertising_nc(radio, 37, listen=True) / 165.0 + radio.idle_ua,
            87.0,
            _PROFILER,
        ),
        Figure(
            advertising + "0 bytes, every 157.5 ms",
            "µA",
            _advertising_nc(radio, 6, listen=True) / 157.5 + radio.idle_ua,
            57.0,
            _PROFILER,
        ),
        Figure(
            advertising + "19 bytes, not connectable, one event",
            "µJ",
            _advertising_nc(radio, 25, listen=False) * radio.voltage_v / 1000.0,
            28.7,
            "BlueJoule, measured, Zephyr",
        ),
        Figure(
            "connected and silent, CI 7.5 ms",
            "µA",
            _mean_ua(radio, (), (), 7.5),
            600.0,
            "Espruino, measured, nRF52",
        ),
    )


def _mean_ua(radio: RadioProfile, uplink: tuple[int, ...], downlink: tuple[int, ...], interval_ms: float) -> float:
    phases = event_phases(radio, "1M", uplink, downlink, ci_ms=interval_ms, encrypted=False)
    return sum(phase.charge_nc for phase in phases) / interval_ms


def _advertising_nc(radio: RadioProfile, octets: int, *, listen: bool) -> float:
    """Charge of one advertising event on three channels; a connectable one listens 150 µs on each."""
    transmit = air_us("1M", octets, False) * radio.tx_ma["1M"]
    switch = 150.0 * radio.switch_ma
    receive = 150.0 * radio.rx_ma["1M"] if listen else 0.0
    return radio.fixed_nc + 3 * (transmit + switch + receive)
