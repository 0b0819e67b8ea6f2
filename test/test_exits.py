# SPDX-License-Identifier: Apache-2.0
"""From logits to an answer."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fleet.errors import FleetError
from fleet.exits import Classes, Decider, normalised_entropy, softmax
from fleet.packet import LOCAL_ANSWER_STAGE

CLASSES = Classes(
    ids=("n01", "n02", "n03", "n04", "n05"),
    names=("tractor", "tabby", "collie", "bison", "bench"),
    group_of=(0, 1, 1, 2, 3),
    groups=("vehicle", "pet", "animal", "none"),
)
logits = hnp.arrays(np.float64, 5, elements=st.floats(-1e6, 1e6))
small_logits = hnp.arrays(np.float64, 5, elements=st.floats(-30, 30))
deciders = st.builds(
    Decider,
    classes=st.just(CLASSES),
    temperatures=st.dictionaries(st.integers(1, 8), st.floats(0.05, 20)),
    thresholds=st.dictionaries(st.integers(1, 8), st.floats(0, 1)),
    trigger=st.sampled_from(["confidence", "entropy"]),
    unit=st.sampled_from(["group", "class"]),
)
exits = st.integers(1, 8)


def decider(**changes):
    return Decider(CLASSES, **({"temperatures": {}, "thresholds": {}} | changes))


def log(*probabilities):
    return np.log(probabilities)


# Predictions --------------------------------------------------------------------------------------------------
def test_a_group_s_probability_is_the_sum_of_its_classes():
    prediction = decider().predict(3, log(0.3, 0.25, 0.2, 0.15, 0.1))
    assert prediction.group == "pet"
    assert prediction.group_confidence == pytest.approx(0.45)
    assert prediction.certainty == pytest.approx(0.45)
    # The tractor is the likeliest class, but the answer's class is one of the answer's group.
    assert prediction.class_index == 1
    assert prediction.class_confidence == pytest.approx(0.25)


@given(deciders, exits, logits)
def test_the_class_is_the_likeliest_of_the_likeliest_group(decider, stage, scores):
    prediction = decider.predict(stage, scores)
    p = softmax(scores / decider.temperatures.get(stage, 1.0))
    sums = {g: sum(p[k] for k in range(5) if CLASSES.groups[CLASSES.group_of[k]] == g) for g in CLASSES.groups}
    assert sums[prediction.group] == pytest.approx(max(sums.values()))
    members = [k for k in range(5) if CLASSES.groups[CLASSES.group_of[k]] == prediction.group]
    assert prediction.class_index in members
    assert prediction.class_confidence == max(p[k] for k in members)


@given(deciders, exits, logits)
def test_all_confidences_are_between_zero_and_one(decider, stage, scores):
    prediction = decider.predict(stage, scores)
    for value in (prediction.class_confidence, prediction.group_confidence, prediction.certainty):
        assert 0.0 <= value <= 1.0
    assert 0.0 <= decider.confidence(prediction) <= 1.0


def test_a_sum_that_rounding_drives_above_one_is_one():
    letters = tuple("abcdefg")
    one_group = Decider(Classes(letters, letters, (0,) * 7, ("all", "none")), {}, {})
    scores = [np.arange(7) * k / 10 for k in range(200)]
    assert any(sum(softmax(s)) > 1.0 for s in scores)
    assert all(one_group.predict(1, s).group_confidence <= 1.0 for s in scores)


@given(exits, small_logits, st.floats(-1000, 1000))
def test_logits_matter_up_to_a_constant_only(stage, scores, shift):
    one, other = decider().predict(stage, scores), decider().predict(stage, scores + shift)
    assert one.group_confidence == pytest.approx(other.group_confidence, abs=1e-6)


@given(small_logits, st.floats(1.1, 10))
def test_a_temperature_above_one_makes_an_exit_less_sure_and_only_that_exit(scores, temperature):
    tempered = decider(temperatures={4: temperature}, unit="class")
    plain = decider(unit="class")
    assert tempered.predict(4, scores).certainty <= plain.predict(4, scores).certainty + 1e-12
    assert tempered.predict(5, scores) == plain.predict(5, scores)


def test_a_temperature_divides_the_logits():
    prediction = decider(temperatures={2: 2.0}).predict(2, [4.0, 0.0, 0.0, 0.0, 0.0])
    expected = math.exp(2) / (math.exp(2) + 4)
    assert prediction.group_confidence == pytest.approx(expected)


@pytest.mark.parametrize("unit", ["group", "class"])
def test_the_entropy_trigger_is_one_minus_the_normalised_entropy_of_what_is_judged(unit):
    scores = log(0.3, 0.25, 0.2, 0.15, 0.1)
    judged = [0.3, 0.45, 0.15, 0.1] if unit == "group" else [0.3, 0.25, 0.2, 0.15, 0.1]
    entropy = -sum(p * math.log(p) for p in judged) / math.log(len(judged))
    assert decider(trigger="entropy", unit=unit).predict(1, scores).certainty == pytest.approx(1 - entropy)


def test_entropy_ends_at_sure_and_at_no_idea():
    assert normalised_entropy(np.array([0.0, 1.0, 0.0])) == 0.0
    assert normalised_entropy(np.full(7, 1 / 7)) == pytest.approx(1.0)
    assert normalised_entropy(np.array([1.0])) == 0.0


def test_the_unit_says_whose_probability_is_judged_and_published():
    scores = log(0.3, 0.25, 0.2, 0.15, 0.1)
    by_class = decider(unit="class")
    prediction = by_class.predict(1, scores)
    assert prediction.certainty == pytest.approx(0.3)
    assert by_class.confidence(prediction) == prediction.class_confidence
    by_group = decider(unit="group")
    assert by_group.confidence(by_group.predict(1, scores)) == pytest.approx(0.45)


def test_an_exit_answers_from_its_own_threshold_on_and_never_without_one():
    deciding = decider(thresholds={3: 0.45 - 1e-9, 4: 0.46})
    scores = log(0.3, 0.25, 0.2, 0.15, 0.1)
    assert deciding.is_sure(3, deciding.predict(3, scores))
    assert not deciding.is_sure(4, deciding.predict(4, scores))
    assert not deciding.is_sure(5, deciding.predict(5, scores * 1000))


def test_an_exit_whose_stage_has_only_begun_has_a_threshold_of_its_own_or_the_usual_one():
    deciding = decider(thresholds={3: 0.4, 4: 0.4, 6: 0.4}, begun={3: (0.5,), 5: (0.4,), 6: (math.inf,)})
    scores = log(0.3, 0.25, 0.2, 0.15, 0.1)  # 0.45 sure
    for stage, complete, incomplete in ((3, True, False), (4, True, True), (5, False, True), (6, True, False)):
        prediction = deciding.predict(stage, scores)
        assert deciding.is_sure(stage, prediction) == complete
        assert deciding.is_sure(stage, prediction, arrived=0.99) == incomplete


def test_thresholds_of_equal_parts_of_a_stage_hold_from_where_their_part_begins():
    deciding = decider(thresholds={0: 0.1}, begun={0: (0.9, 0.8, 0.7, 0.6)})
    shares = (0.0, 0.24, 0.25, 0.49, 0.5, 0.75, 0.99, 1.0)
    assert [deciding.threshold(0, arrived=share) for share in shares] == [0.9, 0.9, 0.8, 0.8, 0.7, 0.6, 0.6, 0.1]


@pytest.mark.parametrize("levels", [(), (0.5, math.nan)])
def test_a_list_of_thresholds_with_nothing_or_no_number_in_it_is_refused(levels):
    with pytest.raises(FleetError, match="exit 2"):
        decider(begun={2: levels})


@given(deciders, exits, logits)
def test_a_threshold_of_zero_always_answers(deciding, stage, scores):
    always = Decider(CLASSES, deciding.temperatures, {stage: 0.0}, deciding.trigger, deciding.unit)
    assert always.is_sure(stage, always.predict(stage, scores))


@pytest.mark.parametrize(
    "scores",
    [
        [0.0, 0.0, math.nan, 0.0, 0.0],
        [0.0, math.inf, 0.0, 0.0, 0.0],
        [0.0, -math.inf, 0.0, 0.0, 0.0],
        [math.nan] * 5,
        [0.0] * 4,
        [0.0] * 6,
        [[0.0] * 5],
        [],
        0.0,
    ],
    ids=str,
)
@pytest.mark.parametrize("trigger", ["confidence", "entropy"])
def test_logits_that_are_no_numbers_or_not_one_a_class_are_refused(scores, trigger):
    with pytest.raises(FleetError, match="exit 6 gave") as problem:
        decider(trigger=trigger).predict(6, scores)
    assert "\n" not in str(problem.value)


def test_logits_that_a_temperature_drives_off_the_scale_are_refused_and_not_answered_as_nan():
    with pytest.raises(FleetError, match="exit 6 gave"):
        decider(temperatures={6: 1e-9}).predict(6, [1e308, 0.0, 0.0, 0.0, 0.0])


# From the air -------------------------------------------------------------------------------------------------
@given(st.integers(0, 4), st.floats(0, 1))
def test_what_comes_off_the_air_names_class_and_group_and_the_confidence_that_travelled(index, confidence):
    for unit in ("group", "class"):
        deciding = decider(unit=unit)
        prediction = deciding.from_air(index, confidence)
        assert prediction.class_index == index
        assert prediction.group == CLASSES.groups[CLASSES.group_of[index]]
        assert deciding.confidence(prediction) == prediction.certainty == confidence
        other = prediction.class_confidence if unit == "group" else prediction.group_confidence
        assert math.isnan(other)


@pytest.mark.parametrize("index", [-1, 5, 65535])
def test_a_class_that_the_bundle_lacks_is_refused(index):
    with pytest.raises(FleetError, match=f"class {index} was answered, but this bundle has 5 classes"):
        decider().from_air(index, 0.5)


# What cannot decide -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trigger": "gut feeling"}, "trigger is confidence or entropy, not 'gut feeling'"),
        ({"unit": "species"}, "unit is group or class, not 'species'"),
        ({"temperatures": {3: 0.0}}, "temperature of exit 3"),
        ({"temperatures": {3: -1.0}}, "temperature of exit 3"),
        ({"temperatures": {3: math.nan}}, "temperature of exit 3"),
        ({"temperatures": {LOCAL_ANSWER_STAGE: math.inf}}, "temperature of exit 15"),
        ({"thresholds": {2: math.nan}}, "threshold of exit 2"),
    ],
)
def test_a_decision_that_would_silently_be_another_is_refused(changes, words):
    with pytest.raises(FleetError, match=words):
        decider(**changes)


# Classes ------------------------------------------------------------------------------------------------------
def test_classes_come_back_from_the_manifest():
    assert Classes.from_manifest(CLASSES.to_manifest(), CLASSES.groups) == CLASSES
    assert len(CLASSES) == 5


def test_a_folder_s_group_is_found_by_class_id_by_name_or_by_group():
    found = [CLASSES.group_named(label) for label in ("n03", "bison", "none", "zebra", "", None)]
    assert found == ["pet", "animal", "none", None, None, None]


@given(hnp.arrays(np.float64, (3, 5), elements=st.floats(0, 1)))
def test_group_probabilities_add_up_for_any_number_of_rows(probabilities):
    groups = CLASSES.group_probabilities(probabilities)
    assert groups.shape == (3, 4)
    assert groups.sum(axis=1) == pytest.approx(probabilities.sum(axis=1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((), (), (), ("a",)), "id, a name and a group"),
        ((("1", "2"), ("x",), (0, 0), ("a",)), "id, a name and a group"),
        ((("1",), ("x",), (1,), ("a",)), "group that there is not"),
        ((("1",), ("x",), (-1,), ("a",)), "group that there is not"),
    ],
)
def test_classes_that_do_not_fit_together_are_refused(arguments, words):
    with pytest.raises(FleetError, match=words):
        Classes(*arguments)


@given(deciders, exits, hnp.arrays(np.float64, (4, 5), elements=st.floats(-30, 30)))
def test_the_certainty_of_many_images_at_once_is_that_of_each_alone(deciding, stage, many):
    temperature = deciding.temperatures.get(stage, 1.0)
    alone = [deciding.predict(stage, scores).certainty for scores in many]
    np.testing.assert_allclose(deciding.certainty(softmax(many / temperature)), alone, rtol=1e-9, atol=1e-12)
