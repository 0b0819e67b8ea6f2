# SPDX-License-Identifier: Apache-2.0
"""Codec 2 against docs/protocol.md: a coder in integers, written from the document, gives the same bytes."""

import itertools
from pathlib import Path

import constriction
import integer_range_coder
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.bundle import Bundle
from fleet.codec import Quantiser, StageBuffer, StageLayout, encode_stage
from fleet.coders import coder_named
from fleet.ladder import Ladder
from fleet.packet import HEADER_BYTES, Header, PacketError
from fleet.tables import Tables, scaled

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
RANGED = coder_named("fleet")
WHOLE = (1 << 64) - 1 >> 24  # a fresh coder's unit

# The document's vectors: table, symbols, body.
VECTORS = [
    ((1024, 2048, 1024), [2] * 16, "ffffffff"),
    ((256,) * 16, [8, *[0] * 9, *[8, 0, 0] * 7, 8], "7f" + 16 * "ff" + "80"),
    ((256,) * 16, [8, *[0] * 9, *[8, 0, 0] * 7, 15], "80" + 14 * "00" + "06ff10"),
    ((1024,) * 4, [2, *[0] * 19, *[2, 0, 0, 0, 0] * 2, 2], "80"),
    ((4095, 1), [0] * 200, "00"),
]


def frequencies(counts):
    return scaled(np.asarray(counts))


def stage_of(tables, cells=1):
    """A stage that sends ``cells``² values of every table and nothing else."""
    channels, levels = len(tables), len(tables[0])
    quantiser = Quantiser((0.0,) * channels, (1.0,) * channels, levels)
    return StageLayout(1, quantiser, Ladder(cells, 0), (cells,), (0,) * channels, 0, Tables(tuple(tables)))


def coded(layout, packet):
    """The tables of a packet's coefficients, its symbols in the packet's order, and its body."""
    header = Header.unpack(packet)
    run = slice(header.first, header.first + header.count)
    places = layout.kinds[layout.spread_order[run]]
    values = RANGED.decode(layout, header.first, header.count, packet[HEADER_BYTES:])
    symbols = values + np.where(places % layout.kind_count == 0, 0, layout.quantiser.levels - 1)
    return places.tolist(), symbols.tolist(), packet[HEADER_BYTES:]


def check(layout, features, payload=244):
    """Every packet of a stage is what the document's coder makes of its symbols, and is read by it; their number."""
    packets = encode_stage(layout, features, inference_id=1, payload=payload, coder=RANGED)
    for packet in packets:
        places, symbols, body = coded(layout, packet)
        assert integer_range_coder.encode(layout.tables.entries, places, symbols) == body
        assert integer_range_coder.decode(layout.tables.entries, places, body) == symbols
    return len(packets)


