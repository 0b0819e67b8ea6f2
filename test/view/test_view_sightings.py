# SPDX-License-Identifier: Apache-2.0
"""The list of events: one a visit, with the picture of its surest frame, and never longer than it may be."""

from __future__ import annotations

import math

from fleet.behaviours.sighting import Sighting
from fleet.view.sightings import KEPT, Sightings


def cat(t: float, confidence: float = 0.9, class_name: str = "tabby") -> Sighting:
    return Sighting(t, "pet", class_name, confidence)


def test_a_visit_is_one_event_with_the_picture_of_its_surest_frame():
    list_of = Sightings()
    begun = list_of.see(cat(0.0, 0.8), "a")
    list_of.picture("a", b"first")
    assert list_of.see(cat(0.5, 0.5), "b") is begun
    assert list_of.see(cat(1.0, 0.95, "collie"), "c") is begun
    (event,) = list_of.as_json()
    assert (event["frames"], event["first"], event["last"], event["confidence"]) == (3, 0.0, 1.0, 0.95)
    assert (event["class"], event["snapshot"]) == ("collie", "a")  # until the surer picture is there
    list_of.picture("c", b"surest")
    list_of.picture("b", b"less sure")
    assert (list_of.as_json()[0]["snapshot"], list_of.thumb(1)) == ("c", b"surest")


def test_an_event_has_a_picture_even_if_that_of_its_surest_frame_never_comes():
    list_of = Sightings()
    for t, confidence, key in ((0.0, 0.9, "a"), (0.2, 0.5, "b"), (0.4, 0.6, "c")):
        list_of.see(cat(t, confidence), key)
    list_of.picture("b", b"b")
    assert list_of.thumb(1) == b"b"
    list_of.picture("c", b"c")
    list_of.picture("of another camera", b"?")
    assert list_of.thumb(1) == b"c"


def test_what_comes_again_after_a_while_is_another_event_and_the_newest_is_first():
    list_of = Sightings(absence=2.0)
    assert list_of.see(cat(0.0), "a") is not None
    assert list_of.see(cat(5.0), "b") is not None
    assert [event["number"] for event in list_of.as_json()] == [2, 1]


def test_groups_do_not_end_each_others_visits():
    list_of = Sightings()
    for t in range(4):
        list_of.see(cat(t / 2), f"{t}")
        list_of.see(Sighting(t / 2 + 0.1, "vehicle", "tractor", 0.9), f"v{t}")
    assert {(event["group"], event["frames"]) for event in list_of.as_json()} == {("pet", 4), ("vehicle", 4)}


def test_nothing_and_doubt_are_no_events():
    list_of = Sightings()
    assert list_of.see(Sighting(0.0, "none", "egg", 0.99), "a") is None
    assert list_of.see(cat(1.0, 0.6), "b") is None
    assert list_of.see(cat(2.0, math.nan), "c") is None
    assert list_of.as_json() == []


def test_years_of_visits_and_any_number_of_groups_take_no_more_room():
    list_of = Sightings()
    for k in range(5000):
        for t in range(3):
            list_of.see(Sighting(10.0 * k + t, f"group {k % 500}", "x", 0.9), f"{k} {t}")
        list_of.picture(f"{k} 0", b"picture")
    assert len(list_of.as_json()) == KEPT
    assert len(list_of._bells) == KEPT
    assert list_of.thumb(1) == b""
