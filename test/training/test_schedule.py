# SPDX-License-Identifier: Apache-2.0
"""Which step trains on what, and how fast: pure functions of the step's number."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import FleetError
from fleet.training.config import Phase
from fleet.training.schedule import epoch_batches, fit_to_budget, list_epochs, one_cycle, refit, step_seed

PHASES = (Phase(32, 4), Phase(64, 2))
RATES = {32: 400.0, 64: 100.0}


def seconds(phases: tuple[Phase, ...], images: int) -> float:
    return sum(phase.epochs * images / RATES[phase.size] for phase in phases)


@given(st.integers(1, 500), st.integers(1, 64), st.integers(0, 2**40))
def test_an_epoch_shows_each_image_at_most_once_and_leaves_out_less_than_a_batch(n: int, batch: int, seed: int) -> None:
    if n < batch:
        with pytest.raises(FleetError, match="do not fill one batch"):
            list_epochs(PHASES, n, batch)
        return
    epoch = list_epochs(PHASES, n, batch)[2]
    batches = list(epoch_batches(epoch, n, batch, seed))
    assert [step for step, _ in batches] == list(range(epoch.first_step, epoch.first_step + epoch.steps))
    shown = torch.cat([chosen for _, chosen in batches]).tolist()
    assert len(set(shown)) == len(shown) > n - batch


def test_orders_differ_between_epochs_and_seeds_and_come_back_alike() -> None:
    first, second = list_epochs(PHASES, 40, 40)[:2]

    def order(epoch, seed):
        return next(epoch_batches(epoch, 40, 40, seed))[1].tolist()

    assert order(first, 1) == order(first, 1)
    assert order(first, 1) != order(second, 1)
    assert order(first, 1) != order(first, 2)


@given(st.integers(2, 20_000), st.floats(0.0, 0.9))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_nearly_nothing(steps: int, warm_up: float) -> None:
    rates = [one_cycle(step, steps, peak=0.5, warm_up=warm_up) for step in range(0, steps + 1, max(1, steps // 50))]
    top = rates.index(max(rates))
    assert 0 < min(rates) <= max(rates) <= 0.5 + 1e-12
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert one_cycle(steps, steps, peak=0.5, warm_up=warm_up) <= 0.001


@given(st.integers(0, 2**20), st.integers(0, 2**20))
def test_every_step_has_a_seed_of_its_own(a: int, b: int) -> None:
    assert 0 <= step_seed(7, 1, a) < 2**63
    assert (step_seed(7, 1, a) == step_seed(7, 1, b)) == (a == b)
    assert step_seed(7, 1, a) != step_seed(7, 2, a)


@given(st.floats(2000, 1e6))
def test_a_budget_is_filled_but_not_overrun(budget: float) -> None:
    fitted = fit_to_budget(PHASES, 10_000, RATES, budget_s=budget, share=0.5)
    spent = seconds(fitted, 10_000) / 0.5
    assert budget - 2 * 200 < spent <= budget
    assert [phase.size for phase in fitted] == [32, 64]


def test_a_budget_too_small_for_one_epoch_of_each_phase_is_refused() -> None:
    with pytest.raises(FleetError, match="raise --budget-minutes"):
        fit_to_budget(PHASES, 10_000, RATES, budget_s=100, share=1.0)


@given(st.integers(0, 6), st.floats(1000, 1e5))
def test_refitting_changes_only_what_is_ahead(done: int, budget: float) -> None:
    fitted = refit(PHASES, done, 10_000, RATES, budget_s=budget, share=1.0)
    before = [epoch.phase.size for epoch in list_epochs(PHASES, 10_000, 64)][:done]
    assert [epoch.phase.size for epoch in list_epochs(fitted, 10_000, 64)][:done] == before
    done_s = sum(10_000 / RATES[size] for size in before)
    assert seconds(fitted, 10_000) - done_s <= budget
