# SPDX-License-Identifier: Apache-2.0
"""The hub's side of a camera: whatever the air does, one sensible answer an inference at most."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.codec import coder_named, encode_stage
from fleet.errors import FleetError
from fleet.packet import LOCAL_ANSWER_STAGE, MAX_PAYLOAD, STALE_WINDOW, Header, LocalAnswer, stamp
from fleet.session import REMEMBERED_ANSWERS, Answer, CloudSession, ExitTask, Taken

SURE = [10.0, 0.0, 0.0, 0.0, 0.0]
UNSURE = [0.3, 0.2, 0.1, 0.0, 0.0]
FUSED = {1: (1,), **{n: (n - 1, n) for n in range(2, 9)}}


@pytest.fixture
def session(small_bundle):
    return CloudSession(small_bundle, FUSED)


@pytest.fixture(scope="session")
def packets(small_bundle):
    """Makes a stage's packets; every inference and stage has features of its own."""
    encoded = {}

    def make(inference_id, stage, payload=40):
        key = (stage, payload)
        if key not in encoded:
            layout = small_bundle.layouts[stage]
            levels = np.random.default_rng(stage).integers(0, 16, (layout.channels, 8, 8))
            encoded[key] = encode_stage(
                layout,
                layout.quantiser.dequantise(levels),
                inference_id=0,
                payload=payload,
                coder=small_bundle.coder,
            )
        return [inference_id.to_bytes(2, "little") + p[2:] for p in encoded[key]]

    return make


def local(inference_id, class_index=3, confidence=0.6):
    return LocalAnswer(inference_id, class_index, confidence).pack()


def take_all(session, many):
    return [session.take(packet) for packet in many]


def state(session):
    """Everything that a dropped packet must leave as it was."""
    return (
        session.current,
        {n: (b.received, b.packets, b.features().tobytes()) for n, b in session._buffers.items()},
        session._fresh,
        dict(session._answered),
        session._local,
    )


# One inference ------------------------------------------------------------------------------------------------
def test_before_anything_is_heard_there_is_nothing_to_do(session):
    assert session.next_task() is None
    assert session.current is None


def test_an_exit_is_offered_on_the_newest_stage_with_all_that_has_arrived_of_the_stages_it_fuses(
    session, packets, small_bundle
):
    take_all(session, packets(7, 1))
    session.take(packets(7, 2)[0])
    task = session.next_task()
    assert isinstance(task, ExitTask)
    assert (task.inference_id, task.stage, task.complete) == (7, 2, False)
    assert [m.shape for m in task.maps] == [(2 * small_bundle.layouts[n].channels, 8, 8) for n in (1, 2)]
    one = small_bundle.layouts[1]
    expected = one.quantiser.dequantise(np.random.default_rng(1).integers(0, 16, (one.channels, 8, 8)))
    np.testing.assert_array_equal(task.maps[0], np.concatenate([expected, np.ones_like(expected)]))
    known = task.maps[1][small_bundle.layouts[2].channels :]
    assert 0 < known.mean() < 1


def test_a_stage_of_which_nothing_arrived_is_its_mean_and_marked_as_unknown(session, packets, small_bundle):
    session.take(packets(7, 5)[0])
    task = session.next_task()
    assert task.stage == 5
    assert np.all(task.maps[0][:3] == small_bundle.layouts[4].quantiser.dequantise(np.full((3, 8, 8), 8)))
    assert not task.maps[0][3:].any()


def test_no_exit_runs_on_a_stage_of_which_nothing_is_decoded(session, small_bundle):
    """A piece of a burst that is not whole says nothing, and an exit would be sure of the means."""
    layout = small_bundle.layouts[3]
    features = np.random.default_rng(0).normal(size=(layout.channels, 8, 8))
    pieces = encode_stage(layout, features, inference_id=7, payload=60, coder=coder_named("paper"))
    burst = [p for p in pieces if Header.unpack(p).first == 0]
    assert len(burst) > 1
    for piece in burst[:-1]:
        assert session.take(piece) is Taken.NEW
        assert session.next_task() is None
    session.take(burst[-1])
    assert session.next_task().stage == 3


