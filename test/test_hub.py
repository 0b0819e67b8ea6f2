# SPDX-License-Identifier: Apache-2.0
"""Many cameras at one hub: kept apart, and run together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.codec import encode_stage
from fleet.hub import Hub
from fleet.packet import LocalAnswer
from fleet.session import CloudSession, ExitTask, Taken

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
    assert not hub.next_batch()
    hub.take("porch", packets_of(small_bundle, 1, 1)[0])
    assert hub.next_batch()
    assert not hub.next_batch()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.integers(1, 8)), max_size=30))
def test_a_camera_s_tasks_do_not_depend_on_the_other_cameras(small_bundle, arrivals):
    together = Hub(small_bundle, FUSED)
    alone = {name: CloudSession(small_bundle, FUSED) for name in "abc"}
    for name, inference_id, stage in arrivals:
        packet = packets_of(small_bundle, inference_id, stage, seed=ord(name))[0]
        assert together.take(name, packet) == alone[name].take(packet)
    batch = together.next_batch()
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
    batch = hub.next_batch()
    views = batch.views()
    assert [m.shape[0] for m in views[3]] == [2, 2]
    assert [m.shape[0] for m in views[1]] == [1]
    np.testing.assert_array_equal(views[3][1][1], batch.tasks["c"].maps[1])
    dealt = batch.by_camera({3: np.array([[1.0], [2.0]]), 1: np.array([[3.0]])})
    assert {name: float(row[0]) for name, row in dealt.items()} == {"a": 1.0, "b": 3.0, "c": 2.0}


def test_a_sure_exit_ends_its_own_camera_s_inference_only(hub, small_bundle):
    for name in "ab":
        hub.take(name, packets_of(small_bundle, 5, 2)[0])
    answers = hub.conclude(hub.next_batch(), {"a": SURE, "b": UNSURE})
    assert set(answers) == {"a"}
    assert hub.take("a", packets_of(small_bundle, 5, 3)[0]) is Taken.ANSWERED
    assert hub.take("b", packets_of(small_bundle, 5, 3)[0]) is Taken.NEW


def test_a_device_s_own_answer_is_passed_on_without_running_anything(hub):
    hub.take("a", LocalAnswer(7, 3, 0.9).pack())
    batch = hub.next_batch()
    assert not batch.tasks
    assert batch.answers["a"].is_local
    assert not hub.next_batch()


def test_under_load_exits_are_skipped_and_never_queued(hub, small_bundle):
    """Whatever came while the hub was busy, the next batch has one exit a camera, the newest."""
    for inference_id in range(1, 20):
        for stage in (1, 2, 3):
            hub.take("a", packets_of(small_bundle, inference_id, stage)[0])
    batch = hub.next_batch()
    assert (batch.tasks["a"].inference_id, batch.tasks["a"].stage) == (19, 3)
    assert not hub.next_batch()


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
