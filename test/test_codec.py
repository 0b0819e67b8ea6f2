# SPDX-License-Identifier: Apache-2.0
"""From features to packets and back, through every loss, order and malice that the air is capable of."""

import contextlib
import itertools
import json
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fleet
from fleet.codec import CODERS, PlainCoder, Quantiser, StageBuffer, StageLayout, coder_named, encode_stage
from fleet.errors import FleetError
from fleet.ladder import Ladder
from fleet.packet import HEADER_BYTES, MAX_COUNT, MAX_PAYLOAD, MIN_PAYLOAD, Header, PacketError

PLAIN = CODERS[0]
payloads = st.integers(MIN_PAYLOAD, MAX_PAYLOAD)


@st.composite
def layouts(draw, max_channels=6):
    ladder = Ladder(draw(st.integers(1, 4)), draw(st.integers(0, 2)), draw(st.sampled_from(["corner", "centre"])))
    channels = draw(st.integers(1, max_channels))
    levels = draw(st.integers(2, 256))
    smaller = draw(st.sets(st.integers(ladder.base, ladder.finest), max_size=5))
    return StageLayout(
        stage=draw(st.integers(1, 14)),
        quantiser=Quantiser(
            low=tuple(draw(st.floats(-8, 8)) for _ in range(channels)),
            step=tuple(draw(st.floats(0.01, 2)) for _ in range(channels)),
            levels=levels,
        ),
        ladder=ladder,
        rungs=tuple(sorted(smaller | {ladder.finest})),
        mean_levels=tuple(draw(st.integers(0, levels - 1)) for _ in range(channels)),
    )


@st.composite
def stages(draw):
    """A layout with features for it, quantised already so that what comes back can be compared exactly."""
    layout = draw(layouts())
    shape = (layout.channels, layout.ladder.finest, layout.ladder.finest)
    seed = draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).integers(0, layout.quantiser.levels, shape)
    return layout, layout.quantiser.dequantise(values)


def encoded(layout, features, payload=MAX_PAYLOAD, inference_id=7):
    return encode_stage(layout, features, inference_id=inference_id, payload=payload, coder=PLAIN)


def decoded(layout, packets):
    buffer = StageBuffer(layout)
    for packet in packets:
        buffer.add(Header.unpack(packet), packet)
    return buffer


def known(layout, packets):
    """Which places of the stage's order the packets hold."""
    have = np.zeros(layout.count, bool)
    for header in map(Header.unpack, packets):
        have[header.first : header.first + header.count] = True
    return have


