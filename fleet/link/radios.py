# SPDX-License-Identifier: Apache-2.0
"""Three radios as data. Each says where its numbers come from and how far a joule can be trusted.

Phase *durations* are nobody's data sheet: they are assumed once for all three and their sum is
calibrated on a single published figure of the nRF52832 (Nordic's Online Power Profiler: 6.4 µA at a
connection interval of 1 s with three bytes a packet). Five other published nRF52832 figures then come
out within -14 % and +11 % (docs/link.md).
"""

from __future__ import annotations

from fleet.errors import FleetError
from fleet.link.energy import Phase, RadioProfile

_PREPROCESS_US = 100.0
_RAMP_US = 360.0
_STANDBY_US = 600.0
_START_US = 140.0
_POSTPROCESS_US = 110.0


def _before(cpu_ma: float, ramp_ma: float, standby_ma: float, start_ma: float) -> tuple[Phase, ...]:
    return (
        Phase("pre-processing", _PREPROCESS_US, cpu_ma),
        Phase("crystal ramp", _RAMP_US, ramp_ma),
        Phase("standby", _STANDBY_US, standby_ma),
        Phase("radio start", _START_US, start_ma),
    )


def _after(cpu_ma: float) -> tuple[Phase, ...]:
    return (Phase("post-processing", _POSTPROCESS_US, cpu_ma),)


NRF5340 = RadioProfile(
    name="nRF5340",
    voltage_v=3.0,
    idle_ua=1.5,
    before=_before(2.6, 0.6, 0.25, 2.1),
    after=_after(2.6),
    switch_ma=2.1,
    rx_ma={"1M": 2.7, "2M": 3.1, "500k": 2.7, "125k": 2.7},
    tx_ma={"1M": 3.4, "2M": 3.4, "500k": 3.4, "125k": 3.4},
    source=(
        "nRF5340 Product Specification, RADIO and current consumption (receive 2.7 mA at 1M, 3.1 mA at 2M, start "
        "2.1 mA, network core 2.4 mA, 3 V DC/DC); nRF5340 Product Brief (transmit 3.4 mA at 0 dBm)"
    ),
    note=(
        "phase currents are data-sheet values; crystal ramp, standby, coded-PHY currents and every phase duration "
        "are assumed, the durations calibrated on one published nRF52832 figure; there is no nRF5340 measurement to "
        "check against: ±15 % at best"
    ),
)

NRF52840 = RadioProfile(
    name="nRF52840",
    voltage_v=3.0,
    idle_ua=1.5,
    before=_before(3.3, 1.0, 0.5, 4.0),
    after=_after(3.3),
    switch_ma=4.5,
    rx_ma={"1M": 6.26, "2M": 6.86, "500k": 6.26, "125k": 6.26},
    tx_ma={"1M": 6.40, "2M": 6.40, "500k": 6.40, "125k": 6.40},
    source=(
        "nRF52840 Product Specification, current consumption (IRADIO_TX1 6.40 mA at 0 dBm, IRADIO_RX0 6.26 mA at 1M, "
        "CPU 3.3 mA, 3 V DC/DC)"
    ),
    note=(
        "transmit, receive at 1M and CPU currents are data-sheet values; 2M and coded currents, crystal ramp, standby, "
        "start and switch are assumed as for the nRF52832, the durations calibrated on it: no nRF52840 figure was "
        "checked, ±15 % at best"
    ),
)

NRF52832 = RadioProfile(
    name="nRF52832",
    voltage_v=3.0,
    idle_ua=1.9,
    before=_before(3.7, 1.0, 0.5, 4.0),
    after=_after(3.7),
    switch_ma=4.5,
    rx_ma={"1M": 6.5, "2M": 6.7},
    tx_ma={"1M": 7.1, "2M": 7.1},
    source="nRF52832 Product Specification 1.1, current consumption (IRADIO_TX0 7.1 mA, IRADIO_RX0 6.5 mA, 3 V DC/DC)",
    note=(
        "transmit and receive currents are data-sheet values; the split into phases is assumed, its sum calibrated on "
        "one published figure, five others within -14 % to +11 %"
    ),
)

RADIOS = {radio.name: radio for radio in (NRF5340, NRF52840, NRF52832)}


def radio_profile(name: str) -> RadioProfile:
    """The radio of that name, in any case.

    Raises:
        FleetError: there is none.
    """
    for known, radio in RADIOS.items():
        if known.lower() == name.lower():
            return radio
    raise FleetError(f"no radio is called '{name}': choose one of {', '.join(RADIOS)}")
