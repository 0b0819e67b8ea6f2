# SPDX-License-Identifier: Apache-2.0
"""The device's journey of a frame in virtual time, with the real scheduler and the real session at the other end."""

import heapq
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.bundle import LocalExit
from fleet.codec import StageBuffer, coder_named
from fleet.errors import FleetError
from fleet.inference import SOON_S, Device, answer_due_s, shows_again, thrifty_burst
from fleet.link.parameters import LinkParameters
from fleet.link.scheduler import Scheduler
from fleet.packet import LOCAL_ANSWER_STAGE, ExitNotice, Header, LocalAnswer, next_id
from fleet.platforms import PlatformProfile
from fleet.runtime import CancelledError, StageOutput
from fleet.session import Answer, CloudSession, ExitTask

SURE = [10.0, 0.0, 0.0, 0.0, 0.0]  # a tractor: vehicle
UNSURE = [0.3, 0.2, 0.1, 0.0, 0.0]
OWN = [0.0, 0.0, 0.0, 5.0, 0.0]  # the device takes it for a bison: animal
FUSED = {1: (1,), **{n: (n - 1, n) for n in range(2, 9)}}
IMAGE = np.zeros((1, 3, 32, 32), np.float32)
STAGES = 10
NATIVE = PlatformProfile("native", None, "test")


def paced(seconds=0.02):
    return PlatformProfile("paced", 100.0, "test", stage_seconds=dict.fromkeys(range(1, STAGES + 1), seconds))


class VirtualWorld:
    """Clock, radio and hub; nothing passes but the time that somebody waits for or works."""

    def __init__(self, bundle, link, *, hub=lambda task: UNSURE, hub_seconds=0.002, phase=0.0, seed=0, fused=FUSED):
        self.time = 100.0
        self.scheduler = Scheduler(link, start=self.time, phase=phase, seed=seed)
        self.session = CloudSession(bundle, fused)
        self.hub, self.hub_seconds, self.hub_busy = hub, hub_seconds, False
        self.current, self.notice, self._on_its_way = None, None, None
        self.hub_there = True
        self.offers, self.sent, self.answers, self.notices = [], [], [], []
        self._actions, self._order = [], itertools.count()

    # fleet.inference.Surroundings
    @property
    def payload(self):
        return self.scheduler.parameters.payload

    @property
    def link(self):
        return self.scheduler.parameters if self.hub_there else None

    def now(self):
        return self.time

    def offer(self, inference_id, stage, packets):
        self.offers.append((inference_id, stage, tuple(packets), self.time))
        # Refused only while the packet that carries the exit is still being received.
        assert self.scheduler.offer(inference_id, stage, packets) or self._on_its_way == inference_id

    def wait_until(self, time):
        while self.notice is None and (due := self._next()) <= time:
            self.time = max(self.time, due)
            self._do_next()
        if self.notice is None:
            self.time = max(self.time, time)
        return self.notice

    # The world
    def begin(self, inference_id):
        self.current, self.notice = inference_id, None

    def at(self, time, action):
        heapq.heappush(self._actions, (time, next(self._order), action))

    def work(self, seconds):
        """The processor is busy; meanwhile the radio goes on by itself."""
        until = self.time + seconds
        while self._next() <= until:
            self.time = max(self.time, self._next())
            self._do_next()
        self.time = until

    def _next(self):
        return min(self.scheduler.next_event, self._actions[0][0] if self._actions else math.inf)

    def _do_next(self):
        if self._actions and self._actions[0][0] <= self.scheduler.next_event:
            heapq.heappop(self._actions)[2]()
            return
        event = self.scheduler.event()
        self.sent += [(event.time, packet) for packet in event.sent]
        for packet, arrival in zip(event.delivered, event.arrivals, strict=True):
            self.at(arrival, lambda packet=packet: self._arrive(packet))
        if event.exit is not None:
            self._on_its_way = event.exit.inference_id
            self.at(event.exit_at, lambda: self._hear(event.exit))

    def _arrive(self, packet):
        self.session.take(packet)
        self._hub_goes_on()

    def _hub_goes_on(self):
        task = None if self.hub_busy else self.session.next_task()
        if isinstance(task, Answer):
            self._answer(task)
            self._hub_goes_on()
        elif isinstance(task, ExitTask):
            self.hub_busy = True
            self.at(self.time + self.hub_seconds, lambda: self._conclude(task))

    def _conclude(self, task):
        self.hub_busy = False
        _, answer = self.session.conclude(task, self.hub(task))
        if answer is not None:
            self._answer(answer)
        self._hub_goes_on()

    def _answer(self, answer):
        self.answers.append(answer)
        confidence = self.session.bundle.decider.confidence(answer.prediction)
        self.scheduler.stop(ExitNotice(answer.inference_id, answer.prediction.class_index, answer.stage, confidence))

    def _hear(self, notice):
        self.notices.append((notice, self.time))
        if notice.inference_id == self.current:
            self.notice = notice


