# SPDX-License-Identifier: Apache-2.0
"""From the latent to the packets against docs/protocol.md: integers, written from the document, give the same bytes."""

import json
import re
from pathlib import Path

import integer_ladder
import integer_range_coder
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet.codec import Quantiser, StageBuffer, encode_stage
from fleet.coders import CODERS
from fleet.ladder import Ladder, split_order
from fleet.manifest import layout_from_manifest
from fleet.packet import HEADER_BYTES, Header
from fleet.tables import scaled

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
QUANTISERS, *STAGES = (json.loads(block) for block in re.findall(r"```json\n(.*?)\n```", DOCUMENT, re.DOTALL))
SHIPPED = json.loads((ROOT / "models" / "backyard" / "manifest.json").read_text(encoding="utf-8"))
ORDERS = ("centre", "corner")
INFERENCE = 0x1234


def variants():
    """The document's stages, each with what it says of one order of the bands."""
    for vector in STAGES:
        for order in ORDERS:
            said = vector if order == vector["latent"]["order"] else vector.get(order)
            if said is not None:
                stage = vector["stage"]
                yield pytest.param(
                    stage, {**vector["latent"], "order": order}, vector, said, id=f"stage {stage}, {order}"
                )


def packets_of(layout, levels, codec, payload):
    """FLEET's own packets of a map of levels."""
    features = layout.quantiser.dequantise(levels)
    np.testing.assert_array_equal(layout.quantiser.quantise(features), levels)
    return encode_stage(layout, features, inference_id=INFERENCE, payload=payload, coder=CODERS[codec])


def check(number, latent, levels, payload):
    """Both make the same packets of a map of levels, in both codecs; how many."""
    layout, stage = layout_from_manifest(number, latent), integer_ladder.Stage(number, latent)
    total = 0
    for codec in (0, 2):
        expected = packets_of(layout, levels, codec, payload)
        got = stage.packets(codec, levels.tolist(), inference=INFERENCE, payload=payload)
        assert [packet.hex() for packet in got] == [packet.hex() for packet in expected]
        total += len(got)
    return total


# The document's vectors ---------------------------------------------------------------------------------------
def test_the_document_has_vectors_of_both_orders_and_of_several_levels_channels_and_packets():
    found = list(variants())
    assert {latent["order"] for _, latent, _, _ in (param.values for param in found)} == set(ORDERS)
    assert max(vector["latent"]["doublings"] for vector in STAGES) > 1
    assert all(len(vector["levels"]) > 1 and len(vector[f"codec {k}"]) > 1 for vector in STAGES for k in (0, 2))
    assert all(vector["coefficients"] != vector["corner"]["coefficients"] for vector in STAGES if "corner" in vector)


@pytest.mark.parametrize("vector", QUANTISERS["quantiser"])
def test_the_document_s_levels_are_both_quantisers(vector):
    low, step, levels = vector["low"], vector["step"], vector["levels"]
    numbers = [float(x) for x in vector["x"]]
    assert [integer_ladder.level_of(x, low, step, levels) for x in numbers] == vector["level"]
    quantiser = Quantiser((low,), (step,), levels)
    assert quantiser.quantise(np.asarray(numbers, np.float32)[None, None]).ravel().tolist() == vector["level"]


def test_the_second_quantiser_tells_double_precision_and_a_reciprocal_as_the_document_says():
    vector = QUANTISERS["quantiser"][1]
    x, low, step = np.asarray(vector["x"]), vector["low"], vector["step"]
    double = np.rint((x - low) / step).astype(int).tolist()
    single, reciprocal = np.float32, np.float32(1) / np.float32(step)
    multiplied = np.rint((single(x) - single(low)) * reciprocal).astype(int).tolist()
    assert double != vector["level"] != multiplied
    words = DOCUMENT.replace("\n", " ")
    for wrong in (double, multiplied):
        assert f"{', '.join(map(str, wrong[:-1]))} and {wrong[-1]}" in words


@pytest.mark.parametrize(("number", "latent", "vector", "said"), list(variants()))
def test_the_document_s_coefficients_orders_and_packets_are_those_of_both(number, latent, vector, said):
    layout, stage = layout_from_manifest(number, latent), integer_ladder.Stage(number, latent)
    levels = np.asarray(vector["levels"])
    assert stage.coefficients(vector["levels"]) == said["coefficients"]
    assert layout.ladder.split(levels).ravel().tolist() == said["coefficients"]
    for key, ours, theirs in (
        ("table", [stage.table(flat) for flat in range(stage.count)], layout.kinds),
        ("order 0", stage.rung_order, layout.order),
        ("order 2", stage.spread_order, layout.spread_order),
    ):
        assert ours == said.get(key, ours) == theirs.tolist()
    for codec in (0, 2):
        packets = stage.packets(codec, vector["levels"], inference=INFERENCE, payload=vector["payload"])
        assert [packet.hex(" ") for packet in packets] == said[f"codec {codec}"]
        assert packets_of(layout, levels, codec, vector["payload"]) == packets


