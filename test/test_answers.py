# SPDX-License-Identifier: Apache-2.0
"""Who answers: no frame twice, and none not at all."""

from hypothesis import given
from hypothesis import strategies as st

from fleet.answers import OncePerFrame, PendingAnswers
from fleet.packet import next_id


def pending(timeout=0.5, **answers):
    waiting = PendingAnswers(timeout)
    for k, (answer, now) in enumerate(answers.items()):
        waiting.add(k, answer, now)
    return waiting


def test_an_answer_waits_for_its_time_and_is_given_once():
    waiting = pending(cat=10.0)
    assert waiting.due(10.49) == []
    assert len(waiting) == 1
    assert waiting.due(10.5) == ["cat"]
    assert waiting.due(99.0) == []
    assert len(waiting) == 0


def test_an_answer_that_the_hub_confirms_is_not_given():
    waiting = pending(cat=10.0, dog=10.1)
    assert waiting.confirm(0)
    assert waiting.due(99.0) == ["dog"]


def test_a_confirmation_counts_once_and_only_for_what_waits():
    waiting = pending(cat=10.0)
    assert not waiting.confirm(5)
    assert waiting.confirm(0)
    assert not waiting.confirm(0)


def test_a_confirmation_after_the_time_is_too_late():
    waiting = pending(cat=10.0)
    waiting.due(11.0)
    assert not waiting.confirm(0)


def test_answers_fall_due_oldest_first_and_each_at_its_own_time():
    waiting = pending(cat=10.0, dog=10.1, bus=10.2)
    assert waiting.due(10.65) == ["cat", "dog"]
    assert waiting.due(10.71) == ["bus"]


def test_without_a_timeout_an_answer_is_due_at_once():
    assert pending(timeout=0.0, cat=10.0).due(10.0) == ["cat"]


def test_when_nobody_will_confirm_all_are_due():
    waiting = pending(timeout=60.0, cat=10.0, dog=10.1)
    assert waiting.due(10.2, all_of_them=True) == ["cat", "dog"]
    assert len(waiting) == 0


def test_a_timeout_that_changes_holds_for_the_answers_to_come():
    waiting = pending(cat=10.0)
    waiting.timeout = 0.1
    waiting.add(1, "dog", 10.0)
    assert waiting.due(10.2) == ["dog"]
    assert waiting.due(10.5) == ["cat"]


def test_ids_wrap_around_without_mixing_answers_up():
    waiting = PendingAnswers(0.5)
    inference_id = 65_530
    for k in range(12):
        waiting.add(inference_id, k, 10.0 + k / 100)
        inference_id = next_id(inference_id)
    assert waiting.confirm(65_535)
    assert waiting.confirm(0)
    assert waiting.due(99.0) == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]


@given(st.lists(st.tuples(st.sampled_from(["add", "confirm", "due"]), st.integers(0, 9)), max_size=60))
def test_every_answer_is_confirmed_or_given_exactly_once(steps):
    waiting, added, confirmed, given_out = PendingAnswers(0.25), [], [], []
    for now, (what, k) in enumerate(steps):
        match what:
            case "add":
                waiting.add(len(added), len(added), now / 10)
                added.append(len(added))
            case "confirm":
                if waiting.confirm(k):
                    confirmed.append(k)
            case "due":
                given_out += waiting.due(now / 10)
    given_out += waiting.due(0.0, all_of_them=True)
    assert sorted(confirmed + given_out) == added
    assert given_out == sorted(given_out)


# One label a frame --------------------------------------------------------------------------------------------
def test_the_second_label_of_a_frame_is_not_the_first():
    once = OncePerFrame()
    assert once.is_first("/yard", 7)
    assert not once.is_first("/yard", 7)
    assert not once.is_first("/yard", 7)


def test_cameras_do_not_touch_each_other():
    once = OncePerFrame()
    assert once.is_first("/yard", 7)
    assert once.is_first("/door", 7)
    assert not once.is_first("/door", 7)


def test_labels_that_come_late_and_out_of_order_are_still_told_apart():
    once = OncePerFrame()
    assert [once.is_first("/yard", k) for k in (7, 9, 8, 7, 9, 10, 8)] == [True, True, True, False, False, True, False]


def test_an_id_that_comes_round_again_is_a_new_frame():
    once = OncePerFrame()
    for turn in range(2):
        assert all(once.is_first("/yard", k) for k in range(65_536)), turn


@given(st.integers(1, 50), st.integers(0, 65_535))
def test_an_id_is_remembered_for_as_many_frames_and_no_longer(memory, start):
    once = OncePerFrame(memory=memory)
    ids = [(start + k) % 65_536 for k in range(memory + 1)]
    assert all(once.is_first("/yard", k) for k in ids[:-1])
    assert not any(once.is_first("/yard", k) for k in ids[:-1])
    assert once.is_first("/yard", ids[-1])
    assert once.is_first("/yard", ids[0])


def test_memory_is_bounded():
    once = OncePerFrame(memory=10)
    for k in range(10_000):
        once.is_first("/yard", k)
    assert sum(map(len, once._seen.values())) == 10