class FakeNetwork:
    """Stages that give noise, and a head that gives what it is told."""

    stage_numbers = tuple(range(1, STAGES + 1))

    def __init__(self, bundle, logits=OWN, on_run=lambda n: None):
        self.bundle, self.logits, self.on_run = bundle, logits, on_run
        self.ran = []

    def run_picture(self, image):
        assert image is IMAGE
        layout = self.bundle.layouts[0]
        return layout.quantiser.dequantise(np.random.default_rng(0).integers(0, 16, (layout.channels, 4, 4)))

    def run(self, n, features):
        assert features.shape == (1, *([3, 32, 32] if n == 1 else [n - 1, 4, 4]))
        self.on_run(n)
        self.ran.append(n)
        if n == STAGES:
            return StageOutput(np.array([self.logits], np.float32), None)
        layout = self.bundle.layouts.get(n)
        latent = None
        if layout is not None:
            levels = np.random.default_rng(n).integers(0, 16, (layout.channels, 8, 8))
            latent = layout.quantiser.dequantise(levels)
        return StageOutput(np.zeros((1, n, 4, 4), np.float32), latent)


@pytest.fixture
def make(small_bundle):
    """A device and its world."""

    def make_them(profile=None, logits=OWN, on_run=lambda n: None, link=None, **world):
        link = link or LinkParameters(ci_ms=10, packets=2, payload=100)
        around = VirtualWorld(small_bundle, link, **world)
        device = Device(small_bundle, FakeNetwork(small_bundle, logits, on_run), profile or paced())
        return device, around

    return make_them


@pytest.fixture
def make_picture(picture_bundle):
    """A device that shows the picture first, in 5 ms and some packets of 40 bytes, and its world."""

    def make_them(*, ci_ms=10, packets=4, race=None, thrifty=False, stage=0.05, **world):
        link = LinkParameters(ci_ms=ci_ms, packets=packets, payload=40)
        around = VirtualWorld(picture_bundle, link, fused={0: (0,), **FUSED}, **world)
        times = PlatformProfile("paced", 100.0, "test", stage_seconds={0: 0.005} | dict.fromkeys(range(1, 11), stage))
        device = Device(picture_bundle, FakeNetwork(picture_bundle), times, race, thrifty)
        return device, around

    return make_them


def infer(device, around, inference_id=7):
    around.begin(inference_id)
    return device.infer(IMAGE, inference_id, around)


NEVER = {"hub_seconds": 1e9}  # a hub that is busy with something else


def sure_at(stage):
    return lambda task: SURE if task.stage >= stage else UNSURE


# The hub answers ----------------------------------------------------------------------------------------------
def test_a_notice_ends_the_wait_of_a_paced_stage_at_once(make):
    device, around = make(hub=sure_at(3))
    outcome = infer(device, around)
    ((notice, heard),) = around.notices
    assert outcome.by_hub
    assert outcome.stage == notice.stage == 3
    assert outcome.ended == around.now() == heard
    assert outcome.latency == pytest.approx(heard - 100.0)
    # Heard within a stage, not at its end.
    assert outcome.stages_run == 3
    assert 0.060 < outcome.latency < 0.080
    assert outcome.busy == outcome.latency


def test_the_outcome_says_what_the_notice_says(make, small_bundle):
    device, around = make(hub=sure_at(2))
    outcome = infer(device, around)
    assert outcome.inference_id == 7
    assert outcome.prediction.group == "vehicle"
    sent = small_bundle.decider.predict(2, SURE).group_confidence
    assert outcome.prediction.group_confidence == pytest.approx(sent, abs=0.5 / 255)


def test_no_stage_begins_after_the_notice_and_nothing_more_is_offered(make):
    device, around = make(hub=sure_at(3))
    infer(device, around)
    assert device.network.ran == [1, 2, 3, 4]  # the fourth was being paced
    assert [stage for _, stage, _, _ in around.offers] == [1, 2, 3]


