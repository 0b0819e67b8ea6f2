# SPDX-License-Identifier: Apache-2.0
"""Which packets the air loses: independently, or in bursts (Gilbert 1960, Elliott 1963).

A model draws from a generator that is handed to it, always the same number of times for a packet.
Two runs with one seed and a higher loss therefore lose the same packets and some more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from fleet.errors import FleetError


class LossModel(Protocol):
    """Decides packet by packet; may remember what it decided before."""

    def lost(self, rng: np.random.Generator) -> bool:
        """Whether the next packet on the air is lost."""
        ...


LossFactory = Callable[[float], LossModel]
"""Makes a model that loses a given share (0..1) of the packets in the long run."""


class Independent:
    """Every packet is lost with the same probability, whatever happened to the others."""

    def __init__(self, loss: float) -> None:
        """A model of a share of lost packets.

        Args:
            loss: probability, 0..1.

        Raises:
            FleetError: no probability.
        """
        self.loss = _probability("loss", loss)

    def lost(self, rng: np.random.Generator) -> bool:
        """Whether the next packet is lost."""
        return bool(rng.random() < self.loss)


class GilbertElliott:
    """A two-state chain that steps once a packet: a good state, and a bad one where packets die.

    It steps with packets and not with time, so a burst of four packets may span one event or four.
    The first state is drawn from the stationary distribution.
    """

    def __init__(self, to_bad: float, to_good: float, *, loss_good: float = 0.0, loss_bad: float = 1.0) -> None:
        """A chain by its four probabilities.

        Args:
            to_bad: probability of leaving the good state, a packet.
            to_good: probability of leaving the bad state, a packet.
            loss_good: share lost in the good state.
            loss_bad: share lost in the bad state.

        Raises:
            FleetError: no probability, or a chain that can never move.
        """
        self.to_bad = _probability("to_bad", to_bad)
        self.to_good = _probability("to_good", to_good)
        self.loss_good = _probability("loss_good", loss_good)
        self.loss_bad = _probability("loss_bad", loss_bad)
        if to_bad + to_good == 0.0:
            raise FleetError("a Gilbert-Elliott link that never changes state: give to_bad or to_good above 0")
        self._bad: bool | None = None

    @classmethod
    def of(cls, loss: float, mean_burst: float) -> GilbertElliott:
        """The chain that loses whole bursts and nothing between them.

        Args:
            loss: share of lost packets in the long run, 0..1.
            mean_burst: mean length of a burst in packets, at least 1.

        Raises:
            FleetError: bursts so short cannot lose so much.
        """
        _probability("loss", loss)
        if not mean_burst >= 1.0 or mean_burst == float("inf"):
            raise FleetError(f"a mean burst of {mean_burst:g} packets: give 1 or more")
        if loss == 1.0:
            return cls(1.0, 0.0)
        to_good = 1.0 / mean_burst
        to_bad = to_good * loss / (1.0 - loss)
        if to_bad > 1.0:
            raise FleetError(
                f"bursts of {mean_burst:g} packets cannot lose {loss:.0%} of them: "
                f"give bursts of {loss / (1.0 - loss):.3g} or more"
            )
        return cls(to_bad, to_good)

    @property
    def share_bad(self) -> float:
        """Share of packets that meet the bad state in the long run."""
        return self.to_bad / (self.to_bad + self.to_good)

    @property
    def loss(self) -> float:
        """Share of lost packets in the long run."""
        return self.share_bad * self.loss_bad + (1.0 - self.share_bad) * self.loss_good

    def lost(self, rng: np.random.Generator) -> bool:
        """Whether the next packet is lost; steps the chain."""
        step, fate = rng.random(2)
        if self._bad is None:
            self._bad = bool(step < self.share_bad)
        elif self._bad:
            self._bad = bool(step >= self.to_good)
        else:
            self._bad = bool(step < self.to_bad)
        return bool(fate < (self.loss_bad if self._bad else self.loss_good))


def bursts(mean_burst: float) -> LossFactory:
    """A factory of Gilbert-Elliott links with bursts of this mean length in packets."""
    return lambda loss: GilbertElliott.of(loss, mean_burst)


def _probability(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise FleetError(f"{name} is a probability from 0 to 1, not {value:g}")
    return float(value)
