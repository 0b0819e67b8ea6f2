# SPDX-License-Identifier: Apache-2.0
"""The bytes on the air, field by field and bit by bit."""

import contextlib
import math
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleet.packet import (
    CONTINUED,
    EXIT_NOTICE_BYTES,
    HEADER_BYTES,
    LOCAL_ANSWER_STAGE,
    MAX_AGE,
    MAX_PAYLOAD,
    SHORT_HEADER_BYTES,
    STALE_WINDOW,
    ExitNotice,
    Header,
    LocalAnswer,
    PacketError,
    is_newer,
    is_stale,
    next_id,
    peek,
    stamp,
)

ids = st.integers(0, 0xFFFF)
bytes_of_a_u8 = st.integers(0, 255)
confidences = st.floats(0, 1)
headers = st.builds(
    Header,
    inference_id=ids,
    stage=st.integers(0, 15),
    codec=st.sampled_from([0, 1, 2, 3, 6, 7]),
    more=st.booleans(),
    first=st.integers(0, 0xFFFF),
    count=st.integers(0, 0xFFF),
    age=st.integers(0, 15),
    sequence=bytes_of_a_u8,
)
short_headers = st.builds(
    Header,
    inference_id=ids,
    stage=st.integers(0, 15),
    codec=st.just(2),
    count=st.integers(0, 1023),
    first=st.just(0),
    more=st.booleans(),
    number=st.integers(1, 63),
)
notices = st.builds(ExitNotice, ids, st.integers(0, 0xFFFF), bytes_of_a_u8, confidences)
hostile = st.binary(max_size=MAX_PAYLOAD + 20)


# Golden bytes, written by hand: docs/protocol.md quotes them for whoever writes firmware in C. ----------------
def test_golden_header():
    header = Header(inference_id=0x1234, stage=3, codec=0, first=0x0102, count=0x345, age=6, sequence=7)
    # id 34 12 | codec 0, stage 3 | first 02 01 | age 6, count 0x345 -> 0x6345 -> 45 63 | sequence 07
    assert header.pack() == bytes.fromhex("34 12 03 02 01 45 63 07")


def test_golden_header_with_every_field_at_its_largest():
    assert Header(0xFFFF, 15, 7, 0xFFFF, 0xFFF, 15, 255, more=True).pack() == bytes.fromhex("ff ff ff ff ff ff ff ff")


def test_golden_header_whose_fields_share_a_byte():
    # codec 2 above stage 14 in the low four bits: 0x2e; age 1, count 2 -> 0x1002 -> 02 10
    assert Header(1, 14, 2, 0, 2, 1, 0).pack() == bytes.fromhex("01 00 2e 00 00 02 10 00")
    assert Header(1, 14, 2, 0, 2, 1, 0, more=True).pack() == bytes.fromhex("01 00 ae 00 00 02 10 00")


def test_golden_short_header():
    # id 34 12 | more, codec 4, stage 0 -> c0 | number 5, count 0x123 -> 0x1523 -> 23 15
    assert Header(0x1234, 0, 2, 0, 0x123, more=True, number=5).pack() == bytes.fromhex("34 12 c0 23 15")
    assert Header(0x1234, 0, 2, 0, 0, number=1).pack() == bytes.fromhex("34 12 40 00 04")
    # codec 5, stage 0 -> 50; age 1, count 0x123 -> 0x1123 -> 23 11
    packed = Header(0x1234, 0, 2, 0, 0x123, age=1, sequence=7, leads=True).pack()
    assert packed == bytes.fromhex("34 12 50 00 00 23 11 07")
    assert Header.unpack(packed).leads
    assert Header.unpack(packed).codec == 2


def test_golden_exit_notice():
    # id ef be | class 42 -> 2a 00 | stage 03 | 0.8 * 255 = 204 -> cc
    assert ExitNotice(0xBEEF, 42, 3, 0.8).pack() == bytes.fromhex("ef be 2a 00 03 cc")


def test_golden_local_answer():
    # header: id 34 12 | codec 0, stage 15 | first 00 00 | age 0, count 1 | sequence 00; class 0x0163, 1.0 -> ff
    assert LocalAnswer(0x1234, 0x0163, 1.0).pack() == bytes.fromhex("34 12 0f 00 00 01 00 00 63 01 ff")
    assert LocalAnswer(0xBEEF, 42, 0.8).pack() == bytes.fromhex("ef be 0f 00 00 01 00 00 2a 00 cc")


