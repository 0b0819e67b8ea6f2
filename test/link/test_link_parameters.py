# SPDX-License-Identifier: Apache-2.0
"""A link that cannot be is refused with one line that says what could be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import FleetError
from fleet.link.parameters import LinkParameters


def attempt(make):
    """What was made, and why not; anything but a FleetError goes through."""
    try:
        return make(), ""
    except FleetError as refused:
        return None, str(refused)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ci_ms": 5}, "a connection interval of 5 ms is outside BLE's 7.5 to 4000 ms"),
        ({"ci_ms": 4001.25}, "a connection interval of 4001.25 ms is outside BLE's 7.5 to 4000 ms"),
        ({"ci_ms": -10}, "a connection interval of -10 ms is outside BLE's 7.5 to 4000 ms"),
        ({"ci_ms": 9.0}, "a connection interval of 9 ms is not a multiple of 1.25 ms: use 8.75 or 10"),
        ({"ci_ms": math.nan}, "ci_ms is a finite number, not nan"),
        ({"ci_ms": math.inf}, "ci_ms is a finite number, not inf"),
        ({"ci_ms": 10**400}, "ci_ms is a finite number, not inf"),
        ({"ci_ms": "fast"}, "ci_ms is a number, not 'fast'"),
        ({"ci_ms": True}, "ci_ms is a number, not True"),
        ({"packets": 0}, "0 packets an event is outside 1 to 64"),
        ({"packets": 65}, "65 packets an event is outside 1 to 64"),
        ({"packets": 2.5}, "packets is a whole number, not 2.5"),
        ({"payload": 19}, "a payload of 19 bytes is outside 20 to 244, what one notification holds"),
        ({"payload": 245}, "a payload of 245 bytes is outside 20 to 244, what one notification holds"),
        ({"payload": None}, "payload is a whole number, not None"),
        ({"loss": -0.1}, "a loss of -0.1 is not a probability: give 0 to 1"),
        ({"loss": 30}, "a loss of 30 is not a probability: give 0 to 1"),
        ({"loss": math.nan}, "loss is a finite number, not nan"),
        ({"phy": "5G"}, "no PHY is called '5G': choose one of 1M, 2M, 500k, 125k"),
        ({"ack": "never"}, "ack is one of link_layer, next_event, not 'never'"),
        ({"transport": "pigeon"}, "transport is one of emulated, bleak, bumble, not 'pigeon'"),
        ({"as_published": 1}, "as_published is true or false, not 1"),
        (
            {"phy": "125k", "ci_ms": 7.5},
            "no payload of 244 bytes fits a connection interval of 7.5 ms at 125k (guard 800 µs): "
            "use ci_ms=20 or more or payload=66 or less",
        ),
    ],
)
def test_a_bad_value_is_refused_with_one_clear_line(values, message):
    with pytest.raises(FleetError) as caught:
        LinkParameters(**values)
    assert str(caught.value) == message


def test_the_cures_that_a_refusal_offers_work():
    assert LinkParameters(phy="125k", ci_ms=20).effective_packets == 1
    assert LinkParameters(phy="125k", ci_ms=7.5, payload=66).effective_packets == 1


@pytest.mark.parametrize(
    ("ci_ms", "phy", "packets", "expected"),
    [(10, "1M", 4, 3), (7.5, "1M", 4, 2), (7.5, "2M", 4, 4), (7.5, "2M", 8, 4), (7.5, "500k", 4, 1), (30, "1M", 4, 4)],
)
def test_effective_packets_are_what_was_asked_for_or_what_fits(ci_ms, phy, packets, expected):
    assert LinkParameters(ci_ms=ci_ms, phy=phy, packets=packets).effective_packets == expected


def test_as_published_takes_the_request_for_what_it_is():
    assert LinkParameters(ci_ms=7.5, packets=4, as_published=True).effective_packets == 4
    assert LinkParameters(ci_ms=7.5, phy="125k", packets=4, as_published=True).effective_packets == 4


@given(
    st.integers(6, 3200),
    st.integers(1, 64),
    st.sampled_from(["1M", "2M", "500k", "125k"]),
    st.integers(20, 244),
)
def test_every_link_that_is_accepted_carries_something_and_never_more_than_asked(steps, packets, phy, payload):
    link, refusal = attempt(lambda: LinkParameters(ci_ms=steps * 1.25, packets=packets, phy=phy, payload=payload))
    if link is None:
        assert "fits a connection interval" in refusal
    else:
        assert 1 <= link.effective_packets <= packets
        assert link.ci_s == pytest.approx(steps * 1.25e-3)


def test_numbers_of_numpy_and_of_ros_messages_are_numbers():
    link = LinkParameters(ci_ms=np.float32(8.75), packets=np.int64(2), loss=np.float64(0.25))
    assert (link.ci_ms, link.packets, link.loss) == (8.75, 2, 0.25)
    assert type(link.ci_ms) is float
    assert type(link.packets) is int


def test_settings_are_read_one_by_one_or_several_in_a_string():
    expected = LinkParameters(ci_ms=30, packets=2, phy="2M", payload=100, loss=0.1, ack="next_event", transport="bleak")
    items = ["ci_ms=30", "packets=2,phy=2M payload=100", " loss=0.1 , ack=next_event", "transport=bleak"]
    assert LinkParameters.parse(items) == expected
    assert LinkParameters.parse([" ".join(items)]) == expected
    assert LinkParameters.parse("ci_ms=30") == LinkParameters(ci_ms=30)


def test_settings_change_what_they_name_and_keep_the_rest():
    base = LinkParameters(ci_ms=100, loss=0.3)
    assert LinkParameters.parse(["packets=1"], base) == LinkParameters(ci_ms=100, loss=0.3, packets=1)
    assert LinkParameters.parse([], base) == base
    assert LinkParameters.parse(["ci_ms=15", "ci_ms=30"]).ci_ms == 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "speed=9",
            "'speed' is not a setting of a link: choose from ci_ms, packets, phy, payload, loss, ack, transport",
        ),
        ("as_published=true", "'as_published' is not a setting of a link: choose from ci_ms, "),
        ("ci_ms", "'ci_ms' is not KEY=VALUE: write for example ci_ms=30"),
        ("ci_ms=", "'ci_ms=' is not KEY=VALUE: write for example ci_ms=30"),
        ("ci_ms=soon", "ci_ms=soon: 'soon' is not a number"),
        ("packets=two", "packets=two: 'two' is not a whole number"),
        ("packets=2.5", "packets=2.5: '2.5' is not a whole number"),
        ("ci_ms=nan", "ci_ms is a finite number, not nan"),
        ("ci_ms=5", "a connection interval of 5 ms is outside BLE's 7.5 to 4000 ms"),
    ],
)
def test_a_bad_setting_is_refused_with_one_clear_line(text, message):
    with pytest.raises(FleetError) as caught:
        LinkParameters.parse([text])
    assert str(caught.value).startswith(message)


@given(st.lists(st.text(max_size=20), max_size=4))
def test_no_text_makes_the_reader_fail_in_another_way(items):
    link, refusal = attempt(lambda: LinkParameters.parse(items))
    assert link is not None or len(refusal.splitlines()) == 1


def test_replace_checks_like_the_constructor_and_names_an_unknown_field():
    assert LinkParameters().replace(ci_ms=50).ci_ms == 50
    with pytest.raises(FleetError, match="outside BLE's"):
        LinkParameters().replace(ci_ms=5000)
    with pytest.raises(FleetError, match="a link has no 'speed'"):
        LinkParameters().replace(speed=3)