def test_a_stage_that_cannot_be_cut_short_is_followed_by_the_answer(make):
    device, around = make(profile=NATIVE, on_run=lambda n: around.work(0.03), hub=sure_at(1))
    outcome = infer(device, around)
    assert outcome.by_hub
    assert device.network.ran == [1, 2]
    assert outcome.stages_run == 1
    assert outcome.latency == pytest.approx(0.06)


def test_a_stage_that_was_cut_short_by_the_notice_ends_the_inference_there(make):
    def cut(n):
        around.work(0.03)
        if around.notice is not None:
            raise CancelledError(f"stage {n}")

    device, around = make(profile=NATIVE, on_run=cut, hub=sure_at(1))
    outcome = infer(device, around)
    assert outcome.by_hub
    assert outcome.stages_run == 1
    assert device.network.ran == [1]


def test_a_stage_that_was_cut_short_without_an_answer_means_that_the_device_closes(make):
    def cut(n):
        raise CancelledError(f"stage {n}")

    device, around = make(on_run=cut)
    with pytest.raises(CancelledError):
        infer(device, around)


def test_the_complete_ladder_of_the_last_stage_is_answered_whatever_its_confidence(make):
    slow_rest = PlatformProfile("p", 1.0, "test", stage_seconds={n: 0.02 if n <= 8 else 2.0 for n in range(1, 11)})
    device, around = make(profile=slow_rest, hub=lambda task: UNSURE)
    outcome = infer(device, around)
    assert outcome.by_hub
    assert (outcome.stage, outcome.stages_run) == (8, 8)


# The device answers -------------------------------------------------------------------------------------------
def test_without_a_hub_the_device_answers_after_exactly_its_own_time(make):
    device, around = make(link=LinkParameters(ci_ms=10, loss=1.0))
    outcome = infer(device, around)
    assert not outcome.by_hub
    assert (outcome.stage, outcome.stages_run) == (LOCAL_ANSWER_STAGE, STAGES)
    assert outcome.prediction.group == "animal"
    assert outcome.latency == pytest.approx(STAGES * 0.02)
    assert outcome.busy == outcome.latency


def test_the_device_s_answer_travels_as_stage_15_and_the_hub_knows(make, small_bundle):
    device, around = make(**NEVER)
    outcome = infer(device, around)
    inference_id, stage, (packet,), at = around.offers[-1]
    assert (inference_id, stage, at) == (7, LOCAL_ANSWER_STAGE, outcome.ended)
    answer = LocalAnswer.unpack(packet)
    assert answer.class_index == outcome.prediction.class_index == 3
    assert answer.confidence == pytest.approx(outcome.prediction.group_confidence, abs=0.5 / 255)
    around.hub_busy = False
    around.work(0.1)
    (heard,) = around.answers
    assert heard.is_local
    assert heard.prediction.group == "animal"


@pytest.mark.parametrize("hub_seconds", [0.001, 0.05, 0.15, 0.17, 0.2, 0.5])
def test_whichever_answers_first_is_the_answer_at_both_ends(make, hub_seconds):
    device, around = make(hub=sure_at(1), hub_seconds=hub_seconds)
    outcome = infer(device, around)
    assert outcome.by_hub == (outcome.ended < 100.2 - 1e-9)
    around.work(2.0)
    (answer,) = around.answers
    if outcome.by_hub:
        assert answer.prediction.group == outcome.prediction.group == "vehicle"
    else:
        assert outcome.prediction.group == "animal"


def test_stages_that_are_not_sent_are_run_and_not_offered(make):
    device, around = make(**NEVER)
    infer(device, around)
    assert device.network.ran == list(range(1, STAGES + 1))
    assert [stage for _, stage, _, _ in around.offers] == [*range(1, 9), LOCAL_ANSWER_STAGE]


@pytest.mark.parametrize("logits", [[0.0] * 4, [math.nan] * 5, [[0.0] * 5] * 2])
def test_a_head_that_gives_no_logit_a_class_is_an_error_in_one_line(make, logits):
    device, around = make(**NEVER)
    run = device.network.run
    device.network.run = lambda n, f: StageOutput(np.array(logits, ndmin=2), None) if n == STAGES else run(n, f)
    with pytest.raises(FleetError) as problem:
        infer(device, around)
    assert "\n" not in str(problem.value)


