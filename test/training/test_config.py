# SPDX-License-Identifier: Apache-2.0
"""Training configurations: those that ship, and mistakes in one's own."""

from pathlib import Path

import pytest

from fleet.backbones import BACKBONES
from fleet.errors import FleetError
from fleet.training.config import TrainingConfig, load_config, parse_config

SHIPPED = sorted((Path(__file__).parents[2] / "config" / "training").glob("*.yaml"))


def test_every_data_set_of_the_paper_and_the_demo_has_a_configuration() -> None:
    expected = {
        "backyard",
        "backyard-exits",
        "cifar-10",
        "cifar-100",
        "imagenet-100",
        "tiny-imagenet-100",
        "tiny-imagenet-200",
    }
    assert {path.stem for path in SHIPPED} >= expected


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_load_end_at_their_input_size_and_name_no_machine(path: Path) -> None:
    config = load_config(path)
    assert config.backbone in BACKBONES
    assert config.phases[-1].size == config.input_size
    assert not Path(config.data.root).is_absolute()
    assert parse_config(config.to_dict(), "again") == config


def test_exits_as_published_have_the_paper_s_sizes_and_losses() -> None:
    ours = load_config(next(path for path in SHIPPED if path.stem == "backyard-exits")).exits
    assert ours is not None
    paper = ours.as_published()
    assert (paper.rungs, paper.combinations, paper.arrival) == ((4, 8, 16), True, "sizes")
    assert (paper.hard, paper.soft, paper.close, paper.rate, paper.trunk_peak) == (1, 0, 0, 0, 0)
    assert (paper.channels, paper.steps, paper.fuse) == (ours.channels, ours.steps, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("backbone: [", "not valid YAML"),
        ("- 1", "must be a mapping"),
        ("speed: 3", "unknown setting 'speed'"),
        ("optimiser: {kind: adam}", "use sgd or adamw"),
        ("optimiser: {peak: fast}", "peak is 'fast'; expected float"),
        ("input_size: true", "expected int"),
        ("exits: {base: 4, rungs: [4], combinations: 1}", "combinations is 1; expected bool"),
        ("exits: {base: 4, rungs: [4], arrival: half}", "arrival is 'half'"),
        ("phases: [{size: 64}]", "epochs"),
        ("phases: []", "at least one"),
        ("phases: [{size: 64, epochs: 0}]", "at least one"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(FleetError, match=says) as caught:
        load_config(tmp_path / "mine.yaml")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"mine\.yaml"):
        load_config(tmp_path / "mine.yaml")


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(FleetError, match=r"picture\.yaml is not valid YAML"):
        load_config(tmp_path / "picture.yaml")


def test_an_empty_mapping_is_the_defaults() -> None:
    assert parse_config({}, "nothing") == TrainingConfig()
