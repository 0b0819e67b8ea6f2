# SPDX-License-Identifier: Apache-2.0
"""Active hours follow the clock on the wall, past midnight and through the changes of summer time."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.behaviours.hours import ActiveHours, time_of_day, zone_named
from fleet.errors import FleetError

times = st.times()
clocks = st.builds(lambda m: f"{m // 60:02d}:{m % 60:02d}", st.integers(0, 1439))


def at(text: str) -> datetime.time:
    return datetime.time.fromisoformat(text)


@pytest.mark.parametrize("moment", ["08:00", "08:00:00.000001", "17:59:59.999999"])
def test_the_first_moment_belongs_to_the_hours(moment: str):
    assert ActiveHours.parse("8:00-18:00").include(at(moment))


@pytest.mark.parametrize("moment", ["00:00", "07:59:59.999999", "18:00", "23:59"])
def test_the_last_moment_does_not(moment: str):
    assert not ActiveHours.parse("08:00 - 18:00").include(at(moment))


@pytest.mark.parametrize("moment", ["22:00", "23:59:59", "00:00", "05:59:59"])
def test_hours_may_cross_midnight(moment: str):
    assert ActiveHours.parse("22:00-06:00").include(at(moment))


@pytest.mark.parametrize("moment", ["06:00", "12:00", "21:59:59"])
def test_hours_that_cross_midnight_leave_out_the_day(moment: str):
    assert not ActiveHours.parse("22:00-06:00").include(at(moment))


@given(times)
def test_midnight_may_be_written_both_ways(moment: datetime.time):
    assert ActiveHours.parse("22:00-24:00").include(moment) == ActiveHours.parse("22:00-00:00").include(moment)
    assert ActiveHours.parse("00:00-24:00").include(moment)


@given(clocks, clocks, times)
def test_the_other_way_round_is_the_rest_of_the_day(begin: str, end: str, moment: datetime.time):
    if begin != end:
        there, back = ActiveHours.parse(f"{begin}-{end}"), ActiveHours.parse(f"{end}-{begin}")
        assert there.include(moment) != back.include(moment)
        assert str(there) == f"{begin}-{end}"


@pytest.mark.parametrize("text", ["", "  "])
def test_nothing_means_always(text: str):
    assert ActiveHours.parse(text) is None


@pytest.mark.parametrize(
    "text", ["22", "22-6", "25:00-06:00", "22:60-06:00", "24:00-06:00", "08:00-24:01", "08:00-08:00", "always", "-"]
)
def test_what_is_no_range_is_refused_in_one_line(text: str):
    with pytest.raises(FleetError, match="active_hours") as caught:
        ActiveHours.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Mars", "Europe", "../etc/passwd", "/etc/localtime", "a\0b"])
def test_a_zone_that_is_none_is_refused_in_one_line(name: str):
    with pytest.raises(FleetError, match="time_zone") as caught:
        zone_named(name)
    assert "\n" not in str(caught.value)


def test_no_name_is_the_zone_of_this_machine():
    now = datetime.datetime(2026, 5, 4, 3, 2, 1)
    assert zone_named("") is None
    assert time_of_day(now.timestamp(), None) == now.time()


def test_summer_time_moves_the_hours_with_the_wall_clock():
    zone = zone_named("Europe/Vienna")
    assert zone == ZoneInfo("Europe/Vienna")
    five_utc = [datetime.datetime(2026, month, 1, 5, 0, tzinfo=datetime.timezone.utc).timestamp() for month in (1, 7)]
    assert [time_of_day(t, zone).hour for t in five_utc] == [6, 7]


def test_the_hour_that_comes_twice_in_autumn_is_the_same_hour_both_times():
    zone = zone_named("Europe/Vienna")
    first = datetime.datetime(2026, 10, 25, 0, 30, tzinfo=datetime.timezone.utc).timestamp()
    assert time_of_day(first, zone) == time_of_day(first + 3600, zone) == datetime.time(2, 30)
