# SPDX-License-Identifier: Apache-2.0
"""FLEET's device, radio and hub for all images of a trace at once, up to every answer that the hub could give.

What happens before an answer does not depend on the thresholds: nothing flows back. So the exits that the hub runs,
and when, are found once a link; every operating point then only picks the one that answers. The rules are those of
:mod:`fleet.inference`, :mod:`fleet.link.scheduler` and :mod:`fleet.session`, and a test holds the two together,
event for event: each frame alone on a link that is silent before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fleet.evaluation.air import Air, FloatVector, IntVector
from fleet.evaluation.trace import Array, Payload
from fleet.link.airtime import T_IFS_US
from fleet.link.downlink import MAX_SENDS
from fleet.packet import ANSWER, HEADER_BYTES
from fleet.session import HOLD_S

BoolVector = npt.NDArray[np.bool_]
LOCAL_ANSWER_BYTES = HEADER_BYTES + ANSWER.size
MOST_STEPS = 3
"""Exits that can end between two arrivals: the one that runs, and one on what came meanwhile; and one to begin."""
TIE_S = 1e-9
"""Within this, an exit ends before a packet arrives. Connection intervals, air times and a round number for the exit's
time meet at the same microsecond often, and rounding should not decide what the next exit sees."""


@dataclass(frozen=True)
class Packets:
    """What the device has to send.

    Attributes:
        sizes: bytes, shape (stages, most packets, N), 0 where there is no packet.
        ends: the place behind the last coefficient that each lets decode, same shape.
        counts: packets, shape (stages, N).
        numbers: which of its stage's packets each is, shape as of ``sizes``; None: each the next.
    """

    sizes: Array
    ends: Array
    counts: Array
    numbers: Array | None = None

    @classmethod
    def of(cls, sizes: Array, ends: Array) -> Packets:
        """Packets by their sizes and ends."""
        return cls(sizes.astype(np.int64), ends.astype(np.int64), (np.asarray(sizes) > 0).sum(axis=1))

    def and_again(self, times: Sequence[int]) -> Packets:
        """The packets of one stage, and as a second stage all of them so many times, image by image."""
        counts = self.counts[0]
        again = counts * np.asarray(times)
        most = int(again.max(initial=0))
        place = np.arange(max(most, len(self.sizes[0])))[:, None]
        number = np.where(place < again, place % np.maximum(counts, 1), 0)
        first = np.pad(self.sizes[0], ((0, len(place) - len(self.sizes[0])), (0, 0)))
        sizes = np.stack([first, np.where(place < again, np.take_along_axis(first, number, axis=0), 0)])
        ends = np.pad(self.ends[0], ((0, len(place) - len(self.ends[0])), (0, 0)))
        ends = np.stack([ends, np.take_along_axis(ends, number, axis=0)])
        return Packets(sizes, ends, np.stack([counts, again]), np.stack([place + 0 * number, number]))


@dataclass(frozen=True)
class Traffic:
    """What the camera sends if nobody answers, in those events in which any image has something to send.

    Attributes:
        events: numbers of these events, ascending, shape (K,).
        packets: up to and including each of them, shape (K, N).
        sizes: bytes of these.
        extra_uj: radio energy beyond that of as many silent events.
        beside: packets, bytes and time on the air (µs) of each event alone if its first poll is a notice, (3, K, N).
    """

    events: IntVector
    packets: FloatVector
    sizes: FloatVector
    extra_uj: FloatVector
    beside: FloatVector

    def until(self, event: IntVector) -> tuple[FloatVector, FloatVector, FloatVector]:
        """Packets, bytes and extra energy (µJ) of the events before one, for each image."""
        row = np.searchsorted(self.events, event, side="left") - 1
        lanes, known = np.arange(len(event)), row >= 0
        row = np.maximum(row, 0)
        packets, sizes, extra = (np.where(known, c[row, lanes], 0.0) for c in (self.packets, self.sizes, self.extra_uj))
        return packets, sizes, extra

    def within(self, event: IntVector) -> tuple[FloatVector, FloatVector, FloatVector]:
        """Packets, bytes and time on the air (µs) that one event of each image has room for beside a notice."""
        row = np.minimum(np.searchsorted(self.events, event, side="left"), len(self.events) - 1)
        found = np.where(self.events[row] == event, self.beside[:, row, np.arange(len(event))], 0.0)
        return found[0], found[1], found[2]


@dataclass(frozen=True)
class Timeline:
    """Every exit that the hub runs if none answers, and what the radio does meanwhile.

    Attributes:
        air: the link.
        exit_s: seconds that an exit takes.
        ready_s: when the device offers its first packets.
        first_event: the event after the first offer; the radio's account begins with it. Shape (N,).
        state: place of each run's state in the payload's states, -1 where there is no run, shape (N, R).
        done: when each run is over, infinite where there is none, shape (N, R).
        complete: whether the run saw the last stage's whole ladder, shape (N, R).
        traffic: what the camera sends in each event.
        repeats: how often the exit notice is lost before it is heard, shape (N,); zero without loss.
    """

    air: Air
    exit_s: float
    ready_s: float
    first_event: IntVector
    state: npt.NDArray[np.int32]
    done: FloatVector
    complete: npt.NDArray[np.bool_]
    traffic: Traffic
    repeats: IntVector

    def notice_at(self, answered: FloatVector) -> tuple[IntVector, FloatVector]:
        """For answers of the hub, the event that brings each down and when the device then holds it."""
        event = self.air.event_from(answered) + self.repeats
        return event, np.where(self.repeats < MAX_SENDS, self.air.time_of(event) + self.air.notice_us * 1e-6, np.inf)


def replay(
    air: Air,
    packets: Packets,
    states: Payload,
    offered: Sequence[float],
    *,
    exit_s: float,
    fill: bool = False,
    hold: bool = False,
    lost: Array | None = None,
    content: Array | None = None,
) -> Timeline:
    """Let radio and hub run.

    Args:
        air: the link.
        packets: of every stage.
        states: that the trace has.
        offered: seconds from the frame on at which each stage's packets are there.
        exit_s: seconds that an exit takes on the hub.
        fill: where the newest stage leaves room in an event, it carries what is unsent of the stage before; as the
            scheduler is, that is dropped.
        hold: an exit begins once the event's last packet is there (:attr:`fleet.session.CloudSession.more`), or
            has not come; else it begins with the first packet, and what comes meanwhile is for the next exit.
        lost: which packets the air loses, shape (stages, most packets, N); none if None. A packet is sent once.
        content: what a hub can decode in each state, as a set of packets of one stage, which may be sent again as the
            next; an exit runs where that has grown, and nothing is waited for once it is all. None: every state is
            another.
    """
    images = len(air.first)
    lanes = np.arange(images)
    offers = np.asarray(offered)
    last = len(offers)
    hub = _Hub(states, packets.counts, exit_s, hold=hold, content=content)
    log = _Log(air)
    sent = np.zeros((last, images), np.int64)
    event = 0
    while True:
        due = air.time_of(event)
        stage = np.searchsorted(offers, due, side="right")  # an offer at the very moment of an event is in time
        own, before = np.maximum(stage - 1, 0), np.maximum(stage - 2, 0)
        unsent = packets.counts - sent
        left = np.where(stage > 0, unsent[own, lanes], 0)
        more = np.where(stage > 1, unsent[before, lanes], 0) if fill else np.zeros_like(left)
        burst = np.minimum(left + more, air.link.effective_packets)
        log.begin(event, images)
        ends_us = np.zeros(images)
        arriving = []
        for slot in range(int(burst.max())):
            on = burst > slot
            place = np.where(slot < left, own, before)
            number = np.minimum(sent[place, lanes], packets.sizes.shape[1] - 1)
            size = packets.sizes[place, number, lanes]
            up_us = air.up_us[size]
            ends_us = np.where(on, ends_us + (T_IFS_US if slot else 0.0) + air.poll_us + T_IFS_US + up_us, ends_us)
            log.add(on, slot, size, up_us)
            heard = on if lost is None else on & ~lost[place, number, lanes]
            arriving.append((heard, place, number, due + ends_us * 1e-6, burst > slot + 1))
            sent[place, lanes] += on
        for heard, place, number, time, announced in arriving:
            end = packets.ends[place, number, lanes]
            fresh = end > np.where(number > 0, packets.ends[place, number - 1, lanes], 0)
            if packets.numbers is None:
                hub.take(heard, fresh, place + 1, number + 1, time, announced)
            else:
                hub.take(heard, heard, place + 1, packets.numbers[place, number, lanes] + 1, time, announced)
        log.end(any_packets=bool(burst.any()))
        if bool(((stage == last) & (left + more == burst)).all()):
            break
        event += 1
    hub.finish()
    state, done = hub.runs()
    first_event = air.event_from(np.full(images, offers[0]))
    never = np.zeros(images, np.int64)
    return Timeline(
        air, exit_s, float(offers[0]), first_event, state, done, hub.complete(state, last), log.totals(), never
    )


@dataclass
class _Log:
    """Packets, bytes and time on the air of every event in which there are any; the last three beside a notice."""

    air: Air
    _events: list[int] = field(default_factory=list)
    _rows: list[Array] = field(default_factory=list)
    _now: tuple[int, Array] = (0, np.zeros((6, 0)))

    def begin(self, event: int, images: int) -> None:
        self._now = event, np.zeros((6, images))

    def add(self, on: BoolVector, slot: int, size: Array, up_us: Array) -> None:
        seen = np.where(on, np.stack([np.ones_like(up_us), size, up_us]), 0.0)
        self._now[1][:3] += seen
        if slot < self.air.link.packets_beside_notice:
            self._now[1][3:] += seen

    def end(self, *, any_packets: bool) -> None:
        if any_packets:
            self._events.append(self._now[0])
            self._rows.append(self._now[1])

    def totals(self) -> Traffic:
        rows = np.stack(self._rows, axis=1)  # (6, K, N)
        packets, sizes, up_us = rows[:3]
        extra = self.air.energy_uj(packets, up_us) - self.air.energy_uj(0, 0.0)
        sums = np.stack([packets, sizes, extra]).cumsum(axis=1)
        return Traffic(np.asarray(self._events), sums[0], sums[1], sums[2], rows[3:])


class _Hub:
    """Every image's session and processor, as :class:`fleet.simulation.SimulatedHub` without an end."""

    def __init__(
        self, states: Payload, counts: Array, exit_s: float, *, hold: bool, content: Array | None = None
    ) -> None:
        images = counts.shape[1]
        self._content = content
        self._all = (1 << counts[0]) - 1  # the content of the whole picture
        self._has = np.zeros(images, np.int64)  # its content so far
        self._states, self._counts, self._exit_s, self._hold = states, counts, exit_s, hold
        self._lanes = np.arange(images)
        self._got = np.zeros((len(counts) + 1, images), np.int64)  # by stage; there is none before the first
        self._newest = np.zeros(images, np.int64)  # the newest stage of which something is decoded
        self._known = np.full(images, -1, np.int32)
        self._fresh = np.zeros(images, np.bool_)
        self._task = np.full(images, -1, np.int32)
        self._busy = np.full(images, np.inf)
        self._planned = np.full(images, np.inf)  # when an exit begins that waits for more packets
        self._held = np.full(images, -np.inf)  # until when an exit waits for what was announced
        self._runs = np.zeros(images, np.int64)
        most = int(counts.sum(axis=0).max()) + 1
        self._state = np.full((images, most), -1, np.int32)
        self._done = np.full((images, most), np.inf)

    def take(
        self, on: BoolVector, fresh: BoolVector, stage: Array, packets: Array, now: Array, announced: BoolVector
    ) -> None:
        """One packet of each image in ``on`` arrives: the stage's latest, which has so many by now.

        Where another was ``announced``, exits wait for it.
        """
        self._advance(on, now)
        got, lanes = self._got, self._lanes
        there = got[stage, lanes]
        got[stage, lanes] = np.where(on, self._states.arrived(there, packets), there)
        unheard = (got[stage, lanes] != there) & on
        np.maximum(self._newest, stage, out=self._newest, where=on & fresh)
        newest = np.maximum(self._newest, 1)
        own = self._states.level(got[newest, lanes], self._counts[newest - 1, lanes])
        before = self._states.level(got[newest - 1, lanes], self._counts[np.maximum(newest - 2, 0), lanes])
        found = self._states.number[newest, own, before]
        new = on & fresh & (found >= 0) & (found != self._known)
        if self._content is not None:
            new &= self._content[found] > self._has
            np.copyto(self._has, self._content[found], where=new)
        if self._hold:
            waits = announced & ~self._is_all
            np.copyto(self._held, np.where(waits, now + HOLD_S, -np.inf), where=on & (unheard | ~waits))
            # What waited is decided anew with every packet, in whatever event it comes.
            again = on & np.isfinite(self._planned)
            np.copyto(self._planned, np.maximum(self._held, now), where=again)
        np.copyto(self._known, found, where=new)
        self._fresh |= new
        idle = new & np.isinf(self._busy) & np.isinf(self._planned)
        self._start(idle, now)

    @property
    def _is_all(self) -> BoolVector:
        """Whose picture is complete, so that nothing is waited for."""
        found: BoolVector = (self._has == self._all) & (self._content is not None)
        return found

    def finish(self) -> None:
        """No more arrivals."""
        self._advance(np.ones(len(self._lanes), np.bool_), np.full(len(self._lanes), np.finfo(float).max))

    def runs(self) -> tuple[npt.NDArray[np.int32], FloatVector]:
        """State and end of every run, in their order."""
        most = max(1, int(self._runs.max()))
        return self._state[:, :most], self._done[:, :most]

    def complete(self, state: npt.NDArray[np.int32], last: int) -> npt.NDArray[np.bool_]:
        """Whether runs saw the whole of the last stage."""
        stages, owns = (np.asarray([getattr(s, k) for s in self._states.states]) for k in ("stage", "own"))
        whole = self._states.whole(self._counts[last - 1])
        out: npt.NDArray[np.bool_] = (state >= 0) & (stages[state] == last) & (owns[state] == whole[:, None])
        return out

    def _advance(self, on: BoolVector, until: Array) -> None:
        for _ in range(MOST_STEPS):
            # What is planned for the arrival of a burst's last packet sees that packet.
            begin = on & (self._planned < until - TIE_S)
            if begin.any():
                self._run(begin, self._planned.copy())
            over = on & (self._busy <= until + TIE_S)
            lanes = np.flatnonzero(over)
            if not len(lanes):
                return
            self._state[lanes, self._runs[lanes]] = self._task[lanes]
            self._done[lanes, self._runs[lanes]] = self._busy[lanes]
            self._runs[lanes] += 1
            again = over & self._fresh
            ended = self._busy.copy()
            self._busy[over] = np.inf
            self._start(again, ended)

    def _start(self, where: BoolVector, now: Array) -> None:
        """Exits begin, at once or when nothing is waited for any longer."""
        if not self._hold:
            self._run(where, now)
            return
        np.copyto(self._planned, np.maximum(self._held, now), where=where)

    def _run(self, where: BoolVector, now: Array) -> None:
        np.copyto(self._task, self._known, where=where)
        np.copyto(self._busy, now + self._exit_s, where=where)
        self._planned[where] = np.inf
        self._fresh &= ~where
