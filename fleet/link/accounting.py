# SPDX-License-Identifier: Apache-2.0
"""What the scheduler says about an event, an inference and the whole run."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, replace

from fleet.packet import ExitNotice

REMEMBERED = 8
"""Inferences whose account is kept."""


@dataclass(frozen=True, slots=True)
class Event:
    """One connection event that took place.

    Attributes:
        time: its anchor in s, when the hub's first packet starts.
        index: events before it, missed ones included.
        sent: packets on the air, stamped, in order.
        delivered: those that the hub heard, in order.
        arrivals: when each of ``delivered`` had ended, in s.
        lost: how many of ``sent`` the air lost.
        exit: the notice that reached the camera for the first time, as the camera decodes it.
        exit_at: when the packet that carried it had ended, in s.
        air_us: from the anchor to the end of the last packet.
        energy_uj: at the camera's radio, the sleep until the next event included.
        notice: what the hub's first packet carried, lost and repeated notices included.
    """

    time: float
    index: int
    sent: tuple[bytes, ...]
    delivered: tuple[bytes, ...]
    arrivals: tuple[float, ...]
    lost: int
    exit: ExitNotice | None
    exit_at: float | None
    air_us: float
    energy_uj: float
    notice: ExitNotice | None = None

    @property
    def end(self) -> float:
        """When the last packet had ended, in s."""
        return self.time + self.air_us * 1e-6

    @property
    def losses(self) -> tuple[bool, ...]:
        """Of each of ``sent``, whether the air lost it; of two that are the same, the later one."""
        heard, found = Counter(self.delivered), []
        for packet in self.sent:
            found.append(heard[packet] == 0)
            heard[packet] -= heard[packet] > 0
        return tuple(found)


@dataclass(frozen=True, slots=True)
class InferenceAccount:
    """What the radio did for one inference.

    It opens with the first accepted offer and counts every event until the answer: until the exit notice
    was delivered, the device's own answer was sent, or a newer inference was offered, that event included.

    Attributes:
        inference_id: 0..65535.
        first_index: index of the first event after the first offer.
        events: events so far.
        packets_sent: packets on the air, lost ones included.
        packets_lost: of these, what the air lost.
        packets_dropped: replaced by a newer stage, refused, malformed, or no longer fitting the link.
        bytes_sent: bytes of ``packets_sent``, headers included.
        energy_uj: radio energy of ``events``.
        exit_delivered: the account was closed by an exit notice.
        closed: nothing is counted any more except packets that are refused.
    """

    inference_id: int
    first_index: int
    events: int = 0
    packets_sent: int = 0
    packets_lost: int = 0
    packets_dropped: int = 0
    bytes_sent: int = 0
    energy_uj: float = 0.0
    exit_delivered: bool = False
    closed: bool = False


@dataclass(frozen=True, slots=True)
class LinkTotals:
    """Running totals; at any moment ``offered == sent + dropped + pending``.

    Attributes:
        events: connection events that took place.
        missed: events passed over because the caller came too late.
        offered: packets handed to the scheduler, refused ones included.
        sent: packets on the air, lost ones included.
        lost: of these, what the air lost.
        dropped: packets that will never be on the air.
        pending: packets that wait for an event.
        bytes_sent: bytes of ``sent``, headers included.
        exits_sent: exit notices on the air, repeats included.
        exits_lost: of these, what the air lost.
        exits_delivered: notices that reached the camera, repeats not counted.
        energy_uj: radio energy of ``events``.
    """

    events: int = 0
    missed: int = 0
    offered: int = 0
    sent: int = 0
    lost: int = 0
    dropped: int = 0
    pending: int = 0
    bytes_sent: int = 0
    exits_sent: int = 0
    exits_lost: int = 0
    exits_delivered: int = 0
    energy_uj: float = 0.0


class Ledger:
    """Accounts of the newest few inferences; bounded however many there are."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[int, InferenceAccount] = OrderedDict()
        self._open: int | None = None

    def open(self, inference_id: int, first_index: int) -> None:
        """Close what is open and begin a new account."""
        self.close()
        self._accounts.pop(inference_id, None)
        self._accounts[inference_id] = InferenceAccount(inference_id, first_index)
        self._open = inference_id
        while len(self._accounts) > REMEMBERED:
            self._accounts.popitem(last=False)

    def close(self, *, exit_delivered: bool = False) -> None:
        """Count no further events; does nothing when no account is open."""
        if self._open is not None:
            account = self._accounts[self._open]
            self._accounts[self._open] = replace(account, closed=True, exit_delivered=exit_delivered)
            self._open = None

    def add_event(self, *, sent: int, lost: int, bytes_sent: int, energy_uj: float) -> None:
        """Charge an event to the open account, if one is."""
        if self._open is not None:
            account = self._accounts[self._open]
            self._accounts[self._open] = replace(
                account,
                events=account.events + 1,
                packets_sent=account.packets_sent + sent,
                packets_lost=account.packets_lost + lost,
                bytes_sent=account.bytes_sent + bytes_sent,
                energy_uj=account.energy_uj + energy_uj,
            )

    def add_dropped(self, inference_id: int | None, packets: int) -> None:
        """Charge dropped packets to an inference, if it is remembered."""
        account = self._accounts.get(inference_id) if inference_id is not None else None
        if account is not None and packets:
            self._accounts[account.inference_id] = replace(account, packets_dropped=account.packets_dropped + packets)

    def account(self, inference_id: int) -> InferenceAccount | None:
        """The account of an inference, or None when it is unknown or forgotten."""
        return self._accounts.get(inference_id)

    @property
    def open_id(self) -> int | None:
        """The inference whose events are being counted."""
        return self._open

    def __len__(self) -> int:
        return len(self._accounts)
