# SPDX-License-Identifier: Apache-2.0
"""Codec 2's contexts are what docs/protocol.md says they are, and packets of such a stage decode in their order."""

from dataclasses import replace
from pathlib import Path

import integer_contexts
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.bundle import Bundle
from fleet.codec import MAX_EARLY, Quantiser, StageBuffer, StageLayout, coder_named, encode_stage
from fleet.contexts import Contexts, Outlook, count_contexts
from fleet.errors import FleetError
from fleet.ladder import Ladder
from fleet.layout import count_tables
from fleet.manifest import layout_from_manifest, layout_to_manifest
from fleet.packet import SHORT_HEADER_BYTES, Header, PacketError, stamp
from fleet.tables import Tables

ROOT = Path(__file__).resolve().parents[1]
RANGED, PLAIN = coder_named("fleet"), coder_named("plain")


def plain_layout(channels, grid, levels):
    quantiser = Quantiser((0.0,) * channels, (1.0,) * channels, levels)
    mean = (levels // 2,) * channels
    return StageLayout(0, quantiser, Ladder(grid, 0), (grid,), mean, waves=(1,) * channels)


def smooth(random, count, channels, grid, levels):
    """Maps whose neighbours and channels have to do with each other."""
    field = random.normal(size=(count, 1, grid, grid)).cumsum(axis=2).cumsum(axis=3) / grid
    field = field / (1 + np.arange(channels)[:, None, None]) + random.normal(size=(count, channels, grid, grid)) * 0.2
    return np.clip(np.rint(field * levels / 8 + levels / 2), 0, levels - 1).astype(np.int32)


def guessing(channels=5, grid=6, levels=32, seed=0):
    """A layout with contexts, and maps like those that they are of."""
    random = np.random.default_rng(seed)
    layout = plain_layout(channels, grid, levels)
    contexts = count_contexts(smooth(random, 400, channels, grid, levels), levels, widths=6)
    return replace(layout, contexts=contexts), smooth(random, 8, channels, grid, levels)


def packets_of(layout, levels, payload=60, *, short=True):
    features = layout.quantiser.dequantise(levels)
    return encode_stage(layout, features, inference_id=7, payload=payload, coder=RANGED, short=short)


def in_order(layout, levels):
    return levels.reshape(-1)[layout.spread_order].tolist()


def add(buffer, packet):
    return buffer.add(Header.unpack(packet), packet)


# The document -------------------------------------------------------------------------------------------------
def check(layout, levels, payload):
    stage = integer_contexts.Stage(layout_to_manifest(layout))
    first = 0
    for number, packet in enumerate(packets_of(layout, levels, payload)):
        header = Header.unpack(packet)
        assert header.number == (number if number < 64 else 0)
        assert header.number or header.first == first
        assert header.leads == (number == 0)
        assert len(packet) <= payload
        count = header.count or layout.count - first
        assert stage.encode(in_order(layout, levels), first, count) == packet[header.size :]
        first += count
    assert first == layout.count


@settings(max_examples=25)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(2, 200), st.integers(20, 244), st.integers(0, 2**32 - 1))
def test_every_packet_is_what_the_document_s_coder_makes(channels, grid, levels, payload, seed):
    layout, maps = guessing(channels, grid, levels, seed % 1000)
    wild = np.random.default_rng(seed).integers(0, levels, maps[0].shape)  # nothing like what was counted
    for levels_of in (maps[0], wild):
        check(layout, levels_of, payload)


def test_the_shipped_model_s_picture_is_the_same_bytes_in_both_coders():
    bundle = Bundle.load(ROOT / "models" / "backyard")
    layout = bundle.layouts[0]
    assert layout.contexts is not None
    random = np.random.default_rng(1)
    near = np.asarray(layout.contexts.zero)[:, None, None] + random.normal(size=(layout.channels, 8, 8)) * 2
    check(layout, np.clip(np.rint(near), 0, layout.quantiser.levels - 1).astype(int), 244)
    check(layout, random.integers(0, layout.quantiser.levels, (layout.channels, 8, 8)), 20)


def test_the_manifest_keeps_contexts_to_the_last_bit():
    layout, _ = guessing()
    assert layout_from_manifest(0, layout_to_manifest(layout)) == layout