# The race -----------------------------------------------------------------------------------------------------
class Heads:
    """Local exits that say what they are told, and take time if they are told to."""

    def __init__(self, says, on_run=lambda n: None):
        self.says, self.on_run, self.ran = says, on_run, []

    def run_local(self, n, features):
        assert features.shape == (1, n, 4, 4)
        self.on_run(n)
        self.ran.append(n)
        return np.array([self.says[n]], np.float32)


def racing(device, heads, *, threshold=0.8, macs=500_000):
    """The device with a local exit behind each stage that ``heads`` speaks for."""
    exits = {n: LocalExit(n, f"local{n:02d}.onnx", {"conv": macs}, 1.0, threshold) for n in heads.says}
    return replace(device, bundle=replace(device.bundle, local_exits=exits), race=heads)


def test_a_local_exit_that_is_sure_ends_the_inference_and_its_answer_travels(make):
    device, around = make(**NEVER)
    device = racing(device, Heads({2: UNSURE, 4: OWN}))
    outcome = infer(device, around)
    assert (outcome.by_hub, outcome.stage, outcome.local_stage) == (False, LOCAL_ANSWER_STAGE, 4)
    assert outcome.prediction.group == "animal"
    assert (device.race.ran, device.network.ran, outcome.stages_run) == ([2, 4], [1, 2, 3, 4], 4)
    _, stage, (packet,), at = around.offers[-1]
    assert (stage, at) == (LOCAL_ANSWER_STAGE, outcome.ended)
    assert LocalAnswer.unpack(packet).class_index == 3


def test_a_local_exit_that_is_never_sure_enough_takes_no_time(make):
    device, around = make(**NEVER)
    device = racing(device, Heads({2: OWN}), threshold=math.inf)
    outcome = infer(device, around)
    assert device.race.ran == []
    assert outcome.latency == pytest.approx(STAGES * 0.02)


def test_the_radio_has_a_stage_s_packets_before_its_local_exit_runs(make):
    device, around = make(**NEVER)
    offered = []
    heads = Heads({3: UNSURE}, on_run=lambda n: offered.append(around.offers[-1][1]))
    infer(racing(device, heads), around)
    assert offered == [3]


def test_a_local_exit_costs_its_time_on_the_platform_and_delays_the_stages_behind_it(make):
    rates = PlatformProfile("rates", 100.0, "test", macs_per_second={"conv": 50e6})  # 20 ms a stage, 10 ms an exit
    device, around = make(profile=rates, **NEVER)
    outcome = infer(racing(device, Heads({2: UNSURE})), around)
    times = [at - 100.0 for _, stage, _, at in around.offers if stage in (1, 2, 3)]
    assert times == pytest.approx([0.02, 0.04, 0.07])
    assert outcome.latency == pytest.approx(STAGES * 0.02 + 0.01)
    assert outcome.local_stage is None


def test_on_a_platform_that_only_knows_stages_an_exit_costs_by_its_multiply_accumulates(make):
    device, around = make(**NEVER)  # 20 ms a stage of a million
    assert infer(racing(device, Heads({2: OWN}), macs=250_000), around).latency == pytest.approx(0.045)


def test_a_real_local_exit_that_takes_longer_than_its_pace_takes_as_long_as_it_takes(make):
    device, around = make(profile=NATIVE, on_run=lambda n: around.work(0.001), **NEVER)
    heads = Heads({2: OWN}, on_run=lambda n: around.work(0.003))
    assert infer(racing(device, heads), around).latency == pytest.approx(0.005)


def test_the_hub_wins_while_a_local_exit_still_runs(make):
    device, around = make(hub=sure_at(1))
    quick = infer(device, around)  # stage 1 at 20 ms, answered a little after 30
    assert 0.02 < quick.latency < 0.045
    device, around = make(hub=sure_at(1))
    outcome = infer(racing(device, Heads({1: OWN}), macs=10_000_000), around)
    assert outcome.by_hub
    assert outcome.local_stage is None
    assert outcome.latency < 0.045
    assert outcome.stages_run == 1


def test_a_local_exit_that_was_cut_short_by_the_notice_ends_the_inference_there(make):
    def cut(n):
        around.work(0.05)
        raise CancelledError(f"local exit {n}")

    device, around = make(hub=sure_at(1))
    outcome = infer(racing(device, Heads({1: OWN}, on_run=cut)), around)
    assert (outcome.by_hub, outcome.stages_run) == (True, 1)


