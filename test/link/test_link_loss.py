# SPDX-License-Identifier: Apache-2.0
"""Losses have the share and the bursts that were asked for, and repeat with their seed."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import FleetError
from fleet.link.loss import GilbertElliott, Independent, bursts


def draw(model, n, seed=0):
    rng = np.random.default_rng(seed)
    return [model.lost(rng) for _ in range(n)]


def runs(lost):
    return [len(list(group)) for value, group in itertools.groupby(lost) if value]


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_independent_losses_have_their_share(loss):
    lost = draw(Independent(loss), 20_000)
    assert np.mean(lost) == pytest.approx(loss, abs=0.012)


def test_a_link_without_loss_loses_nothing_and_one_with_total_loss_everything():
    assert not any(draw(Independent(0.0), 2000))
    assert all(draw(Independent(1.0), 2000))
    assert not any(draw(GilbertElliott.of(0.0, 4), 2000))
    assert all(draw(GilbertElliott.of(1.0, 4), 2000))


@pytest.mark.parametrize(("loss", "burst"), [(0.1, 1.5), (0.1, 8), (0.3, 4), (0.6, 20)])
def test_bursty_losses_have_their_share_and_their_mean_length(loss, burst):
    lost = draw(bursts(burst)(loss), 60_000, seed=3)
    assert np.mean(lost) == pytest.approx(loss, rel=0.12)
    assert np.mean(runs(lost)) == pytest.approx(burst, rel=0.12)


def test_the_share_of_a_chain_with_four_probabilities_is_the_one_it_says():
    chain = GilbertElliott(0.05, 0.2, loss_good=0.02, loss_bad=0.7)
    assert chain.loss == pytest.approx(0.2 * 0.7 + 0.8 * 0.02)
    assert np.mean(draw(chain, 60_000)) == pytest.approx(chain.loss, rel=0.1)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32))
def test_with_one_seed_a_higher_loss_loses_the_same_packets_and_more(a, b, seed):
    fewer, more = (draw(Independent(loss), 50, seed) for loss in sorted((a, b)))
    assert all(m for f, m in zip(fewer, more, strict=True) if f)


@given(st.floats(0, 0.8), st.floats(4.1, 50), st.integers(0, 100))
def test_the_same_seed_loses_the_same_packets(loss, burst, seed):
    assert draw(GilbertElliott.of(loss, burst), 100, seed) == draw(GilbertElliott.of(loss, burst), 100, seed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Independent(1.5), "loss is a probability from 0 to 1, not 1.5"),
        (lambda: Independent(float("nan")), "loss is a probability from 0 to 1, not nan"),
        (lambda: GilbertElliott(0.0, 0.0), "never changes state"),
        (lambda: GilbertElliott.of(0.3, 0.5), "a mean burst of 0.5 packets: give 1 or more"),
        (lambda: GilbertElliott.of(0.9, 4), "bursts of 4 packets cannot lose 90% of them: give bursts of 9 or more"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(make, message):
    with pytest.raises(FleetError, match=message):
        make()