# What it is for -----------------------------------------------------------------------------------------------
def test_guessed_numbers_take_fewer_bytes_than_those_that_are_coded_alone():
    layout, maps = guessing(grid=8)
    samples = smooth(np.random.default_rng(9), 400, 5, 8, 32)
    alone = replace(layout, contexts=None, tables=count_tables(layout, layout.quantiser.dequantise(samples)))
    sizes = [sum(sum(map(len, packets_of(each, levels, 244))) for levels in maps) for each in (layout, alone)]
    assert sizes[0] < 0.92 * sizes[1]


def test_a_packet_holds_all_that_is_left_of_a_stage_however_many_that_are():
    """A header that counts to 1023 would otherwise make another packet of the last few, which are cheap."""
    layout, _ = guessing(channels=12, grid=16)
    calm = np.broadcast_to(np.asarray(layout.contexts.zero)[:, None, None], (12, 16, 16)).copy()
    calm[:3] = smooth(np.random.default_rng(4), 1, 3, 16, 32)[0]
    packets = packets_of(layout, calm, 244)
    headers = [Header.unpack(packet) for packet in packets]
    assert headers[-1].count == 0
    assert layout.count - sum(header.count for header in headers) > 1023
    assert all(0 < header.count <= 1023 for header in headers[1:-1])
    for order in (packets, packets[::-1]):
        buffer = StageBuffer(layout)
        for packet in order:
            add(buffer, packet)
        assert buffer.complete
        np.testing.assert_array_equal(buffer.features(), calm)
    check(layout, calm, 244)


def test_nothing_comes_behind_the_packet_with_all_that_is_left():
    layout, maps = guessing()
    packets = packets_of(layout, maps[0], 60)
    buffer = StageBuffer(layout)
    for packet in packets:
        add(buffer, packet)
    with pytest.raises(PacketError, match="coefficients"):
        add(buffer, Header(7, 0, RANGED.number, 0, 0, number=len(packets)).pack() + b"\x55")
    assert buffer.complete


def test_what_no_sample_showed_is_coded_all_the_same():
    layout = replace(plain_layout(3, 4, 16), contexts=count_contexts(np.full((10, 3, 4, 4), 7, np.int32), 16))
    levels = np.random.default_rng(2).integers(0, 16, (3, 4, 4))
    buffer = StageBuffer(layout)
    for packet in packets_of(layout, levels):
        add(buffer, packet)
    np.testing.assert_array_equal(buffer.features(), levels)


# Order --------------------------------------------------------------------------------------------------------
@settings(max_examples=30)
@given(st.randoms(use_true_random=False), st.integers(20, 80))
def test_packets_in_any_order_are_decoded_up_to_the_first_that_is_missing(order, payload):
    layout, maps = guessing()
    packets = packets_of(layout, maps[0], payload)
    buffer, heard = StageBuffer(layout), set()
    for k in order.sample(range(len(packets)), len(packets)):
        assert add(buffer, packets[k])
        assert not add(buffer, packets[k])  # the same once more says nothing
        heard.add(k)
        missing = next((n for n in range(len(packets)) if n not in heard), len(packets))
        assert buffer.received == sum(Header.unpack(packet).count for packet in packets[:missing])
    assert buffer.complete
    np.testing.assert_array_equal(buffer.features(), maps[0])


def test_what_came_early_and_is_no_packet_does_not_spoil_the_one_that_came_in_time():
    layout, maps = guessing()
    first, second, *_ = packets_of(layout, maps[0], 40)
    buffer = StageBuffer(layout)
    assert add(buffer, second[:SHORT_HEADER_BYTES] + b"\x55" * 90)  # so many bytes take more coefficients
    assert add(buffer, first)
    assert buffer.received == Header.unpack(first).count
    assert add(buffer, second)  # the true one is heard then
    assert buffer.received == Header.unpack(first).count + Header.unpack(second).count


def test_packets_that_wait_are_bounded():
    layout, maps = guessing(channels=12, grid=8)
    buffer = StageBuffer(layout)
    for first in range(layout.count - 1, 1, -1):
        packet = Header(7, 0, RANGED.number, first, 1).pack() + b"\x55" * 9
        add(buffer, packet)
    assert len(buffer._early) == MAX_EARLY
    for packet in packets_of(layout, maps[0]):
        add(buffer, packet)
    assert buffer.complete


