# SPDX-License-Identifier: Apache-2.0
"""The ladder against the splits of the design done one by one, and the properties that every geometry must have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fleet.errors import FleetError
from fleet.ladder import Ladder, finest_grid, split_order

ladders = st.builds(
    Ladder,
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from(["corner", "centre"]),
)
LEVELS = 256


@st.composite
def ladders_with_maps(draw, channels=None):
    ladder = draw(ladders)
    shape = (draw(st.integers(1, 3)) if channels is None else channels, ladder.finest, ladder.finest)
    return ladder, draw(hnp.arrays(np.int32, shape, elements=st.integers(0, LEVELS - 1)))


# The reference -------------------------------------------------------------------------------------------
# A map is a list of row bands, each a list of cells; a band is (first, length) in cells of the finest grid.
# Nothing is shared with the implementation: it asks only which band splits next, as any implementation must.


def whole_bands(ladder):
    size = 2**ladder.levels
    return [(k * size, size) for k in range(ladder.base)]


def splits_of(ladder):
    """Every step from one size to the next, coarse to fine: the position of the band that is split."""
    bands, level_size = whole_bands(ladder), 2**ladder.levels
    while level_size > 1:
        for band in split_order(len([b for b in bands if b[1] == level_size]), ladder.order):
            first = band * level_size
            at = bands.index((first, level_size))
            yield at
            bands[at : at + 1] = [(first, level_size // 2), (first + level_size // 2, level_size // 2)]
        level_size //= 2


def reference_split(ladder, grid):
    """Merge two halves at a time, in exactly the reverse order, and keep the differences."""
    cells = [[int(v) for v in row] for row in grid]
    differences = []
    for at in reversed(list(splits_of(ladder))):
        column = []
        for row in cells:  # the column was split last
            a, b = row[at], row[at + 1]
            column.append(a - b)
            row[at : at + 2] = [(a + b) // 2]
        upper, lower = cells[at], cells[at + 1]
        line = [a - b for a, b in zip(upper, lower, strict=True)]
        cells[at : at + 2] = [[(a + b) // 2 for a, b in zip(upper, lower, strict=True)]]
        differences.append((line, column))
    out = [value for row in cells for value in row]
    for line, column in reversed(differences):
        out += line + column
    return out


def reference_rung(ladder, coefficients, rung):
    """The uneven grid of one size from the first ``rung**2`` coefficients, split by split, and its bands."""
    values = iter(int(v) for v in coefficients[: rung**2])
    cells = [[next(values) for _ in range(ladder.base)] for _ in range(ladder.base)]
    bands = whole_bands(ladder)
    for at in splits_of(ladder):
        if len(cells) == rung:
            break
        halves = [halve(low, next(values)) for low in cells[at]]
        cells[at : at + 1] = [[a for a, _ in halves], [b for _, b in halves]]
        for row in cells:
            row[at : at + 1] = halve(row[at], next(values))
        first, size = bands[at]
        bands[at : at + 1] = [(first, size // 2), (first + size // 2, size // 2)]
    assert next(values, None) is None
    return cells, bands


def halve(low, h):
    a = low + (h + 1) // 2
    return a, a - h


def up_sampled(cells, bands):
    lengths = [size for _, size in bands]
    return np.repeat(np.repeat(np.array(cells), lengths, axis=0), lengths, axis=1)


# -----------------------------------------------------------------------------------------------------------
@given(ladders_with_maps())
def test_a_map_comes_back_exactly(case):
    ladder, grid = case
    assert np.array_equal(ladder.merge(ladder.split(grid)), grid)


@given(ladders.flatmap(lambda a: st.tuples(st.just(a), hnp.arrays(np.int32, a.count, elements=st.integers(-255, 255)))))
def test_any_coefficients_come_back_too(case):
    ladder, coefficients = case
    assert np.array_equal(ladder.split(ladder.merge(coefficients)), coefficients)


@settings(max_examples=60)
@given(ladders_with_maps(channels=1))
def test_the_coefficients_are_those_of_the_splits_done_one_by_one(case):
    ladder, grid = case
    assert ladder.split(grid)[0].tolist() == reference_split(ladder, grid[0])


@settings(max_examples=60)
@given(ladders_with_maps(channels=1), st.data())
def test_a_rung_is_its_uneven_grid_made_as_large_as_the_finest(case, data):
    ladder, grid = case
    rung = data.draw(st.integers(ladder.base, ladder.finest))
    coefficients = ladder.split(grid)[0]
    cells, bands = reference_rung(ladder, coefficients, rung)
    assert len(cells) == len(bands) == rung
    prefix = np.where(np.arange(ladder.count) < rung**2, coefficients, 0)
    assert np.array_equal(ladder.merge(prefix), up_sampled(cells, bands))


@given(ladders_with_maps(channels=1), st.data())
def test_what_comes_after_a_rung_does_not_change_the_means_over_its_cells(case, data):
    """A rung is what pooling the map says, not a guess that later coefficients correct."""
    ladder, grid = case
    rung = data.draw(st.integers(ladder.base, ladder.finest))
    cells, bands = reference_rung(ladder, ladder.split(grid)[0], rung)
    for row, (top, height) in zip(cells, bands, strict=True):
        for cell, (left, width) in zip(row, bands, strict=True):
            mean = grid[0, top : top + height, left : left + width].mean()
            splits = np.log2(height * width)
            assert mean - splits / 2 <= cell <= mean  # every split rounds half a level down at most


@given(ladders_with_maps())
def test_the_coarsest_rung_is_mean_pooling_up_to_the_floor_of_each_split(case):
    ladder, grid = case
    size = 2**ladder.levels
    pooled = grid.reshape(-1, ladder.base, size, ladder.base, size).mean(axis=(2, 4))
    base = ladder.split(grid)[:, : ladder.base**2].reshape(pooled.shape)
    assert np.all(base <= pooled)
    assert np.all(base >= pooled - ladder.levels)  # two splits a level, half a level each


@given(ladders)
def test_a_size_more_costs_twice_the_size_and_one(ladder):
    sizes = list(range(ladder.base, ladder.finest))
    assert len(list(splits_of(ladder))) == len(sizes)
    assert ladder.base**2 + sum((o + 1) ** 2 - o**2 for o in sizes) == ladder.count == ladder.finest**2


@given(ladders_with_maps(), st.data())
def test_any_subset_of_coefficients_decodes_and_what_arrived_is_in_it(case, data):
    ladder, grid = case
    coefficients = ladder.split(grid)
    known = data.draw(hnp.arrays(np.bool_, ladder.count))
    partial = np.where(known, coefficients, 0)
    merged = ladder.merge(partial)
    assert merged.shape == grid.shape
    assert np.array_equal(ladder.split(merged), partial)


@given(ladders_with_maps())
def test_without_differences_both_halves_are_alike(case):
    ladder, grid = case
    base = np.where(np.arange(ladder.count) < ladder.base**2, ladder.split(grid), 0)
    size = 2**ladder.levels
    blocks = ladder.merge(base).reshape(-1, ladder.base, size, ladder.base, size)
    assert np.all(blocks == blocks[:, :, :1, :, :1])


@given(ladders_with_maps())
def test_differences_are_one_bit_wider_than_the_values(case):
    ladder, grid = case
    coefficients = ladder.split(grid)
    assert np.all(np.abs(coefficients) < LEVELS)
    assert np.all(coefficients[:, : ladder.base**2] >= 0)


@given(ladders_with_maps())
def test_channels_do_not_touch_each_other(case):
    ladder, grid = case
    together = ladder.split(grid)
    assert all(np.array_equal(together[c], ladder.split(grid[c])) for c in range(len(grid)))


def test_a_small_map_by_hand():
    """4x4 from a base of 2: the first band of rows, then the first of columns, then the second of each."""
    grid = np.array([[1, 3, 10, 10], [5, 7, 10, 10], [0, 0, 9, 8], [0, 0, 7, 5]])
    coefficients = Ladder(2, 1, "corner").split(grid)
    assert coefficients[:4].tolist() == [4, 10, 0, 7]  # means, rounded down: 4, 10, 0, 7.25
    assert coefficients[4:6].tolist() == [-4, 0]  # rows 0 and 1: (1+3)//2 - (5+7)//2, then 10 - 10
    assert coefficients[6:9].tolist() == [-2, -2, 0]  # columns 0 and 1, in the three rows there are now
    assert coefficients[9:12].tolist() == [0, 0, 2]  # rows 2 and 3, in three columns: 0-0, 0-0, 8-6
    assert coefficients[12:].tolist() == [0, 0, 1, 2]  # columns 2 and 3: 10-10, 10-10, 9-8, 7-5


@pytest.mark.parametrize(("base", "levels", "sizes"), [(7, 2, range(7, 29)), (4, 2, range(4, 17)), (2, 2, range(2, 9))])
@pytest.mark.parametrize("order", ["corner", "centre"])
def test_the_published_geometries_reach_every_size_that_the_paper_uses(base, levels, sizes, order):
    ladder = Ladder(base, levels, order)
    assert ladder.finest == 4 * base == sizes[-1]
    grid = np.random.default_rng(0).integers(0, 16, (3, ladder.finest, ladder.finest))
    assert np.array_equal(ladder.merge(ladder.split(grid)), grid)
    assert ladder.split(grid)[0].tolist() == reference_split(ladder, grid[0])


def test_the_order_is_from_the_corner_or_from_the_centre_outward():
    assert split_order(5, "corner") == (0, 1, 2, 3, 4)
    assert split_order(4, "centre") == (1, 2, 0, 3)
    assert split_order(5, "centre") == (2, 1, 3, 0, 4)


@given(st.integers(1, 40), st.sampled_from(["corner", "centre"]))
def test_an_order_names_every_band_once(bands, order):
    assert sorted(split_order(bands, order)) == list(range(bands))


@pytest.mark.parametrize(
    ("map_size", "base", "largest", "grid"),
    [(32, 4, 16, 16), (16, 4, 16, 16), (15, 4, 16, 8), (8, 4, 16, 8), (149, 7, 28, 28), (7, 7, 28, 7), (6, 2, 8, 4)],
)
def test_the_finest_grid_is_no_larger_than_the_map_or_the_largest_rung(map_size, base, largest, grid):
    assert finest_grid(map_size, base, largest) == grid


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: finest_grid(3, 4, 16), "smaller than the base grid of 4"),
        (lambda: finest_grid(8, 0, 16), "base grid of 0"),
        (lambda: Ladder(0, 1), "base of at least 1"),
        (lambda: Ladder(4, -1), "no negative levels"),
        (lambda: Ladder(4, 2, "spiral"), "'corner' or 'centre', not 'spiral'"),
        (lambda: Ladder(10**12, 0), "at most 256 cells a side"),
        (lambda: Ladder(1, 10**12), "at most 256 cells a side"),
        (lambda: Ladder(2, 1).split(np.zeros((3, 4), int)), "4x4"),
        (lambda: Ladder(2, 1).split(np.zeros(16, int)), "4x4"),
        (lambda: Ladder(2, 1).split(np.zeros((4, 4))), "integer maps"),
        (lambda: Ladder(2, 1).merge(np.zeros((3, 15), int)), "16 coefficients a channel, .*15"),
        (lambda: Ladder(2, 1).merge(7), "16 coefficients a channel"),
        (lambda: Ladder(2, 1).merge(np.zeros(16)), "integers"),
    ],
)
def test_what_is_no_ladder_or_does_not_fit_it_is_refused_in_one_line(attempt, words):
    with pytest.raises(FleetError, match=words) as problem:
        attempt()
    assert "\n" not in str(problem.value)