def test_an_exit_is_offered_once_for_each_arrival_of_something_new(session, packets):
    first, second, *_ = packets(7, 3)
    assert session.take(first) is Taken.NEW
    assert session.next_task() is not None
    assert session.next_task() is None
    assert session.take(stamp(first, age=4, sequence=9, more=False)) is Taken.DUPLICATE
    assert session.next_task() is None
    session.take(second)
    assert session.next_task() is not None


def test_a_late_packet_of_an_older_stage_runs_the_newest_exit_again(session, packets):
    take_all(session, packets(7, 3))
    before = session.next_task()
    assert session.take(packets(7, 2)[0]) is Taken.NEW
    after = session.next_task()
    assert (before.stage, after.stage) == (3, 3)
    assert not np.array_equal(before.maps[0], after.maps[0])


def test_a_sure_exit_answers_and_an_unsure_one_does_not(session, packets):
    take_all(session, packets(7, 1))
    prediction, answer = session.conclude(session.next_task(), UNSURE)
    assert answer is None
    assert prediction.group == "pet"
    take_all(session, packets(7, 2))
    prediction, answer = session.conclude(session.next_task(), SURE)
    assert answer == Answer(7, prediction, 2)
    assert not answer.is_local


def test_after_the_answer_everything_of_the_inference_is_dropped(session, packets):
    take_all(session, packets(7, 1))
    session.conclude(session.next_task(), SURE)
    assert set(take_all(session, packets(7, 1) + packets(7, 2) + [local(7)])) == {Taken.ANSWERED}
    assert session.next_task() is None


def test_the_complete_last_stage_answers_whatever_its_confidence(session, packets):
    *most, last = packets(7, 8)
    take_all(session, most)
    task = session.next_task()
    assert not task.complete
    assert session.conclude(task, UNSURE)[1] is None
    session.take(last)
    task = session.next_task()
    assert task.complete
    prediction, answer = session.conclude(task, UNSURE)
    assert answer == Answer(7, prediction, 8)


def test_a_patient_bundle_s_last_stage_leaves_the_answer_to_the_device(session, packets):
    session.bundle = replace(session.bundle, decider=replace(session.bundle.decider, patient=True))
    take_all(session, packets(7, 8))
    assert session.conclude(session.next_task(), UNSURE)[1] is None
    session.take(local(7))
    assert session.next_task().is_local


def test_a_stage_that_has_only_begun_may_need_more_confidence_than_a_complete_one(session, packets):
    decider = replace(session.bundle.decider, thresholds={7: 0.0}, begun={7: (2.0,)})
    session.bundle = replace(session.bundle, decider=decider)
    *most, last = packets(7, 7)
    take_all(session, most)
    assert session.conclude(session.next_task(), UNSURE)[1] is None
    session.take(last)
    assert session.conclude(session.next_task(), UNSURE)[1] is not None


def test_the_more_of_a_stage_has_arrived_the_less_confidence_it_may_need(session, packets):
    decider = replace(session.bundle.decider, thresholds={7: 2.0}, begun={7: (2.0, 0.0)})
    session.bundle = replace(session.bundle, decider=decider)
    answered = []
    for packet in packets(7, 7):
        session.take(packet)
        task = session.next_task()
        answered.append((task.arrived >= 0.5, session.conclude(task, UNSURE)[1] is not None))
        if answered[-1][1]:
            break
    assert answered[0] == (False, False)
    assert all(half == answer for half, answer in answered)
    assert answered[-1][1]


def test_a_complete_stage_that_is_not_the_last_needs_confidence(session, packets):
    take_all(session, packets(7, 7))
    task = session.next_task()
    assert task.complete
    assert session.conclude(task, UNSURE)[1] is None


def test_logits_that_are_no_numbers_raise_and_the_inference_goes_on(session, packets):
    take_all(session, packets(7, 1))
    with pytest.raises(FleetError, match="exit 1"):
        session.conclude(session.next_task(), [np.nan] * 5)
    take_all(session, packets(7, 2))
    assert session.conclude(session.next_task(), SURE)[1] is not None


