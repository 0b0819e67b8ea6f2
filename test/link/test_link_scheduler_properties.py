# SPDX-License-Identifier: Apache-2.0
"""The scheduler against a naive model of it, through generated lives of a link.

The model below knows the rules and nothing of the implementation: a plain list for what waits, plain
counters for what was promised. Losses are observed, not predicted.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fleet.errors import FleetError
from fleet.link.accounting import REMEMBERED
from fleet.link.airtime import air_us, pair_us
from fleet.link.parameters import LinkParameters
from fleet.link.scheduler import Scheduler
from fleet.packet import ExitNotice, Header, is_newer, is_stale

PAYLOADS = (20, 66, 100, 244)
CIS = (7.5, 10.0, 30.0, 1000.0)


def parameters(ci_ms, packets, phy, payload, loss, ack):
    """The link that was asked for, or the nearest one that exists."""
    for fitting in (payload, 66, 20):
        try:
            return LinkParameters(ci_ms=ci_ms, packets=packets, phy=phy, payload=fitting, loss=loss, ack=ack)
        except FleetError:
            continue
    raise AssertionError("a payload of 20 bytes fits every interval")


links = st.builds(
    parameters,
    st.sampled_from(CIS),
    st.integers(1, 6),
    st.sampled_from(["1M", "2M", "500k", "125k"]),
    st.sampled_from(PAYLOADS),
    st.sampled_from([0.0, 0.0, 0.3, 0.8, 1.0]),
    st.sampled_from(["link_layer", "next_event"]),
)


class LifeOfALink(RuleBasedStateMachine):
    """Offers, notices, renegotiations and pauses in any order."""

    @initialize(link=links, first=st.integers(0, 65535), seed=st.integers(0, 1000), phase=st.floats(0, 4))
    def connect(self, link, first, seed, phase):
        self.link = link
        self.scheduler = Scheduler(link, start=1000.0, phase=phase, seed=seed)
        self.camera_id = first
        self.serial = 0
        self.waiting = []
        self.newest = None  # (inference, stage) of the last offer that was taken
        self.first_index = 0
        self.ended = False
        self.offered = self.dropped = self.sent = self.events = self.missed = 0
        self.sequence = 0
        self.index = 0
        self.due = 1000.0 + phase
        self.last = None
        self.notice = None
        self.sends = 0
        self.arrived = False
        self.heard = None

    def make(self, inference, stage, sizes):
        made = []
        for size in sizes:
            header = Header(inference, stage, 1, self.serial & 0xFFFF, 3)
            made.append(header.pack() + (self.serial >> 16).to_bytes(2, "little") * ((size - 8) // 2))
            self.serial += 1
        return made

    @rule(
        step=st.sampled_from([0, 0, 0, 0, 1, 1, 2, -1, -3, 1024, -1024, 30_000]),
        stage=st.integers(0, 15),
        sizes=st.lists(st.sampled_from(PAYLOADS), max_size=12),
        spoiled=st.sets(st.integers(0, 11), max_size=2),
    )
    def offer(self, step, stage, sizes, spoiled):
        inference = (self.camera_id + step) % 65536
        offered = self.make(inference, stage, sizes)
        good = [p for k, p in enumerate(offered) if k not in spoiled and len(p) <= self.link.payload]
        offered = [p[:7] if k in spoiled else p for k, p in enumerate(offered)]
        self.offered += len(offered)

        if self.newest is None:
            welcome = True
        elif inference == self.newest[0]:
            welcome = stage >= self.newest[1] and not self.ended
        else:
            welcome = not is_stale(inference, self.newest[0])

        assert self.scheduler.offer(inference, stage, offered) == welcome
        if not welcome:
            self.dropped += len(offered)
            return
        if self.newest is None or inference != self.newest[0]:
            self.first_index = self.index
            self.ended = False
        self.newest = (inference, stage)
        self.camera_id = inference
        # Features of the same inference do not replace the picture: it goes first.
        picture = [p for p in self.waiting if 0 < stage < 15 and Header.unpack(p).stage == 0]
        kept = [p for p in picture if Header.unpack(p).inference_id == inference]
        self.dropped += len(self.waiting) - len(kept) + len(offered) - len(good)
        self.waiting = kept + good

    @rule(step=st.sampled_from([0, 0, 0, -1, -2, 1]))
    def stop(self, step):
        inference = (self.camera_id + step) % 65536
        fresh = self.notice is None or is_newer(inference, self.notice)
        in_date = self.heard is None or not is_newer(self.heard, inference)
        assert self.scheduler.stop(ExitNotice(inference, 1, 2, 0.5)) == (fresh and in_date)
        if fresh and in_date:
            self.notice, self.sends, self.arrived = inference, 0, False

    @rule()
    def event(self):
        before = self.scheduler.statistics
        event = self.scheduler.event()
        after = self.scheduler.statistics

        assert abs(event.time - self.due) < 1e-9
        assert event.index == self.index
        assert len(event.sent) <= self.link.effective_packets
        assert len(event.sent) == min(len(self.waiting), self.room(notice=after.exits_sent > before.exits_sent))
        for place, (packet, promised) in enumerate(zip(event.sent, self.waiting, strict=False)):
            header = Header.unpack(packet)
            assert header.more == (place < len(event.sent) - 1)
            assert header.inference_id == self.newest[0]
            assert header.stage in (0, self.newest[1])
            assert (packet[:2], packet[2] & 0x7F, packet[3:5]) == (promised[:2], promised[2], promised[3:5])
            assert packet[8:] == promised[8:]
            assert header.age == min(15, self.index - self.first_index)
            assert header.sequence == self.sequence % 256
            self.sequence += 1
        self.check_delivery(event)
        self.waiting = self.waiting[len(event.sent) :]
        self.sent += len(event.sent)
        self.check_notice(event, before, after)
        if event.delivered and (self.heard is None or is_newer(self.newest[0], self.heard)):
            self.heard = self.newest[0]
        self.events += 1
        self.index += 1
        self.last = self.due
        self.due += self.link.ci_s

    def room(self, *, notice):
        """Full payloads that fit beside the guard time, by walking through the event."""
        octets, started = self.link.payload + 7, 0
        left = self.link.ci_ms * 1000 - 800
        if notice:
            left -= air_us(self.link.phy, 6 + 7) - air_us(self.link.phy, 0)
        while started < self.link.packets and left >= pair_us(self.link.phy, octets):
            left -= pair_us(self.link.phy, octets)
            started += 1
        return started

    def check_delivery(self, event):
        assert len(event.delivered) + event.lost == len(event.sent)
        remaining = iter(event.sent)
        assert all(packet in remaining for packet in event.delivered), "a subset in order"
        assert len(event.arrivals) == len(event.delivered)
        assert all(event.time < t <= event.end + 1e-12 for t in event.arrivals)
        if self.link.loss == 0.0:
            assert event.delivered == event.sent
        if self.link.loss == 1.0:
            assert event.delivered == ()
        assert 0 < event.air_us <= self.link.ci_ms * 1000
        assert event.energy_uj > 0

    def check_notice(self, event, before, after):
        due = self.notice is not None and self.sends < 5
        due = due and not (self.heard is not None and is_newer(self.heard, self.notice))
        assert after.exits_sent - before.exits_sent == due, "in the very next event, and as often as promised"
        if not due:
            assert event.exit is None
            return
        self.sends += 1
        survived = after.exits_lost == before.exits_lost
        news = survived and not self.arrived
        assert (event.exit is not None) == news, "reported the first time that it arrives"
        if news:
            self.arrived = True
            assert event.exit.inference_id == self.notice
            assert event.time < event.exit_at <= event.end
            if self.newest is not None and self.newest[0] == self.notice:
                self.dropped += len(self.waiting)
                self.waiting = []
                self.ended = True

    @rule(link=links)
    def renegotiate(self, link):
        self.scheduler.configure(link)
        if link.ci_ms != self.link.ci_ms and self.last is not None:
            self.due = self.last + link.ci_s
        self.link = link
        fitting = [packet for packet in self.waiting if len(packet) <= link.payload]
        self.dropped += len(self.waiting) - len(fitting)
        self.waiting = fitting

    @precondition(lambda self: self.due < 1e6)
    @rule(intervals=st.integers(0, 40), part=st.floats(0.01, 0.99))
    def sleep(self, intervals, part):
        now = self.due + (intervals + part) * self.link.ci_s
        assert self.scheduler.skip_to(now) == intervals
        self.missed += intervals
        self.index += intervals
        if intervals:
            self.last = self.due + (intervals - 1) * self.link.ci_s
        self.due += intervals * self.link.ci_s

    @invariant()
    def statistics_add_up(self):
        if not hasattr(self, "scheduler"):
            return
        totals = self.scheduler.statistics
        assert totals.offered == totals.sent + totals.dropped + totals.pending
        assert totals.offered == self.offered
        assert totals.sent == self.sent
        assert totals.dropped == self.dropped
        assert totals.pending == len(self.waiting) == self.scheduler.pending
        assert totals.events == self.events
        assert totals.missed == self.missed
        assert totals.exits_delivered <= totals.exits_sent - totals.exits_lost
        assert abs(self.scheduler.next_event - self.due) < 1e-9

    @invariant()
    def accounts_are_few_and_never_exceed_the_totals(self):
        if not hasattr(self, "scheduler") or self.newest is None:
            return
        account = self.scheduler.report(self.newest[0])
        totals = self.scheduler.statistics
        assert account.packets_sent <= totals.sent
        assert account.packets_lost <= account.packets_sent
        assert account.energy_uj <= totals.energy_uj + 1e-9
        assert len(self.scheduler._ledger) <= REMEMBERED


TestLifeOfALink = LifeOfALink.TestCase
TestLifeOfALink.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
