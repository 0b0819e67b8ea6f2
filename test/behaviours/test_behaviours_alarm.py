# SPDX-License-Identifier: Apache-2.0
"""The alarm goes on at once, only when it may, and leaves a reason for every time it does not."""

from __future__ import annotations

import dataclasses
import datetime
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.behaviours.alarm import Alarm, AlarmRules, AlarmVerdict, State
from fleet.behaviours.hours import ActiveHours
from fleet.behaviours.sighting import Sighting, Watch
from fleet.behaviours.verdict import AWAY_S, Reason
from fleet.errors import FleetError

NOON = datetime.time(12)
VEHICLE = Watch(("vehicle",))
RULES = AlarmRules(VEHICLE, min_confidence=0.7, hold=10, cool_down=60, silence_duration=600)


def car(t: float, confidence: float = 0.9) -> Sighting:
    return Sighting(t, "vehicle", "limousine, limo", confidence, confidence / 2, message=f"label {t:g}")


def nothing(t: float) -> Sighting:
    return Sighting(t, "none", "egg", 0.99, 0.5)


class Yard:
    """An alarm, the time, and what became of it."""

    def __init__(self, now: float = 0.0, clock: datetime.time = NOON, **rules: object) -> None:
        self.alarm = Alarm(dataclasses.replace(RULES, **rules), now)
        self.now = now
        self.clock = clock

    def sees(self, *sightings: Sighting) -> AlarmVerdict:
        for sighting in sightings:
            self.now = max(self.now, sighting.stamp)
            verdict = self.alarm.see(sighting, self.now, self.clock)
        return verdict

    def states(self, verdict: AlarmVerdict) -> list[State]:
        return [change.state for change in verdict.changes]

    def waits_until(self, now: float) -> list[State]:
        self.now = now
        return [change.state for change in self.alarm.pass_time(now)]


def why(verdict: AlarmVerdict) -> Reason | None:
    assert not verdict.changes
    return verdict.suppressed.reason if verdict.suppressed is not None else None


# Going on and off -----------------------------------------------------------------------------------------------
def test_it_begins_off_and_says_what_it_watches_for():
    alarm = Yard().alarm
    assert alarm.current.state is State.OFF
    assert alarm.current.reason == "watching for vehicle"
    assert alarm.current.cause is None


def test_the_first_confident_label_puts_it_on_and_is_named_as_the_cause():
    yard = Yard()
    verdict = yard.sees(nothing(0), car(1))
    (change,) = verdict.changes
    assert change.state is State.ON
    assert change.cause.message == "label 1"
    assert change.reason == "vehicle (limousine, limo) at 0.90"
    assert verdict.suppressed is None


def test_it_goes_off_after_its_hold_with_the_same_cause():
    yard = Yard()
    yard.sees(car(0))
    assert yard.waits_until(9.99) == []
    assert yard.waits_until(10) == [State.OFF]
    assert yard.alarm.current.cause.message == "label 0"
    assert yard.waits_until(1000) == []


def test_what_is_seen_while_it_is_on_does_not_keep_it_on():
    yard = Yard()
    yard.sees(car(0))
    assert why(yard.sees(car(9))) is Reason.ALREADY_ON
    assert yard.waits_until(10) == [State.OFF]


def test_after_the_cool_down_it_goes_on_again():
    yard = Yard()
    yard.sees(car(0))
    yard.waits_until(10)
    assert why(yard.sees(car(59.9))) is Reason.COOLING_DOWN
    assert yard.states(yard.sees(car(60))) == [State.ON]


def test_a_sighting_after_a_long_pause_first_ends_what_is_over():
    yard = Yard()
    yard.sees(car(0))
    assert yard.states(yard.sees(car(100))) == [State.OFF, State.ON]


def test_without_a_cool_down_it_goes_on_as_soon_as_it_is_off():
    yard = Yard(cool_down=0.0)
    yard.sees(car(0))
    assert yard.states(yard.sees(car(10))) == [State.OFF, State.ON]


@pytest.mark.parametrize("sighting", [nothing(1), Sighting(1, "pet", "beagle", 1.0, 1.0)])
def test_what_is_not_watched_for_is_not_worth_a_word(sighting: Sighting):
    verdict = Yard().sees(sighting)
    assert verdict == AlarmVerdict()