# The device's own answer --------------------------------------------------------------------------------------
def test_the_device_s_answer_ends_the_inference_before_any_exit(session, packets):
    take_all(session, packets(7, 1))
    assert session.take(local(7, class_index=3, confidence=0.6)) is Taken.LOCAL_ANSWER
    answer = session.next_task()
    assert isinstance(answer, Answer)
    assert answer.is_local
    assert (answer.inference_id, answer.stage, answer.prediction.class_index) == (7, LOCAL_ANSWER_STAGE, 3)
    assert answer.prediction.group == "animal"
    assert session.next_task() is None
    assert session.take(packets(7, 2)[0]) is Taken.ANSWERED


def test_the_device_s_answer_is_heard_though_no_feature_of_the_inference_was(session):
    session.take(local(7))
    assert session.next_task().inference_id == 7


def test_the_device_s_answer_that_comes_while_an_exit_runs_is_the_first_and_wins(session, packets):
    """The camera has ended its inference with that answer: label and exit must not say something else."""
    take_all(session, packets(7, 1))
    task = session.next_task()
    session.take(local(7))
    assert session.conclude(task, SURE)[1] is None
    answer = session.next_task()
    assert answer.is_local
    assert session.next_task() is None


def test_the_device_s_answer_that_comes_after_the_hub_s_changes_nothing(session, packets):
    take_all(session, packets(7, 1))
    assert session.conclude(session.next_task(), SURE)[1] is not None
    assert session.take(local(7)) is Taken.ANSWERED
    assert session.next_task() is None


def test_of_two_answers_of_the_device_the_first_counts(session):
    assert session.take(local(7, class_index=1)) is Taken.LOCAL_ANSWER
    assert session.take(local(7, class_index=4)) is Taken.DUPLICATE
    assert session.next_task().prediction.class_index == 1


def test_an_answer_that_was_not_fetched_is_lost_with_its_inference(session, packets):
    session.take(local(7))
    take_all(session, packets(8, 1))
    task = session.next_task()
    assert isinstance(task, ExitTask)
    assert task.inference_id == 8


# A newer inference, an older one ------------------------------------------------------------------------------
def test_a_newer_inference_replaces_the_current_one_and_the_older_is_stale_from_then_on(session, packets):
    take_all(session, packets(7, 3))
    take_all(session, packets(8, 1))
    assert session.current == 8
    assert session.take(packets(7, 4)[0]) is Taken.STALE
    assert session.take(local(7)) is Taken.STALE
    task = session.next_task()
    assert (task.inference_id, task.stage) == (8, 1)


def test_an_exit_whose_inference_was_overtaken_meanwhile_does_not_answer(session, packets):
    take_all(session, packets(7, 1))
    task = session.next_task()
    take_all(session, packets(8, 1))
    assert session.conclude(task, SURE)[1] is None
    assert session.conclude(session.next_task(), SURE)[1].inference_id == 8


def test_an_exit_from_before_the_camera_restarted_does_not_answer(session, packets):
    take_all(session, packets(40_000, 1))
    task = session.next_task()
    take_all(session, packets(123, 1))
    assert session.conclude(task, SURE)[1] is None
    assert session.conclude(session.next_task(), SURE)[1].inference_id == 123


def test_two_tasks_of_one_inference_answer_once(session, packets):
    take_all(session, packets(7, 1))
    first = session.next_task()
    take_all(session, packets(7, 2))
    second = session.next_task()
    assert session.conclude(first, SURE)[1] is not None
    assert session.conclude(second, SURE)[1] is None


@pytest.mark.parametrize("start", [65_530, 0, 30_000])
def test_ids_wrap_around(session, packets, start):
    for k in range(20):
        inference_id = (start + k) % 65536
        assert set(take_all(session, packets(inference_id, 1))) == {Taken.NEW}
        assert session.conclude(session.next_task(), SURE)[1].inference_id == inference_id
        if k:
            assert session.take(packets((inference_id - 1) % 65536, 2)[0]) is Taken.STALE


