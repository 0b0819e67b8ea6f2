# SPDX-License-Identifier: Apache-2.0
"""What the scheduler does, case by case."""

import itertools
import tracemalloc

import pytest

from fleet.errors import FleetError
from fleet.link.accounting import REMEMBERED
from fleet.link.airtime import GENERIC
from fleet.link.loss import bursts
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF52832
from fleet.link.scheduler import Scheduler
from fleet.link.uplink import MAX_PENDING
from fleet.packet import ExitNotice, Header, LocalAnswer, PacketError, stamp


def packets(inference_id, stage, count=1, length=244, first=0):
    """A stage's packets, told apart by their first coefficient."""
    return [Header(inference_id, stage, 1, first + k, 7).pack() + bytes([k & 255]) * (length - 8) for k in range(count)]


def notice(inference_id, class_index=3):
    return ExitNotice(inference_id, class_index, 2, 0.8)


def link(loss=0.0, start=0.0, seed=0, **changes):
    return Scheduler(LinkParameters(loss=loss, **changes), start=start, seed=seed)


def firsts(sent):
    return [(h.inference_id, h.stage, h.first) for h in map(Header.unpack, sent)]


class Losing:
    """Loses the packets whose turn is listed, the downlink first in every event."""

    def __init__(self, *turns):
        self.turns, self.turn = turns, -1

    def lost(self, rng):
        self.turn += 1
        return self.turn in self.turns


def losing(*turns):
    return Scheduler(LinkParameters(), start=0.0, loss=lambda _: Losing(*turns))


def test_the_first_event_comes_after_the_phase_and_the_next_ones_every_interval():
    scheduler = Scheduler(LinkParameters(ci_ms=30), start=100.0, phase=0.012)
    times = [scheduler.event().time for _ in range(4)]
    assert times == pytest.approx([100.012, 100.042, 100.072, 100.102])


def test_an_event_takes_what_fits_in_the_order_of_the_offer_and_leaves_the_rest_for_the_next():
    scheduler = link()
    assert scheduler.offer(5, 1, packets(5, 1, 4))
    assert firsts(scheduler.event().sent) == [(5, 1, 0), (5, 1, 1), (5, 1, 2)]
    assert firsts(scheduler.event().sent) == [(5, 1, 3)]
    assert scheduler.event().sent == ()


def test_packets_are_stamped_with_age_and_sequence():
    scheduler = link(ci_ms=15, packets=2)
    scheduler.event()
    scheduler.offer(5, 1, packets(5, 1, 3))
    sent = (*scheduler.event().sent, *scheduler.event().sent)
    assert [(Header.unpack(p).age, Header.unpack(p).sequence) for p in sent] == [(0, 0), (0, 1), (1, 2)]
    assert [Header.unpack(p).more for p in sent] == [True, False, False]  # of the same event
    original = packets(5, 1, 3)
    assert sent[2] == stamp(original[2], age=1, sequence=2, more=False)


def test_the_age_counts_from_the_first_offer_of_the_inference_and_saturates():
    scheduler = link()
    scheduler.offer(5, 1, packets(5, 1))
    ages = []
    for stage in range(2, 15):
        for _ in range(2):
            scheduler.event()
        scheduler.offer(5, stage, packets(5, stage))
        ages.append(Header.unpack(scheduler.event().sent[0]).age)
    assert ages == [min(15, 2 + 3 * k) for k in range(13)]
    scheduler.offer(6, 1, packets(6, 1))
    assert Header.unpack(scheduler.event().sent[0]).age == 0


def test_the_age_counts_missed_events():
    scheduler = link()
    scheduler.offer(5, 1, packets(5, 1, 1))
    assert scheduler.skip_to(0.045) == 4
    assert Header.unpack(scheduler.event().sent[0]).age == 4


