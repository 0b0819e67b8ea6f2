# SPDX-License-Identifier: Apache-2.0
"""The link in numbers for many images at once: when events are due, when packets end, what events cost.

The formulas are those of :mod:`fleet.link.airtime` and :mod:`fleet.link.energy`, on arrays; a test holds the two
together. Without losses only: a lossy link is for :mod:`fleet.simulation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fleet.link.airtime import NOTICE_OCTETS, T_IFS_US, air_us, ll_octets
from fleet.link.energy import RadioProfile, window_widening_us
from fleet.link.parameters import LinkParameters
from fleet.packet import MAX_PAYLOAD

FloatVector = npt.NDArray[np.float64]
IntVector = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Air:
    """One link, seen by one image a lane. Times are seconds from the frame on.

    Attributes:
        link: what was agreed; its loss is not looked at.
        radio: whose energy is counted.
        first: when each image's first event is due, in (0, CI], shape (N,).
    """

    link: LinkParameters
    radio: RadioProfile
    first: FloatVector

    @classmethod
    def at_phases(cls, link: LinkParameters, radio: RadioProfile, phases: FloatVector) -> Air:
        """Frames that are ready at these shares of the connection interval after an event, 0..1."""
        return cls(link, radio, (1.0 - phases) * link.ci_s)

    @cached_property
    def up_us(self) -> FloatVector:
        """Time on the air of a notification by its payload bytes, 0 being an empty packet."""
        payloads = (air_us(self.link.phy, ll_octets(n)) for n in range(1, MAX_PAYLOAD + 1))
        return np.asarray([self.poll_us, *payloads])

    @cached_property
    def poll_us(self) -> float:
        """An empty packet, either way."""
        return air_us(self.link.phy, 0)

    @cached_property
    def notice_us(self) -> float:
        """The packet that carries an exit notice."""
        return air_us(self.link.phy, NOTICE_OCTETS)

    def time_of(self, event: npt.NDArray[np.integer] | int) -> FloatVector:
        """When events, counted from the frame's first, are due."""
        out: FloatVector = self.first + event * self.link.ci_s
        return out

    def event_from(self, time: FloatVector) -> IntVector:
        """The first event that is due at ``time`` or later; infinite times give a very late one."""
        share = np.minimum((time - self.first) / self.link.ci_s, 1e9)
        event = np.maximum(np.ceil(share), 0.0)
        # A quotient that is rounded must not take an event for due that is not, or pass one over.
        event += self.first + event * self.link.ci_s < np.minimum(time, 1e9)
        earlier = np.maximum(event - 1, 0)
        event = np.where(self.first + earlier * self.link.ci_s >= time, earlier, event)
        return event.astype(np.int64)

    def energy_uj(
        self,
        packets: npt.NDArray[np.integer] | FloatVector | int,
        transmit_us: FloatVector | float,
        *,
        notice: bool = False,
    ) -> FloatVector:
        """Energy of events and the sleep after each, see :func:`fleet.link.energy.event_energy_uj`.

        Args:
            packets: that the camera sends.
            transmit_us: their time on the air; that of an empty packet counts where there is none.
            notice: whether the hub's first packet is an exit notice.
        """
        radio = self.radio
        exchanges = np.maximum(packets, 1)
        receive = exchanges * self.poll_us + (self.notice_us - self.poll_us if notice else 0.0)
        receive = receive + window_widening_us(self.link.ci_ms)
        transmit = np.where(np.asarray(packets) > 0, transmit_us, self.poll_us)
        switch = (2 * exchanges - 1) * T_IFS_US
        fixed_us = sum(phase.duration_us for phase in radio.before + radio.after)
        rest = np.maximum(0.0, self.link.ci_ms * 1000.0 - (fixed_us + receive + transmit + switch))
        charge = (
            radio.fixed_nc
            + receive * radio.rx_ma[self.link.phy]
            + transmit * radio.tx_ma[self.link.phy]
            + switch * radio.switch_ma
            + rest * radio.idle_ua / 1000.0
        )
        out: FloatVector = charge * radio.voltage_v / 1000.0
        return out
