# SPDX-License-Identifier: Apache-2.0
"""Many cameras at one hub: kept apart, and run together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.codec import encode_stage
from fleet.hub import Hub
from fleet.inbox import Waiting
from fleet.packet import LocalAnswer
from fleet.session import CloudSession, ExitTask, Taken
from fleet.unanswered import Why

FUSED = {1: (1,), **{n: (n - 1, n) for n in range(2, 9)}}
SURE = np.array([9.0, 0, 0, 0, 0], np.float32)
UNSURE = np.array([0.2, 0.1, 0, 0, 0], np.float32)


def packets_of(bundle, inference_id, stage, seed=0):
    layout = bundle.layouts[stage]
    features = np.random.default_rng([seed, inference_id, stage]).normal(size=(layout.channels, 8, 8))
    return encode_stage(layout, features, inference_id=inference_id, payload=60, coder=bundle.coder)


@pytest.fixture
def hub(small_bundle):
    return Hub(small_bundle, FUSED)


def test_where_nothing_is_new_there_is_nothing_to_run(hub, small_bundle):
    assert not hub.next_batch(now=0.0)
    hub.take("porch", packets_of(small_bundle, 1, 1)[0])
    assert hub.next_batch(now=0.0)
    assert not hub.next_batch(now=0.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.integers(1, 8)), max_size=30))
def test_a_camera_s_tasks_do_not_depend_on_the_other_cameras(small_bundle, arrivals):
    together = Hub(small_bundle, FUSED)
    alone = {name: CloudSession(small_bundle, FUSED) for name in "abc"}
    for name, inference_id, stage in arrivals:
        packet = packets_of(small_bundle, inference_id, stage, seed=ord(name))[0]
        assert together.take(name, packet) == alone[name].take(packet)
    batch = together.next_batch(now=0.0)
    for name, session in alone.items():
        expected = session.next_task()
        if expected is None:
            assert name not in batch.tasks
            continue
        assert isinstance(expected, ExitTask)
        found = batch.tasks[name]
        assert (found.inference_id, found.stage, found.complete) == (
            expected.inference_id,
            expected.stage,
            expected.complete,
        )
        for one, other in zip(found.maps, expected.maps, strict=True):
            np.testing.assert_array_equal(one, other)


def test_exits_of_several_cameras_are_stacked_and_dealt_out_again(hub, small_bundle):
    for name, stage in {"a": 3, "b": 1, "c": 3}.items():
        hub.take(name, packets_of(small_bundle, 5, stage)[0])
    batch = hub.next_batch(now=0.0)
    views = batch.views()
    assert [m.shape[0] for m in views[3]] == [2, 2]
    assert [m.shape[0] for m in views[1]] == [1]
    np.testing.assert_array_equal(views[3][1][1], batch.tasks["c"].maps[1])
    dealt = batch.by_camera({3: np.array([[1.0], [2.0]]), 1: np.array([[3.0]])})
    assert {name: float(row[0]) for name, row in dealt.items()} == {"a": 1.0, "b": 3.0, "c": 2.0}


def test_a_sure_exit_ends_its_own_camera_s_inference_only(hub, small_bundle):
    for name in "ab":
        hub.take(name, packets_of(small_bundle, 5, 2)[0])
    answers = hub.conclude(hub.next_batch(now=0.0), {"a": SURE, "b": UNSURE})
    assert set(answers) == {"a"}
    assert hub.take("a", packets_of(small_bundle, 5, 3)[0]) is Taken.ANSWERED
    assert hub.take("b", packets_of(small_bundle, 5, 3)[0]) is Taken.NEW


def test_a_device_s_own_answer_is_passed_on_without_running_anything(hub):
    hub.take("a", LocalAnswer(7, 3, 0.9).pack())
    batch = hub.next_batch(now=0.0)
    assert not batch.tasks
    assert batch.answers["a"].is_local
    assert not hub.next_batch(now=0.0)


def test_under_load_exits_are_skipped_and_never_queued(hub, small_bundle):
    """Whatever came while the hub was busy, the next batch has one exit a camera, the newest."""
    for inference_id in range(1, 20):
        for stage in (1, 2, 3):
            hub.take("a", packets_of(small_bundle, inference_id, stage)[0])
    batch = hub.next_batch(now=0.0)
    assert (batch.tasks["a"].inference_id, batch.tasks["a"].stage) == (19, 3)
    assert not hub.next_batch(now=0.0)


def test_one_pass_through_the_trunk_gives_every_exit_what_it_gives_alone(tiny_bundle):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from fleet.fusion import load_cloud  # noqa: PLC0415

    cloud = load_cloud(tiny_bundle)
    generator = torch.Generator().manual_seed(0)
    views = {
        n: [
            torch.randn(batch, 2 * o.channels, o.ladder.finest, o.ladder.finest, generator=generator)
            for o in (tiny_bundle.layouts[m] for m in cloud.fused[n])
        ]
        for n, batch in {8: 1, 1: 2, 4: 3}.items()
    }
    with torch.inference_mode():
        together = cloud.forward_many(views)
        for n, maps in views.items():
            torch.testing.assert_close(together[n], cloud(n, maps), rtol=1e-3, atol=1e-4)


# Packets that wait ----------------------------------------------------------------------------------------------


def put(hub, camera, *packets):
    for packet in packets:
        hub.put(camera, Waiting(packet, since=0.0))


def test_of_what_waited_the_newest_inference_of_every_camera_is_looked_at(hub, small_bundle):
    for name in "ab":
        for inference_id in (1, 2, 3):
            put(hub, name, *packets_of(small_bundle, inference_id, 2))
    waiting = hub.waiting
    newest = sum(len(packets_of(small_bundle, 3, 2)) for _ in "ab")
    batch = hub.next_batch(hub.collect(), now=0.0)
    assert {name: task.inference_id for name, task in batch.tasks.items()} == {"a": 3, "b": 3}
    assert len(batch.heard) == newest
    assert hub.overtaken == waiting - newest
    assert hub.waiting == 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.integers(1, 8)), max_size=40))
def test_whatever_waited_the_next_exit_is_that_of_a_hub_that_was_never_busy(small_bundle, arrivals):
    busy, idle = Hub(small_bundle, FUSED), Hub(small_bundle, FUSED)
    for name, inference_id, stage in sorted(arrivals, key=lambda arrival: arrival[1]):
        packet = packets_of(small_bundle, inference_id, stage, seed=ord(name))[0]
        put(busy, name, packet)
        idle.take(name, packet)
    found, expected = busy.next_batch(busy.collect(), now=0.0).tasks, idle.next_batch(now=0.0).tasks
    assert found.keys() == expected.keys()
    for name, task in expected.items():
        assert (found[name].inference_id, found[name].stage) == (task.inference_id, task.stage)
        for one, other in zip(found[name].maps, task.maps, strict=True):
            np.testing.assert_array_equal(one, other)


def test_never_more_wait_than_may_and_what_made_room_is_counted(small_bundle):
    hub = Hub(small_bundle, FUSED, limit=10)
    packets = packets_of(small_bundle, 1, 8)
    for inference_id in range(1, 100):
        put(hub, "a", *packets_of(small_bundle, inference_id, 8))
    assert hub.waiting == 10
    assert hub.overflowed == 99 * len(packets) - 10
    batch = hub.next_batch(hub.collect(), now=0.0)
    assert batch.tasks["a"].inference_id == 99


def test_a_device_s_own_answer_is_passed_on_although_the_camera_has_gone_on(hub, small_bundle):
    put(hub, "a", *packets_of(small_bundle, 1, 2), LocalAnswer(1, 3, 0.9).pack(), LocalAnswer(2, 2, 0.8).pack())
    put(hub, "a", *packets_of(small_bundle, 3, 1))
    batch = hub.next_batch(hub.collect(), now=0.0)
    assert [(name, answer.inference_id) for name, answer in batch.late_answers] == [("a", 1), ("a", 2)]
    assert batch.tasks["a"].inference_id == 3
    assert not batch.unanswered


def test_what_only_looks_like_a_newer_inference_does_not_keep_a_good_one_from_being_heard(hub, small_bundle):
    good = packets_of(small_bundle, 5, 3)
    broken = bytearray(packets_of(small_bundle, 6, 3)[0])
    broken[2] = (broken[2] & 0x0F) | 0xF0  # a codec that there is not
    put(hub, "a", *good, bytes(broken), b"short")
    batch = hub.next_batch(hub.collect(), now=0.0)
    assert batch.tasks["a"].inference_id == 5
    assert len(batch.malformed) == 2
    assert hub.overtaken == 0


def test_a_packet_comes_back_with_what_belongs_to_it(hub, small_bundle):
    hub.put("a", Waiting(packets_of(small_bundle, 5, 1)[0], since=7.0, note="header"))
    ((name, packet),) = hub.next_batch(hub.collect(), now=0.0).heard
    assert (name, packet.since, packet.note) == ("a", 7.0, "header")


def test_each_camera_is_told_what_became_of_its_unanswered_inferences(hub, small_bundle):
    put(hub, "a", *packets_of(small_bundle, 1, 1))
    hub.conclude(hub.next_batch(hub.collect(), now=0.0), {"a": UNSURE})
    put(hub, "a", *packets_of(small_bundle, 2, 1))
    put(hub, "b", *packets_of(small_bundle, 9, 1))
    batch = hub.next_batch(hub.collect(), now=0.0)
    assert [(name, ended.first, ended.why) for name, ended in batch.unanswered] == [("a", 1, Why.UNSURE)]
    assert not hub.next_batch(hub.collect(), now=0.0).unanswered
