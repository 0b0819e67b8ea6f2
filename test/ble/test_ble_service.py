# SPDX-License-Identifier: Apache-2.0
"""The bytes of the GATT service: golden vectors for a firmware author, and whatever a stranger may send."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.ble import service
from fleet.ble.service import (
    LINK_BYTES,
    LinkReport,
    identity_in_ready,
    payload_of,
    ready,
    supervision_ms,
)
from fleet.link.airtime import PHYS
from fleet.packet import EXIT_NOTICE_BYTES, PacketError

IDENTITY = bytes.fromhex("0123456789abcdef")
REPORT = LinkReport(
    IDENTITY, ci_ms=30.0, latency=0, supervision_ms=6000, octets=251, phy="2M", payload=244, packets=4, encrypted=True
)
GOLDEN = bytes.fromhex("0123456789abcdef 01 01 1800 0000 5802 fb 02 f4 04")

reports = st.builds(
    LinkReport,
    identity=st.binary(min_size=8, max_size=8),
    ci_ms=st.integers(6, 3200).map(lambda n: n * 1.25),
    latency=st.integers(0, 499),
    supervision_ms=st.integers(10, 3200).map(lambda n: n * 10.0),
    octets=st.integers(27, 251),
    phy=st.sampled_from(PHYS),
    payload=st.integers(20, 244),
    packets=st.integers(1, 64),
    encrypted=st.booleans(),
    secure=st.booleans(),
)


def test_a_link_report_is_the_golden_vector():
    assert REPORT.pack() == GOLDEN
    assert LinkReport.unpack(GOLDEN) == REPORT


def test_ready_is_the_golden_vector():
    assert ready(IDENTITY) == bytes.fromhex("01 0123456789abcdef")


def test_a_link_report_fits_one_notification_of_the_smallest_mtu():
    assert LINK_BYTES == 20


@given(reports)
def test_every_link_report_comes_back_from_its_bytes(report):
    assert LinkReport.unpack(report.pack()) == report


@given(reports, st.binary(max_size=30))
def test_what_a_later_version_appends_is_ignored(report, more):
    assert LinkReport.unpack(report.pack() + more) == report


@given(st.binary(max_size=40))
def test_hostile_bytes_are_a_report_within_its_ranges_or_refused(data):
    try:
        report = LinkReport.unpack(data)
    except PacketError:
        return
    assert 7.5 <= report.ci_ms <= 4000
    assert 20 <= report.payload <= 244
    assert report.phy in PHYS


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": b"short"},
        {"ci_ms": 5.0},
        {"ci_ms": 4001.25},
        {"ci_ms": float("nan")},
        {"latency": 500},
        {"supervision_ms": 50},
        {"octets": 26},
        {"phy": "3M"},
        {"payload": 19},
        {"payload": 245},
        {"packets": 0},
        {"latency": -1},
    ],
)
def test_a_report_out_of_range_is_never_packed(changes):
    with pytest.raises(PacketError):
        replace(REPORT, **changes).pack()


@given(st.binary(max_size=20))
def test_ready_is_nine_bytes_that_begin_with_its_code_and_never_an_exit_notice(data):
    identity = identity_in_ready(data)
    assert (identity is not None) == (len(data) == 9 and data[0] == 1)
    assert identity is None or (ready(identity) == data and len(data) != EXIT_NOTICE_BYTES)


@given(st.integers(23, 517), st.integers(27, 251))
def test_a_packet_fits_the_mtu_and_one_link_layer_packet(mtu, octets):
    payload = payload_of(mtu, octets)
    assert 20 <= payload <= 244
    assert payload <= mtu - 3
    assert payload + 7 <= octets


def test_the_payload_goes_from_20_to_244_bytes():
    assert (payload_of(23, 251), payload_of(247, 27), payload_of(247, 251), payload_of(517, 251)) == (20, 20, 244, 244)


@given(st.integers(6, 3200), st.integers(0, 10))
def test_the_supervision_time_out_is_six_seconds_and_several_intervals_complaint_9(steps, latency):
    timeout = supervision_ms(steps * 1.25, latency)
    assert 6000 <= timeout <= 32000
    assert timeout % 10 == 0
    assert timeout == 32000 or timeout >= 2.5 * steps * 1.25 * (1 + latency)


def test_the_document_has_the_golden_vectors_and_the_uuids():
    document = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text()
    for value in (GOLDEN, ready(IDENTITY)):
        assert f"`{value.hex(' ')}`" in document
    for uuid in (service.SERVICE, service.FEATURES, service.EXIT, service.LINK):
        assert f"`{uuid}`" in document