@pytest.mark.parametrize("restart", [40_001 + 5000, 40_000 - STALE_WINDOW - 1, 12, 65535])
def test_a_camera_that_restarts_at_a_random_id_is_heard_at_once(session, packets, restart):
    take_all(session, packets(40_000, 8))
    session.conclude(session.next_task(), SURE)
    assert set(take_all(session, packets(restart, 1))) == {Taken.NEW}
    assert session.conclude(session.next_task(), SURE)[1].inference_id == restart


def test_a_camera_that_restarts_at_an_id_that_was_answered_long_ago_is_answered_again(session, packets):
    for inference_id in (200, 40_000, 200):
        take_all(session, packets(inference_id, 1))
        assert session.conclude(session.next_task(), SURE)[1].inference_id == inference_id


# Broken packets -----------------------------------------------------------------------------------------------
def broken_packets(good):
    header = Header.unpack(good)
    return {
        "empty": b"",
        "half a header": good[:5],
        "header alone": good[:8],
        "cut": good[:-1],
        "too long": good + b"\0",
        "longer than a notification": good + bytes(MAX_PAYLOAD),
        "another codec": good[:2] + bytes([header.stage | 0x70]) + good[3:],
        "a stage that is not sent": Header(header.inference_id, 9, 0, 0, 5).pack() + bytes(4),
        "stage 0": Header(header.inference_id, 0, 0, 0, 5).pack() + bytes(4),
        "coefficients past the end": Header(header.inference_id, header.stage, 0, 60_000, 5).pack() + bytes(4),
        "no coefficient": Header(header.inference_id, header.stage, 0, 0, 0).pack(),
        "an answer with a class that there is not": local(header.inference_id, class_index=5),
        "an answer that is too short": local(header.inference_id)[:-1],
        "an answer that is too long": local(header.inference_id) + b"\0",
    }


@pytest.mark.parametrize("kind", broken_packets(Header(1, 1, 0, 0, 1).pack() + b"\0"))
@pytest.mark.parametrize("inference_id", [7, 8, 60_000], ids=["current", "next", "restarted"])
def test_a_malformed_packet_changes_nothing_and_ends_no_inference(session, packets, kind, inference_id):
    take_all(session, packets(7, 1))
    before = state(session)
    broken = broken_packets(packets(inference_id, 2)[0])[kind]
    assert session.take(broken) is Taken.MALFORMED
    assert state(session) == before
    assert session.take(packets(7, 2)[0]) is Taken.NEW
    assert session.counts[Taken.MALFORMED] == 1


@settings(max_examples=300)
@given(data=st.binary(max_size=MAX_PAYLOAD + 8))
def test_no_bytes_raise(small_bundle, data):
    session = CloudSession(small_bundle, FUSED)
    taken = session.take(data)
    assert taken in (Taken.NEW, Taken.LOCAL_ANSWER, Taken.MALFORMED)
    if taken is Taken.MALFORMED:
        assert session.current is None


@given(data=st.data())
def test_a_header_of_ours_before_random_bytes_raises_nothing_and_what_is_taken_can_be_run(small_bundle, data):
    session = CloudSession(small_bundle, FUSED)
    for _ in range(data.draw(st.integers(1, 6))):
        stage = data.draw(st.integers(0, 15))
        count = data.draw(st.integers(0, 40))
        header = Header(data.draw(st.integers(0, 3)), stage, 0, data.draw(st.integers(0, 300)), count)
        session.take(header.pack() + data.draw(st.binary(max_size=25)))
    task = session.next_task()
    if isinstance(task, ExitTask):
        assert all(np.isfinite(m).all() for m in task.maps)


def test_every_packet_is_counted_by_what_became_of_it(session, packets):
    one = packets(7, 1)
    take_all(session, [one[0], one[0], b"", *one[1:], local(6), local(7), local(7)])
    session.next_task()
    session.take(one[0])
    counts = {taken: n for taken, n in session.counts.items() if n}
    assert counts == {
        Taken.NEW: len(one),
        Taken.DUPLICATE: 2,
        Taken.MALFORMED: 1,
        Taken.STALE: 1,
        Taken.LOCAL_ANSWER: 1,
        Taken.ANSWERED: 1,
    }


