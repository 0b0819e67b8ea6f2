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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("backbone: [", "not valid YAML"),
        ("- 1", "must be a mapping"),
        ("speed: 3", "unknown setting 'speed'"),
        ("optimiser: {kind: adam}", "use sgd or adamw"),
        ("optimiser: {peak: fast}", "peak is 'fast'; expected float"),
        ("input_size: true", "expected int"),
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
