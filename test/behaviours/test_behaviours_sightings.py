# SPDX-License-Identifier: Apache-2.0
"""What a label shows, how sure it is of it, and how many frames in a row did."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.behaviours.frames import LastFrames, check_k_of_n
from fleet.behaviours.sighting import Sighting, Watch
from fleet.errors import FleetError

NAN = math.nan


def test_a_group_is_judged_by_its_own_confidence():
    assert Watch(("vehicle",)).confidence_in(Sighting(0, "vehicle", "limousine, limo", 0.9, 0.5)) == 0.9


@pytest.mark.parametrize("name", ["limousine, limo", "limo", "LIMO ", "limousine"])
def test_a_class_is_judged_by_its_own_confidence_whichever_of_its_names_is_watched_for(name: str):
    assert Watch((name,)).confidence_in(Sighting(0, "vehicle", "limousine, limo", 0.9, 0.5)) == 0.5


@pytest.mark.parametrize("group", ["none", "pet", "vehicles"])
def test_something_else_has_no_confidence_at_all(group: str):
    assert Watch(("vehicle",)).confidence_in(Sighting(0, group, "egg", 1.0, 1.0)) is None


def test_a_name_is_not_found_inside_another():
    assert Watch(("cat",)).confidence_in(Sighting(0, "animal", "catamaran", 1.0, 1.0)) is None


@pytest.mark.parametrize(
    ("of_group", "of_class", "for_the_group", "for_the_class"),
    [(0.9, 0.5, 0.9, 0.5), (0.9, NAN, 0.9, 0.9), (NAN, 0.5, 0.5, 0.5)],
)
def test_where_one_confidence_did_not_travel_the_other_is_used(of_group, of_class, for_the_group, for_the_class):
    sighting = Sighting(0, "pet", "beagle", of_group, of_class)
    assert Watch(("pet",)).confidence_in(sighting) == for_the_group
    assert Watch(("beagle",)).confidence_in(sighting) == for_the_class
    assert Watch(("beagle", "pet")).confidence_in(sighting) == max(for_the_group, for_the_class)


def test_without_any_confidence_it_is_not_known():
    assert math.isnan(Watch(("pet",)).confidence_in(Sighting(0, "pet", "beagle")))


@pytest.mark.parametrize("names", [(), ("",), ("vehicle", "  ")])
def test_watching_for_nothing_is_refused(names):
    with pytest.raises(FleetError, match="react_to names nothing"):
        Watch(names)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (2, 1), (1, 0), (1, 33), (-1, -1)])
def test_k_of_n_that_cannot_be_is_refused(k: int, n: int):
    with pytest.raises(FleetError, match="must be 1 to"):
        check_k_of_n(k, n)


def test_frames_that_show_nothing_take_their_place_among_the_last_n():
    frames = LastFrames(3)
    assert [frames.add(t, shows=s) for t, s in enumerate([True, False, False, True, False, True])] == [1, 1, 1, 1, 1, 2]


def test_a_late_frame_counts_where_it_belongs():
    frames = LastFrames(2)
    assert frames.add(1.0, shows=True) == 1
    assert frames.add(3.0, shows=False) == 1
    assert frames.add(2.0, shows=True) == 2


def test_a_camera_whose_clock_was_set_back_is_counted_on():
    frames = LastFrames(3)
    for i in range(1000):
        frames.add(5000.0 + i, shows=False)
    assert [frames.add(10.0 + i, shows=True) for i in range(3)] == [1, 2, 3]


histories = st.lists(st.booleans(), min_size=1, max_size=24)


@given(histories, st.integers(1, 8))
def test_in_order_the_count_is_that_of_the_last_n(shown: list[bool], n: int):
    frames = LastFrames(n)
    for i, shows in enumerate(shown):
        assert frames.add(float(i), shows=shows) == sum(shown[max(0, i - n + 1) : i + 1])


@given(histories, st.integers(1, 8), st.data())
def test_what_is_reached_in_order_is_reached_in_every_order(shown: list[bool], n: int, data: st.DataObject):
    in_order = LastFrames(n)
    best = max(in_order.add(float(i), shows=shows) for i, shows in enumerate(shown))
    mixed = LastFrames(n)
    order = data.draw(st.permutations(range(len(shown))))
    assert max(mixed.add(float(i), shows=shown[i]) for i in order) >= best