# Suppression ----------------------------------------------------------------------------------------------------
def test_a_label_that_is_not_sure_enough_is_suppressed_with_both_numbers():
    verdict = Yard().sees(car(0, 0.699))
    assert why(verdict) is Reason.UNSURE
    assert "0.699" in verdict.suppressed.text
    assert "0.700" in verdict.suppressed.text


def test_exactly_the_confidence_asked_for_is_enough():
    yard = Yard()
    assert yard.states(yard.sees(car(0, 0.7))) == [State.ON]


@pytest.mark.parametrize(("of_group", "of_class"), [(0.8, math.nan), (math.nan, 0.8)])
def test_one_confidence_of_two_is_enough(of_group: float, of_class: float):
    yard = Yard()
    assert yard.states(yard.sees(Sighting(0, "vehicle", "go-kart", of_group, of_class))) == [State.ON]


def test_a_label_without_any_confidence_puts_nothing_on():
    assert why(Yard(min_confidence=0.0).sees(Sighting(0, "vehicle"))) is Reason.UNKNOWN


def test_k_of_n_frames_are_waited_for():
    yard = Yard(k=2, n=3)
    assert why(yard.sees(car(0))) is Reason.TOO_FEW
    assert why(yard.sees(nothing(1))) is None
    verdict = yard.sees(car(2))
    assert yard.states(verdict) == [State.ON]
    assert "2 of 3 frames" in verdict.changes[0].reason


def test_frames_with_nothing_push_old_ones_out():
    yard = Yard(k=2, n=3)
    assert why(yard.sees(car(0), nothing(1), nothing(2), car(3))) is Reason.TOO_FEW


def test_a_late_frame_completes_k_of_n():
    yard = Yard(k=2, n=2)
    yard.sees(car(1), nothing(3))
    assert yard.states(yard.sees(car(2))) == [State.ON]


def test_outside_active_hours_nothing_goes_on_and_inside_it_does_at_once():
    yard = Yard(hours=ActiveHours.parse("22:00-06:00"))
    verdict = yard.sees(car(0))
    assert why(verdict) is Reason.OUTSIDE_HOURS
    assert "12:00" in verdict.suppressed.text
    yard.clock = datetime.time(22)
    assert yard.states(yard.sees(car(1))) == [State.ON]


def test_an_alarm_that_is_on_when_the_hours_end_runs_its_time():
    yard = Yard(hours=ActiveHours.parse("08:00-12:01"))
    yard.sees(car(0))
    yard.clock = datetime.time(12, 1)
    assert why(yard.sees(car(5))) is Reason.OUTSIDE_HOURS
    assert yard.waits_until(10) == [State.OFF]


@pytest.mark.parametrize("reason", [Reason.UNSURE, Reason.TOO_FEW, Reason.OUTSIDE_HOURS, Reason.SILENCED])
def test_a_suppressed_event_does_not_start_the_cool_down(reason: Reason):
    yard = Yard(k=2, n=2, hours=ActiveHours.parse("08:00-18:00"))
    yard.sees(car(0), nothing(1))
    if reason is Reason.UNSURE:
        assert why(yard.sees(car(2, 0.5))) is reason
    elif reason is Reason.TOO_FEW:
        assert why(yard.sees(car(2), nothing(3), car(4))) is reason
    elif reason is Reason.OUTSIDE_HOURS:
        yard.clock = datetime.time(20)
        assert why(yard.sees(car(2), car(3))) is reason
        yard.clock = NOON
    else:
        yard.alarm.silence(1)
        assert why(yard.sees(car(2), car(3))) is reason
        yard.alarm.end_silence(4)
    yard.sees(car(5))
    if yard.alarm.state is not State.ON:
        yard.sees(car(6))
    assert yard.alarm.state is State.ON


# Silence --------------------------------------------------------------------------------------------------------
def test_silence_ends_an_alarm_and_keeps_others_from_beginning():
    yard = Yard()
    yard.sees(car(0))
    (change,) = yard.alarm.silence(1)
    assert change.state is State.SILENCED
    assert change.cause.message == "label 0"
    assert why(yard.sees(car(100))) is Reason.SILENCED


