# SPDX-License-Identifier: Apache-2.0
"""The doorbell rings when somebody comes, and once."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.behaviours.doorbell import LATEST_S, Doorbell, DoorbellRules, DoorbellVerdict
from fleet.behaviours.sighting import Sighting, Watch
from fleet.behaviours.verdict import Reason
from fleet.errors import FleetError

RULES = DoorbellRules(Watch(("vehicle",)), min_confidence=0.7, stay_confidence=0.4, absence=30)


def car(t: float, confidence: float = 0.9) -> Sighting:
    return Sighting(t, "vehicle", "tractor", confidence, message=f"label {t:g}")


def nothing(t: float) -> Sighting:
    return Sighting(t, "none", "egg", 0.99, 0.5)


def rings(doorbell: Doorbell, *sightings: Sighting) -> list[float]:
    """Stamps of the sightings that rang."""
    return [s.stamp for s in sightings if doorbell.see(s).ring is not None]


def why(verdict: DoorbellVerdict) -> Reason | None:
    assert verdict.ring is None
    return verdict.suppressed.reason if verdict.suppressed is not None else None


def test_it_rings_with_the_first_confident_label_which_is_the_cause():
    doorbell = Doorbell(RULES)
    assert doorbell.see(nothing(0)) == DoorbellVerdict()
    ring = doorbell.see(car(1)).ring
    assert ring.visits == 1
    assert ring.cause.message == "label 1"
    assert ring.reason == "vehicle (tractor) at 0.90"


def test_it_rings_once_for_a_visitor_who_stays_all_day():
    assert rings(Doorbell(RULES), *[car(t) for t in range(0, 86400, 20)]) == [0]


def test_it_rings_again_when_somebody_comes_after_the_absence():
    doorbell = Doorbell(RULES)
    assert rings(doorbell, car(0), car(29.9), car(59.8), nothing(80), car(89.8), car(90)) == [0, 89.8]
    assert doorbell.visits == 2


def test_the_end_of_a_visit_is_told_by_the_first_frame_after_it():
    doorbell = Doorbell(RULES)
    for sighting in (car(0), car(12), nothing(41.9)):
        assert doorbell.see(sighting).over is None
    assert doorbell.present is not None
    over = doorbell.see(nothing(42)).over
    assert (over.first, over.last) == (0, 12)
    assert doorbell.present is None
    assert doorbell.see(nothing(43)).over is None


def test_a_new_visitor_right_after_the_absence_ends_one_visit_and_begins_another():
    doorbell = Doorbell(RULES)
    doorbell.see(car(0))
    verdict = doorbell.see(car(30))
    assert verdict.over.last == 0
    assert verdict.ring.visits == 2


def test_a_camera_that_says_nothing_for_long_ends_the_visit_too():
    assert rings(Doorbell(RULES), car(0), car(100)) == [0, 100]


def test_a_label_that_flickers_around_the_confidence_is_one_visit():
    flicker = [car(t / 8, 0.71 if t % 3 == 0 else 0.69) for t in range(2000)]
    assert rings(Doorbell(RULES), *flicker) == [0]


def test_the_lower_confidence_keeps_a_visit_going_and_begins_none():
    doorbell = Doorbell(RULES)
    assert why(doorbell.see(car(0, 0.5))) is Reason.UNSURE
    assert rings(doorbell, car(1), *[car(t, 0.5) for t in range(20, 200, 20)], car(200)) == [1]


def test_below_the_lower_confidence_nobody_is_there():
    doorbell = Doorbell(RULES)
    doorbell.see(car(0))
    assert why(doorbell.see(car(20, 0.39))) is Reason.UNSURE
    assert rings(doorbell, car(31)) == [31]


def test_a_suppressed_sighting_begins_no_visit():
    doorbell = Doorbell(dataclasses.replace(RULES, k=2, n=2))
    assert why(doorbell.see(car(0))) is Reason.TOO_FEW
    assert doorbell.present is None
    assert rings(doorbell, nothing(1), car(2), car(3)) == [3]


def test_frames_with_nothing_count_in_k_of_n():
    doorbell = Doorbell(dataclasses.replace(RULES, k=2, n=3))
    assert rings(doorbell, car(0), nothing(1), nothing(2), car(3), nothing(4), car(5)) == [5]


def test_without_any_confidence_nobody_is_there():
    doorbell = Doorbell(dataclasses.replace(RULES, min_confidence=0.0, stay_confidence=0.0))
    assert why(doorbell.see(Sighting(0, "vehicle"))) is Reason.UNKNOWN
    assert rings(doorbell, car(1)) == [1]


def test_what_is_not_watched_for_is_not_worth_a_word():
    assert Doorbell(RULES).see(Sighting(0, "pet", "beagle", 1.0)) == DoorbellVerdict()


def test_a_late_frame_of_a_visit_that_is_over_does_not_ring_again():
    doorbell = Doorbell(RULES)
    assert rings(doorbell, car(0), car(10), nothing(60), car(12)) == [0]
    assert rings(doorbell, car(100), car(13)) == [100]


def test_a_visit_that_only_a_late_frame_shows_rings():
    doorbell = Doorbell(RULES)
    assert rings(doorbell, nothing(50), car(10), car(51)) == [10, 51]


def test_late_frames_show_that_a_visit_began_earlier():
    assert rings(Doorbell(RULES), car(100), car(75), car(50), car(25)) == [100]


def test_a_late_visit_does_not_end_the_one_that_is_going_on():
    doorbell = Doorbell(RULES)
    assert rings(doorbell, car(100), car(50)) == [100, 50]
    assert doorbell.present.first == 100
    assert doorbell.see(car(101)).over is None


def test_a_clock_that_was_set_back_begins_anew():
    doorbell = Doorbell(RULES)
    hour_ago = 10_000 - 3600
    assert rings(
        doorbell, car(hour_ago), nothing(hour_ago + 60), nothing(10_000), car(hour_ago), car(hour_ago + 9)
    ) == [
        hour_ago,
        hour_ago,
    ]
    assert LATEST_S < 3600


def test_reasons_are_told_once_and_again_for_the_next_visit():
    doorbell = Doorbell(RULES)
    told = []
    for t in [*range(40), *range(100, 140)]:
        verdict = doorbell.see(car(t))
        if verdict.suppressed is not None and verdict.suppressed.is_news:
            told.append((t, verdict.suppressed.reason))
    assert told == [(1, Reason.SAME_VISIT), (101, Reason.SAME_VISIT)]


def test_new_rules_do_not_ring_again_for_who_is_there():
    doorbell = Doorbell(RULES)
    doorbell.see(car(0))
    doorbell.rules = dataclasses.replace(RULES, min_confidence=0.5)
    assert doorbell.rules.min_confidence == 0.5
    assert rings(doorbell, car(1)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_confidence": -0.1},
        {"min_confidence": math.nan},
        {"stay_confidence": 0.71},
        {"stay_confidence": math.nan},
        {"k": 2},
        {"absence": 0.0},
        {"absence": math.inf},
    ],
)
def test_rules_that_cannot_be_are_refused_in_one_line(wrong: dict[str, float]):
    with pytest.raises(FleetError) as caught:
        dataclasses.replace(RULES, **wrong)
    assert "\n" not in str(caught.value)


# For every history ----------------------------------------------------------------------------------------------
frames = st.lists(
    st.tuples(st.integers(0, 240), st.booleans(), st.floats(0, 1) | st.just(math.nan)),  # quarters of a second
    max_size=30,
).map(lambda items: [(q / 4, shows, c) for q, shows, c in items])
rules = st.builds(
    lambda kn, high, low, absence: DoorbellRules(RULES.watch, high, high * low, *kn, absence),
    st.integers(1, 4).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0.25, 1.0, 5.0, 20.0]),
)


def play(rules: DoorbellRules, history: list[tuple[float, bool, float]]) -> list[tuple[float, float, DoorbellVerdict]]:
    doorbell = Doorbell(rules)
    seen = []
    for t, shows, confidence in history:
        seen.append((t, confidence, doorbell.see(car(t, confidence) if shows else nothing(t))))
    return seen


@given(frames, rules)
def test_in_order_it_rings_never_twice_a_visit_and_never_not_at_all(history, rules):
    """Against a naive model: a visit goes on while no gap between its sightings reaches the absence."""
    ordered = sorted(history, key=lambda item: item[0])
    last = -math.inf
    expected = []
    for i, (t, shows, confidence) in enumerate(ordered):
        if not shows:
            continue
        if t - last < rules.absence and confidence >= rules.stay_confidence:
            last = t
            continue
        recent = ordered[max(0, i - rules.n + 1) : i + 1]
        count = sum(s and c >= rules.min_confidence for _, s, c in recent)
        if confidence >= rules.min_confidence and count >= rules.k:
            expected.append(i)
            last = t
    played = play(rules, ordered)
    assert [i for i, (_, _, verdict) in enumerate(played) if verdict.ring is not None] == expected
    assert [v.ring.visits for _, _, v in played if v.ring is not None] == list(range(1, len(expected) + 1))


@given(frames, rules, st.data())
def test_in_any_order_a_visit_rings_once(history, rules, data):
    played = play(rules, data.draw(st.permutations(history)))
    belonging: list[float] = []  # stamps of sightings that are part of a visit
    for (t, confidence, verdict), shows in zip(played, [v.ring or v.suppressed for _, _, v in played], strict=True):
        if shows is None:
            continue
        if verdict.ring is not None:
            assert confidence >= rules.min_confidence
            assert all(abs(t - other) >= rules.absence for other in belonging)
            belonging.append(t)
        elif verdict.suppressed.reason is Reason.SAME_VISIT:
            assert any(abs(t - other) < rules.absence for other in belonging) or min(belonging) < t < max(belonging)
            belonging.append(t)
        elif rules.k == 1:
            assert not confidence >= rules.min_confidence, "a visitor was overlooked"