def fixed_layout(channels=4, levels=16, rungs=(4, 8, 16), base=4, doublings=2, order="centre"):
    return StageLayout(
        stage=3,
        quantiser=Quantiser((0.0,) * channels, (1.0,) * channels, levels),
        ladder=Ladder(base, doublings, order),
        rungs=rungs,
        mean_levels=(levels // 2,) * channels,
    )


def noise(layout, seed=0):
    shape = (layout.channels, layout.ladder.finest, layout.ladder.finest)
    levels = np.random.default_rng(seed).integers(0, layout.quantiser.levels, shape)
    return layout.quantiser.dequantise(levels)


# What is sent -------------------------------------------------------------------------------------------------
@given(stages(), payloads)
def test_packets_fit_the_payload_and_hold_every_coefficient_once(stage, payload):
    layout, features = stage
    packets = encoded(layout, features, payload)
    at = 0
    for packet in packets:
        header = Header.unpack(packet)
        assert HEADER_BYTES < len(packet) <= payload
        assert (header.inference_id, header.stage, header.codec) == (7, layout.stage, 0)
        assert header.first == at
        assert header.count > 0
        at += header.count
    assert at == layout.count


@given(stages(), payloads)
def test_no_packet_but_the_last_has_room_for_another_coefficient(stage, payload):
    layout, features = stage
    widest = (layout.quantiser.levels - 1).bit_length() + 1
    for packet in encoded(layout, features, payload)[:-1]:
        assert (payload - len(packet)) * 8 < widest


@given(stages(), payloads)
def test_all_packets_give_the_features_back(stage, payload):
    layout, features = stage
    buffer = decoded(layout, encoded(layout, features, payload))
    assert buffer.complete
    assert buffer.received == layout.count
    np.testing.assert_array_equal(buffer.features(), features)


@given(stages(), payloads, st.randoms(use_true_random=False))
def test_any_subset_in_any_order_with_any_repeats_gives_the_same_map(stage, payload, random):
    layout, features = stage
    packets = encoded(layout, features, payload)
    kept = random.sample(packets, random.randint(0, len(packets)))
    shuffled = random.sample(kept * 2, len(kept) * 2)
    first, second = decoded(layout, kept), decoded(layout, shuffled)
    np.testing.assert_array_equal(first.features(), second.features())
    assert first.packets == second.packets == len(kept)
    assert first.complete == (len(kept) == len(packets))


@given(stages(), payloads)
def test_a_subset_decodes_as_the_ladder_says_with_missing_differences_zero_and_missing_means_guessed(stage, payload):
    layout, features = stage
    packets = encoded(layout, features, payload)[::2]
    flat = layout.ladder.split(layout.quantiser.quantise(features))
    arrived = np.zeros(layout.count, bool)
    arrived[layout.order[known(layout, packets)]] = True
    arrived = arrived.reshape(flat.shape)
    expected = np.where(arrived, flat, 0)
    side = layout.ladder.base
    for channel in range(layout.channels):
        for cell in np.flatnonzero(~arrived[channel, : side * side]):
            total, weight = np.float32(0.5 * layout.mean_levels[channel]), 0.5
            for other in np.flatnonzero(arrived[channel, : side * side]):
                distance = math.dist(divmod(cell, side), divmod(other, side))
                total, weight = total + flat[channel, other] / distance**4, weight + distance**-4
            guess = total / weight
            assume(abs(guess % 1 - 0.5) > 1e-3)  # halves are rounded by what a last digit happens to be
            expected[channel, cell] = np.rint(guess)
    merged = np.clip(layout.ladder.merge(expected), 0, layout.quantiser.levels - 1)
    np.testing.assert_array_equal(decoded(layout, packets).features(), layout.quantiser.dequantise(merged))


@given(stages(), payloads, payloads, st.randoms(use_true_random=False))
def test_packets_of_two_cuts_mix(stage, payload, another, random):
    """The link's payload may change in mid-stage: what is offered again overlaps what arrived."""
    layout, features = stage
    one, other = encoded(layout, features, payload), encoded(layout, features, another)
    mixed = random.sample(one, random.randint(0, len(one))) + random.sample(other, len(other))
    np.testing.assert_array_equal(decoded(layout, mixed).features(), features)


@given(stages(), st.data())
def test_the_first_coefficients_are_every_channel_s_rung(stage, data):
    """Prefix property of a whole stage: nothing above a rung is sent before all channels have it."""
    layout, features = stage
    rung = data.draw(st.sampled_from(layout.rungs))
    end = layout.rung_end(rung)
    assert end == layout.channels * rung**2
    per_channel = layout.order[:end] % layout.ladder.count
    assert per_channel.max() == rung**2 - 1
    assert sorted(layout.order.tolist()) == list(range(layout.count))
    values = PLAIN.coefficients(layout, features)
    flat = np.zeros(layout.count, np.int32)
    flat[layout.order[:end]] = values[:end]
    expected = layout.ladder.split(layout.quantiser.quantise(features))
    expected[:, rung**2 :] = 0
    np.testing.assert_array_equal(flat.reshape(expected.shape), expected)


def test_nothing_heard_is_the_mean_of_every_channel():
    layout = fixed_layout(channels=2)
    assert np.all(StageBuffer(layout).features() == 8.0)


@given(stages(), payloads)
def test_losing_one_packet_loses_no_region_of_all_channels_unless_it_held_nearly_a_whole_rung(stage, payload):
    """A rung that takes several packets is spread over channels: to miss one place of a rung in every channel,
    a packet must hold all other channels' share of that rung."""
    layout, features = stage
    assume(layout.channels > 1)
    ends = [0, *(r * r for r in layout.rungs)]
    for packet in encoded(layout, features, payload):
        lost = known(layout, [packet])
        places = np.zeros(layout.count, bool)
        places[layout.order] = lost
        by_channel = places.reshape(layout.channels, layout.ladder.count)
        for begin, end in itertools.pairwise(ends):
            if by_channel[:, begin:end].all(axis=0).any():
                assert by_channel[:, begin:end].sum() > (layout.channels - 1) * (end - begin)


def test_a_lost_packet_of_a_long_rung_leaves_most_channels_whole():
    """The geometry of a 64x64 bundle's stage 5 on a link of 20 bytes: a packet costs two channels their detail."""
    layout = fixed_layout(channels=6, rungs=(4, 6, 8, 10, 12, 14, 16))
    features = noise(layout)
    packets = encoded(layout, features, MIN_PAYLOAD)
    for lost in range(len(packets)):
        map_ = decoded(layout, packets[:lost] + packets[lost + 1 :]).features()
        harmed = np.any(map_ != features, axis=(1, 2))
        assert harmed.sum() <= 2


# What can not be sent -----------------------------------------------------------------------------------------
@given(layouts(), st.integers(0, 2**32 - 1))
def test_features_that_are_no_numbers_or_off_the_scale_still_travel(layout, seed):
    rng = np.random.default_rng(seed)
    shape = (layout.channels, layout.ladder.finest, layout.ladder.finest)
    features = rng.choice(np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0], np.float32), shape)
    back = decoded(layout, encoded(layout, features)).features()
    low = layout.quantiser.dequantise(np.zeros(shape))
    high = layout.quantiser.dequantise(np.full(shape, layout.quantiser.levels - 1))
    assert np.all((back >= low) & (back <= high))
    assert np.all(back[features == np.inf] == high[features == np.inf])
    assert np.all(back[features == -np.inf] == low[features == -np.inf])