def test_silence_without_an_alarm_has_no_cause():
    (change,) = Yard().alarm.silence(1)
    assert change.state is State.SILENCED
    assert change.cause is None


def test_silence_is_over_after_its_duration():
    yard = Yard()
    yard.alarm.silence(0)
    assert yard.waits_until(599) == []
    assert yard.waits_until(600) == [State.OFF]
    assert yard.states(yard.sees(car(601))) == [State.ON]


def test_asking_again_prolongs_the_silence_without_another_change():
    yard = Yard()
    yard.alarm.silence(0)
    assert yard.alarm.silence(500) == ()
    assert yard.waits_until(1099) == []
    assert yard.waits_until(1100) == [State.OFF]


def test_a_silence_can_be_ended():
    yard = Yard()
    yard.alarm.silence(0)
    (change,) = yard.alarm.end_silence(1)
    assert change.state is State.OFF
    assert yard.states(yard.sees(car(2))) == [State.ON]


def test_ending_a_silence_that_is_none_leaves_an_alarm_alone():
    yard = Yard()
    yard.sees(car(0))
    assert yard.alarm.end_silence(1) == ()
    assert yard.alarm.state is State.ON


def test_a_silence_without_duration_lasts_until_it_is_ended():
    yard = Yard(silence_duration=0.0)
    yard.alarm.silence(0)
    assert yard.waits_until(1e9) == []
    assert why(yard.sees(car(1e9))) is Reason.SILENCED
    assert yard.alarm.end_silence(1e9 + 1)[0].state is State.OFF


def test_the_cool_down_of_an_alarm_goes_on_through_a_silence():
    yard = Yard()
    yard.sees(car(0))
    yard.alarm.silence(1)
    yard.alarm.end_silence(2)
    assert why(yard.sees(car(3))) is Reason.COOLING_DOWN
    assert yard.states(yard.sees(car(60))) == [State.ON]


# Time and settings that change ----------------------------------------------------------------------------------
def test_a_clock_that_jumps_back_leaves_what_is_running_its_remaining_time():
    yard = Yard(now=1000.0)
    yard.sees(car(1000))
    assert yard.waits_until(1004) == []
    assert yard.waits_until(0) == []
    assert yard.waits_until(5.9) == []
    assert yard.waits_until(6) == [State.OFF]
    yard.alarm.silence(10)
    assert yard.waits_until(2) == []
    assert yard.waits_until(601.9) == []
    assert yard.waits_until(602) == [State.OFF]


def test_new_rules_hold_for_an_alarm_that_is_on():
    yard = Yard()
    yard.sees(car(0))
    yard.alarm.rules = dataclasses.replace(RULES, hold=2, cool_down=5)
    assert yard.waits_until(2) == [State.OFF]
    assert yard.states(yard.sees(car(5))) == [State.ON]


def test_new_rules_judge_frames_from_then_on():
    yard = Yard(k=2, n=2)
    yard.sees(car(0))
    yard.alarm.rules = dataclasses.replace(RULES, watch=Watch(("pet",)), k=2, n=2)
    assert why(yard.sees(Sighting(1, "pet", "beagle", 0.9, 0.9))) is Reason.TOO_FEW


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_confidence": 1.1},
        {"min_confidence": math.nan},
        {"k": 3, "n": 2},
        {"hold": -1.0},
        {"cool_down": math.inf},
        {"silence_duration": math.nan},
    ],
)
def test_rules_that_cannot_be_are_refused_in_one_line(wrong: dict[str, float]):
    with pytest.raises(FleetError) as caught:
        dataclasses.replace(RULES, **wrong)
    assert "\n" not in str(caught.value)


# What the log gets ----------------------------------------------------------------------------------------------
def news(yard: Yard, *sightings: Sighting) -> list[Reason]:
    verdicts = [yard.sees(s) for s in sightings]
    return [v.suppressed.reason for v in verdicts if v.suppressed is not None and v.suppressed.is_news]


def test_a_reason_is_told_once_however_many_frames_it_holds_for():
    yard = Yard()
    yard.alarm.silence(0)
    assert news(yard, *[car(t / 8) for t in range(1, 2000)]) == [Reason.SILENCED]
    assert yard.alarm.log.counts == {Reason.SILENCED: 1999}