def test_a_newer_stage_replaces_what_was_not_sent():
    scheduler = link()
    scheduler.offer(5, 1, packets(5, 1, 8))
    scheduler.event()
    scheduler.offer(5, 2, packets(5, 2, 2))
    assert firsts(scheduler.event().sent) == [(5, 2, 0), (5, 2, 1)]
    assert scheduler.statistics.dropped == 5
    assert scheduler.report(5).packets_dropped == 5


def test_an_older_stage_is_refused_and_the_same_stage_replaces():
    scheduler = link()
    scheduler.offer(5, 3, packets(5, 3, 2))
    assert not scheduler.offer(5, 2, packets(5, 2, 2))
    assert scheduler.offer(5, 3, packets(5, 3, 1, first=9))
    assert firsts(scheduler.event().sent) == [(5, 3, 9)]
    assert scheduler.statistics.dropped == 4


def test_a_newer_inference_replaces_everything_of_the_older_which_can_not_come_back():
    scheduler = link()
    scheduler.offer(65535, 4, packets(65535, 4, 5))
    assert scheduler.offer(0, 1, packets(0, 1, 1))
    assert not scheduler.offer(65535, 5, packets(65535, 5, 1))
    assert firsts(scheduler.event().sent) == [(0, 1, 0)]
    assert scheduler.report(65535).packets_dropped == 6


def test_a_camera_that_restarted_with_another_id_is_heard_at_once():
    scheduler = link()
    scheduler.offer(40_000, 4, packets(40_000, 4))
    assert scheduler.offer(12_345, 1, packets(12_345, 1))
    assert firsts(scheduler.event().sent) == [(12_345, 1, 0)]


def test_the_device_s_own_answer_counts_as_the_newest_stage():
    scheduler = link()
    scheduler.offer(5, 8, packets(5, 8, 9))
    assert scheduler.offer(5, 15, [LocalAnswer(5, 2, 0.7).pack()])
    assert not scheduler.offer(5, 9, packets(5, 9))
    (sent,) = scheduler.event().sent
    assert LocalAnswer.unpack(sent).class_index == 2
    account = scheduler.report(5)
    assert account.closed
    assert not account.exit_delivered
    scheduler.event()
    assert scheduler.report(5) == account


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"short",
        packets(5, 1, length=244)[0] + b"x",
        packets(6, 1)[0],
        packets(5, 2)[0],
        b"\xff" * 244,
    ],
    ids=["empty", "short", "long", "other inference", "other stage", "noise"],
)
def test_what_is_not_a_packet_of_this_stage_is_dropped_and_counted(bad):
    scheduler = link()
    assert scheduler.offer(5, 1, [bad, *packets(5, 1)])
    assert firsts(scheduler.event().sent) == [(5, 1, 0)]
    assert scheduler.statistics.dropped == 1
    assert scheduler.report(5).packets_dropped == 1


@pytest.mark.parametrize(("inference_id", "stage"), [(-1, 1), (65536, 1), (5, -1), (5, 16)])
def test_an_id_or_a_stage_that_no_header_can_hold_is_refused(inference_id, stage):
    scheduler = link()
    assert not scheduler.offer(inference_id, stage, packets(5, 1, 2))
    assert scheduler.statistics.dropped == 2
    assert scheduler.offer(5, 1, packets(5, 1))


def test_packets_longer_than_the_payload_are_dropped_and_counted():
    scheduler = link(payload=100)
    scheduler.offer(5, 1, packets(5, 1, 1, length=101) + packets(5, 1, 1, length=100, first=7))
    assert firsts(scheduler.event().sent) == [(5, 1, 7)]
    assert scheduler.statistics.dropped == 1


def test_what_the_air_loses_stays_lost_under_both_acknowledgement_models():
    for ack in ("link_layer", "next_event"):
        scheduler = link(loss=1.0, ack=ack)
        scheduler.offer(5, 1, packets(5, 1, 2))
        event = scheduler.event()
        assert (len(event.sent), event.delivered, event.lost) == (2, (), 2)
        assert scheduler.event().sent == ()