@pytest.mark.parametrize("payload", [-1, 0, 8, 9, MIN_PAYLOAD - 1, MAX_PAYLOAD + 1])
def test_a_payload_that_no_link_has_is_refused_and_not_tried_for_ever(payload):
    with pytest.raises(FleetError, match=f"payload of {payload} bytes"):
        encoded(fixed_layout(), noise(fixed_layout()), payload)


@pytest.mark.parametrize("shape", [(16, 16), (1, 16, 16), (4, 8, 8), (5, 16, 16), (4, 16), (4, 1, 16), (2, 4, 16, 16)])
def test_features_of_another_shape_are_refused_even_where_numpy_would_stretch_them(shape):
    with pytest.raises(FleetError, match=r"\(4, 16, 16\)"):
        encoded(fixed_layout(), np.zeros(shape, np.float32))


def test_an_inference_id_that_does_not_fit_is_refused():
    with pytest.raises(PacketError):
        encoded(fixed_layout(), noise(fixed_layout()), inference_id=65536)


# What arrives -------------------------------------------------------------------------------------------------
@settings(max_examples=300)
@given(
    layouts(),
    st.integers(0, 0xFFFF),
    st.integers(0, MAX_COUNT),
    st.sampled_from([0, 1, 2, 3, 6, 7]),
    st.binary(max_size=MAX_PAYLOAD - HEADER_BYTES),
)
def test_a_valid_header_before_random_bytes_is_taken_or_refused_and_never_harms(layout, first, count, codec, body):
    buffer = decoded(layout, encoded(layout, noise(layout))[::2])
    before, received = buffer.features(), buffer.received
    packet = Header(7, layout.stage, codec, first, count).pack() + body
    try:
        buffer.add(Header.unpack(packet), packet)
    except PacketError:
        np.testing.assert_array_equal(buffer.features(), before)
        assert buffer.received == received
    else:
        assert count > 0
        assert first + count <= layout.count
        levels = layout.quantiser.quantise(buffer.features())
        assert np.isfinite(buffer.features()).all()
        assert levels.min() >= 0
        assert levels.max() < layout.quantiser.levels