def test_one_of_the_document_s_packets_is_a_second_try_of_one_byte_too_long(monkeypatch):
    encode, tried = integer_range_coder.encode, []

    def watched(*arguments):
        tried.append(encode(*arguments))
        return tried[-1]

    monkeypatch.setattr(integer_range_coder, "encode", watched)
    vector = STAGES[-1]
    stage = integer_ladder.Stage(vector["stage"], vector["latent"])
    stage.packets(2, vector["levels"], inference=INFERENCE, payload=vector["payload"])
    room = vector["payload"] - HEADER_BYTES
    assert [len(body) for body in tried][:2] == [room + 1, room]


# The parts ----------------------------------------------------------------------------------------------------
def latent_of(base, doublings, order, **changes):
    side = base << doublings
    return {
        "low": [0.0],
        "step": [1.0],
        "levels": 256,
        "base": base,
        "doublings": doublings,
        "order": order,
        "rungs": [side],
        "mean_levels": [0],
        **changes,
    }


@pytest.mark.parametrize("order", ORDERS)
def test_bands_of_every_number_split_when_the_document_says(order):
    for bands in range(1, 257):
        stage = integer_ladder.Stage(1, latent_of(1, 0, order))
        stage.base = bands
        assert sorted(range(bands), key=lambda band: stage.rank(0, band)) == list(split_order(bands, order))
        assert sorted(stage.rank(0, band) for band in range(bands)) == list(range(bands))


def test_the_document_s_examples_of_the_centre_s_order_are_fleet_s():
    for bands in (4, 5):
        assert f"{', '.join(map(str, split_order(bands, 'centre')))} where" in DOCUMENT.replace("\n", " ")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("base", "doublings"), [(b, j) for b in range(1, 9) for j in range(5) if b << j <= 32] + [(1, 5), (14, 1)]
)
def test_places_kinds_and_base_cells_are_the_document_s(base, doublings, order):
    latent = latent_of(base, doublings, order)
    stage, layout = integer_ladder.Stage(1, latent), layout_from_manifest(1, latent)
    for level in range(doublings):
        positions = layout.ladder.level_positions[level]
        assert positions.shape == (3, base << level, base << level)
        for i, k, *places in stage.places(level):
            assert positions[:, i, k].tolist() == places
    assert stage.kinds == layout.kinds.tolist()
    assert [row * base + column for row, column in stage.cells] == layout.ladder.base_cell.tolist()


geometries = st.tuples(st.integers(1, 7), st.integers(0, 3), st.sampled_from(ORDERS)).filter(
    lambda geometry: geometry[0] << geometry[1] <= 24
)
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60)
@given(geometries, seeds, st.sampled_from([2, 8, 256]))
def test_random_maps_have_the_document_s_coefficients_and_come_back(geometry, seed, levels):
    ladder = Ladder(*geometry)
    grid = np.random.default_rng(seed).integers(0, levels, (ladder.finest, ladder.finest))
    stage = integer_ladder.Stage(1, latent_of(*geometry))
    coefficients = stage.split(grid.tolist())
    assert coefficients == ladder.split(grid).tolist()
    assert stage.merge(coefficients) == grid.tolist()


@settings(max_examples=60)
@given(geometries, seeds)
def test_any_coefficients_are_merged_as_the_document_says(geometry, seed):
    """What a hub merges after losses is no map's split: halves below zero among them."""
    ladder = Ladder(*geometry)
    coefficients = np.random.default_rng(seed).integers(-255, 256, ladder.count)
    stage = integer_ladder.Stage(1, latent_of(*geometry))
    assert stage.merge(coefficients.tolist()) == ladder.merge(coefficients).tolist()


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=400)
@given(
    st.one_of(st.floats(width=32), st.floats(-40, 40, width=32)),
    st.one_of(finite, st.floats(-10, 10)),
    st.one_of(finite.filter(lambda step: step > 0), st.floats(1e-3, 10)),
    st.integers(2, 256),
)
@example(float("nan"), 0.0, 1.0, 8)
@example(3e38, -3e38, 1.0, 8)
@example(-3e38, 3e38, 1.0, 8)
def test_any_number_has_the_document_s_level(x, low, step, levels):
    quantiser = Quantiser((low,), (step,), levels)
    (expected,) = quantiser.quantise(np.float32(x).reshape(1, 1, 1)).ravel().tolist()
    assert integer_ladder.level_of(x, low, step, levels) == expected


@settings(max_examples=200)
@given(st.floats(-10, 10, width=32), st.floats(2**-9, 4, width=32), st.integers(2, 256), st.integers(0, 255), st.data())
def test_numbers_at_the_edge_of_a_level_have_the_document_s_level(low, step, levels, level, data):
    edge = np.float32(low + (level % levels + 0.5) * step)
    x = float(edge + np.float32(data.draw(st.integers(-3, 3))) * np.spacing(edge))
    (expected,) = Quantiser((low,), (step,), levels).quantise(np.float32(x).reshape(1, 1, 1)).ravel().tolist()
    assert integer_ladder.level_of(x, low, step, levels) == expected