def library_edges(table):
    """left(0) to left(K) as constriction has them: what a fresh encoder's interval becomes."""
    (model,) = Tables((table,)).models
    edges = [0]
    for symbol in range(len(table)):
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(symbol, model)
        _, (low, width) = encoder.pos()
        assert low == edges[-1] * WHOLE
        assert width % WHOLE == 0
        edges.append((low + width) // WHOLE)
    return edges


# Intervals ----------------------------------------------------------------------------------------------------
def test_the_document_s_example_of_edges_is_the_library_s():
    edges = library_edges((1024, 2048, 1024))
    assert edges == [0, 4194304, 12582911, 16777216]
    assert ", ".join(map(str, edges[:3])) in DOCUMENT.replace("\n", " ")


def test_thousands_of_tables_have_the_document_s_edges():
    random = np.random.default_rng(0)
    for _ in range(2000):
        size = int(random.integers(2, 40 if random.random() < 0.8 else 512))  # 511: differences of 256 levels
        table = frequencies((random.exponential(1, size) ** random.uniform(0.1, 8) * 1e4).astype(int))
        assert library_edges(table) == integer_range_coder.edges(table)


@pytest.mark.parametrize("table", [(1, 4095), (4095, 1), (2, *[1] * 4094), (*[1] * 510, 3586), (1,) * 4096])
def test_tables_at_the_ends_of_what_is_possible_have_the_document_s_edges(table):
    assert library_edges(table) == integer_range_coder.edges(table)


@pytest.fixture(scope="module")
def shipped():
    return Bundle.load(ROOT / "models" / "backyard")


def test_the_shipped_model_s_tables_have_the_document_s_edges(shipped):
    tables = {table for layout in shipped.layouts.values() for table in layout.tables.entries}
    assert len(tables) > 100
    for table in tables:
        assert library_edges(table) == integer_range_coder.edges(table)


# Bytes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("table", "symbols", "body"), VECTORS)
def test_the_document_s_vectors_hold_for_both_coders(table, symbols, body):
    layout = stage_of([table] * len(symbols))  # a channel a symbol: they are coded in the channels' order
    (packet,) = encode_stage(
        layout, np.asarray(symbols, np.float32)[:, None, None], inference_id=1, payload=244, coder=RANGED
    )
    assert packet[HEADER_BYTES:].hex() == body
    assert integer_range_coder.encode([table], [0] * len(symbols), symbols).hex() == body
    assert integer_range_coder.decode([table], [0] * len(symbols), bytes.fromhex(body)) == symbols
    assert f"`{bytes.fromhex(body).hex(' ')}`" in DOCUMENT


def test_the_first_vector_tells_edges_that_are_the_frequencies_themselves_and_the_hub_drops_them():
    def plain(table):
        return [count << 12 for count in itertools.accumulate(table, initial=0)]

    table, symbols, body = VECTORS[0]
    wrong = integer_range_coder.encode([table], [0] * 16, symbols, edges_of=plain)
    assert wrong.hex() != body
    assert f"`{wrong.hex(' ')}`" in DOCUMENT
    layout = stage_of([table] * 16)
    packet = Header(1, 1, RANGED.number, 0, 16).pack() + wrong
    with pytest.raises(PacketError, match="not what 16 coefficients"):
        StageBuffer(layout).add(Header.unpack(packet), packet)


@st.composite
def coded_stages(draw):
    """Tables from sure to clueless, features from what they expect to what they do not."""
    levels, cells = draw(st.integers(2, 256)), draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wide = draw(st.floats(0.1, 8.0))
    channels = draw(st.integers(1, 6))
    tables = [frequencies((random.exponential(1, levels) ** wide * 1e4).astype(int)) for _ in range(channels)]
    shape = (channels, cells, cells)
    if draw(st.booleans()):
        features = random.integers(0, levels, shape)
    else:
        features = np.stack([random.choice(levels, shape[1:], p=np.asarray(table) / 4096) for table in tables])
    return stage_of(tables, cells), features.astype(np.float32)


@settings(max_examples=200)
@given(coded_stages(), st.integers(20, 244))
def test_random_stages_are_the_same_bytes_in_both_coders(stage, payload):
    layout, features = stage
    check(layout, features, payload)


@settings(max_examples=300)
@given(
    st.lists(st.integers(0, 10**6), min_size=2, max_size=24),
    st.lists(st.sampled_from([b"\0", b"\xff", b"\x80", b"\x7f", b"\x01"]) | st.binary(max_size=2), max_size=12),
    st.integers(0, 30),
    st.integers(1, 120),
    st.integers(0, 23),
)
def test_intervals_across_the_edges_of_words_are_the_same_bytes_in_both_coders(counts, pieces, run, count, last):
    """Symbols that lead to numbers with long runs of ones and zeros; then the last symbol steps over the edge."""
    table = frequencies(counts)
    number = b"".join(piece * (run if k % 2 else 1) for k, piece in enumerate(pieces))
    symbols = integer_range_coder.symbols_of([table], [0] * count, number)
    if symbols is None:
        return
    for end in (symbols[-1], last % len(table)):
        symbols[-1] = end
        features = np.asarray(symbols, np.float32)[:, None, None]
        check(stage_of([table] * count), features)


@settings(max_examples=200)
@given(coded_stages(), st.binary(min_size=1, max_size=60), st.integers(1, 40))
def test_what_one_coder_drops_the_other_drops(stage, body, count):
    layout, _ = stage
    count = min(count, layout.count)
    places = layout.kinds[layout.spread_order[:count]].tolist()
    try:
        symbols = RANGED.decode(layout, 0, count, body).tolist()
    except PacketError:
        symbols = None
    assert integer_range_coder.decode(layout.tables.entries, places, body) == symbols


def test_the_shipped_model_s_stages_are_the_same_bytes_in_both_coders(shipped):
    random = np.random.default_rng(0)
    packets = 0
    for layout in shipped.layouts.values():
        if layout.contexts is not None:
            continue  # test_protocol_contexts.py
        quantiser, side = layout.quantiser, layout.ladder.finest
        means = np.asarray(layout.mean_levels)[:, None, None]
        for spread in (0.5, quantiser.levels):  # what the tables expect, and what they do not
            levels = np.clip(
                np.rint(random.normal(means, spread, (layout.channels, side, side))), 0, quantiser.levels - 1
            )
            packets += check(layout, quantiser.dequantise(levels))
    assert packets > 2 * len(shipped.layouts)