def test_packets_that_are_cut_elsewhere_continue_each_other():
    layout, maps = guessing()
    long, short = packets_of(layout, maps[0], 80), packets_of(layout, maps[0], 30, short=False)
    buffer = StageBuffer(layout)
    add(buffer, long[0])
    for packet in short:
        add(buffer, packet)
    np.testing.assert_array_equal(buffer.features(), maps[0])


@settings(max_examples=40)
@given(st.randoms(use_true_random=False), st.integers(20, 60))
def test_a_picture_that_is_cut_anew_is_never_mixed_up_with_its_first_cut(order, payload):
    """The link was renegotiated in the middle: packets of both cuts, any of them lost, in any order."""
    layout, maps = guessing()
    first, again = packets_of(layout, maps[0], 80), packets_of(layout, maps[0], payload, short=False)
    heard = [packet for packet in (*first, *again) if order.random() < 0.8]
    order.shuffle(heard)
    buffer = StageBuffer(layout)
    for packet in heard:
        add(buffer, packet)
    truth = maps[0].reshape(-1)[layout.spread_order]
    np.testing.assert_array_equal(buffer._values[buffer._have], truth[buffer._have])
    for packet in again:
        add(buffer, packet)
    np.testing.assert_array_equal(buffer.features(), maps[0])


def test_numbered_packets_count_from_their_own_cut_s_first_one():
    layout, maps = guessing()
    first, again = packets_of(layout, maps[0], 60), packets_of(layout, maps[0], 20, short=False)
    buffer = StageBuffer(layout)
    add(buffer, again[0])
    for packet in first[1:]:
        assert add(buffer, packet)
    assert buffer.received == Header.unpack(again[0]).count
    add(buffer, first[0])
    np.testing.assert_array_equal(buffer.features(), maps[0])


def test_what_follows_the_last_numbered_packet_is_decoded_with_it():
    layout, _ = guessing(channels=12, grid=8, levels=64)
    wild = np.random.default_rng(1).integers(0, 64, (12, 8, 8))
    packets = packets_of(layout, wild, 20)
    assert [Header.unpack(packet).number for packet in packets[62:66]] == [62, 63, 0, 0]
    buffer = StageBuffer(layout)
    for packet in (*packets[:62], *packets[63:90], packets[62], *packets[90:]):
        add(buffer, packet)
    np.testing.assert_array_equal(buffer.features(), wild)
    buffer = StageBuffer(layout)
    for packet in (*packets[:62], packets[63], packets[64], packets[62]):
        add(buffer, packet)
    assert buffer.received == sum(Header.unpack(packet).count for packet in packets[:65])


@settings(max_examples=30)
@given(st.randoms(use_true_random=False), st.booleans())
def test_short_headers_change_nothing_but_the_bytes(order, lossy):
    """Some packets never come, some twice, in any order: what decodes is what long headers would let decode."""
    layout, maps = guessing()
    short, long = (packets_of(layout, maps[0], 20, short=s) for s in (True, False))
    cut = {number: Header.unpack(packet).count for number, packet in enumerate(short)}
    assert len(short) < len(long)
    heard = [k for k in cut for _ in range(order.randint(0 if lossy else 1, 2))]
    order.shuffle(heard)
    buffer = StageBuffer(layout)
    for k in heard:
        add(buffer, short[k])
    whole = next((k for k in cut if k not in heard), len(cut))
    assert buffer.received == sum(cut[k] for k in range(whole))
    assert buffer.packets == len(set(heard))
    assert buffer.is_waiting == (0 not in heard and bool(heard))


def test_of_two_packets_of_one_number_the_later_counts_until_its_turn():
    layout, maps = guessing()
    first, second, *_ = packets_of(layout, maps[0], 40)
    buffer = StageBuffer(layout)
    assert add(buffer, second[:SHORT_HEADER_BYTES] + b"\x55" * 9)
    assert add(buffer, second)
    assert not add(buffer, stamp(second, age=0, sequence=0, more=True))
    assert add(buffer, first)
    assert not add(buffer, second[:SHORT_HEADER_BYTES] + b"\x55" * 9)
    assert buffer.received == Header.unpack(first).count + Header.unpack(second).count


