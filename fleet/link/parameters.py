# SPDX-License-Identifier: Apache-2.0
"""What was agreed on a link: one frozen record that everything else reads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

from fleet.errors import FleetError
from fleet.link.airtime import (
    Phy,
    check_phy,
    ll_octets,
    payloads_that_fit,
    why_nothing_fits,
)
from fleet.packet import MAX_PAYLOAD, MIN_PAYLOAD

Ack = Literal["link_layer", "next_event"]
Transport = Literal["emulated", "bleak", "bumble"]

CI_MIN_MS = 7.5
CI_MAX_MS = 4000.0
CI_STEP_MS = 1.25
MAX_PACKETS = 64

KEYS = ("ci_ms", "packets", "phy", "payload", "loss", "ack", "transport")
"""What ``KEY=VALUE`` accepts. ``as_published`` is a property of a comparison, not of a link."""
_WHOLE = ("packets", "payload")
_REAL = ("ci_ms", "loss")


@dataclass(frozen=True, slots=True)
class LinkParameters:
    """The link as it is between two renegotiations.

    Attributes:
        ci_ms: connection interval in ms, 7.5 to 4000 in steps of 1.25.
        packets: payloads asked for in one connection event, 1 to 64. What fits may be fewer, see
            :attr:`effective_packets`.
        phy: ``1M``, ``2M``, ``500k`` (coded, S = 2) or ``125k`` (coded, S = 8).
        payload: bytes of the longest packet, 20 to 244.
        loss: probability that a packet does not survive the air, 0 to 1, both ways.
        ack: how a *reliable* transfer learns that a packet arrived, see :mod:`fleet.link.transfer`.
            FLEET's features are best effort under both.
        transport: ``emulated``, or the real radio of this half.
        as_published: take ``packets`` as it is, as the paper does, whether or not it fits the interval.
    """

    ci_ms: float = 10.0
    packets: int = 4
    phy: Phy = "1M"
    payload: int = MAX_PAYLOAD
    loss: float = 0.0
    ack: Ack = "link_layer"
    transport: Transport = "emulated"
    as_published: bool = False

    def __post_init__(self) -> None:
        """Refuse what no BLE link can be.

        Raises:
            FleetError: a value is out of range, or not even one payload fits the interval.
        """
        object.__setattr__(self, "ci_ms", _real("ci_ms", self.ci_ms))
        object.__setattr__(self, "loss", _real("loss", self.loss))
        object.__setattr__(self, "packets", _whole("packets", self.packets))
        object.__setattr__(self, "payload", _whole("payload", self.payload))
        _check_interval(self.ci_ms)
        if not 1 <= self.packets <= MAX_PACKETS:
            raise FleetError(f"{self.packets} packets an event is outside 1 to {MAX_PACKETS}")
        if not MIN_PAYLOAD <= self.payload <= MAX_PAYLOAD:
            raise FleetError(
                f"a payload of {self.payload} bytes is outside {MIN_PAYLOAD} to {MAX_PAYLOAD}, what one "
                "notification holds"
            )
        if not 0.0 <= self.loss <= 1.0:
            raise FleetError(f"a loss of {self.loss:g} is not a probability: give 0 to 1")
        check_phy(self.phy)
        _one_of("ack", self.ack, get_args(Ack))
        _one_of("transport", self.transport, get_args(Transport))
        if not isinstance(self.as_published, bool):
            raise FleetError(f"as_published is true or false, not {self.as_published!r}")
        if self.effective_packets < 1:
            raise FleetError(why_nothing_fits(self.ci_ms, self.phy, self.payload))

    @property
    def effective_packets(self) -> int:
        """Payloads that one event carries: what was asked for, or what fits with the guard time."""
        return self.packets_carried()

    def packets_carried(self, *, encrypted: bool = True, with_notice: bool = False) -> int:
        """Payloads that one event carries: what was asked for, or what fits with the guard time.

        Args:
            encrypted: whether packets carry a MIC.
            with_notice: whether the event's first poll is an exit notice, which may take up a payload's room.
        """
        if self.as_published:
            return self.packets
        fit = payloads_that_fit(self.ci_ms, self.phy, self.payload, encrypted=encrypted, with_notice=with_notice)
        return min(self.packets, fit)

    @property
    def packets_beside_notice(self) -> int:
        """The same for an event whose first poll is an exit notice: fewer where that takes up the room."""
        return self.packets_carried(with_notice=True)

    @property
    def ci_s(self) -> float:
        """Connection interval in seconds."""
        return self.ci_ms / 1000.0

    @property
    def ll_octets(self) -> int:
        """Link-layer octets of a full packet."""
        return ll_octets(self.payload)

    def replace(self, **changes: Any) -> LinkParameters:
        """A copy with some values changed.

        Raises:
            FleetError: an unknown name, or values that make no link.
        """
        known = {field.name for field in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise FleetError(f"a link has no '{name}': choose from {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)

    @classmethod
    def parse(
        cls, items: Iterable[str], base: LinkParameters | None = None, *, keys: Sequence[str] = KEYS
    ) -> LinkParameters:
        """Read ``KEY=VALUE`` settings, as ``--link`` takes them.

        Args:
            items: settings; one string may hold several, separated by commas or spaces. A key that comes
                twice counts the last time.
            base: what the settings change; the defaults when left out.
            keys: which of :data:`KEYS` mean something to who asks; the others are refused rather than ignored.

        Raises:
            FleetError: an unknown key, something that is no ``KEY=VALUE``, or a value that makes no link.
        """
        changes: dict[str, Any] = {}
        texts = [items] if isinstance(items, str) else items
        for setting in (word for text in texts for word in text.replace(",", " ").split()):
            key, equals, value = setting.partition("=")
            if not equals or not value:
                raise FleetError(f"'{setting}' is not KEY=VALUE: write for example ci_ms=30")
            if key not in keys:
                problem = "does nothing here" if key in KEYS else "is not a setting of a link"
                raise FleetError(f"'{key}' {problem}: choose from {', '.join(keys)}")
            changes[key] = _from_text(key, value)
        return (base or cls()).replace(**changes)


def _check_interval(ci_ms: float) -> None:
    if not CI_MIN_MS <= ci_ms <= CI_MAX_MS:
        raise FleetError(f"a connection interval of {ci_ms:g} ms is outside BLE's {CI_MIN_MS:g} to {CI_MAX_MS:g} ms")
    if ci_ms % CI_STEP_MS:
        below = math.floor(ci_ms / CI_STEP_MS) * CI_STEP_MS
        raise FleetError(
            f"a connection interval of {ci_ms:g} ms is not a multiple of {CI_STEP_MS:g} ms: "
            f"use {below:g} or {below + CI_STEP_MS:g}"
        )


def _real(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise FleetError(f"{name} is a number, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FleetError(f"{name} is a finite number, not {number}")
    return number


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise FleetError(f"{name} is a whole number, not {value!r}")
    return int(value)


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise FleetError(f"{name} is one of {', '.join(choices)}, not {value!r}")


def _from_text(key: str, value: str) -> int | float | str:
    try:
        if key in _WHOLE:
            return int(value)
        return float(value) if key in _REAL else value
    except ValueError:
        kind = "whole number" if key in _WHOLE else "number"
        raise FleetError(f"{key}={value}: '{value}' is not a {kind}") from None