def test_exits_in_the_bundle_do_nothing_where_no_race_is_wanted(make):
    device, around = make(**NEVER)
    device = replace(racing(device, Heads({1: OWN})), race=None)
    outcome = infer(device, around)
    assert (outcome.local_stage, outcome.stages_run) == (None, STAGES)
    assert outcome.latency == pytest.approx(STAGES * 0.02)


def test_a_local_exit_that_never_answers_only_costs_time(make):
    device, around = make(**NEVER)
    outcome = infer(racing(device, Heads({1: OWN}), threshold=1.5), around)
    assert outcome.local_stage is None
    assert outcome.latency == pytest.approx(STAGES * 0.02 + 0.01)


@settings(max_examples=25)
@given(link=st.deferred(lambda: links), sure=st.integers(1, 9), local=st.integers(1, 8), seed=st.integers(0, 10_000))
def test_a_race_is_never_slower_than_the_local_exit_alone_and_both_ends_agree(small_bundle, link, sure, local, seed):
    around = VirtualWorld(small_bundle, link, hub=sure_at(sure), phase=0.4 * link.ci_s, seed=seed)
    device = racing(Device(small_bundle, FakeNetwork(small_bundle), paced(0.01)), Heads({local: OWN}))
    outcome = infer(device, around)
    alone = local * 0.01 + 0.005
    assert outcome.latency <= alone + 1e-9
    assert outcome.by_hub == (outcome.local_stage is None)
    around.work(2 * link.ci_s + 1.0)
    for answer in around.answers:
        # The device had answered while the hub's word was under way, or has heard it.
        assert outcome.by_hub is False or (answer.stage, answer.is_local) == (outcome.stage, False)


@pytest.mark.parametrize("logits", [[[0.0] * 4], [[math.nan] * 5], [[0.0] * 5] * 2, [0.0] * 5])
def test_a_local_exit_that_gives_no_logit_a_class_is_an_error_in_one_line(make, logits):
    device, around = make(**NEVER)
    device = racing(device, Heads({1: OWN}))
    device.race.run_local = lambda n, features: np.array(logits, np.float32)
    with pytest.raises(FleetError, match="exit 1") as problem:
        infer(device, around)
    assert "\n" not in str(problem.value)


# Time ---------------------------------------------------------------------------------------------------------
def test_packets_are_offered_when_their_stage_would_be_over_on_the_platform(make):
    device, around = make(**NEVER)
    infer(device, around)
    times = [at - 100.0 for _, stage, _, at in around.offers if stage != LOCAL_ANSWER_STAGE]
    assert times == pytest.approx([0.02 * n for n in range(1, 9)])


def test_time_that_a_stage_really_took_is_part_of_its_pace_and_only_more_delays(make):
    device, around = make(on_run=lambda n: around.work(0.05 if n == 2 else 0.015), **NEVER)
    outcome = infer(device, around)
    # Stage 1 ends at 20 ms; stage 2 takes 50 and ends at 70; the others keep to 20 from there on.
    times = [at - 100.0 for _, stage, _, at in around.offers if stage in (1, 2, 3)]
    assert times == pytest.approx([0.02, 0.07, 0.09])
    assert outcome.latency == pytest.approx(0.02 + 0.05 + 8 * 0.02)


def test_an_unpaced_device_takes_the_time_that_it_takes(make):
    device, around = make(profile=NATIVE, on_run=lambda n: around.work(0.001 * n), **NEVER)
    outcome = infer(device, around)
    assert outcome.latency == pytest.approx(0.001 * sum(range(1, STAGES + 1)))


def test_the_clock_starts_when_the_frame_is_there_and_not_with_the_last_frame(make):
    device, around = make(link=LinkParameters(ci_ms=1000, loss=1.0))
    first = infer(device, around, 7)
    around.work(1.0)
    second = infer(device, around, 8)
    assert second.started == pytest.approx(first.ended + 1.0)
    assert second.latency == pytest.approx(first.latency)


# The radio ----------------------------------------------------------------------------------------------------
def ids_on_the_air(around):
    return [Header.unpack(packet).inference_id for _, packet in around.sent]