def test_what_survives_is_delivered_in_order_with_the_time_it_took():
    scheduler = losing(1)
    scheduler.offer(5, 1, packets(5, 1, 3))
    event = scheduler.event()
    assert event.delivered == (event.sent[0], event.sent[2])
    assert event.lost == 1
    one = 80 + 150 + 2120 + 150
    assert event.arrivals == pytest.approx([(one - 150) * 1e-6, (3 * one - 150) * 1e-6])
    assert event.end == event.arrivals[-1]


def test_a_notice_travels_in_the_next_event_and_ends_the_inference():
    scheduler = link()
    scheduler.offer(5, 1, packets(5, 1, 5))
    scheduler.stop(notice(5))
    event = scheduler.event()
    assert event.exit.inference_id == 5
    assert event.exit.class_index == 3
    assert event.exit_at == pytest.approx((10 + 13 + 4) * 8e-6)
    assert len(event.sent) == 3, "what the controller held goes out in the same event"
    assert scheduler.event().sent == ()
    assert not scheduler.offer(5, 2, packets(5, 2))
    assert scheduler.offer(6, 1, packets(6, 1))
    account = scheduler.report(5)
    assert (account.events, account.packets_sent, account.packets_dropped) == (1, 3, 3)
    assert account.exit_delivered


def test_the_camera_gets_a_notice_as_its_six_bytes_say_it():
    scheduler = link()
    scheduler.stop(ExitNotice(5, 3, 2, 0.5004))
    assert scheduler.event().exit == ExitNotice.unpack(ExitNotice(5, 3, 2, 0.5004).pack())


def test_a_notice_is_repeated_five_times_when_nothing_newer_is_heard_and_reported_once():
    scheduler = link()
    scheduler.offer(5, 1, packets(5, 1))
    scheduler.event()
    scheduler.stop(notice(5))
    exits = [scheduler.event().exit for _ in range(9)]
    assert [e is not None for e in exits] == [True] + [False] * 8
    assert scheduler.statistics.exits_sent == 5
    assert scheduler.statistics.exits_delivered == 1


def test_a_notice_that_was_lost_is_delivered_by_a_repeat():
    scheduler = losing(0, 1)
    scheduler.stop(notice(5))
    assert [scheduler.event().exit is not None for _ in range(5)] == [False, False, True, False, False]
    assert scheduler.statistics.exits_lost == 2


def test_a_notice_that_is_always_lost_is_given_up_after_five():
    scheduler = link(loss=1.0)
    scheduler.stop(notice(5))
    assert all(scheduler.event().exit is None for _ in range(9))
    statistics = scheduler.statistics
    assert (statistics.exits_sent, statistics.exits_lost, statistics.exits_delivered) == (5, 5, 0)


def test_a_packet_of_a_newer_inference_ends_the_repeats_once_it_is_heard():
    scheduler = losing(4)  # notice, packet; notice; notice, the newer packet; ...
    scheduler.offer(5, 1, packets(5, 1, 1))
    scheduler.stop(notice(5))
    scheduler.event()
    scheduler.event()
    scheduler.offer(6, 1, packets(6, 1, 1))
    assert scheduler.event().lost == 1
    assert scheduler.statistics.exits_sent == 3
    scheduler.offer(6, 2, packets(6, 2, 1))
    scheduler.event()
    assert scheduler.statistics.exits_sent == 4, "the hub had not heard of the newer inference"
    scheduler.event()
    assert scheduler.statistics.exits_sent == 4


def test_a_newer_notice_replaces_an_older_one_and_an_older_one_is_out_of_date():
    scheduler = link(loss=1.0)
    assert scheduler.stop(notice(5))
    scheduler.event()
    assert scheduler.stop(notice(6))
    assert not scheduler.stop(notice(5))
    scheduler.configure(scheduler.parameters.replace(loss=0.0))
    assert scheduler.event().exit.inference_id == 6