# Whole stages -------------------------------------------------------------------------------------------------
@st.composite
def latents(draw):
    """A manifest's ``latent`` as some training might leave it, and a map of its levels."""
    base, doublings, order = draw(geometries)
    channels, levels = draw(st.integers(1, 5)), draw(st.integers(2, 24) | st.just(256))
    side = base << doublings
    rungs = sorted({side, *draw(st.lists(st.integers(base, side), max_size=4))})
    random = np.random.default_rng(draw(seeds))
    wide = draw(st.floats(0.1, 6.0))
    tables = [
        list(scaled((random.exponential(1, levels if kind == 0 else 2 * levels - 1) ** wide * 1e4).astype(int)))
        for _ in range(channels)
        for kind in range(1 + 2 * doublings)
    ]
    latent = latent_of(base, doublings, order, levels=levels, rungs=rungs, mean_levels=[0] * channels, tables=tables)
    latent |= {"low": [0.0] * channels, "step": [0.5] * channels}
    spread = draw(st.sampled_from([None, 0, *rungs]))
    latent |= {} if spread is None else {"spread": spread}
    around = draw(st.sampled_from([0.3, 1.0, 100.0]))
    grid = random.normal(random.integers(0, levels, (channels, 1, 1)), around, (channels, side, side))
    return latent, np.clip(np.rint(grid), 0, levels - 1).astype(int)


@settings(max_examples=150)
@given(latents(), st.integers(0, 14), st.integers(20, 244))
def test_random_stages_are_the_same_packets_in_both(case, number, payload):
    latent, levels = case
    layout, stage = layout_from_manifest(number, latent), integer_ladder.Stage(number, latent)
    assert stage.rung_order == layout.order.tolist()
    assert stage.spread_order == layout.spread_order.tolist()
    check(number, latent, levels, payload)


@settings(max_examples=60)
@given(latents(), st.integers(20, 244), st.sampled_from([0, 2]), st.randoms())
def test_a_hub_takes_the_document_s_packets_whatever_their_order_and_length(case, payload, codec, random):
    """Cut for another payload in mid-stage, mixed and some twice: the map is whole."""
    latent, levels = case
    layout, stage = layout_from_manifest(1, latent), integer_ladder.Stage(1, latent)
    packets = stage.packets(codec, levels.tolist(), inference=1, payload=payload)
    packets += stage.packets(codec, levels.tolist(), inference=1, payload=20)
    random.shuffle(packets)
    buffer = StageBuffer(layout)
    for packet in packets:
        buffer.add(Header.unpack(packet), packet)
    assert buffer.complete
    np.testing.assert_array_equal(layout.quantiser.quantise(buffer.features()), levels)


def test_a_stage_of_more_coefficients_than_a_header_can_count_is_cut_at_4095():
    latent = latent_of(16, 3, "corner", levels=2, tables=[[4095, 1], *[[1, 4094, 1]] * 6])  # 16384 in a few bytes
    stage = integer_ladder.Stage(1, latent)
    levels = np.zeros((1, 128, 128), int)
    packets = stage.packets(2, levels.tolist(), inference=INFERENCE, payload=244)
    assert [Header.unpack(packet).count for packet in packets[:4]] == [4095] * 4
    assert packets == packets_of(layout_from_manifest(1, latent), levels, 2, 244)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "entry",
    [{"n": 0, **SHIPPED["picture"]}, *(s for s in SHIPPED["stages"] if "latent" in s)],
    ids=lambda entry: f"stage {entry['n']}",
)
def test_the_shipped_model_s_stages_are_the_same_packets_in_both(entry, order):
    number, latent = entry["n"], {**entry["latent"], "order": order}
    latent.pop("contexts", None)  # test_protocol_contexts.py
    random = np.random.default_rng(number)
    layout, stage = layout_from_manifest(number, latent), integer_ladder.Stage(number, latent)
    shape = (layout.channels, layout.ladder.finest, layout.ladder.finest)
    means = np.asarray(latent["mean_levels"])[:, None, None]
    packets = 0
    for spread, payload in ((0.5, 244), (2.0, 20), (8.0, 131)):  # from what the tables expect to what they do not
        features = layout.quantiser.dequantise(random.normal(means, spread, shape))
        quantised = stage.quantise(features.tolist())
        assert quantised == layout.quantiser.quantise(features).tolist()
        packets += check(number, latent, np.asarray(quantised), payload)
    assert packets > 20


def test_the_shipped_manifest_has_every_key_that_the_document_names():
    (table,) = re.findall(r"\| key of `latent`.*?\n\n", DOCUMENT, re.DOTALL)
    named = {key for row in table.strip().splitlines()[2:] for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    for entry in SHIPPED["stages"]:
        assert set(entry.get("latent", named)) | {"waves", "contexts"} == named
    assert set(SHIPPED["picture"]["latent"]) == named
