# SPDX-License-Identifier: Apache-2.0
"""CLIO's slices and Neurosurgeon's cuts: what travels is what the hub computes with."""

from __future__ import annotations

import gzip
import itertools
import math
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fleet.backbones import Backbone, build_backbone
from fleet.baselines import Upload, step_seconds
from fleet.baselines.bytes8 import ByteQuantiser, as_bytes, gzip_sizes
from fleet.baselines.clio import WIDTHS, Clio, ClioNetwork
from fleet.baselines.neurosurgeon import SIZES, Neurosurgeon, SplitNetwork, best_split
from fleet.baselines.scheme import Answers
from fleet.errors import FleetError
from fleet.link.parameters import LinkParameters
from fleet.link.transfer import reliable_events
from fleet.platforms import load_profile

Pictures = npt.NDArray[np.uint8]


def test_a_byte_holds_a_value_to_half_a_step() -> None:
    quantiser = ByteQuantiser(3)
    features = torch.randn(5, 3, 4, 4) * torch.tensor([1.0, 10.0, 0.1])[:, None, None] + 2
    quantiser.calibrate(features)
    levels = quantiser.levels(features)
    assert levels.min() >= 0
    assert levels.max() <= 255
    assert torch.equal(levels, levels.round())
    inside = (levels > 0) & (levels < 255)
    error = ((quantiser(features) - features).abs() / quantiser.step[:, None, None])[inside]
    assert error.max() <= 0.501


def test_gzip_is_counted_with_everything_that_a_reader_needs() -> None:
    values = as_bytes(torch.randint(0, 4, (3, 2, 8, 8)).float())
    for one, size in zip(values, gzip_sizes(values), strict=True):
        packed = gzip.compress(one.tobytes(), 9, mtime=0)
        assert len(packed) == size
        assert np.frombuffer(gzip.decompress(packed), np.uint8).reshape(one.shape).tolist() == one.tolist()


@pytest.fixture
def clio(base: Backbone) -> Clio:
    network = ClioNetwork(base)
    with torch.no_grad():
        network.encoder.train()(network.on_device(torch.randn(16, 3, 32, 32)))  # its norm sees something
    return Clio(network, (1.0,) * len(WIDTHS))


def test_clio_sends_its_channels_slice_by_slice(clio: Clio, pictures: Pictures) -> None:
    answers = clio.answer(pictures)
    cells = clio.network.size**2
    assert answers.logits.shape == (len(WIDTHS), len(pictures), 4)
    for index, upload in enumerate(clio.uploads):
        begun = upload.settings["width"] == WIDTHS[0]
        assert upload.after == (None if begun else index - 1)
        assert (len(upload.steps) > 1) == begun  # the stages run once
    plain = [i for i, upload in enumerate(clio.uploads) if not upload.settings["gzip"]]
    assert (answers.bytes[plain].cumsum(axis=0)[:, 0] == [w * cells for w in WIDTHS]).all()


def test_a_narrow_slice_knows_nothing_of_the_channels_behind_it(clio: Clio, pictures: Pictures) -> None:
    before = clio.answer(pictures).logits
    convolution = clio.network.encoder[0]
    with torch.no_grad():
        convolution.weight[8:] += torch.randn_like(convolution.weight[8:]) * 3  # type: ignore[index, operator, arg-type]
    after = clio.answer(pictures).logits
    narrow = WIDTHS.index(8) + 1
    np.testing.assert_allclose(before[:narrow], after[:narrow], rtol=1e-4, atol=1e-5)
    assert np.abs(before[narrow:] - after[narrow:]).max() > 1e-3


@pytest.fixture(scope="module")
def surgeon() -> Neurosurgeon:
    """Not to be changed, for it takes a second to make."""
    torch.manual_seed(4)
    backbone = build_backbone("mobilenetv3", input_size=64, classes=4)
    with torch.no_grad():
        backbone.train()(torch.randn(16, 3, 64, 64))
    network = SplitNetwork(backbone.eval())
    network.calibrate(torch.randn(32, 3, 64, 64))
    return Neurosurgeon(network, (1.0,) * len(network.rows))


@pytest.fixture(scope="module")
def large() -> Pictures:
    return np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def answers(surgeon: Neurosurgeon, large: Pictures) -> Answers:
    return surgeon.answer(large)


def test_whole_features_in_bytes_answer_as_the_network_does(surgeon: Neurosurgeon, answers: Answers) -> None:
    whole = answers.logits[-1]
    spread = float(np.abs(whole).max())
    for upload, sizes in zip(surgeon.uploads, answers.bytes, strict=True):
        if upload.local:
            assert not sizes.any()
            continue
        channels, own = surgeon.network.maps[int(upload.split or 0)]
        if upload.settings["size"] == own:
            assert np.abs(answers.logits[upload.row] - whole).max() < 0.2 * spread + 0.05, upload.name
        if not upload.settings["gzip"]:
            assert (sizes == channels * int(upload.settings["size"]) ** 2).all()


