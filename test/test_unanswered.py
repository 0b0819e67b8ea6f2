# SPDX-License-Identifier: Apache-2.0
"""Why the hub was silent about an inference, and how often that is told."""

import numpy as np
import pytest

from fleet.codec import encode_stage
from fleet.packet import STALE_WINDOW, LocalAnswer
from fleet.session import CloudSession
from fleet.unanswered import Throttle, Unanswered, Why

FUSED = {1: (1,), **{n: (n - 1, n) for n in range(2, 9)}}
SURE = [10.0, 0.0, 0.0, 0.0, 0.0]
UNSURE = [0.3, 0.2, 0.1, 0.0, 0.0]


@pytest.fixture
def session(small_bundle):
    return CloudSession(small_bundle, FUSED)


@pytest.fixture
def packet(small_bundle):
    def make(inference_id, stage=2):
        layout = small_bundle.layouts[stage]
        features = np.random.default_rng(stage).normal(size=(layout.channels, 8, 8))
        return encode_stage(layout, features, inference_id=inference_id, payload=60, coder=small_bundle.coder)[0]

    return make


def told(session):
    return [(ended.first, ended.count, ended.why) for ended in session.unanswered]


def test_an_inference_that_was_answered_is_not_told_of(session, packet):
    session.take(packet(1))
    session.conclude(session.next_task(), SURE)
    session.take(LocalAnswer(2, 1, 0.9).pack())
    session.next_task()
    session.take(packet(3))
    assert told(session) == []


def test_an_exit_that_was_not_sure_says_how_sure_it_was_and_had_to_be(session, packet):
    session.take(packet(1))
    session.conclude(session.next_task(), UNSURE)
    session.take(packet(2))
    (ended,) = session.unanswered
    assert ended.why is Why.UNSURE
    line = "inference 1 ended without an answer of the hub: exit 2, the last to run, was 0.4"
    assert str(ended).startswith(line)
    assert str(ended).endswith("sure of pet, 0.80 is needed")


def test_a_hub_that_was_too_slow_says_so(session, packet):
    session.take(packet(1))
    session.take(packet(2))
    task = session.next_task()
    session.take(packet(3))
    session.conclude(task, SURE)
    session.take(packet(4))
    assert told(session) == [(1, 1, Why.BUSY), (2, 1, Why.BUSY), (3, 1, Why.BUSY)]
    assert ["before an exit could run" in e.text for e in session.unanswered] == [True, False, True]
    assert "while exit 2 ran" in session.unanswered[1].text


def test_inferences_of_which_nothing_came_are_told_of_together(session, packet):
    session.take(packet(65534))
    session.conclude(session.next_task(), SURE)
    session.take(packet(2))
    assert told(session) == [(65535, 3, Why.UNHEARD)]
    assert str(session.unanswered[0]) == (
        "inferences 65535 to 1 (3) ended without an answer of the hub: nothing was heard of them"
    )


def test_a_camera_that_began_anew_has_skipped_nothing(session, packet):
    session.take(packet(1))
    session.conclude(session.next_task(), SURE)
    session.take(packet(2 + STALE_WINDOW))
    session.conclude(session.next_task(), SURE)
    session.take(packet(40_000))
    assert told(session) == []


def test_an_answer_of_the_device_that_nobody_passed_on_is_told_of(session, packet):
    session.take(LocalAnswer(1, 1, 0.9).pack())
    session.take(packet(2))
    assert told(session) == [(1, 1, Why.LOCAL_ANSWER_LATE)]


def test_only_the_newest_are_kept_where_nobody_takes_them_out(session, packet):
    for inference_id in range(200):
        session.take(packet(inference_id))
    assert len(session.unanswered) == 64
    assert session.unanswered[-1].first == 198


def test_one_line_of_a_kind_in_a_while_and_the_next_says_how_many_it_stands_for():
    throttle = Throttle(every=10.0)
    told = [time for time in range(0, 25) if throttle.may_tell(("porch", Why.BUSY), float(time))]
    assert told == [0, 10, 20]
    assert throttle.kept_back(("porch", Why.BUSY)) == 22
    assert throttle.kept_back(("porch", Why.BUSY)) == 0
    assert throttle.may_tell(("gate", Why.BUSY), 24.0)


def test_a_clock_that_jumps_back_does_not_silence_the_log():
    throttle = Throttle(every=10.0)
    assert throttle.may_tell("a", 1000.0)
    assert throttle.may_tell("a", 5.0)


def test_an_inference_by_itself_is_named_by_its_id():
    assert str(Unanswered(7, 1, Why.UNDECODED, "why")) == "inference 7 ended without an answer of the hub: why"
