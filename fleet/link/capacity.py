# SPDX-License-Identifier: Apache-2.0
"""What a link can carry when there is always something to send: the numbers behind ``fleet link``."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.errors import FleetError
from fleet.link.airtime import exchange_ends_us, payloads_that_fit, throughput_bps, why_nothing_fits
from fleet.link.energy import RadioProfile, event_energy_uj, mean_power_uw
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF5340
from fleet.link.transfer import payloads_with_closing


@dataclass(frozen=True, slots=True)
class Capacity:
    """A saturated link in numbers.

    Attributes:
        parameters: the link.
        fit: payloads of full length that one event has room for.
        carried: payloads that one event carries, lost ones included.
        best_effort_bps: application bits a second that arrive when nothing is repeated.
        reliable_bps: the same when every byte must arrive, under the link's acknowledgement model.
        closing_bps: the same on a real controller, which closes an event at the first loss.
        air_us: from an event's anchor to the end of its last packet.
        energy_uj: of one full event and the sleep after it.
        idle_energy_uj: of one event without data and the sleep after it.
    """

    parameters: LinkParameters
    fit: int
    carried: int
    best_effort_bps: float
    reliable_bps: float
    closing_bps: float
    air_us: float
    energy_uj: float
    idle_energy_uj: float

    @property
    def duty_cycle(self) -> float:
        """Share of the interval in which a full event keeps the radio on the air."""
        return self.air_us / (self.parameters.ci_ms * 1000.0)

    @property
    def mean_power_uw(self) -> float:
        """Mean radio power in µW when every event is full."""
        return mean_power_uw(self.energy_uj, self.parameters.ci_ms)

    @property
    def idle_power_uw(self) -> float:
        """Mean radio power in µW when no event carries data."""
        return mean_power_uw(self.idle_energy_uj, self.parameters.ci_ms)


def capacity(
    parameters: LinkParameters,
    *,
    radio: RadioProfile = NRF5340,
    encrypted: bool = True,
    as_published: bool | None = None,
) -> Capacity:
    """What this link carries with full payloads.

    Args:
        parameters: the link.
        radio: whose energy is counted.
        encrypted: whether packets carry a MIC. :class:`LinkParameters` assumes that they do, and refuses a link on
            which only a payload without one fits, unless its ``as_published`` is set.
        as_published: take the packets asked for whether or not they fit; as the parameters say where left out.

    Raises:
        FleetError: the radio does not have the PHY, or no payload fits.
    """
    p = parameters
    fit = payloads_that_fit(p.ci_ms, p.phy, p.payload, encrypted=encrypted)
    carried = p.packets if (p.as_published if as_published is None else as_published) else min(p.packets, fit)
    if carried < 1:
        raise FleetError(why_nothing_fits(p.ci_ms, p.phy, p.payload, encrypted=encrypted))
    up = [p.ll_octets] * carried
    arriving = throughput_bps(carried, p.payload, p.ci_ms) * (1.0 - p.loss)
    # The paper's model moves data in every second event. A burst is repeated until its acknowledgement is heard,
    # 1 / (1 - loss) times in the mean, in which one of its packets arrives with probability 1 / (1 + loss).
    reliable = arriving if p.ack == "link_layer" else arriving / (2.0 * (1.0 + p.loss))
    return Capacity(
        parameters=p,
        fit=fit,
        carried=carried,
        best_effort_bps=arriving,
        reliable_bps=reliable,
        closing_bps=payloads_with_closing(carried, p.loss) * p.payload * 8 / p.ci_s,
        air_us=exchange_ends_us(p.phy, up, encrypted=encrypted)[1][-1],
        energy_uj=event_energy_uj(radio, p.phy, up, ci_ms=p.ci_ms, encrypted=encrypted),
        idle_energy_uj=event_energy_uj(radio, p.phy, ci_ms=p.ci_ms, encrypted=encrypted),
    )