def test_the_same_notice_again_is_not_sent_more_often():
    scheduler = link()
    assert scheduler.stop(notice(5))
    for _ in range(7):
        assert not scheduler.stop(notice(5))
        scheduler.event()
    assert scheduler.statistics.exits_sent == 5


def test_a_notice_for_an_inference_the_hub_has_heard_a_newer_one_of_is_out_of_date():
    scheduler = link()
    scheduler.offer(6, 1, packets(6, 1))
    scheduler.event()
    assert not scheduler.stop(notice(5))
    scheduler.event()
    assert scheduler.statistics.exits_sent == 0


def test_a_notice_for_an_older_inference_does_not_touch_the_newer_one():
    scheduler = link()
    scheduler.offer(5, 1, packets(5, 1))
    scheduler.event()
    scheduler.stop(notice(5))
    scheduler.offer(6, 1, packets(6, 1, 5))
    assert scheduler.event().exit.inference_id == 5
    assert scheduler.pending == 2
    assert scheduler.offer(6, 2, packets(6, 2))


def test_notices_that_come_by_turns_are_told_once_each():
    scheduler = link()
    heard = [scheduler.heard(notice(number)) for number in (5, 6, 5, 6, 5, 7)]
    assert heard == [True, True, False, False, False, True]


def test_a_notice_that_does_not_fit_its_bytes_is_refused():
    with pytest.raises(PacketError, match="exit notice out of range"):
        link().stop(ExitNotice(70_000, 0, 1, 0.5))
    with pytest.raises(PacketError, match="exit notice out of range"):
        link().stop(ExitNotice(5, 0, 1, float("nan")))


def test_a_smaller_payload_drops_what_no_longer_fits_in_mid_inference():
    scheduler = link(ci_ms=50)
    scheduler.offer(5, 1, packets(5, 1, 2, length=200) + packets(5, 1, 2, length=60, first=2))
    scheduler.configure(scheduler.parameters.replace(payload=100))
    assert firsts(scheduler.event().sent) == [(5, 1, 2), (5, 1, 3)]
    assert scheduler.report(5).packets_dropped == 2
    assert scheduler.offer(5, 2, packets(5, 2, 1, length=100))
    assert len(scheduler.event().sent) == 1


def test_fewer_packets_an_event_hold_from_the_next_event_on():
    scheduler = link(ci_ms=50)
    scheduler.offer(5, 1, packets(5, 1, 8))
    assert len(scheduler.event().sent) == 4
    scheduler.configure(scheduler.parameters.replace(packets=1))
    assert [len(scheduler.event().sent) for _ in range(5)] == [1, 1, 1, 1, 0]


@pytest.mark.parametrize(("encrypted", "alone", "beside"), [(True, 4, 4), (False, 5, 5)])
def test_an_event_without_encryption_carries_what_fits_without_it(encrypted, alone, beside):
    scheduler = Scheduler(LinkParameters(ci_ms=7.5, packets=6, payload=100), start=0.0, encrypted=encrypted)
    scheduler.offer(5, 1, packets(5, 1, 20, length=100))
    assert len(scheduler.event().sent) == alone
    assert scheduler.stop(notice(5))
    assert len(scheduler.event().sent) == beside


def test_a_notice_takes_its_room_in_an_event_without_encryption_too():
    slow = LinkParameters(ci_ms=67.5, packets=20, phy="125k", payload=27)
    sent = {}
    for encrypted in (True, False):
        scheduler = Scheduler(LinkParameters(), start=0.0, encrypted=encrypted)
        scheduler.configure(slow)
        scheduler.offer(5, 1, packets(5, 1, 50, length=27))
        alone = len(scheduler.event().sent)
        assert scheduler.stop(notice(5))
        event = scheduler.event()
        sent[encrypted] = (alone, len(event.sent))
        assert event.air_us <= slow.ci_ms * 1000 - GENERIC.guard_us
    assert sent == {True: (15, 15), False: (17, 16)}