def test_a_stage_without_contexts_takes_no_short_headers():
    layout, maps = guessing()
    plain = replace(layout, contexts=None, tables=count_tables(layout, layout.quantiser.dequantise(np.stack(maps))))
    assert all(Header.unpack(packet).number == 0 for packet in packets_of(plain, maps[0]))
    with pytest.raises(PacketError, match="needs another header"):
        add(StageBuffer(plain), packets_of(layout, maps[0], 30)[1])


def test_a_run_whose_beginning_is_not_known_is_refused_by_the_coder():
    layout, maps = guessing()
    values = RANGED.coefficients(layout, layout.quantiser.dequantise(maps[0]))
    (body,), count = RANGED.encode(layout, values, 10, layout.count, 40)
    with pytest.raises(PacketError, match="the first 10 coefficients are not known"):
        RANGED.decode(layout, 10, count, body)
    np.testing.assert_array_equal(RANGED.decode(layout, 10, count, body, values), values[10 : 10 + count])


@settings(max_examples=100)
@given(st.binary(min_size=1, max_size=60), st.integers(0, 200), st.integers(1, 80))
def test_no_bytes_do_anything_but_decode_or_be_refused(body, first, count):
    layout, maps = guessing()
    values = RANGED.coefficients(layout, layout.quantiser.dequantise(maps[0]))
    count = min(count, layout.count - min(first, layout.count - 1))
    first = min(first, layout.count - count)
    try:
        found = RANGED.decode(layout, first, count, body, values)
    except PacketError:
        return
    assert found.min() >= 0
    assert found.max() < layout.quantiser.levels


def test_other_codecs_know_no_contexts():
    layout, maps = guessing()
    packets = encode_stage(layout, layout.quantiser.dequantise(maps[0]), inference_id=7, payload=60, coder=PLAIN)
    buffer = StageBuffer(layout)
    add(buffer, packets[-1])
    assert buffer.received == Header.unpack(packets[-1]).count
    assert (PLAIN.decodes_alone(layout), RANGED.decodes_alone(layout)) == (True, False)


# What cannot be -----------------------------------------------------------------------------------------------
def changed(contexts, place, **change):
    outlooks = list(contexts.outlooks)
    outlooks[place] = replace(outlooks[place], **change)
    return replace(contexts, outlooks=tuple(outlooks))


@pytest.mark.parametrize(
    ("place", "look", "said"),
    [
        (0, (0, 0, 0, 1), "not known yet"),  # itself
        (4, (2, 0, 0, 1), "not known yet"),  # a later channel
        (4, (-1, 0, 0, 1), "not known yet"),
        (4, (1, 1, 0, 1), "not known yet"),  # a later lattice
        (4, (0, 2, 0, 1), "not known yet"),  # too far
        (4, (0, 0, 0, 1 << 16), "not known yet"),  # too heavy
    ],
)
def test_a_look_at_what_is_not_known_is_refused(place, look, said):
    layout, _ = guessing()
    with pytest.raises(FleetError, match=said):
        replace(layout, contexts=changed(layout.contexts, place, values=(look,)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"zero": (1, 2)}, "contexts of 5 channels"),
        ({"zero": (99,) * 5}, "one of 32 levels"),
        ({"outlooks": (Outlook((), (), 0),)}, "contexts of 5 channels"),
        ({"edges": ((5, 4),) * 5}, "ascend"),
        ({"edges": ((),) * 5}, "every context has one table"),
        ({"tables": Tables(((2048, 2048),))}, "every context has one table"),
    ],
)
def test_contexts_that_do_not_fit_their_stage_are_refused(change, said):
    layout, _ = guessing()
    with pytest.raises(FleetError, match=f"stage 0: .*{said}"):
        replace(layout, contexts=replace(layout.contexts, **change))


def test_a_bias_that_may_leave_32_bits_is_refused():
    layout, _ = guessing()
    with pytest.raises(FleetError, match="bias within"):
        replace(layout, contexts=changed(layout.contexts, 0, bias=1 << 30))


def test_contexts_need_channels_that_travel_one_after_another():
    layout, _ = guessing()
    assert isinstance(layout.contexts, Contexts)
    with pytest.raises(FleetError, match="one after another"):
        replace(layout, waves=(2, 3))