@given(layouts(), st.data())
def test_random_bits_of_the_right_length_are_in_range_or_refused(layout, data):
    first = data.draw(st.integers(0, layout.count - 1))
    count = data.draw(st.integers(1, min(layout.count - first, 60)))
    bits = (layout.quantiser.levels - 1).bit_length()
    total = int((bits + ~layout.is_base[layout.order[first : first + count]]).sum())
    body = data.draw(st.binary(min_size=-(-total // 8), max_size=-(-total // 8)))
    with contextlib.suppress(PacketError):
        values = PLAIN.decode(layout, first, count, body)
        base = layout.is_base[layout.order[first : first + count]]
        top = layout.quantiser.levels - 1
        assert np.all(np.abs(values) <= top)
        assert np.all(values[base] >= 0)


@given(stages(), payloads, st.integers(0, 235))
def test_a_packet_that_was_cut_or_made_longer_is_refused(stage, payload, where):
    layout, features = stage
    packets = encoded(layout, features, payload)
    packet = packets[where % len(packets)]
    cut = HEADER_BYTES + where % (len(packet) - HEADER_BYTES)
    buffer = StageBuffer(layout)
    for broken in (packet[:cut], packet + b"\0"):
        with pytest.raises(PacketError):
            buffer.add(Header.unpack(packet), broken)
    assert buffer.received == buffer.packets == 0


@pytest.mark.parametrize(
    ("first", "count", "words"),
    [(0, 0, "coefficients 0 to 0"), (1020, 5, "which has 1024"), (65535, 4095, "which has 1024")],
)
def test_counts_that_run_over_are_refused(first, count, words):
    layout = fixed_layout()
    packet = Header(7, 3, 0, first, count).pack() + bytes(200)
    with pytest.raises(PacketError, match=words):
        StageBuffer(layout).add(Header.unpack(packet), packet)


def test_a_codec_that_is_not_known_is_refused():
    packet = Header(7, 3, 7, 0, 1).pack() + bytes(1)
    with pytest.raises(PacketError, match="codec 7"):
        StageBuffer(fixed_layout()).add(Header.unpack(packet), packet)


def test_levels_that_are_no_power_of_two_leave_codes_that_nobody_sends():
    layout = fixed_layout(channels=1, levels=11)
    base = Header(7, 3, 0, 0, 1).pack() + bytes([0b1011_0000])  # a mean of 11, the largest is 10
    difference = Header(7, 3, 0, 16, 1).pack() + bytes([0b10101_000])  # 21 - 10 = 11
    for packet in (base, difference):
        with pytest.raises(PacketError, match="out of its range"):
            StageBuffer(layout).add(Header.unpack(packet), packet)


def test_plain_bits_by_hand():
    """docs/protocol.md: a mean takes b bits, a difference b + 1 with levels - 1 added, first bit first, no gaps."""
    layout = StageLayout(1, Quantiser((0.0,), (1.0,), 16), Ladder(1, 1), (2,), (0,))
    packets = encoded(layout, np.array([[[15, 1], [4, 0]]], np.float32))
    # Going up, the column splits last and so is merged first: 15-1 = 14, mean 8, and 4-0 = 4, mean 2; then the rows:
    # 8-2 = 6, mean 5. On the air: 5, 6, 14, 4.
    bits = "0101" + f"{6 + 15:05b}" + f"{14 + 15:05b}" + f"{4 + 15:05b}"
    assert packets == [Header(7, 1, 0, 0, 4).pack() + int(bits.ljust(24, "0"), 2).to_bytes(3, "big")]


def test_a_million_hostile_bytes_cost_no_more_memory_than_the_manifest_allows():
    layout = fixed_layout()
    buffer = StageBuffer(layout)
    rng = np.random.default_rng(0)
    tracemalloc.start()
    for k in range(4000):
        packet = Header(7, 3, 0, k * 17 % 70_000 & 0xFFFF, k % 4096).pack() + rng.bytes(k % 237)
        with contextlib.suppress(PacketError):
            buffer.add(Header.unpack(packet), packet)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now < 200_000
    assert peak < 1_500_000


# Quantiser, layout, coders ------------------------------------------------------------------------------------
@given(
    st.floats(-100, 100),
    st.floats(0.01, 10),
    st.integers(2, 256),
    hnp.arrays(np.float32, (1, 3, 3), elements=st.floats(0, 1, width=32)),
)
def test_a_quantised_value_is_within_half_a_step(low, step, levels, share):
    quantiser = Quantiser((low,), (step,), levels)
    features = (low + share * step * (levels - 1)).astype(np.float32)
    error = np.abs(quantiser.dequantise(quantiser.quantise(features)) - features)
    assert error.max() <= step / 2 + 1e-4 * (abs(low) + step * levels)


@given(layouts())
def test_levels_survive_a_round_trip(layout):
    quantiser = layout.quantiser
    levels = np.broadcast_to(np.arange(quantiser.levels), (layout.channels, 1, quantiser.levels))
    np.testing.assert_array_equal(quantiser.quantise(quantiser.dequantise(levels)), levels)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: Quantiser((), (), 16), "at least one"),
        (lambda: Quantiser((0.0,), (1.0, 2.0), 16), "as many steps"),
        (lambda: Quantiser((0.0,), (1.0,), 1), "2 to 256 levels"),
        (lambda: Quantiser((0.0,), (1.0,), 257), "2 to 256 levels"),
        (lambda: Quantiser((0.0,), (0.0,), 16), "positive and finite"),
        (lambda: Quantiser((0.0,), (-1.0,), 16), "positive and finite"),
        (lambda: Quantiser((0.0,), (math.nan,), 16), "positive and finite"),
        (lambda: Quantiser((0.0,), (1e-60,), 16), "positive and finite"),
        (lambda: Quantiser((0.0,), (1e60,), 16), "positive and finite"),
        (lambda: Quantiser((math.inf,), (1.0,), 16), "finite"),
        (lambda: Quantiser((1e60,), (1.0,), 16), "finite"),
        (lambda: fixed_layout(rungs=()), "rungs must ascend"),
        (lambda: fixed_layout(rungs=(4, 8)), "rungs must ascend"),
        (lambda: fixed_layout(rungs=(8, 4, 16)), "rungs must ascend"),
        (lambda: fixed_layout(rungs=(3, 16)), "rungs must ascend"),
        (lambda: fixed_layout(rungs=(4, 4, 16)), "rungs must ascend"),
        (lambda: fixed_layout(channels=257), "16 bits"),
        (lambda: StageLayout(15, Quantiser((0.0,), (1.0,), 2), Ladder(1, 0), (1,), (0,)), "stage 15"),
        (lambda: StageLayout(-1, Quantiser((0.0,), (1.0,), 2), Ladder(1, 0), (1,), (0,)), "stage -1"),
        (lambda: StageLayout(1, Quantiser((0.0,), (1.0,), 2), Ladder(1, 0), (1,), (2,)), "mean level"),
        (lambda: StageLayout(1, Quantiser((0.0,), (1.0,), 2), Ladder(1, 0), (1,), ()), "mean level"),
        (lambda: coder_named("zip"), "no codec 'zip'; there are: plain, paper, fleet, paper-deflate"),
    ],
)
def test_what_is_no_quantiser_layout_or_coder_is_refused_in_one_line(attempt, words):
    with pytest.raises(FleetError, match=words) as problem:
        attempt()
    assert "\n" not in str(problem.value)