def test_an_event_as_published_carries_what_was_asked_for_with_or_without_encryption():
    for encrypted in (True, False):
        link = LinkParameters(ci_ms=7.5, packets=9, as_published=True)
        scheduler = Scheduler(link, start=0.0, encrypted=encrypted)
        scheduler.offer(5, 1, packets(5, 1, 20))
        assert len(scheduler.event().sent) == 9


def test_another_interval_counts_from_the_last_event():
    scheduler = link(ci_ms=10, start=1.0)
    scheduler.event()
    scheduler.configure(scheduler.parameters.replace(ci_ms=100))
    assert scheduler.next_event == pytest.approx(1.1)
    scheduler.configure(scheduler.parameters.replace(ci_ms=7.5))
    assert scheduler.next_event == pytest.approx(1.0075)


def test_a_change_that_is_impossible_changes_nothing():
    scheduler = Scheduler(LinkParameters(loss=0.1), start=0.0, radio=NRF52832, loss=bursts(4))
    before = scheduler.parameters
    with pytest.raises(FleetError, match="no 500k PHY"):
        scheduler.configure(before.replace(phy="500k", loss=0.2))
    with pytest.raises(FleetError, match="cannot lose 90%"):
        scheduler.configure(before.replace(ci_ms=100, loss=0.9))
    assert scheduler.parameters == before
    scheduler.event()
    assert scheduler.next_event == pytest.approx(0.01)


def test_a_radio_without_the_phy_is_refused_at_once():
    with pytest.raises(FleetError, match="the nRF52832 has no 125k PHY"):
        Scheduler(LinkParameters(ci_ms=30, phy="125k"), start=0.0, radio=NRF52832)


def test_a_caller_that_was_away_finds_the_newest_due_event_and_what_it_missed():
    scheduler = link(ci_ms=10)
    scheduler.offer(5, 1, packets(5, 1, 1))
    assert scheduler.skip_to(3600.004) == 360_000
    assert scheduler.next_event == pytest.approx(3600.0)
    event = scheduler.event()
    assert event.index == 360_000
    assert scheduler.statistics.missed == 360_000
    assert scheduler.statistics.events == 1
    assert len(event.sent) == 1


def test_a_caller_in_time_misses_nothing():
    scheduler = link(ci_ms=10)
    for _ in range(50):
        now = scheduler.next_event + 0.0098
        assert scheduler.skip_to(now) == 0
        scheduler.event()


def test_an_unknown_inference_has_no_account_and_only_the_newest_few_are_kept():
    scheduler = link()
    assert scheduler.report(5) is None
    for n in range(50):
        scheduler.offer(n, 1, packets(n, 1))
        scheduler.event()
    assert scheduler.report(49 - REMEMBERED) is None
    assert all(scheduler.report(n).packets_sent == 1 for n in range(50 - REMEMBERED, 50))


def test_an_account_counts_the_empty_events_of_its_inference_too():
    scheduler = link()
    scheduler.event()
    scheduler.offer(5, 1, packets(5, 1))
    energy = sum(scheduler.event().energy_uj for _ in range(3))
    account = scheduler.report(5)
    assert account.events == 3
    assert account.energy_uj == pytest.approx(energy)
    assert account.bytes_sent == 244
    assert account.first_index == 1
    scheduler.offer(6, 1, packets(6, 1))
    scheduler.event()
    assert scheduler.report(5).events == 3
    assert scheduler.report(5).closed