# Any order, any loss ------------------------------------------------------------------------------------------
@given(random=st.randoms(use_true_random=False), lose=st.floats(0, 1))
def test_packets_of_an_inference_in_any_order_with_repeats_and_losses_leave_the_same_exit_to_run(
    small_bundle, packets, random, lose
):
    everything = [p for stage in range(1, 9) for p in packets(7, stage)]
    kept = [p for p in everything if random.random() >= lose]
    in_order, shuffled = CloudSession(small_bundle, FUSED), CloudSession(small_bundle, FUSED)
    take_all(in_order, kept)
    take_all(shuffled, random.sample(kept + kept, 2 * len(kept)))
    one, other = in_order.next_task(), shuffled.next_task()
    if not kept:
        assert one is other is None
        return
    assert (one.stage, one.complete) == (other.stage, other.complete)
    for a, b in zip(one.maps, other.maps, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=200)
@given(data=st.data())
def test_whatever_happens_an_inference_is_answered_once_at_most_and_in_the_order_of_the_camera(
    small_bundle, packets, data
):
    """Packets of a few inferences, exits and the device's answers, interleaved at random."""
    session = CloudSession(small_bundle, FUSED)
    start = data.draw(st.sampled_from([0, 65_533, 1000]))
    newest, running, answers = 0, [], []
    for _ in range(data.draw(st.integers(1, 40))):
        match data.draw(st.sampled_from(["packet", "packet", "late", "local", "next", "task", "conclude"])):
            case "packet":
                stage = data.draw(st.integers(1, 8))
                session.take(data.draw(st.sampled_from(packets((start + newest) % 65536, stage))))
            case "late":
                session.take(packets((start + max(0, newest - 1)) % 65536, 2)[0])
            case "local":
                session.take(local((start + newest) % 65536))
            case "next":
                newest += 1
            case "task":
                task = session.next_task()
                if isinstance(task, Answer):
                    answers.append(task.inference_id)
                elif task is not None:
                    running.append(task)
            case "conclude":
                if running:
                    task = running.pop(0)
                    _, answer = session.conclude(task, data.draw(st.sampled_from([SURE, UNSURE])))
                    if answer is not None:
                        answers.append(answer.inference_id)
    order = [(i - start) % 65536 for i in answers]
    assert order == sorted(set(order))


def test_ten_thousand_inferences_leave_no_more_behind_than_a_few(session, packets):
    def run(inferences):
        for k in inferences:
            session.take(packets(k % 65536, 1)[0])
            session.take(packets(k % 65536, 2)[0])
            if k % 3:
                session.conclude(session.next_task(), SURE)
            else:
                session.take(local(k % 65536))
                session.next_task()
        return len(pickle.dumps(session))

    assert run(range(60_000, 60_200)) == pytest.approx(run(range(60_200, 70_200)), abs=500)
    assert len(session._answered) <= REMEMBERED_ANSWERS
    assert session.counts[Taken.NEW] == 2 * 10_200


def test_the_whole_picture_is_the_last_word_unless_the_bundle_is_patient(picture_bundle):
    layout = picture_bundle.layouts[0]
    features = layout.quantiser.dequantise(np.random.default_rng(0).integers(0, 16, (layout.channels, 4, 4)))
    packets = encode_stage(layout, features, inference_id=7, payload=40, coder=picture_bundle.coder)
    assert len(packets) > 1
    fused = {0: (0,), **FUSED}
    for patient in (False, True):
        bundle = replace(picture_bundle, decider=replace(picture_bundle.decider, patient=patient))
        session = CloudSession(bundle, fused)
        session.take(packets[0])
        task = session.next_task()
        assert (task.stage, task.complete) == (0, False)
        assert session.conclude(task, UNSURE)[1] is None
        take_all(session, packets[1:])
        task = session.next_task()
        assert (task.stage, task.complete) == (0, True)
        np.testing.assert_allclose(task.maps[0][: layout.channels], features)
        answer = session.conclude(task, UNSURE)[1]
        assert (answer is None) == patient