# Round trips --------------------------------------------------------------------------------------------------
@given(headers, st.binary(max_size=MAX_PAYLOAD - HEADER_BYTES))
def test_every_header_comes_back_whatever_follows_it(header, body):
    packed = header.pack()
    assert len(packed) == HEADER_BYTES == 8
    assert Header.unpack(packed + body) == header


@given(short_headers, st.binary(max_size=MAX_PAYLOAD - SHORT_HEADER_BYTES))
def test_every_short_header_comes_back_whatever_follows_it(header, body):
    packed = header.pack()
    assert len(packed) == header.size == SHORT_HEADER_BYTES == 5
    assert Header.unpack(packed + body) == header


@given(st.binary(min_size=8, max_size=8))
def test_every_eight_bytes_begin_with_one_header_and_no_bit_is_wasted(data):
    if data[2] >> 4 & 7 == CONTINUED and data[4] >> 2 == 0:  # a short header without its number
        with pytest.raises(PacketError, match="needs a number"):
            Header.unpack(data)
        return
    header = Header.unpack(data)
    assert header.pack() == data[: header.size]


@given(short_headers, st.integers(0, 99), bytes_of_a_u8, st.booleans())
def test_the_radio_only_sets_whether_more_follow_in_a_short_header(header, age, sequence, more):
    stamped = stamp(header.pack() + b"body", age=age, sequence=sequence, more=more)
    assert Header.unpack(stamped) == replace(header, more=more)
    assert stamped.endswith(b"body")
    assert peek(stamped) == (header.inference_id, header.stage)


def test_what_is_too_short_for_any_header_says_nothing():
    assert peek(bytes(4)) is None
    with pytest.raises(PacketError):
        Header.unpack(Header(1, 0, 2, 0, 9, number=1).pack()[:4])


@given(notices)
def test_a_notice_comes_back_with_its_confidence_to_the_nearest_255th(notice):
    packed = notice.pack()
    assert len(packed) == EXIT_NOTICE_BYTES == 6
    back = ExitNotice.unpack(packed)
    assert (back.inference_id, back.class_index, back.stage) == (notice.inference_id, notice.class_index, notice.stage)
    assert abs(back.confidence - notice.confidence) <= 0.5 / 255 + 1e-12
    assert back.pack() == packed


@given(ids, st.integers(0, 0xFFFF), confidences)
def test_a_local_answer_comes_back_and_is_a_packet_of_stage_15(inference_id, class_index, confidence):
    packed = LocalAnswer(inference_id, class_index, confidence).pack()
    back = LocalAnswer.unpack(packed)
    assert (back.inference_id, back.class_index) == (inference_id, class_index)
    assert abs(back.confidence - confidence) <= 0.5 / 255 + 1e-12
    header = Header.unpack(packed)
    assert (header.inference_id, header.stage) == (inference_id, LOCAL_ANSWER_STAGE)


def test_a_confidence_past_its_ends_is_the_end():
    """Sums of probabilities may come out a rounding error above one."""
    assert ExitNotice.unpack(ExitNotice(1, 2, 3, 1.0000001).pack()).confidence == 1.0
    assert ExitNotice.unpack(ExitNotice(1, 2, 3, -0.2).pack()).confidence == 0.0


# Hostile bytes ------------------------------------------------------------------------------------------------
@given(hostile)
@example(b"")
@example(bytes(7))
@example(bytes(MAX_PAYLOAD + 1))
def test_bytes_that_are_not_ours_raise_packet_error_and_nothing_else(data):
    for reader in (
        Header.unpack,
        LocalAnswer.unpack,
        ExitNotice.unpack,
        lambda d: stamp(d, age=3, sequence=4, more=True),
    ):
        with contextlib.suppress(PacketError):
            reader(data)


@pytest.mark.parametrize("length", [0, 1, 7, MAX_PAYLOAD + 1, 100_000])
def test_a_packet_of_an_impossible_length_is_refused(length):
    with pytest.raises(PacketError, match=str(length)):
        Header.unpack(bytes(length))


@pytest.mark.parametrize("length", [0, 5, 7, 244])
def test_a_notice_has_six_bytes(length):
    with pytest.raises(PacketError, match="6 bytes"):
        ExitNotice.unpack(bytes(length))


@pytest.mark.parametrize("cut", [-1, 8, 10, 12])
def test_a_local_answer_that_is_too_short_or_too_long_is_refused(cut):
    packet = LocalAnswer(1, 2, 0.5).pack()
    with pytest.raises(PacketError, match="local answer"):
        LocalAnswer.unpack(packet[:cut] if cut < len(packet) else packet + b"x")


def test_a_packet_of_another_stage_is_no_local_answer():
    with pytest.raises(PacketError):
        LocalAnswer.unpack(Header(1, 14, 0, 0, 1).pack() + bytes(3))