def test_the_same_seed_and_calls_give_the_same_events():
    def run():
        scheduler = link(loss=0.4, seed=7)
        events = []
        for n in range(60):
            scheduler.offer(n // 3, n % 3, packets(n // 3, n % 3, 4))
            if n % 5 == 0:
                scheduler.stop(notice(n // 3))
            events.append(scheduler.event())
        return events

    assert run() == run()


def test_a_late_timer_and_a_loop_see_the_same_packets():
    def run(lateness):
        scheduler = link(loss=0.3, seed=3)
        sent = []
        for n in range(100):
            scheduler.offer(n // 4, n % 4, packets(n // 4, n % 4, 4))
            scheduler.skip_to(scheduler.next_event + lateness(n))
            sent.append(scheduler.event())
        return sent

    assert run(lambda n: 0.0) == run(lambda n: 0.0001 * (n % 97))


def test_bursty_losses_can_be_asked_for():
    scheduler = Scheduler(LinkParameters(loss=0.5), start=0.0, loss=bursts(30), seed=2)
    fates = []
    for n in range(2000):
        scheduler.offer(n, 1, packets(n, 1, 3, length=50))
        event = scheduler.event()
        fates += [packet in event.delivered for packet in event.sent]
    changes = sum(a != b for a, b in itertools.pairwise(fates))
    assert sum(fates) / len(fates) == pytest.approx(0.5, abs=0.1)
    assert len(fates) / changes == pytest.approx(30, rel=0.3)


def test_on_a_slow_link_a_notice_takes_the_room_of_a_payload():
    scheduler = link(ci_ms=7.5, phy="125k", payload=66)
    scheduler.offer(5, 1, packets(5, 1, 2, length=66))
    scheduler.stop(notice(4))
    event = scheduler.event()
    assert event.exit.inference_id == 4
    assert event.sent == ()
    assert event.air_us < 7500


def test_as_published_an_event_carries_more_than_fits():
    scheduler = link(ci_ms=7.5, packets=4, as_published=True)
    scheduler.offer(5, 1, packets(5, 1, 5))
    event = scheduler.event()
    assert len(event.sent) == 4
    assert event.air_us > 7500


def test_a_flood_is_cut_and_memory_stays_where_it_was():
    scheduler = link()
    scheduler.offer(0, 1, packets(0, 1, MAX_PENDING + 100, length=20))
    assert scheduler.pending == MAX_PENDING
    flood = [bytes(packet) for packet in packets(0, 1, 64, length=20)]

    def run(first, count):
        for n in range(first, first + count):
            offer = [Header(n % 65536, 1, 1, k, 1).pack() + p[8:] for k, p in enumerate(flood[:8])]
            scheduler.offer(n % 65536, 1, offer)
            scheduler.stop(notice(n % 65536))
            scheduler.event()

    run(1, 300)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    run(301, 3000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000
    assert scheduler.statistics.pending <= 8


def test_a_controller_with_little_room_takes_fewer_packets_and_never_more_than_the_link_carries():
    scheduler = link()
    scheduler.offer(5, 1, packets(5, 1, 6))
    assert len(scheduler.event(room=1).sent) == 1
    assert len(scheduler.event(room=-2).sent) == 0
    assert len(scheduler.event(room=64).sent) == 3
    assert scheduler.index == 3


def test_a_notice_that_a_real_radio_brought_ends_the_inference_at_once_and_counts_once():
    scheduler = link()
    scheduler.offer(5, 1, packets(5, 1, 6))
    scheduler.event()
    assert scheduler.heard(notice(5))
    assert not scheduler.heard(notice(5))
    assert not scheduler.offer(5, 2, packets(5, 2))
    assert scheduler.event().sent == ()
    assert scheduler.statistics.exits_delivered == 1
    assert scheduler.report(5).exit_delivered
    totals = scheduler.statistics
    assert totals.offered == totals.sent + totals.dropped + totals.pending


def test_events_follow_the_phase_that_a_host_has_seen():
    scheduler = link(ci_ms=30)
    scheduler.event()
    scheduler.align(1.0)
    assert [scheduler.event().time for _ in range(2)] == pytest.approx([1.0, 1.03])
