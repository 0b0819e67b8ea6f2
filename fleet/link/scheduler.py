# SPDX-License-Identifier: Apache-2.0
"""Which packet travels in which connection event: one pure object for bridge, simulator and radio.

It is told what the device offers and what the hub decides; :meth:`Scheduler.event` runs the event that
is due. Time is an argument or follows from the parameters, chance comes from a seed, and nothing here
sleeps, so a node drives it with a timer and a simulator with a loop and both see the same packets.

**Best effort, under both acknowledgement models.** A feature packet goes on the air once. If the air
loses it, it stays lost: by the next event a newer stage, or the next packets of this one, are worth more,
and any subset of packets decodes. ``ack`` therefore changes nothing here; it is about transfers that need
every byte (:mod:`fleet.link.transfer`). A real BLE controller knows no best effort: it repeats a lost
packet itself and the ones behind it wait. Without loss the two agree; under loss a real radio delivers
more of what it sent, but sends less and later. Only exit notices are repeated, by the rule in
:mod:`fleet.link.downlink`.

**Age.** The age that is stamped into a packet is the number of connection events between the first
accepted offer of its inference and the event that carries it: 0 in the first event after that offer,
1 in the next one, missed events counted, 15 for 15 and more. The hub derives the capture time from it.

**Within an event** the hub speaks first, but the camera's controller has its packets before the event
begins: what was pending goes out even when the notice in the same event ends the inference. Where the
notice takes up a payload's room (a slow PHY in a tight interval), the event carries one payload fewer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from fleet.link.accounting import Event, InferenceAccount, Ledger, LinkTotals
from fleet.link.airtime import NOTICE_OCTETS, exchange_ends_us, ll_octets
from fleet.link.clock import EventClock
from fleet.link.downlink import NoticeRepeater
from fleet.link.energy import RadioProfile, event_energy_uj
from fleet.link.loss import Independent, LossFactory
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF5340
from fleet.link.uplink import UplinkQueue
from fleet.packet import LOCAL_ANSWER_STAGE, ExitNotice, Header

REMEMBERED_NOTICES = 8


class Scheduler:
    """Both ends of one link: packets up, exit notices down, connection events in between.

    Not safe to share between threads: a node calls it from one executor.
    """

    def __init__(
        self,
        parameters: LinkParameters,
        *,
        start: float,
        phase: float = 0.0,
        seed: int = 0,
        radio: RadioProfile = NRF5340,
        loss: LossFactory = Independent,
        encrypted: bool = True,
    ) -> None:
        """A link that has just been connected.

        Args:
            parameters: what was agreed.
            start: time in s on the caller's clock.
            phase: the first event is due at ``start + phase`` (s).
            seed: of the losses.
            radio: whose energy is counted.
            loss: makes the loss model from ``parameters.loss``; :func:`fleet.link.loss.bursts` for bursts.
            encrypted: whether packets carry a MIC; without one, more of them may fit an event.

        Raises:
            FleetError: the radio does not have the PHY, or no loss model with that loss exists.
        """
        radio.check(parameters.phy)
        self._radio = radio
        self._encrypted = encrypted
        self._make_loss = loss
        self._loss = loss(parameters.loss)
        self._rng = np.random.default_rng(seed)
        self._parameters = parameters
        self._room = self._room_of(parameters)
        self._clock = EventClock(start + phase, parameters.ci_ms)
        self._uplink = UplinkQueue()
        self._downlink = NoticeRepeater()
        self._ledger = Ledger()
        self._totals = _Totals()
        self._heard: deque[int] = deque(maxlen=REMEMBERED_NOTICES)

    @property
    def parameters(self) -> LinkParameters:
        """What holds from the next event on."""
        return self._parameters

    @property
    def next_event(self) -> float:
        """When the next event is due, in s."""
        return self._clock.next

    @property
    def index(self) -> int:
        """Index of the next event: how many were before it, missed ones included."""
        return self._clock.index

    @property
    def pending(self) -> int:
        """Packets that wait for an event."""
        return len(self._uplink)

    @property
    def statistics(self) -> LinkTotals:
        """Running totals."""
        return self._totals.snapshot(pending=len(self._uplink))

    def report(self, inference_id: int) -> InferenceAccount | None:
        """What the radio did for an inference, or None when it is unknown or long past."""
        return self._ledger.account(inference_id)

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> bool:
        """Hand over a stage's packets; whatever has not been sent before is replaced by them.

        The same stage may be offered again, cut to another payload for example: that replaces too. Packets
        that are longer than the link's payload, malformed, or of another inference or stage than is said are
        dropped and counted. An empty offer is valid and only ends the stage before.

        Args:
            inference_id: 0..65535.
            stage: 0..14, or 15 for the device's own answer.
            packets: most useful first.

        Returns:
            Whether the offer was taken: not when it is of an older inference, of an older stage, or of an
            inference whose exit notice the camera has.
        """
        self._totals.offered += len(packets)
        if not self._uplink.accepts(inference_id, stage):
            self._drop(inference_id, len(packets))
            return False
        if inference_id != self._uplink.inference:
            self._drop(self._uplink.inference, self._uplink.begin(inference_id, self._clock.index))
            self._ledger.open(inference_id, self._clock.index)
        self._drop(inference_id, self._uplink.replace(stage, packets, self._parameters.payload))
        return True

    def stop(self, notice: ExitNotice) -> bool:
        """Send an exit notice to the camera, from the next event on; see :class:`NoticeRepeater`.

        Returns:
            Whether it is new: not when it is out of date or the same inference was stopped before.

        Raises:
            PacketError: the notice does not fit its six bytes.
        """
        return self._downlink.put(notice.on_air())

    def configure(self, parameters: LinkParameters) -> None:
        """Change the link between two events, in mid-inference if need be.

        Another connection interval counts from the last event. Packets that are too long for the new payload
        are dropped and counted.

        Raises:
            FleetError: the radio does not have the PHY, or no loss model with that loss exists; nothing has
                changed then.
        """
        self._radio.check(parameters.phy)
        if parameters.loss != self._parameters.loss:
            self._loss = self._make_loss(parameters.loss)
        self._clock.change_interval(parameters.ci_ms)
        self._parameters = parameters
        self._room = self._room_of(parameters)
        self._drop(self._uplink.inference, self._uplink.trim(parameters.payload))

    def skip_to(self, now: float) -> int:
        """Pass over the events that a later due one has overtaken, and say how many those were.

        A caller that was away for a while (a suspended laptop) calls this before :meth:`event`. An event is
        missed once the next one is due: if it was in time, or late by less than an interval, nothing is
        skipped, and afterwards :attr:`next_event` is the newest one due at ``now`` (s), if any is.
        """
        missed = self._clock.overdue(now)
        self._clock.advance(missed)
        self._totals.missed += missed
        return missed

    def align(self, time: float) -> None:
        """The next event is due at ``time`` (s): what a host does that sees a real radio's events come and go."""
        self._clock.align(time)

    def heard(self, notice: ExitNotice) -> bool:
        """A real radio brought an exit notice to the camera: send no more of that inference.

        Returns:
            Whether it is the first of its inference; repeats are not counted.
        """
        if notice.inference_id in self._heard:
            return False
        self._heard.append(notice.inference_id)
        self._totals.exits_delivered += 1
        self._answered(notice.inference_id)
        return True

    def event(self, room: int | None = None) -> Event:
        """Run the event that is due at :attr:`next_event` and go on to the one after it.

        Args:
            room: packets that a real controller has room for, where that may be fewer than the link carries.
        """
        time, index = self._clock.next, self._clock.index
        notice = self._downlink.take()
        fits = self._room[notice is not None]
        sent = self._uplink.take(fits if room is None else max(0, min(fits, room)), index)
        up = [ll_octets(len(packet)) for packet in sent]
        down = [NOTICE_OCTETS] if notice is not None else []
        phy, ci_ms = self._parameters.phy, self._parameters.ci_ms
        down_ends, up_ends = exchange_ends_us(phy, up, down, encrypted=self._encrypted)

        notice_lost = notice is not None and self._loss.lost(self._rng)
        heard = [k for k in range(len(sent)) if not self._loss.lost(self._rng)]
        arrived = self._downlink.arrived() if notice is not None and not notice_lost else None
        result = Event(
            time=time,
            index=index,
            sent=sent,
            delivered=tuple(sent[k] for k in heard),
            arrivals=tuple(time + up_ends[k] * 1e-6 for k in heard),
            lost=len(sent) - len(heard),
            exit=arrived,
            exit_at=time + down_ends[0] * 1e-6 if arrived is not None else None,
            air_us=up_ends[-1],
            energy_uj=event_energy_uj(self._radio, phy, up, down, ci_ms=ci_ms, encrypted=self._encrypted),
            notice=notice,
        )
        self._clock.advance()
        self._count(result, notice_sent=notice is not None, notice_lost=notice_lost)
        return result

    def _room_of(self, parameters: LinkParameters) -> tuple[int, int]:
        """Packets that an event carries: without and with an exit notice in it."""
        return (
            parameters.packets_carried(encrypted=self._encrypted),
            parameters.packets_carried(encrypted=self._encrypted, with_notice=True),
        )

    def _count(self, event: Event, *, notice_sent: bool, notice_lost: bool) -> None:
        bytes_sent = sum(map(len, event.sent))
        totals = self._totals
        totals.events += 1
        totals.sent += len(event.sent)
        totals.lost += event.lost
        totals.bytes_sent += bytes_sent
        totals.energy_uj += event.energy_uj
        totals.exits_sent += notice_sent
        totals.exits_lost += notice_lost
        self._ledger.add_event(sent=len(event.sent), lost=event.lost, bytes_sent=bytes_sent, energy_uj=event.energy_uj)
        for packet in event.delivered:
            self._downlink.hub_heard(Header.unpack(packet).inference_id)
        if event.exit is not None:
            totals.exits_delivered += 1
            self._answered(event.exit.inference_id)
        elif event.sent and self._uplink.stage == LOCAL_ANSWER_STAGE and not self._uplink:
            self._ledger.close()

    def _answered(self, inference_id: int) -> None:
        self._drop(inference_id, self._uplink.answered(inference_id))
        if self._ledger.open_id == inference_id:
            self._ledger.close(exit_delivered=True)

    def _drop(self, inference_id: int | None, packets: int) -> None:
        self._totals.dropped += packets
        self._ledger.add_dropped(inference_id, packets)


class _Totals:
    """The counters behind :class:`LinkTotals`; an event touches most of them."""

    __slots__ = (
        "bytes_sent",
        "dropped",
        "energy_uj",
        "events",
        "exits_delivered",
        "exits_lost",
        "exits_sent",
        "lost",
        "missed",
        "offered",
        "sent",
    )

    def __init__(self) -> None:
        self.events = self.missed = self.offered = self.sent = self.lost = self.dropped = 0
        self.bytes_sent = self.exits_sent = self.exits_lost = self.exits_delivered = 0
        self.energy_uj = 0.0

    def snapshot(self, *, pending: int) -> LinkTotals:
        return LinkTotals(pending=pending, **{name: getattr(self, name) for name in self.__slots__})
