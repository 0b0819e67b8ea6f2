# SPDX-License-Identifier: Apache-2.0
"""``fleet calibrate`` chooses temperatures and thresholds by the rule that it names, for the code that decides."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from io import BytesIO

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fleet.bundle import MANIFEST, Bundle
from fleet.cli import app
from fleet.errors import FleetError
from fleet.exits import Classes, Decider, softmax
from fleet.packet import LOCAL_ANSWER_STAGE
from fleet.training import calibrate as method

pytest.importorskip("torch", reason="torch is not installed")

ONE = ("--threads", "1")  # the number is the process's; see test_accuracy.py
CLASSES = Classes(("a", "b", "c"), ("a", "b", "c"), (0, 0, 1), ("vehicle", "none"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twenty-five pictures of five classes."""
    return archive(tmp_path_factory.mktemp("pictures") / "pictures.tar", ("n01", "n02", "n03", "n04", "n05"), 5)


def archive(path, labels, each):
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for label in labels:
            for k in range(each):
                data = cv2.imencode(".png", rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))[1].tobytes()
                info = tarfile.TarInfo(f"{label}/{k}.png")
                info.size = len(data)
                tar.addfile(info, BytesIO(data))
    return path


def calibrate(*arguments):
    result = CliRunner().invoke(app, ["calibrate", *map(str, arguments), *ONE])
    if isinstance(result.exception, FleetError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments):
    with pytest.raises(FleetError) as problem:
        calibrate(*arguments)
    assert "\n" not in str(problem.value)
    return str(problem.value)


# The command --------------------------------------------------------------------------------------------------
def test_the_bundle_is_rewritten_in_place_and_says_that_it_is_another(tiny_copy, pictures, tmp_path):
    before = Bundle.load(tiny_copy)
    output = calibrate(tiny_copy, pictures, "--max-loss", 100, "--json", tmp_path / "out.json")
    after = Bundle.load(tiny_copy)
    assert after.identity != before.identity
    assert f"{before.identity.hex()} becomes {after.identity.hex()}" in output
    assert before.notes.items() < after.notes.items()
    assert "25 labelled pictures" in after.notes["calibration"]
    assert after.checksums == before.checksums
    assert set(after.decider.temperatures) == {*before.layouts, LOCAL_ANSWER_STAGE}
    assert set(after.decider.thresholds) == set(before.layouts)  # any loss is allowed
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["conditions"]["identity"] == after.identity.hex()
    assert document["conditions"]["pictures"] == 25
    assert document["thresholds"] == {str(n): t for n, t in after.decider.thresholds.items()}
    assert [row["threshold"] for row in document["sweep"]] == [round(0.1 + 0.05 * k, 2) for k in range(17)]
    for row in (*document["sweep"], document["chosen"]):
        assert {"accuracy_groups", "mean_exit_stage", "answered"} <= set(row)
        assert set(row["answered"]) == {*map(str, before.layouts), "device"}
        assert sum(row["answered"].values()) == pytest.approx(1, abs=0.002)
        assert 1 <= row["mean_exit_stage"] <= before.stages[-1].n
    means = [row["mean_exit_stage"] for row in document["sweep"]]
    assert means == sorted(means)  # a higher threshold never answers earlier


