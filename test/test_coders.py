# SPDX-License-Identifier: Apache-2.0
"""What every codec promises, and what each of them alone does."""

import contextlib
import gzip
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.codec import Quantiser, StageBuffer, StageLayout, encode_stage
from fleet.coders import CODERS, PaperCoder, coder_named, view
from fleet.coders.paper import merge_means, split_means
from fleet.errors import FleetError
from fleet.ladder import Ladder
from fleet.layout import count_tables
from fleet.packet import HEADER_BYTES, MAX_COUNT, MAX_PAYLOAD, MIN_PAYLOAD, Header, PacketError
from fleet.tables import TOTAL, Tables, scaled

RANGED = coder_named("fleet")
ALONE = [coder for coder in CODERS.values() if not coder.pieces]
payloads = st.integers(MIN_PAYLOAD, MAX_PAYLOAD)
coders = st.sampled_from(list(CODERS.values()))
each_coder = pytest.mark.parametrize("coder", CODERS.values(), ids=lambda coder: coder.name)


@st.composite
def stages(draw):
    """A layout with tables, and features that its quantiser gives back exactly."""
    ladder = Ladder(draw(st.integers(1, 4)), draw(st.integers(0, 2)), draw(st.sampled_from(["corner", "centre"])))
    channels, levels = draw(st.integers(1, 5)), draw(st.integers(2, 40))
    rungs = tuple(sorted(draw(st.sets(st.integers(ladder.base, ladder.finest), max_size=4)) | {ladder.finest}))
    layout = StageLayout(
        stage=draw(st.integers(1, 14)),
        quantiser=Quantiser((-1.5,) * channels, (0.25,) * channels, levels),
        ladder=ladder,
        rungs=rungs,
        mean_levels=(levels // 2,) * channels,
        spread=draw(st.sampled_from([0, *rungs])),
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (4, channels, ladder.finest, ladder.finest)
    # From all alike to all over the place: tables that are sure of a symbol, and tables that know nothing.
    wide = draw(st.floats(0.01, 1.0))
    drawn = np.clip(np.rint(random.normal(levels / 2, wide * levels, shape)), 0, levels - 1)
    features = layout.quantiser.dequantise(drawn)
    counted = features if draw(st.booleans()) else layout.quantiser.dequantise(random.integers(0, levels, shape))
    return replace(layout, tables=count_tables(layout, counted)), features[0]


def fixed(channels=6, levels=8, spread=12, seed=0):
    """The geometry of a 64x64 bundle's stage 5, with smooth features."""
    quantiser = Quantiser((0.0,) * channels, (1.0,) * channels, levels)
    rungs = (4, 6, 8, 10, 12, 14, 16)
    layout = StageLayout(5, quantiser, Ladder(4, 2), rungs, (levels // 2,) * channels, spread)
    random = np.random.default_rng(seed)
    coarse = random.integers(1, levels - 1, (20, channels, 4, 4)).repeat(4, -1).repeat(4, -2)
    features = (coarse + (random.random((20, channels, 16, 16)) < 0.2)).astype(np.float32)
    return replace(layout, tables=count_tables(layout, features)), features


def sent(layout, features, coder, payload=MAX_PAYLOAD, rung=None):
    return encode_stage(layout, features, inference_id=7, payload=payload, coder=coder, rung=rung)


def heard(layout, packets):
    buffer = StageBuffer(layout)
    for packet in packets:
        buffer.add(Header.unpack(packet), packet)
    return buffer


# What all codecs promise --------------------------------------------------------------------------------------
@given(stages(), payloads, coders)
def test_packets_fit_the_payload_and_all_of_them_are_the_whole_stage(stage, payload, coder):
    layout, features = stage
    packets = sent(layout, features, coder, payload)
    assert all(HEADER_BYTES < len(packet) <= payload for packet in packets)
    assert {Header.unpack(packet).codec for packet in packets} == {coder.number}
    buffer = heard(layout, packets)
    assert buffer.complete
    assert buffer.packets == len(packets)
    if not coder.pieces:  # the paper's means are rounded once more
        np.testing.assert_array_equal(buffer.features(), features)


@given(stages(), payloads, coders, st.randoms(use_true_random=False))
def test_packets_may_come_in_any_order_and_twice(stage, payload, coder, random):
    layout, features = stage
    packets = sent(layout, features, coder, payload)[:8]  # as many runs as a hub keeps open
    shuffled = random.sample(packets * 2, len(packets) * 2)
    np.testing.assert_array_equal(heard(layout, packets).view(), heard(layout, shuffled).view())


@given(stages(), coders, st.data())
def test_stopping_behind_a_rung_sends_what_that_rung_holds_and_nothing_else(stage, coder, data):
    layout, features = stage
    rung = data.draw(st.sampled_from(coder.rungs(layout)))
    buffer = heard(layout, sent(layout, features, coder, rung=rung))
    assert buffer.received == layout.channels * rung**2
    places = coder.order(layout)[: layout.rung_end(rung)] % layout.ladder.count
    assert places.max() == rung**2 - 1


@given(stages(), coders)
def test_every_coefficient_has_one_place(stage, coder):
    layout, _ = stage
    assert sorted(coder.order(layout).tolist()) == list(range(layout.count))


@given(stages(), payloads, coders, st.data())
def test_any_subset_gives_finite_features_and_says_how_much_of_each_cell_arrived(stage, payload, coder, data):
    layout, features = stage
    packets = sent(layout, features, coder, payload)
    kept = data.draw(st.lists(st.sampled_from(packets), unique=True, max_size=8))
    buffer = heard(layout, kept)
    seen = buffer.view()
    assert seen.shape == (2 * layout.channels, layout.ladder.finest, layout.ladder.finest)
    assert np.isfinite(seen).all()
    shares = seen[layout.channels :]
    assert shares.min() >= 0
    assert shares.max() <= 1 + 1e-6
    assert shares.mean() * layout.count == pytest.approx(buffer.received, abs=1e-2 * layout.count)


@each_coder
def test_many_stages_at_once_are_rebuilt_as_one_at_a_time(coder):
    layout, features = fixed()
    values = coder.coefficients(layout, features)
    have = np.random.default_rng(1).random(values.shape) < 0.5
    together = view(coder, layout, values, have)
    for k in range(len(features)):
        np.testing.assert_array_equal(coder.coefficients(layout, features[k]), values[k])
        np.testing.assert_allclose(view(coder, layout, values[k], have[k]), together[k], rtol=0, atol=1e-6)


@settings(max_examples=200)
@given(
    stages(),
    coders,
    st.integers(0, 0xFFFF),
    st.integers(0, MAX_COUNT),
    st.binary(max_size=MAX_PAYLOAD - HEADER_BYTES),
)
def test_random_bytes_are_taken_or_refused_and_never_harm(stage, coder, first, count, body):
    layout, features = stage
    buffer = heard(layout, sent(layout, features, coder)[::2])
    before = buffer.view()
    packet = Header(7, layout.stage, coder.number, first, count).pack() + body
    try:
        new = buffer.add(Header.unpack(packet), packet)
    except PacketError:
        new = False
    if not new:
        np.testing.assert_array_equal(buffer.view(), before)
    assert np.isfinite(buffer.view()).all()


@given(stages(), payloads, coders, st.integers(0, 2**31), st.integers(0, 7))
def test_a_body_with_a_flipped_bit_is_refused_or_decodes_to_values_in_range(stage, payload, coder, where, bit):
    layout, features = stage
    packets = sent(layout, features, coder, payload)
    packet = bytearray(packets[where % len(packets)])
    packet[HEADER_BYTES + where % (len(packet) - HEADER_BYTES)] ^= 1 << bit
    buffer = StageBuffer(layout)
    with contextlib.suppress(PacketError):
        buffer.add(Header.unpack(bytes(packet)), bytes(packet))
    seen = buffer.features()
    top = layout.quantiser.levels - 1
    assert seen.min() >= -1.5 - 1e-4
    assert seen.max() <= -1.5 + 0.25 * top + 1e-4


def test_a_stage_is_of_one_codec():
    layout, features = fixed()
    one, other = sent(layout, features[0], CODERS[0]), sent(layout, features[0], RANGED)
    buffer = heard(layout, one[:1])
    with pytest.raises(PacketError, match="codec fleet in a stage that began in plain"):
        buffer.add(Header.unpack(other[-1]), other[-1])
    assert heard(layout, one).features().tobytes() == heard(layout, other).features().tobytes()


# fleet --------------------------------------------------------------------------------------------------------
def test_the_range_coder_comes_close_to_the_information_and_below_the_plain_codec():
    layout, features = fixed()
    bits = layout.tables.bits
    for k in range(5):
        values = RANGED.coefficients(layout, features[k])
        kinds = layout.kinds[layout.spread_order]
        symbols = values + np.where(kinds % layout.kind_count == 0, 0, layout.quantiser.levels - 1)
        information = bits[kinds, symbols].sum() / 8
        packets = sent(layout, features[k], RANGED)
        coded = sum(len(packet) - HEADER_BYTES for packet in packets)
        assert information - 1 <= coded <= information + 2 * len(packets)
        assert coded < 0.5 * sum(map(len, sent(layout, features[k], CODERS[0])))


def test_a_packet_is_filled():
    layout, features = fixed()
    for payload in (60, MAX_PAYLOAD):
        packets = sent(layout, features[0], RANGED, payload)
        assert all(payload - len(packet) <= 3 for packet in packets[:-1])


@given(stages(), payloads)
def test_a_range_coded_body_that_was_made_longer_is_refused_or_is_exactly_what_other_coefficients_are_coded_as(
    stage, payload
):
    """Once in thousands of bodies the longer one is another run's own code, which nobody can tell from it."""
    layout, features = stage
    for packet in sent(layout, features, RANGED, payload)[:3]:
        header, body = Header.unpack(packet), packet[HEADER_BYTES:]
        true = RANGED.decode(layout, header.first, header.count, body)
        for longer in (body + b"\1", body + b"\0"):
            try:
                found = RANGED.decode(layout, header.first, header.count, longer)
            except PacketError:
                continue
            assert (found != true).any()
            values = np.zeros(layout.count, np.int32)
            values[header.first : header.first + header.count] = found
            bodies, count = RANGED.encode(layout, values, header.first, header.first + header.count, len(longer) + 4)
            assert (bodies, count) == ([longer], header.count)


def test_without_tables_the_device_says_so_and_the_hub_drops_the_packet():
    layout, features = fixed()
    packet = sent(layout, features[0], RANGED)[0]
    bare = replace(layout, tables=None)
    with pytest.raises(FleetError, match="no frequency tables"):
        sent(bare, features[0], RANGED)
    with pytest.raises(PacketError, match="no frequency tables"):
        StageBuffer(bare).add(Header.unpack(packet), packet)


def test_of_a_lost_packet_every_channel_keeps_neighbours_and_every_place_keeps_channels():
    """Four packets hold everything up to rung 12; without one of them three quarters of the base grid are left."""
    layout, _ = fixed()
    count = layout.rung_end(12)
    base = layout.ladder.base**2
    for lost in range(4):
        have = np.zeros(layout.count, bool)
        have[layout.spread_order[:count]] = True
        have[layout.spread_order[lost * count // 4 : (lost + 1) * count // 4]] = False
        there = have.reshape(layout.channels, -1)[:, :base].reshape(layout.channels, 4, 4)
        assert (there.sum(axis=(1, 2)) >= 11).all()
        assert (there.sum(axis=0) >= layout.channels // 2).all()
        padded = np.pad(there, ((0, 0), (1, 1), (1, 1)))
        beside = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
        assert beside[~there].all()


def test_a_missing_base_value_is_guessed_from_its_neighbours_and_else_is_the_mean():
    layout, _ = fixed(channels=1)
    level = np.full((1, 16, 16), 6.0, np.float32)
    values = RANGED.coefficients(layout, level)
    have = np.ones(layout.count, bool)
    have[layout.spread_order == 5] = False
    guessed = RANGED.features(layout, values, have)
    assert guessed[0, 4:8, 4:8] == pytest.approx(6)
    nothing = RANGED.features(layout, values, np.zeros(layout.count, bool))
    assert np.all(nothing == layout.mean_levels[0])


GOLDEN = {
    "plain": ["341201000004000012"],
    "paper": [
        "3412110000040000021f8b0800000000000203db",
        "3412110000040000125fffff3f0042bcde850400",
        "3412110000040000220000",
    ],
    "fleet": ["34122100000400000d"],
    "paper-deflate": ["341231000004000000db5fffff3f00"],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_vectors_of_the_protocol(name):
    """docs/protocol.md, where codec 2 is also worked out by hand: [13/256, 14/256) is left after all four symbols."""
    tables = Tables(((1024, 3072), (1024, 2048, 1024), (1024, 2048, 1024)))
    layout = StageLayout(1, Quantiser((0.0,), (1.0,), 2), Ladder(1, 1), (2,), (0,), 0, tables)
    features = np.array([[[1, 0], [1, 1]]], np.float32)
    packets = encode_stage(layout, features, inference_id=0x1234, payload=20, coder=coder_named(name))
    assert [packet.hex() for packet in packets] == GOLDEN[name]
    document = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert packets[0].hex(" ") in document


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: Tables(((0, TOTAL),)), "positive"),
        (lambda: Tables(((1, 1),)), "add up to 4096"),
        (lambda: Tables(((),)), "positive"),
        (lambda: replace(fixed()[0], spread=5), "spread must be one of the rungs"),
        (lambda: replace(fixed()[0], tables=Tables(((1, TOTAL - 1),))), "entries"),
    ],
)
def test_what_is_no_table_or_spread_is_refused_in_one_line(attempt, words):
    with pytest.raises(FleetError, match=words) as problem:
        attempt()
    assert "\n" not in str(problem.value)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=511))
def test_any_counts_become_a_table(counts):
    table = scaled(np.asarray(counts))
    assert sum(table) == TOTAL
    assert min(table) >= 1


# paper --------------------------------------------------------------------------------------------------------
@given(stages())
def test_the_paper_s_means_are_the_means_of_their_cells(stage):
    layout, _ = stage
    ladder = layout.ladder
    grid = np.random.default_rng(0).random((2, ladder.finest, ladder.finest)).astype(np.float32) * 255
    means = split_means(grid, ladder)
    side = ladder.finest // ladder.base
    pooled = grid.reshape(2, ladder.base, side, ladder.base, side).mean(axis=(2, 4))
    np.testing.assert_allclose(means[:, : ladder.base**2], pooled.reshape(2, -1), atol=1e-3)
    back = merge_means(means, np.zeros((2, 1), np.float32), ladder)
    np.testing.assert_allclose(back, grid, atol=0.05)


@pytest.mark.parametrize("name", ["paper", "paper-deflate"])
def test_losing_one_packet_of_a_burst_loses_the_burst_and_nothing_else(name):
    layout, features = fixed()
    coder = coder_named(name)
    packets = sent(layout, features[0], coder, 60)
    runs = [Header.unpack(packet).first for packet in packets]
    assert len(set(runs)) > 1
    buffer = heard(layout, packets[1:])
    assert not buffer.complete
    whole = heard(layout, packets)
    assert whole.received - buffer.received == Header.unpack(packets[0]).count
    assert runs.count(runs[0]) <= 4


def test_gzip_s_container_is_all_that_the_two_variants_differ_in():
    layout, features = fixed()
    one = b"".join(p[HEADER_BYTES + 1 :] for p in sent(layout, features[0], coder_named("paper"), rung=12))
    other = b"".join(p[HEADER_BYTES + 1 :] for p in sent(layout, features[0], coder_named("paper-deflate"), rung=12))
    assert gzip.decompress(one) == zlib.decompress(other, -zlib.MAX_WBITS)
    assert len(one) == len(other) + 18


def test_a_burst_that_unpacks_to_more_than_it_announced_is_refused_before_it_is_unpacked():
    layout, _ = fixed()
    bomb = gzip.compress(bytes(10**6), 9)[:235]
    packet = Header(7, 5, 1, 0, 100).pack() + b"\0" + bomb
    tracemalloc.start()
    with pytest.raises(PacketError, match="does not hold 100 means"):
        StageBuffer(layout).add(Header.unpack(packet), packet)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


def test_runs_that_never_end_are_forgotten():
    layout, features = fixed()
    buffer = StageBuffer(layout)
    for first in range(1000):
        packet = Header(7, 5, 1, first, 100).pack() + bytes([0x0F]) + bytes(200)
        buffer.add(Header.unpack(packet), packet)
    assert len(buffer._open) <= 8
    assert heard(layout, sent(layout, features[0], PaperCoder.gzip())).complete


@pytest.mark.parametrize("body", [b"", b"\0", b"\x10x"])
def test_a_piece_without_a_number_or_content_is_refused(body):
    layout, _ = fixed()
    packet = Header(7, 5, 1, 0, 100).pack() + body
    with pytest.raises(PacketError, match="piece of a run"):
        StageBuffer(layout).add(Header.unpack(packet), packet)
