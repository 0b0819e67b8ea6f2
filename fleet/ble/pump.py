# SPDX-License-Identifier: Apache-2.0
"""Hands packets to the controller, as few and as late as it may.

A Bluetooth host never blocks and never says no: what is handed over too early waits in a queue where it cannot be
replaced by a newer stage, and grows old there. So the :class:`~fleet.link.scheduler.Scheduler` decides what travels,
and this decides when: just before a connection event, about one event's worth, and never more than the controller's
buffer is known to have room for.

Three cases:

* The phase of the connection events is known (:mod:`fleet.ble.phase`): one hand-over an event, ``lead`` before it.
* It is not known, as on a link that was silent for long: at once, when the controller's buffer is empty.
* The interval is so short that traffic fills most of it: one hand-over an interval, whatever the phase, and up to two
  events' worth in the buffer. A packet then is at most an interval older than it had to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from fleet.ble.phase import EventPhase
from fleet.ble.waiting import is_set_within
from fleet.link.accounting import Event
from fleet.link.airtime import pair_us
from fleet.link.scheduler import Scheduler

LEAD_S = 0.005
"""How long before an event the packets are handed over: four of 251 bytes take 3 ms at the Raspberry Pi's UART."""

CLOCK_S = 1e-6
"""What is due so soon is due now: no clock waits for less."""


class Buffer(Protocol):
    """The controller's buffer as the host accounts for it (bumble's ``DataPacketQueue``)."""

    max_packet_size: int

    @property
    def pending(self) -> int:
        """HCI packets handed over and not completed yet."""


class Pump:
    """Drives one connection's scheduler by the connection events of a real controller.

    Args:
        scheduler: of this connection.
        buffer: the controller's.
        send: puts one packet on its way.
        clock: seconds, the event loop's.
        lead_s: see :data:`LEAD_S`.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        buffer: Buffer,
        send: Callable[[bytes], Awaitable[None]],
        *,
        clock: Callable[[], float],
        lead_s: float = LEAD_S,
    ) -> None:
        self._scheduler = scheduler
        self._buffer = buffer
        self._send = send
        self._clock = clock
        self._lead_s = lead_s
        self._phase = EventPhase()
        self._last = self._last_sent = clock()  # event handed over for, event that carried something
        self._poked = asyncio.Event()

    # What happens -----------------------------------------------------------------------------------------
    def poke(self) -> None:
        """Something to send may be there."""
        self._poked.set()

    def saw_event(self) -> None:
        """The controller has completed a packet, or brought one: an event took place just now."""
        ci_s = self._scheduler.parameters.ci_s
        self._phase.saw(self._clock(), ci_s, early_s=min(self._lead_s, ci_s / 4))
        self._poked.set()

    def retime(self) -> None:
        """The link's parameters are others now."""
        self._phase.forget()
        self._poked.set()

    # What follows from it ---------------------------------------------------------------------------------
    @property
    def is_tight(self) -> bool:
        """Whether full events leave too little of the interval to tell a late trace from an early event."""
        link = self._scheduler.parameters
        return link.ci_s - link.effective_packets * pair_us(link.phy, link.ll_octets) * 1e-6 < 2 * self._lead_s

    @property
    def room(self) -> int:
        """Packets that may be handed over now.

        One more than an event carries may be pending: an event's last packet is acknowledged by the first poll of
        the next.
        """
        link = self._scheduler.parameters
        most = 2 * link.effective_packets if self.is_tight else link.effective_packets + 1
        fragments = -(-link.ll_octets // max(1, self._buffer.max_packet_size))
        return max(0, most - -(-self._buffer.pending // fragments))

    def due(self) -> float | None:
        """When to hand over next; None where only :meth:`poke` or :meth:`saw_event` will tell."""
        now, ci_s = self._clock(), self._scheduler.parameters.ci_s
        idle = self._scheduler.pending > 0 and self._buffer.pending == 0
        if self.is_tight:
            return now if idle and now - self._last_sent >= ci_s else self._last + ci_s
        if self._phase.known(now):
            return self._next_event(now) - self._lead_s
        return now if idle else None

    def catch_up(self) -> None:
        """Count the events up to now: an offer's age is counted from the first event after it."""
        self._scheduler.skip_to(self._clock() + self._scheduler.parameters.ci_s)

    async def hand_over(self) -> Event:
        """Run the scheduler's event that is due, and send what it gives."""
        now, ci_s = self._clock(), self._scheduler.parameters.ci_s
        known = self._phase.known(now) and not self.is_tight
        target = self._next_event(now) if known else now
        self._scheduler.skip_to(target + ci_s / 4)
        self._scheduler.align(target)
        self._last = target
        event = self._scheduler.event(self.room)
        if event.sent:
            self._last_sent = target
        for packet in event.sent:
            await self._send(packet)
        return event

    async def run(self) -> None:
        """Hand over whenever it is time to, until cancelled."""
        while True:
            self._poked.clear()
            due, now = self.due(), self._clock()
            if due is not None and due - now < CLOCK_S:
                await self.hand_over()
                continue
            await is_set_within(None if due is None else due - now, self._poked)

    def _next_event(self, now: float) -> float:
        ci_s = self._scheduler.parameters.ci_s
        # An event for which packets were handed over is not served twice, even when the estimate moves a little.
        return self._phase.first_after(max(now, self._last + ci_s / 2), ci_s)