def test_another_folder_gets_a_whole_bundle_and_the_first_one_stays(tiny_copy, pictures, tmp_path):
    before = (tiny_copy / MANIFEST).read_bytes()
    target = tmp_path / "new" / "bundle"
    options = ("--trigger", "entropy", "--unit", "class", "--single", "--max-loss", 100)
    calibrate(tiny_copy, pictures, *options, "--output", target)
    assert (tiny_copy / MANIFEST).read_bytes() == before
    decider = Bundle.load(target).decider
    assert (decider.trigger, decider.unit) == ("entropy", "class")
    assert set(decider.thresholds.values()) == {0.1}  # the lowest, where any loss is allowed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trigger", "hunch"), "the trigger is confidence or entropy, not 'hunch'"),
        (("--unit", "pixel"), "the unit is group or class, not 'pixel'"),
        (("--precision", "int8"), "no int8 stages"),
        (("--precision", "half"), "float or int8"),
        (("--output", "/dev/null/bundle"), "cannot write the bundle"),
        (("--json", "/nowhere/out.json"), "cannot write"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line_and_change_nothing(tiny_copy, pictures, options, words):
    before = (tiny_copy / MANIFEST).read_bytes()
    assert words in refused(tiny_copy, pictures, *options)
    assert (tiny_copy / MANIFEST).read_bytes() == before


def test_pictures_that_say_too_little_are_refused(tiny_copy, tmp_path):
    unknown = archive(tmp_path / "unknown.tar", ("dragon",), 3)
    assert "none of these pictures" in refused(tiny_copy, unknown)
    few = archive(tmp_path / "few.tar", ("pet",), 3)
    assert "3 labelled pictures" in refused(tiny_copy, few)


def test_a_folder_that_cannot_hold_a_manifest_is_refused_before_any_work(tiny_copy, tmp_path):
    target = tmp_path / "taken"
    (target / MANIFEST).mkdir(parents=True)
    assert "is a directory" in refused(tiny_copy, tmp_path / "no-such-pictures", "--output", target)


# The rule -----------------------------------------------------------------------------------------------------
def sure(group, probability):
    """Logits of one image: class a stands for the group vehicle, c for none."""
    rest = 1 - probability
    return np.log([probability, 1e-9, rest] if group == "vehicle" else [rest, 1e-9, probability])


def found(exits, whole, truths, **decider):
    logits = {n: np.stack(rows) for n, rows in exits.items()} | {LOCAL_ANSWER_STAGE: np.stack(whole)}
    return method.judged(Decider(CLASSES, {}, {}, **decider), logits, np.asarray(truths))


def test_the_first_exit_that_is_sure_answers_and_else_the_whole_network():
    exits = {1: [sure("vehicle", p) for p in (0.9, 0.6, 0.6)], 2: [sure("none", p) for p in (0.9, 0.9, 0.6)]}
    result = method.outcome(found(exits, [sure("none", 0.9)] * 3, [0, 1, 1]), {1: 0.8, 2: 0.8})
    assert result.answered == pytest.approx({1: 1 / 3, 2: 1 / 3})
    assert result.whole == pytest.approx(1 / 3)
    assert result.accuracy == 1.0
    assert result.mean_stage(18) == pytest.approx((1 + 2 + 18) / 3)


def test_the_single_threshold_is_the_lowest_that_keeps_the_accuracy():
    # Exit 1 is wrong when it is 0.62 sure, right when it is 0.9 sure; the whole network is always right.
    exits = {1: [sure("none", 0.62)] * 10 + [sure("vehicle", 0.9)] * 10}
    judged = found(exits, [sure("vehicle", 0.9)] * 20, [0] * 20)
    assert method.single_threshold(judged, max_loss=0.0) == {1: 0.65}
    assert method.single_threshold(judged, max_loss=0.5) == {1: 0.1}


def test_a_single_threshold_that_does_not_exist_says_what_to_do():
    judged = found({1: [sure("none", 0.99)] * 20}, [sure("vehicle", 0.9)] * 20, [0] * 20)
    with pytest.raises(FleetError, match=r"loses 100\.0: give that to --max-loss"):
        method.single_threshold(judged, max_loss=0.01)


def test_begun_stages_get_a_threshold_of_their_own_where_there_are_pictures_enough():
    # Complete, exit 1 is right from 0.6 on; of what has only begun it is wrong when it is 0.6 sure, right when 0.9.
    def exit_1(count):
        return [sure("vehicle", 0.6), sure("none", 0.6), sure("vehicle", 0.6), sure("vehicle", 0.9)] * count

    def judged(count):
        logits = {1: np.asarray(exit_1(count)), LOCAL_ANSWER_STAGE: np.asarray([sure("vehicle", 0.9)] * 4 * count)}
        return method.judged(Decider(CLASSES, {}, {}), logits, np.zeros(4 * count, int), partial=True)

    whole, begun = method.two_thresholds(judged(200), max_loss=0.0)
    assert whole[1] == pytest.approx(0.6, abs=1e-3)
    assert begun[1] == (pytest.approx(0.9, abs=1e-3),)
    assert method.outcome(judged(200), whole, begun).accuracy == 1.0
    assert method.two_thresholds(judged(1200), max_loss=0.0)[1][1] == (begun[1][0],) * 3
    assert method.two_thresholds(judged(20), max_loss=0.0) == (method.thresholds(judged(20), max_loss=0.0), {})


@pytest.mark.parametrize("trigger", ["confidence", "entropy"])
@pytest.mark.parametrize("unit", ["group", "class"])
def test_a_threshold_is_on_the_scale_of_what_the_decider_compares(trigger, unit):
    rng = np.random.default_rng(0)
    logits, truths = rng.normal(0, 3, (60, 3)), rng.integers(0, 2, 60)
    decider = Decider(CLASSES, {3: 1.5}, {}, trigger, unit)
    judged = method.judged(decider, {3: logits, LOCAL_ANSWER_STAGE: logits}, truths)
    chosen = replace(decider, thresholds=method.thresholds(judged, max_loss=1.0))
    # Any loss is allowed, so the least sure image of all may still be answered, up to the rounding.
    least = min(decider.predict(3, row).certainty for row in logits)
    assert chosen.thresholds[3] == pytest.approx(least, abs=1e-4)


def test_pictures_that_name_only_groups_are_enough_for_temperatures():
    rng = np.random.default_rng(1)
    truths = rng.integers(0, 2, 400)
    logits = np.zeros((400, 3))
    logits[:, 2] = np.where(rng.random(400) < 0.8, truths, 1 - truths) * 2 - 1  # right on 80 %
    logits *= 6  # and far too sure of it
    fitted = method.with_temperatures(Decider(CLASSES, {}, {}), {1: logits}, truths, np.full(400, -1))

    def loss(t):
        groups = CLASSES.group_probabilities(softmax(logits / t))
        return -np.log(groups[np.arange(400), truths]).mean()

    best = fitted.temperatures[1]
    assert best > 2
    assert loss(best) <= min(loss(best * 1.05), loss(best / 1.05))


def judged_by_arrival(pictures, right_if):
    """Exit 1 is 0.9 or 0.6 sure, by chance, and right as ``right_if(arrived, sure)`` says; the network always is."""
    arrived = method.begun_shares(pictures, newest=True, seed=1)
    certain = np.random.default_rng(0).random(pictures) < 0.5
    answers = zip(right_if(arrived, certain), certain, strict=True)
    logits = [sure("vehicle" if right else "none", 0.9 if high else 0.6) for right, high in answers]
    whole = np.asarray([sure("vehicle", 0.9)] * pictures)
    return method.judged(
        Decider(CLASSES, {}, {}),
        {1: np.asarray(logits), LOCAL_ANSWER_STAGE: whole},
        np.zeros(pictures, int),
        partial=True,
    )


def test_the_parts_of_a_stage_get_thresholds_of_their_own_where_there_are_pictures_enough():
    # While less than a third has arrived, exit 1 is right where it is 0.9 sure; later also where it is 0.6 sure.
    found = judged_by_arrival(4000, lambda arrived, certain: certain | (arrived > 1 / 3))
    _, begun = method.two_thresholds(found, max_loss=0.0)
    assert begun[1] == (pytest.approx(0.9, abs=1e-3), pytest.approx(0.6, abs=1e-3), pytest.approx(0.6, abs=1e-3))


def test_what_suffices_of_little_suffices_of_more():
    # By chance exit 1 looks better on the first third than on what follows, and than on the complete stage.
    found = judged_by_arrival(6000, lambda arrived, certain: certain | (arrived <= 1 / 3))
    complete, begun = method.two_thresholds(found, max_loss=0.0)
    assert [*begun[1], complete[1]] == sorted([*begun[1], complete[1]], reverse=True)
    assert method.outcome(found, complete, begun).accuracy == 1.0