def test_nothing_of_an_older_inference_goes_on_the_air(make):
    device, around = make(link=LinkParameters(ci_ms=100, packets=1, payload=20))
    inference_id = 65_533
    for _ in range(5):
        begun = around.now()
        infer(device, around, inference_id)
        assert {Header.unpack(p).inference_id for t, p in around.sent if t > begun + 0.02} <= {inference_id}
        inference_id = next_id(inference_id)
    assert [i for i, _ in itertools.groupby(ids_on_the_air(around))] == [65_533, 65_534, 65_535, 0, 1]


def test_a_newer_stage_replaces_what_is_unsent_of_the_one_before(make):
    device, around = make(link=LinkParameters(ci_ms=50, packets=1, payload=20))
    infer(device, around)
    stages = [Header.unpack(packet).stage for _, packet in around.sent]
    assert stages == sorted(stages)
    assert around.scheduler.statistics.dropped > 0


@pytest.mark.parametrize(("before", "after"), [(244, 20), (20, 244), (100, 53)])
@pytest.mark.parametrize("when", [0.021, 0.030, 0.0399])
def test_a_payload_that_changes_in_mid_inference_cuts_the_next_stage_to_the_new_size(make, before, after, when):
    """Even when it changes while a stage that was computed already is still being paced."""
    device, around = make(link=LinkParameters(ci_ms=1000, payload=before), phase=5.0)
    around.at(100.0 + when, lambda: around.scheduler.configure(LinkParameters(ci_ms=1000, payload=after)))
    infer(device, around)
    always, elsewhere = make(link=LinkParameters(ci_ms=1000, payload=after), phase=5.0)
    infer(always, elsewhere)
    assert max(map(len, around.offers[0][2])) > after or before < after
    assert [packets for _, _, packets, _ in around.offers[1:]] == [packets for _, _, packets, _ in elsewhere.offers[1:]]


def test_a_payload_that_is_still_too_long_is_dropped_and_the_inference_goes_on(make):
    device, around = make(link=LinkParameters(ci_ms=1000, payload=244), phase=0.9)
    around.at(100.17, lambda: around.scheduler.configure(LinkParameters(ci_ms=1000, payload=20)))
    outcome = infer(device, around)  # stage 8 was offered at 160 ms
    assert not outcome.by_hub
    around.work(1.0)
    assert [Header.unpack(p).stage for _, p in around.sent] == [LOCAL_ANSWER_STAGE]


def test_a_slow_link_does_not_hold_the_device_up(make):
    fast, around = make(link=LinkParameters(ci_ms=7.5, loss=1.0))
    slow, elsewhere = make(link=LinkParameters(ci_ms=4000, packets=1, payload=20))
    assert infer(fast, around).latency == pytest.approx(infer(slow, elsewhere).latency)


# Whatever happens ---------------------------------------------------------------------------------------------
links = st.builds(
    LinkParameters,
    ci_ms=st.sampled_from([7.5, 10.0, 30.0, 100.0, 1000.0]),
    packets=st.integers(1, 4),
    payload=st.sampled_from([20, 53, 100, 244]),
    loss=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    ack=st.sampled_from(["link_layer", "next_event"]),
)


@settings(max_examples=40)
@given(
    link=links,
    sure=st.integers(1, 9),
    pace=st.sampled_from([0.001, 0.01, 0.05]),
    hub_seconds=st.sampled_from([0.0, 0.002, 0.03, 0.4]),
    phase=st.floats(0, 1),
    first=st.sampled_from([0, 65_534, 31_000]),
    seed=st.integers(0, 10_000),
)
def test_every_frame_ends_with_exactly_one_outcome_and_the_hub_agrees(
    small_bundle, link, sure, pace, hub_seconds, phase, first, seed
):
    around = VirtualWorld(
        small_bundle, link, hub=sure_at(sure), hub_seconds=hub_seconds, phase=phase * link.ci_s, seed=seed
    )
    device = Device(small_bundle, FakeNetwork(small_bundle), paced(pace))
    outcomes, inference_id = [], first
    for _ in range(4):
        outcomes.append(infer(device, around, inference_id))
        inference_id = next_id(inference_id)
    around.work(2 * link.ci_s + 1.0)

    answers = {}
    for answer in around.answers:
        assert answer.inference_id not in answers  # the hub answers once at most
        answers[answer.inference_id] = answer
    for k, outcome in enumerate(outcomes):
        assert outcome.inference_id == (first + k) % 65536
        # Never slower than the device alone, never without an answer.
        assert 0.0 <= outcome.latency <= STAGES * pace + 1e-9
        assert 0 <= outcome.stages_run <= STAGES
        assert outcome.by_hub == (outcome.stage in range(1, 9))
        if outcome.by_hub:
            answer = answers[outcome.inference_id]
            assert (answer.stage, answer.prediction.group) == (outcome.stage, outcome.prediction.group)
        else:
            assert outcome.stages_run == STAGES
            assert outcome.prediction.group == "animal"
    ids = [(i - first) % 65536 for i in ids_on_the_air(around)]
    assert ids == sorted(ids)
    assert all(len(packet) <= link.payload for _, packet in around.sent)