def test_another_reason_is_told():
    yard = Yard()
    assert news(yard, car(0, 0.5), car(1), car(2), car(11), car(12)) == [
        Reason.UNSURE,
        Reason.ALREADY_ON,
        Reason.COOLING_DOWN,
    ]


def test_flickering_between_two_reasons_tells_each_once():
    yard = Yard(k=3, n=3)
    assert news(yard, *[car(t / 8, 0.9 if t % 2 else 0.5) for t in range(1000)]) == [Reason.UNSURE, Reason.TOO_FEW]


def test_the_next_event_is_told_although_its_reason_is_the_same():
    yard = Yard()
    yard.alarm.silence(0)
    assert news(yard, car(1), car(2), nothing(3), car(2 + AWAY_S + 1)) == [Reason.SILENCED] * 2


def test_after_an_alarm_every_reason_is_told_again():
    yard = Yard()
    assert news(yard, car(0, 0.5), car(1), car(2, 0.5)) == [Reason.UNSURE, Reason.UNSURE]


# For every history ----------------------------------------------------------------------------------------------
steps = st.lists(
    st.tuples(
        st.sampled_from(["car", "none", "pet", "silence", "end", "wait"]),
        st.floats(0, 1) | st.just(math.nan),
        st.integers(0, 40),  # s to the next step
        st.integers(-3, 0),  # s that the frame is late
        st.times(),
    ),
    max_size=60,
)
k_of_n = st.integers(1, 4).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n)))


@given(
    steps,
    k_of_n,
    st.sampled_from(["", "22:00-06:00", "06:00-22:00"]),
    st.sampled_from([0.0, 5.0, 30.0]),
    st.sampled_from([0.0, 20.0, 60.0]),
    st.sampled_from([0.0, 50.0]),
)
def test_in_every_history_the_alarm_keeps_its_promises(steps, kn, hours, hold, cool_down, silence):
    active = ActiveHours.parse(hours)
    rules = AlarmRules(VEHICLE, 0.6, *kn, hold, cool_down, active, silence)
    alarm = Alarm(rules, 0.0)
    now, state, went_on, off_due, silent_due = 0.0, State.OFF, -math.inf, math.inf, math.inf
    for what, confidence, pause, late, clock in steps:
        now += pause
        before = alarm.current
        if what == "silence":
            changes = alarm.silence(now)
            silent_due = now + silence if silence else math.inf
        elif what == "end":
            changes = alarm.end_silence(now)
        elif what == "wait":
            changes = alarm.pass_time(now)
        else:
            group = {"car": "vehicle"}.get(what, what)
            sighting = Sighting(now + late, group, "", confidence, math.nan)
            verdict = alarm.see(sighting, now, clock)
            changes = verdict.changes
            fired = bool(changes) and changes[-1].state is State.ON
            watched = group == "vehicle"
            # A watched sighting either fires or is suppressed with a reason; others do neither.
            assert (fired, verdict.suppressed is not None) == (watched and fired, watched and not fired)
            if fired:
                assert active is None or active.include(clock)
                assert confidence >= rules.min_confidence
                # The cool-down counts from the last time it went on, and from nothing else: a suppressed event
                # neither begins nor prolongs it.
                assert now - went_on >= max(cool_down, hold if state is State.ON else 0)
                assert changes[-1].cause is sighting
                went_on, off_due = now, now + hold
            elif watched and verdict.suppressed.reason is Reason.COOLING_DOWN:
                assert now - went_on < cool_down
            if watched and not fired and rules.k == 1 and confidence >= rules.min_confidence:
                allowed = active is None or active.include(clock)
                quiet = alarm.state is not State.OFF or now - went_on < cool_down
                assert not allowed or quiet, "an event was lost"
        assert [c.state for c in changes] != [before.state]  # a change is a change
        state = alarm.state
        assert state is (changes[-1] if changes else before).state
        assert alarm.current is (changes[-1] if changes else before)
        if state is State.ON:
            assert now < off_due or (hold == 0 and now == went_on)
        if state is State.SILENCED:
            assert now < silent_due or (silence == 0)