@pytest.mark.parametrize(
    "message",
    [
        Header(65536, 1, 0, 0, 1),
        Header(-1, 1, 0, 0, 1),
        Header(1, 16, 0, 0, 1),
        Header(1, -1, 0, 0, 1),
        Header(1, 1, 16, 0, 1),
        Header(1, 1, 0, 65536, 1),
        Header(1, 1, 0, -1, 1),
        Header(1, 1, 0, 0, 4096),
        Header(1, 1, 0, 0, -1),
        Header(1, 1, 4, 0, 1),
        Header(1, 1, 5, 0, 1),
        Header(1, 1, 0, 0, 1, leads=True),
        Header(1, 1, 2, 0, 1, number=1, leads=True),
        Header(1, 1, 2, 0, 1024, number=1),
        Header(1, 1, 2, 0, 1, number=64),
        Header(1, 1, 2, 0, 1, number=-1),
        Header(1, 1, 0, 0, 1, number=1),
        Header(65536, 1, 2, 0, 1, number=1),
        Header(1, 1, 0, 0, 1, age=-1),
        Header(1, 1, 0, 0, 1, sequence=256),
        LocalAnswer(65536, 2, 0.5),
        LocalAnswer(1, 65536, 0.5),
        LocalAnswer(1, -1, 0.5),
        LocalAnswer(1, 2, math.nan),
        LocalAnswer(1, 2, math.inf),
        ExitNotice(65536, 2, 3, 0.5),
        ExitNotice(1, 65536, 3, 0.5),
        ExitNotice(1, 2, 256, 0.5),
        ExitNotice(1, 2, -1, 0.5),
        ExitNotice(1, 2, 3, math.nan),
        ExitNotice(1, 2, 3, -math.inf),
    ],
    ids=str,
)
def test_what_does_not_fit_its_field_is_refused_before_it_is_on_the_air(message):
    with pytest.raises(PacketError, match="out of range"):
        message.pack()


# Stamps -------------------------------------------------------------------------------------------------------
@given(headers, st.binary(max_size=50), st.integers(0, 1000), st.integers(0, 100_000), st.booleans())
def test_a_stamp_sets_age_sequence_and_more_and_touches_nothing_else(header, body, age, sequence, more):
    stamped = stamp(header.pack() + body, age=age, sequence=sequence, more=more)
    assert stamped[HEADER_BYTES:] == body
    after = Header.unpack(stamped)
    assert (after.age, after.sequence, after.more) == (min(age, MAX_AGE), sequence % 256, more)
    for field in ("inference_id", "stage", "codec", "first", "count"):
        assert getattr(after, field) == getattr(header, field)


def test_a_stamp_on_a_local_answer_leaves_the_answer():
    packet = stamp(LocalAnswer(1, 2, 0.2).pack(), age=99, sequence=300, more=False)
    assert LocalAnswer.unpack(packet) == LocalAnswer(1, 2, 0.2)


# Ids ----------------------------------------------------------------------------------------------------------
@given(ids)
def test_an_id_is_neither_newer_nor_older_than_itself(one):
    assert not is_newer(one, one)
    assert not is_stale(one, one)


@given(ids, ids)
def test_of_two_ids_the_other_is_either_newer_or_stale(one, other):
    assert is_newer(one, other) + is_stale(one, other) == (one != other)


@given(ids, st.integers(1, STALE_WINDOW))
def test_the_next_ids_are_newer_and_the_last_ones_stale_across_the_wrap(start, steps):
    later = start
    for _ in range(steps):
        later = next_id(later)
        assert 0 <= later <= 0xFFFF
    assert is_newer(later, start)
    assert is_stale(start, later)
    assert not is_stale(later, start)


def test_the_wrap():
    assert next_id(65535) == 0
    assert is_newer(0, 65535)
    assert is_stale(65535, 0)
    assert is_stale(65535, STALE_WINDOW - 1)
    assert is_newer(65535, STALE_WINDOW)


@given(ids, st.integers(STALE_WINDOW + 1, 0xFFFF - STALE_WINDOW))
def test_a_camera_that_restarts_anywhere_else_is_newer_at_once(reference, back):
    assert is_newer((reference - back) % 65536, reference)


@given(ids, st.integers(1, STALE_WINDOW))
def test_a_camera_that_restarts_within_the_past_is_heard_after_as_many_frames(reference, back):
    restarted = (reference - back) % 65536
    for _ in range(back):
        assert is_stale(restarted, reference)
        restarted = next_id(restarted)
    assert restarted == reference
    assert is_newer(next_id(restarted), reference)