def test_an_exit_notice_with_a_class_that_the_device_lacks_is_an_error_in_one_line(make):
    device, around = make()
    around.begin(7)
    around.notice = ExitNotice(7, 99, 3, 0.9)
    with pytest.raises(FleetError, match="class 99"):
        device.infer(IMAGE, 7, around)


def test_a_profile_that_does_not_know_a_stage_is_an_error_in_one_line(make):
    device, around = make()
    device = replace(device, profile=PlatformProfile("half", 1.0, "test", stage_seconds={1: 0.01}))
    with pytest.raises(FleetError, match="no time for stage 2"):
        infer(device, around)


# The picture itself -------------------------------------------------------------------------------------------
def test_the_picture_goes_first_and_the_device_rests_until_the_hub_has_answered(make_picture):
    device, around = make_picture()
    outcome = infer(device, around)
    assert outcome.by_hub
    assert outcome.stage == 0  # unsure, but of a whole picture nothing better would come
    assert outcome.stages_run == 1
    assert device.network.ran == []
    assert [stage for _, stage, _, _ in around.offers] == [0]
    assert outcome.busy == pytest.approx(0.005)
    assert outcome.latency > 0.02


def test_a_hub_that_is_sure_early_spares_the_rest_of_the_picture(make_picture):
    unhurried, sure = make_picture(packets=1)[1], make_picture(packets=1, hub=lambda task: SURE)
    device, around = sure
    infer(device, around)
    assert [Header.unpack(p).stage for _, p in around.sent] == [0, 0]  # one more while the answer was on its way
    infer(make_picture(packets=1)[0], unhurried)
    assert len(unhurried.sent) > 2


def test_a_device_that_would_be_sooner_by_itself_does_not_rest(make_picture):
    device, around = make_picture(ci_ms=1000, stage=0.01)
    outcome = infer(device, around)
    assert not outcome.by_hub
    assert outcome.latency == pytest.approx(0.105)
    assert outcome.busy == pytest.approx(0.105)
    assert [stage for _, stage, _, _ in around.offers] == [0, 15]  # features would only be in the picture's way


def test_a_hub_that_stays_silent_gets_features_once_its_answer_is_overdue(make_picture):
    device, around = make_picture(hub_seconds=1e9)
    outcome = infer(device, around)
    assert not outcome.by_hub
    due = answer_due_s(len(around.offers[0][2]), around.link)
    assert [stage for _, stage, _, _ in around.offers] == [0, 0, *range(1, 9), 15]
    assert [time for *_, time in around.offers[:2]] == pytest.approx([100.005, 100.005 + due])
    due += answer_due_s(len(around.offers[1][2]), around.link)
    assert around.offers[2][3] == pytest.approx(100.005 + due + 0.05)
    assert outcome.busy == pytest.approx(0.005 + 0.5)
    assert outcome.latency == pytest.approx(0.005 + due + 0.5)
    assert outcome.latency < 0.005 + 2 * 0.5  # no later than twice what it takes by itself


def test_a_picture_of_which_packets_were_lost_is_sent_a_second_time(make_picture):
    device, around = make_picture()
    forget = {0}  # of the first event the first packet
    arrive = around._arrive
    around._arrive = lambda packet: forget.pop() if forget else arrive(packet)
    outcome = infer(device, around)
    assert outcome.by_hub
    assert outcome.stage == 0
    first, again = around.offers
    assert again[2] == first[2] * shows_again(len(first[2]), 0.5, around.link)
    assert outcome.busy == pytest.approx(0.005)
    assert outcome.latency > again[3] - 100.0


def test_without_a_hub_nobody_is_waited_for(make_picture):
    device, around = make_picture()
    around.hub_there = False
    outcome = infer(device, around)
    assert outcome.busy == outcome.latency
    assert device.network.ran[0] == 1


