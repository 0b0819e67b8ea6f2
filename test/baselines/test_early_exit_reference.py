# SPDX-License-Identifier: Apache-2.0
"""Our early-exit rule against one written from the definitions in the baselines' papers, image by image."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from fleet.baselines import first_sure
from fleet.exits import Classes, Decider, softmax
from fleet.packet import LOCAL_ANSWER_STAGE
from fleet.training.calibrate import judged, outcome

EXITS, CLASSES, IMAGES = 4, 6, 40
TABLE = Classes(tuple("abcdef"), tuple("abcdef"), (0, 0, 1, 1, 2, 3), ("vehicle", "pet", "animal", "none"))
EACH_ITS_OWN = Classes(tuple("abcdef"), tuple("abcdef"), tuple(range(6)), tuple("abcdef"))


def branchynet_fast_inference(logits: list[list[float]], entropies: list[float]) -> tuple[int, int]:
    """BranchyNet, algorithm 1, in plain Python: exit and class of one image.

    for n = 1..N: z = f_exit_n(x); y = softmax(z); e = entropy(y); if e < T_n return argmax y
    return argmax y
    """
    for n, z in enumerate(logits):
        top = max(z)
        scale = sum(math.exp(v - top) for v in z)
        y = [math.exp(v - top) / scale for v in z]
        e = -sum(p * math.log(p) for p in y if p > 0)
        if e < entropies[n] or n == len(logits) - 1:
            return n, y.index(max(y))
    raise AssertionError("the last exit always answers")


def shallow_deep_inference(logits: list[list[float]], q: float) -> tuple[int, int, bool]:
    """Shallow-Deep networks, section 5.1, in plain Python: exit, class, and whether an internal classifier was sure.

    It stops at the first internal classifier whose confidence, the largest probability, reaches q. Where there is none,
    the published code answers with the most confident of all; FLEET's comparison lets the end of the network answer.
    """
    for n, z in enumerate(logits):
        top = max(z)
        scale = sum(math.exp(v - top) for v in z)
        y = [math.exp(v - top) / scale for v in z]
        if max(y) >= q and n < len(logits) - 1:
            return n, y.index(max(y)), True
    return len(logits) - 1, y.index(max(y)), False


def some_logits(seed: int) -> npt.NDArray[np.float64]:
    """Logits (exits, images, classes), surer towards the end."""
    random = np.random.default_rng(seed)
    return random.normal(size=(EXITS, IMAGES, CLASSES)) * np.linspace(1, 5, EXITS)[:, None, None]


@given(seed=st.integers(0, 2**32 - 1), bounds=st.lists(st.floats(0.05, 1.8), min_size=EXITS, max_size=EXITS))
def test_the_entropy_trigger_stops_where_branchynet_stops(seed: int, bounds: list[float]) -> None:
    logits = some_logits(seed)
    decider = Decider(EACH_ITS_OWN, {}, {}, trigger="entropy", unit="class")
    certainty = decider.certainty(softmax(logits))  # (exits, images)
    ours = first_sure(certainty, [1 - bound / math.log(CLASSES) for bound in bounds])
    for image in range(IMAGES):
        stopped, answer = branchynet_fast_inference(logits[:, image].tolist(), bounds)
        assert ours[image] == stopped
        assert softmax(logits[ours[image], image]).argmax() == answer


@given(seed=st.integers(0, 2**32 - 1), q=st.floats(0.2, 0.999))
def test_the_confidence_trigger_stops_where_shallow_deep_stops(seed: int, q: float) -> None:
    logits = some_logits(seed)
    certainty = Decider(EACH_ITS_OWN, {}, {}, unit="class").certainty(softmax(logits))
    ours = first_sure(certainty, [q] * EXITS)
    for image in range(IMAGES):
        stopped, answer, early = shallow_deep_inference(logits[:, image].tolist(), q)
        assert ours[image] == stopped
        assert early == (ours[image] < EXITS - 1)
        assert logits[ours[image], image].argmax() == answer


@given(seed=st.integers(0, 2**32 - 1), q=st.floats(0.2, 0.999))
def test_one_picture_at_a_time_the_decider_stops_where_shallow_deep_stops(seed: int, q: float) -> None:
    logits = some_logits(seed)[:, :8]
    decider = Decider(EACH_ITS_OWN, {}, dict.fromkeys(range(1, EXITS), q), unit="class")
    for image in range(logits.shape[1]):
        predictions = [decider.predict(n + 1, logits[n, image]) for n in range(EXITS)]
        sure = [n for n in range(EXITS - 1) if decider.is_sure(n + 1, predictions[n])]
        ours = sure[0] if sure else EXITS - 1
        assert (ours, predictions[ours].class_index) == shallow_deep_inference(logits[:, image].tolist(), q)[:2]


@given(seed=st.integers(0, 2**32 - 1), q=st.floats(0.3, 0.99))
def test_the_replay_of_the_calibration_is_as_accurate_as_the_reference(seed: int, q: float) -> None:
    """Groups: the classes' probabilities are summed before anything is compared."""
    logits = some_logits(seed)
    truths = np.random.default_rng(seed + 1).integers(0, len(TABLE.groups), IMAGES)
    by_exit = {n + 1: logits[n] for n in range(EXITS - 1)} | {LOCAL_ANSWER_STAGE: logits[-1]}
    ours = outcome(judged(Decider(TABLE, {}, {}), by_exit, truths), dict.fromkeys(range(1, EXITS), q))
    right, at = 0, [0] * EXITS
    for image in range(IMAGES):
        sums = []
        for n in range(EXITS):
            p = softmax(logits[n, image])
            sums.append([sum(p[c] for c in range(CLASSES) if TABLE.group_of[c] == g) for g in range(4)])
        stopped = next((n for n in range(EXITS - 1) if max(sums[n]) >= q), EXITS - 1)
        right += sums[stopped].index(max(sums[stopped])) == truths[image]
        at[stopped] += 1
    assert ours.accuracy == right / IMAGES
    assert [ours.answered[n + 1] for n in range(EXITS - 1)] == [count / IMAGES for count in at[:-1]]
    assert math.isclose(ours.whole, at[-1] / IMAGES, abs_tol=1e-9)
