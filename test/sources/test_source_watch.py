# SPDX-License-Identifier: Apache-2.0
"""A source that goes silent or away is told of once, and is a complaint for as long as it lasts."""

from fleet.sources.watch import SourceState, SourceWatch


def test_a_pause_between_two_pictures_is_nothing_to_talk_about():
    watch = SourceWatch(100.0)
    assert watch.nothing(104.9, gone=False) is None
    assert watch.complaint(104.9) is None
    assert watch.picture(105.0) is None
    assert watch.nothing(109.9, gone=False) is None


def test_a_silent_source_is_told_of_once_and_once_more_when_it_speaks():
    watch = SourceWatch(100.0)
    lines = [watch.nothing(100.0 + 0.5 * k, gone=False) for k in range(1, 30)]
    assert [line for line in lines if line] == ["no picture for 5.5 s"]
    assert watch.complaint(112.0) == "the camera is gone: no picture for 12 s"
    assert watch.picture(120.0) == "pictures come again after 20.0 s"
    assert watch.complaint(120.0) is None
    assert watch.picture(120.1) is None


def test_a_source_that_is_gone_has_said_so_itself_and_is_a_complaint_at_once():
    watch = SourceWatch(100.0)
    assert watch.nothing(100.5, gone=True) is None
    assert watch.state is SourceState.GONE
    assert watch.complaint(100.5) == "the camera is gone: no picture for 0 s"
    assert watch.nothing(130.0, gone=True) is None
    assert watch.picture(131.0) is None
    assert watch.state is SourceState.FINE


def test_a_source_that_came_back_without_a_picture_is_silent_in_the_end():
    watch = SourceWatch(100.0)
    watch.nothing(101.0, gone=True)
    assert watch.nothing(110.0, gone=False) == "no picture for 10.0 s"
    assert watch.state is SourceState.SILENT