def test_there_is_an_upload_for_every_cut_size_and_packing(surgeon: Neurosurgeon) -> None:
    specs = {0: (3, 64)} | {s.n: (s.channels, s.size) for s in surgeon.network.backbone.stage_specs[:-1]}
    wanted = {
        (n, size, packed)
        for n, (_, own) in specs.items()
        for size in {own, *(s for s in SIZES if s < own)}
        for packed in (0, 1)
    }
    found = [(u.split, u.settings["size"], u.settings["gzip"]) for u in surgeon.uploads[:-1]]
    assert len(found) == len(wanted)
    assert set(found) == wanted
    assert surgeon.uploads[-1].local
    assert len(surgeon.rows) == len({u.row for u in surgeon.uploads})


def brute_force(
    backbone: Backbone, packed: npt.NDArray[np.float64], names: list[str], link: LinkParameters, rate: float
) -> tuple[float, str]:
    """Every cut, size and packing by hand: seconds and name of the fastest. Shares nothing with the scheme's code."""
    best = (math.inf, "")
    stage_macs = [spec.macs.total for spec in backbone.stage_specs]
    maps = [(3, backbone.input_size)] + [(s.channels, s.size) for s in backbone.stage_specs[:-1]]
    for cut, (channels, own) in enumerate(maps):
        for size in [s for s in (6, 8, 10, 12, 14, 16) if s < own] + [own]:
            values = channels * size * size
            for zipped in (False, True):
                name = f"split {cut} at {size}{', gzip' if zipped else ''}"
                work = sum(stage_macs[:cut]) + values + (channels * own * own if size < own else 0)
                sent = values
                if zipped:
                    work, sent = work + 50 * values, round(float(packed[names.index(name)]))
                bursts = math.ceil(math.ceil(sent / link.payload) / link.effective_packets)
                events = bursts if link.ack == "link_layer" else 2 * bursts - 1
                seconds = work / rate + link.ci_s / 2 + (events - 1) * link.ci_s
                if seconds < best[0]:
                    best = (seconds, name)
    alone = sum(stage_macs) / rate
    return (alone, "whole network") if alone < best[0] else best


@pytest.mark.parametrize(
    ("platform", "ci_ms", "packets", "ack"),
    [
        (p, c, k, a)
        for p, c, k, a in itertools.product(
            ("cortex-a77-200", "cortex-a77-1500", "cortex-m33-64"),
            (7.5, 60.0, 1000.0),
            (1, 4),
            ("link_layer", "next_event"),
        )
    ],
)
def test_the_search_finds_what_brute_force_finds(
    surgeon: Neurosurgeon, answers: Answers, platform: str, ci_ms: float, packets: int, ack: str
) -> None:
    link = LinkParameters(ci_ms=ci_ms, packets=packets, ack=ack)  # type: ignore[arg-type]
    profile = load_profile(platform)
    sizes = answers.bytes[:, 0].astype(float)

    def latency(upload: Upload, sent: float) -> float:
        work = sum(step_seconds(profile, step) for step in upload.steps)
        if upload.local:
            return work
        return work + link.ci_s / 2 + (reliable_events(round(sent), link) - 1) * link.ci_s

    found = surgeon.uploads[best_split(surgeon.uploads, sizes, latency)]
    rate = profile.macs_per_second["conv"]
    names = [upload.name for upload in surgeon.uploads]
    seconds, name = brute_force(surgeon.network.backbone, sizes, names, link, rate)
    assert latency(found, sizes[names.index(found.name)]) == pytest.approx(seconds, rel=1e-9)
    assert found.name == name


def test_only_cuts_that_are_accurate_enough_are_searched(surgeon: Neurosurgeon) -> None:
    sizes = np.ones(len(surgeon.uploads))
    allowed = np.zeros(len(sizes), dtype=bool)
    with pytest.raises(FleetError, match="no split"):
        best_split(surgeon.uploads, sizes, lambda _upload, _bytes: 0.0, allowed)
    allowed[[7, 30]] = True
    assert best_split(surgeon.uploads, sizes, lambda upload, _bytes: -float(upload.row), allowed) == 30


def test_macs_of_a_cut_are_those_of_its_stages(surgeon: Neurosurgeon) -> None:
    specs = surgeon.network.backbone.stage_specs
    for upload in surgeon.uploads[:-1]:
        assert [asdict(s.macs) for s in upload.steps[:-1]] == [asdict(s.macs) for s in specs[: upload.split or 0]]
    assert [asdict(s.macs) for s in surgeon.uploads[-1].steps] == [asdict(s.macs) for s in specs]