def test_a_race_does_not_rest_and_offers_no_features_while_the_answer_is_due(make_picture, picture_bundle):
    class Never:
        def run_local(self, n, features):
            return np.array([UNSURE], np.float32)

    device, around = make_picture(race=Never(), ci_ms=50, stage=0.02)
    outcome = infer(device, around)
    assert outcome.by_hub
    assert outcome.stage == 0
    assert outcome.busy == outcome.latency
    assert len(device.network.ran) > 1
    assert [stage for _, stage, _, _ in around.offers] == [0]


def test_a_thrifty_device_sends_more_only_where_what_it_sent_does_not_suffice(make_picture, monkeypatch):
    monkeypatch.setattr("fleet.inference.THRIFTY_BYTES", 122)  # more parts of a small picture
    device, around = make_picture(thrifty=True, hub=lambda task: SURE)
    infer(device, around)
    ((_, _, burst, _),) = around.offers
    assert len(burst) == thrifty_burst(40)
    assert len(around.sent) == len(burst)
    device, around = make_picture(thrifty=True)
    outcome = infer(device, around)
    whole, plain = make_picture()
    infer(whole, plain)
    assert tuple(packet for _, _, burst, _ in around.offers for packet in burst) == plain.offers[0][2]
    assert len(around.offers) > 2
    times = [time for *_, time in around.offers]
    due = answer_due_s(thrifty_burst(40), around.link, SOON_S)
    assert np.diff(times) == pytest.approx([due] * (len(times) - 1))
    assert outcome.busy == pytest.approx(0.005)
    assert outcome.stage == 0


def test_a_picture_s_packets_are_cut_to_the_link(make_picture):
    device, around = make_picture()
    infer(device, around)
    assert all(len(packet) <= 40 for _, packet in around.sent)
    assert [thrifty_burst(payload) for payload in (20, 90, 181, 244)] == [9, 2, 1, 1]


def test_what_is_left_of_a_picture_is_cut_anew_when_the_payload_changes(make_picture):
    device, around = make_picture(thrifty=True, hub_seconds=1e9)
    cut = []
    offer = around.offer

    def then_shrink(inference_id, stage, packets):
        cut.append((stage, packets, around.link.payload))
        offer(inference_id, stage, packets)
        if len(cut) == 1:
            around.scheduler.configure(around.link.replace(payload=24))

    around.offer = then_shrink
    infer(device, around)
    shown = [(packets, payload) for stage, packets, payload in cut if stage == 0]
    assert all(len(packet) <= payload for packets, payload in shown for packet in packets)
    runs = [(h.first, h.count) for packets, _ in shown[:-1] for h in map(Header.unpack, packets)]
    assert [first for first, _ in runs[1:]] == [first + count for first, count in runs[:-1]]  # without a gap
    assert sum(count for _, count in runs) == device.bundle.layouts[0].count


def test_a_run_in_pieces_is_said_whole_again_when_the_payload_shrinks_in_its_midst(make_picture):
    device, around = make_picture(thrifty=True, hub_seconds=1e9)
    bundle = replace(device.bundle, coder=coder_named("paper"))
    device = replace(device, bundle=bundle)
    heard, offers, offer = StageBuffer(bundle.layouts[0]), [], around.offer

    def then_shrink(inference_id, stage, packets):
        offers.append((stage, packets))
        offer(inference_id, stage, packets)
        if len(offers) == 1:
            around.scheduler.configure(around.link.replace(payload=24))

    around.offer = then_shrink
    infer(device, around)
    parts = [packets for stage, packets in offers if stage == 0][:-1]  # then all of it once more
    for packet in itertools.chain(*parts):
        heard.add(Header.unpack(packet), packet)
    assert heard.complete


def test_a_payload_that_grows_does_not_make_a_thrifty_device_crawl(make_picture, monkeypatch):
    monkeypatch.setattr("fleet.inference.THRIFTY_BYTES", 122)
    offers = {}
    for grows in (False, True):
        device, around = make_picture(thrifty=True, hub_seconds=1e9)
        if grows:
            offer, seen = around.offer, []

            def then_grow(inference_id, stage, packets, offer=offer, seen=seen, around=around):
                offer(inference_id, stage, packets)
                seen.append(stage)
                if len(seen) == 1:
                    around.scheduler.configure(around.link.replace(payload=244))

            around.offer = then_grow
        infer(device, around)
        offers[grows] = len([stage for _, stage, _, _ in around.offers if stage == 0])
    assert offers[True] <= offers[False]
