# SPDX-License-Identifier: Apache-2.0
"""``fleet study``: trainings that differ in one thing, what they bring, and the pages about it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_images import COLOURS, GROUPS, write_tar
from typer.testing import CliRunner

from fleet.bundle import Bundle
from fleet.cli import app
from fleet.errors import FleetError
from fleet.exits import Classes
from fleet.export import untrained_bundle
from fleet.layout import StageLayout
from fleet.studies.config import load_study
from fleet.studies.depth import DeepHead
from fleet.studies.measure import ARRIVALS, estimate

SHIPPED = Path(__file__).parents[2] / "config" / "studies" / "exits.yaml"
TRAINING = """
input_size: 32
data: {train: [train.tar.gz], calibration: 8, classes: classes.tsv}
"""
STUDY = """
training: training.yaml
depth: {budget: {epochs: 1, batch: 8}, convolutions: [0, 1], width: 8}
exits: {channels: [2, 2, 2], base: 2, rungs: [2, 4, 8], levels: 8, steps: 2, close_steps: 1, batch: 4}
variants:
  k1: {about: one, exits: {fuse: 1}}
  k3: {about: three, against: k1, exits: {fuse: 3}}
  paper: {about: as published, against: k1, as_published: true}
"""


def fleet(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, FleetError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def new_bundle(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Bundle:
    classes = Classes(tuple(COLOURS), tuple(COLOURS), (0, 1, 2, 3), tuple(GROUPS.values()))
    return untrained_bundle(tmp_path_factory.mktemp("models") / "tiny", classes=classes, seed=seed, input_size=32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return new_bundle(tmp_path_factory, 1)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return new_bundle(tmp_path_factory, 2)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "training.yaml").write_text(TRAINING, encoding="utf-8")
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    return tmp_path / "study.yaml"


def arguments(config: Path, colours: Path, bundle: Bundle, tmp_path: Path) -> list[object]:
    return ["study", config, "--data", colours, "--cache", colours / "cache", "--model", bundle.path,
            "--output", tmp_path / "runs", "--threads", 1]  # fmt: skip


def test_a_study_trains_measures_and_is_reported(
    colours: Path, config: Path, bundle: Bundle, other: Bundle, tmp_path: Path
) -> None:
    common = arguments(config, colours, bundle, tmp_path)
    held_out = write_tar(tmp_path / "val.tar.gz", list(COLOURS) * 3)
    result = tmp_path / "study.json"
    measured = ["--only", "k1", "--test", held_out, "--json", result]
    fleet(*common, "--only", "depth")
    fleet(*common, *measured)
    first = json.loads(result.read_text(encoding="utf-8"))
    assert list(first["variants"]) == ["k1"]  # what is not finished is not in it
    assert (tmp_path / "runs" / "k1" / "exits.pt").is_file()
    assert not (tmp_path / "runs" / "k3").exists()
    told = fleet(*common, "--test", held_out, "--json", result)
    assert "k3" in told
    found = json.loads(result.read_text(encoding="utf-8"))
    assert found["variants"]["k1"]["states"] == first["variants"]["k1"]["states"]  # it was not trained again
    settings = {name: about["settings"] for name, about in found["variants"].items()}
    assert (settings["k3"]["fuse"], settings["paper"]["combinations"]) == (3, True)
    for about in found["variants"].values():
        assert list(about["states"]) == list(ARRIVALS)
        for rows in about["states"].values():
            assert [row["stage"] for row in rows] == [1, 2, 3]
            assert all(("gain" in row) == bool(about["against"]) for row in rows)
    gain = found["variants"]["k3"]["mean"]["complete"]["gain"]["accuracy_classes"][0]
    means = [found["variants"][n]["mean"]["complete"]["accuracy_classes"][0] for n in ("k3", "k1")]
    assert gain == pytest.approx(means[0] - means[1], abs=2e-4)
    assert len(found["depth"]["exits"]) == 7 * 2
    with pytest.raises(FleetError, match="k1 was begun behind another base network"):
        fleet(*arguments(config, colours, other, tmp_path), "--only", "k1")
    with pytest.raises(FleetError, match="depth belongs to other settings or another base network"):
        fleet(*arguments(config, colours, other, tmp_path), "--only", "depth")
    with pytest.raises(FleetError, match="what the exits are trained on"):
        fleet(*common, "--test", colours / "train.tar.gz", "--json", result)
    pages = tmp_path / "report"
    fleet("report", "--study", result, "--output", pages)
    text = (pages / "exits" / "README.md").read_text(encoding="utf-8")
    assert "Figure 1b in numbers" in text
    assert "15 points at earlier exits" in text  # the paper's own number
    assert "12 pictures" in text
    assert (pages / "exits" / "figures" / "figure-1c.svg").is_file()
    assert "figure-1b" in (pages / "exits" / "index.html").read_text(encoding="utf-8")


def test_the_shipped_study_compares_what_the_issue_of_a_comparison_is_about() -> None:
    study = load_study(SHIPPED)
    by_name = {variant.name: variant.exits for variant in study.variants}
    assert [by_name[f"k{k}"].fuse for k in (1, 2, 3)] == [1, 2, 3]
    assert {e.channels for n, e in by_name.items() if n.startswith("k")} == {(2,) * 8}
    # As the paper trains a block: on batches that arrived at its sizes; so is what it is compared with.
    assert by_name["combinations"] == dataclasses.replace(by_name["no-tail-drop"], combinations=True)
    assert by_name["no-tail-drop"].arrival == "sizes"
    assert by_name["not-distilled"].soft == 0
    assert by_name["as-published"] == by_name["backyard"].as_published()
    assert len({(e.steps, e.batch, e.peak) for e in by_name.values()}) == 1  # nobody gets more than another


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("fuse: 3", "fus: 3", r"variants: k3: exits: unknown setting 'fus'"),
        ("against: k1, as_published", "against: k9, as_published", "paper is compared with 'k9'"),
        ("k1: {", "'../k1': {", r"'\.\./k1' names a folder"),
        ("k1: {about: one, exits: {fuse: 1}}", "k1: 3", "variants: k1 must be a mapping"),
        ("training: training.yaml", "training: other.yaml", r"cannot read .*other\.yaml"),
        ("epochs: 1,", "", "budget needs epochs"),
        ("exits: {channels", "exits: [channels", "not valid YAML"),
        ("k1: {", "depth: {", "no variant can be called depth"),
        ("fuse: 3", "channels: [2, 2]", "k3 sends other stages than k1"),
        ("fuse: 3", "steps: 0", "k3: exits: steps is 0"),
        ("fuse: 3", "steps: 1, close_steps: 2", "close_steps is 2, of 1 steps"),
        ("fuse: 3", "rungs: [4, 2]", r"rungs must ascend from the base, 2, on; not \[4, 2\]"),
        ("fuse: 3", "rungs: []", "rungs must ascend"),
        ("fuse: 3", "base: 0", "base is 0"),
        ("fuse: 3", "batch: -4", "batch is -4"),
        ("fuse: 3", "peak: .nan", "peak is nan"),
        ("fuse: 3", "soft: -1.0", "weights of losses"),
        ("fuse: 3", "levels: 1", "levels is 1"),
        ("fuse: 3", "ema: 2.0", "ema is 2"),
        ("fuse: 3", "exits_a_step: 0", "exits_a_step is 0"),
        ("fuse: 3", "arrival: size", "expected packets, sizes"),
        ("[0, 1]", "[1, 0]", "convolutions must ascend"),
        ("[0, 1]", "[]", "convolutions must ascend"),
        ("width: 8", "width: 0", "width is 1 or more"),
        ("epochs: 1,", "epochs: 0,", "at least one epoch"),
        ("{about: one, exits: {fuse: 1}}", "{exits: {fuse: 1}}", "k1 needs about"),
    ],
)
def test_a_mistake_in_a_study_is_one_line_that_names_it(config: Path, old: str, new: str, says: str) -> None:
    config.write_text(STUDY.replace(old, new), encoding="utf-8")
    with pytest.raises(FleetError, match=says) as caught:
        load_study(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--only", "k4"], "has no 'k4'; it has depth, k1, k3, paper"),
        (["--json", "x.json"], "give both --json and --test"),
        (["--test", "nowhere.tar.gz", "--json", "x.json"], "no images at nowhere"),
        (["--test", "x", "--json", "/"], "it is a directory"),
    ],
)
def test_a_mistake_on_the_command_line_is_told(
    colours: Path, config: Path, bundle: Bundle, tmp_path: Path, more: list[str], says: str
) -> None:
    with pytest.raises(FleetError, match=says):
        fleet(*arguments(config, colours, bundle, tmp_path), *more)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "no result of `fleet study"),
        ('{"kind": "study", "conditions": {}}', "damaged"),
        ("[]", "holds no mapping"),
        ("{", "not JSON"),
    ],
)
def test_a_file_that_is_no_study_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "study.json").write_text(text, encoding="utf-8")
    with pytest.raises(FleetError, match=says) as caught:
        fleet("report", "--study", tmp_path / "study.json", "--output", tmp_path / "pages")
    assert "\n" not in str(caught.value)


def test_a_report_needs_sweeps_or_a_study(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="give results of `fleet sweep`"):
        fleet("report", "--output", tmp_path)


@pytest.mark.parametrize(("size", "after"), [(32, 8), (16, 8), (8, 8), (4, 4), (2, 2)])
def test_convolutions_of_an_exit_halve_large_maps_only(size: int, after: int) -> None:
    head = DeepHead(6, size=size, convolutions=4, width=8, cells=4, classes=5).eval()
    features = torch.randn(2, 6, size, size)
    assert head.convolutions(features).shape == (2, 8, after, after)
    assert head(features).shape == (2, 5)


def test_states_of_a_stage_have_what_they_say(tiny_bundle: Bundle) -> None:
    layout: StageLayout = tiny_bundle.layouts[3]
    have = {
        name: arrival(layout, 400, torch.Generator().manual_seed(0)).float() for name, (_, arrival) in ARRIVALS.items()
    }
    assert all(h.shape == (400, layout.channels, layout.ladder.count) for h in have.values())
    shares = {name: float(h.mean()) for name, h in have.items()}
    assert shares["complete"] == 1
    assert shares["half"] == pytest.approx(0.5, abs=0.01)
    assert shares["quarter"] == pytest.approx(0.25, abs=0.01)
    assert shares["lossy"] == pytest.approx(0.7, abs=0.05)
    rung = max(r for r in layout.rungs if 2 * r <= layout.ladder.finest)
    assert shares["size"] == pytest.approx((rung / layout.ladder.finest) ** 2)


def test_an_interval_of_paired_gains_is_narrower_than_that_of_the_difference_of_means() -> None:
    random = np.random.default_rng(1)
    before = random.random(2000) < 0.5
    after = before | (random.random(2000) < 0.1)
    mean, low, high = estimate(after.astype(float) - before)
    assert low < mean < high
    alone = estimate(after)
    assert high - low < (alone[2] - alone[1])


def test_half_a_study_is_reported_as_far_as_it_goes(
    colours: Path, config: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """Of two processes that share a study the one may be through before the other."""
    common = arguments(config, colours, bundle, tmp_path)
    held_out = write_tar(tmp_path / "val.tar.gz", list(COLOURS))
    result = tmp_path / "study.json"
    fleet(*common, "--only", "k3", "--test", held_out, "--json", result)
    assert "gain" not in json.loads(result.read_text(encoding="utf-8"))["variants"]["k3"]["mean"]["complete"]
    fleet("report", "--study", result, "--output", tmp_path / "report")
    text = (tmp_path / "report" / "exits" / "README.md").read_text(encoding="utf-8")
    assert "**Not run:** Figure 1b" in text
    assert "**Not run:** Figure 1c" in text


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(b"nothing"), "damaged"),
        (lambda path: torch.save({"format": 1, "config": 3}, path), "belongs to another configuration"),
        (lambda path: torch.save({"format": 1}, path), "damaged or of another network"),
    ],
)
def test_a_spoilt_checkpoint_is_told(
    colours: Path, config: Path, bundle: Bundle, tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    common = arguments(config, colours, bundle, tmp_path)
    (tmp_path / "runs" / "k1").mkdir(parents=True)
    spoil(tmp_path / "runs" / "k1" / "exits.pt")
    with pytest.raises(FleetError, match=says) as caught:
        fleet(*common, "--only", "k1")
    assert "\n" not in str(caught.value)