def test_the_largest_stage_that_the_header_can_count_travels():
    layout = fixed_layout(channels=256, levels=2)
    packets = encoded(layout, noise(layout))
    assert Header.unpack(packets[-1]).first + Header.unpack(packets[-1]).count == 65536
    assert decoded(layout, packets).complete


def test_coders_are_found_by_the_number_and_the_name_that_they_have():
    assert isinstance(coder_named("plain"), PlainCoder)
    assert all(CODERS[coder.number] is coder_named(coder.name) for coder in CODERS.values())


def test_total_bytes_counts_headers():
    layout = fixed_layout()
    packets = encoded(layout, noise(layout), 100)
    body_bits = sum(4 if base else 5 for base in layout.is_base)
    assert sum(map(len, packets)) >= len(packets) * HEADER_BYTES + body_bits // 8


# The benchmark ------------------------------------------------------------------------------------------------
def benchmark(*arguments):
    script = Path(fleet.__file__).parents[1] / "benchmarks" / "codec.py"
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, timeout=100, check=False
    )


def test_the_benchmark_times_every_codec_on_every_stage_that_is_sent_and_writes_it_down(tiny_bundle, tmp_path):
    pytest.importorskip("skimage", reason="scikit-image, whose photographs it encodes, is not installed")
    done = benchmark("--bundle", tiny_bundle.path, "--repeats", "1", "--json", tmp_path / "codec.json")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "codec.json").read_text())
    assert document["conditions"]["identity"] == tiny_bundle.identity.hex()
    for name in ("plain", "paper", "fleet"):
        rows = [row for row in document["stages"] if row["codec"] == name]
        assert [row["stage"] for row in rows] == sorted(tiny_bundle.layouts)
    for row in document["stages"]:
        assert all(row["us"][name] > 0 for name in ("encode", "decode", "gzip", "gunzip", "jpeg"))
        assert row["encode_to_gzip"] > 0
        assert row["encode_to_jpeg"] > 0


def test_the_benchmark_names_a_bundle_that_there_is_not_in_one_line(tmp_path):
    done = benchmark("--bundle", "no_such_model", "--json", tmp_path / "codec.json")
    assert done.returncode == 2
    assert done.stderr.startswith("codec: no model bundle 'no_such_model'")
    assert len(done.stderr.splitlines()) == 1
