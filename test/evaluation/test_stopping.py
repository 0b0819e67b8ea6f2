# SPDX-License-Identifier: Apache-2.0
"""The search of thresholds against brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.evaluation.stopping import NEVER, Runs, Score, choose_each, choose_single, optimism


def table(seed, images=40, columns=5, exits=3):
    """Random runs; the last column answers in any case, and some cells are no runs."""
    random = np.random.default_rng(seed)
    exit_ = random.integers(0, exits, (images, columns))
    certainty = random.random((images, columns)).round(2)
    right = random.random((images, columns)) < 0.3 + 0.6 * certainty
    cost = np.sort(random.random((images, columns)), axis=1)
    cost[random.random(cost.shape) < 0.2] = np.inf
    cost[:, -1], certainty[:, -1] = 1.0 + random.random(images), np.inf
    right[:, -1] = random.random(images) < 0.95
    shuffled = random.permutation(columns)
    return exit_[:, shuffled], certainty[:, shuffled], right[:, shuffled], cost[:, shuffled]


def slow(columns, thresholds):
    """Cost and rightness of each image, looked up run by run."""
    ends = []
    for exit_, certainty, right, cost in zip(*columns, strict=True):
        for run in np.argsort(cost, kind="stable"):
            if np.isfinite(cost[run]) and certainty[run] >= thresholds[exit_[run]]:
                ends.append((cost[run], right[run]))
                break
    return np.asarray(ends, float)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.lists(st.floats(0, 1.2), min_size=3, max_size=3))
def test_the_first_sure_run_answers(seed, thresholds):
    columns = table(seed)
    runs = Runs.of_table(*columns, exits=3)
    chosen = runs.first_sure(np.asarray(thresholds))
    np.testing.assert_array_equal(np.stack([runs.cost[chosen], runs.right[chosen]], axis=1), slow(columns, thresholds))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.lists(st.sampled_from([0.2, 0.5, 0.9, NEVER]), min_size=3, max_size=3))
def test_a_scan_of_one_exit_s_levels_is_as_good_as_trying_each(seed, thresholds):
    runs = Runs.of_table(*table(seed), exits=3)
    levels = np.asarray(thresholds)
    for n in range(3):
        costs, accuracies = runs.scan(levels, n)
        for place, level in enumerate(runs.levels[n].grid):
            tried = levels.copy()
            tried[n] = level
            score = runs.score(tried)
            assert costs[place] == pytest.approx(score.cost)
            assert accuracies[place] == pytest.approx(score.accuracy)


@pytest.mark.parametrize("seed", range(8))
def test_the_search_comes_close_to_the_best_of_all_thresholds(seed):
    runs = Runs.of_table(*table(seed, images=120), exits=3)
    target = 0.8
    every = [runs.score(np.asarray(levels)) for levels in product(*(of.grid[::4] for of in runs.levels))]
    best = min((s for s in every if s.accuracy >= target), key=lambda s: s.cost)
    found = choose_each(runs, target).score
    assert found.accuracy >= target
    assert found.cost <= best.cost * 1.15
    single = choose_single(runs, target).score
    assert not single.better(found, target)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("target", [0.5, 0.8, 0.9, 0.97])
def test_of_one_exit_the_search_finds_the_best_threshold_there_is(seed, target):
    runs = Runs.of_table(*table(seed, images=60, exits=1), exits=1)
    every = [runs.score(np.asarray([level])) for level in np.unique(np.append(runs.certainty, NEVER))]
    assert choose_each(runs, target).score.rank(target) == min(score.rank(target) for score in every)


def test_waiting_for_what_answers_in_any_case_is_an_operating_point():
    """Only the last run is ever right, so nothing but never reaches the target."""
    certainty = np.asarray([[0.99, np.inf]] * 10)
    runs = Runs.of_table(
        np.zeros((10, 2), int), certainty, np.asarray([[False, True]] * 10), np.asarray([[1.0, 2.0]] * 10), exits=1
    )
    found = choose_each(runs, 1.0)
    assert found.thresholds == (NEVER,)
    assert found.score == Score(2.0, 1.0)


def test_what_falls_short_is_ranked_by_accuracy_and_what_reaches_by_time():
    fast, slow_, poor = Score(1.0, 0.8), Score(2.0, 0.9), Score(0.1, 0.7)
    assert fast.better(slow_, 0.8)
    assert slow_.better(fast, 0.85)
    assert fast.better(poor, 0.95)
    assert fast.better(None, 0.95)


def test_halves_hold_every_second_image():
    runs = Runs.of_table(*table(3), exits=3)
    halves = runs.half(0), runs.half(1)
    assert [half.images for half in halves] == [20, 20]
    thresholds = np.asarray([0.4, 0.6, 0.8])
    whole = runs.score(thresholds)
    parts = [half.score(thresholds) for half in halves]
    assert np.mean([p.cost for p in parts]) == pytest.approx(whole.cost)
    assert np.mean([p.accuracy for p in parts]) == pytest.approx(whole.accuracy)


def chance(random, images, exits=12):
    """Certainties that say nothing: every gain of a search is owed to the images that it saw."""
    certainty = np.append(random.random((images, exits)), np.full((images, 1), np.inf), axis=1)
    right = random.random((images, exits + 1)) < 0.8
    cost = np.broadcast_to(np.arange(1.0, exits + 2), right.shape)
    return Runs.of_table(np.broadcast_to([*range(exits), 0], right.shape), certainty, right, cost, exits=exits)


def test_thresholds_that_were_fitted_to_chance_are_found_out():
    """On average: of one small set of images half may look harder than the other."""
    random = np.random.default_rng(0)
    fresh = chance(random, 20_000)
    owed, truly = [], []
    for _ in range(12):
        runs = chance(random, 300)
        chosen = choose_each(runs, 0.82)
        owed.append(optimism(runs, 0.82, choose_each))
        truly.append(chosen.score.accuracy - fresh.score(np.asarray(chosen.thresholds)).accuracy)
    assert np.mean(owed) > 0.005
    assert np.mean(owed) == pytest.approx(np.mean(truly), abs=0.015)


def test_one_threshold_that_really_separates_right_from_wrong_owes_nothing_to_its_images():
    random = np.random.default_rng(1)
    right = random.random((400, 2)) < 0.7
    right[:, 1] = True
    certainty = np.stack([np.where(right[:, 0], 0.9, 0.2), np.full(400, np.inf)], axis=1)
    cost = np.broadcast_to([1.0, 2.0], right.shape)
    runs = Runs.of_table(np.zeros(right.shape, int), certainty, right, cost, exits=1)
    assert optimism(runs, 0.95, choose_each) == 0.0
