# SPDX-License-Identifier: Apache-2.0
"""The trained baselines in models/baselines: whole, small, and as accurate as they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fleet.baselines import SCHEMES, AnyScheme, load_schemes, own
from fleet.baselines.config import load_baselines_config
from fleet.baselines.registry import PARTS
from fleet.baselines.store import INDEX, load_index
from fleet.bundle import Bundle
from fleet.training.config import load_config
from fleet.training.data import ImageSet, load_training_sets

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "models" / "baselines"
DATA = ROOT.parent / "shared" / "data" / "tiny-imagenet-100"
PICTURES = 150

pytestmark = pytest.mark.skipif(
    not (STORED / INDEX).is_file(), reason="no trained baselines here yet: fleet baselines train, then export"
)


@pytest.fixture(scope="module")
def schemes() -> dict[str, AnyScheme]:
    return load_schemes(Bundle.load(ROOT / "models" / "backyard"), STORED)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    if not DATA.is_dir():
        pytest.skip("the image set beside the repository is not here")
    config = load_config(ROOT / "config" / "training" / "backyard.yaml")
    _, images = load_training_sets(config.data, DATA, size=64, cache=tmp_path_factory.mktemp("cache"))
    return images.part(0, PICTURES)


def test_every_baseline_is_there_and_they_are_small(schemes: dict[str, AnyScheme]) -> None:
    assert tuple(schemes) == SCHEMES
    assert sum(path.stat().st_size for path in STORED.iterdir()) < 26 << 20


def test_what_was_spent_is_what_the_configuration_allows() -> None:
    budgets = load_baselines_config(ROOT / "config" / "baselines.yaml").schemes
    spent = {part["scheme"]: part for entry in load_index(STORED).entries.values() for part in entry.spent}
    assert set(spent) == set(PARTS)
    assert {name: part["epochs"] for name, part in spent.items()} == {
        n: b.epochs for n, b in budgets.items() if n != own.NAME
    }
    planned = {scheme["name"] for scheme in json.loads((STORED / "plan.json").read_text())["schemes"]}
    assert planned == {"fleet", "fleet-picture", "fleet-picture-race", *load_index(STORED).entries}


def test_deeper_exits_and_finer_pictures_are_more_accurate() -> None:
    accuracy = {name: a for entry in load_index(STORED).entries.values() for name, a in entry.accuracy.items()}

    def classes(scheme: str, row: str) -> float:
        return float(accuracy[scheme]["rows"][row]["accuracy_classes"])

    for scheme, names in {
        "branchynet": ("exit 1", "exit 5", "exit 11", "whole network"),
        "shallow-deep": ("exit 1", "exit 5", "exit 11", "whole network"),
        "ensemble": ("1 stages", "5 stages", "11 stages", "whole network"),
        "clio": ("2 channels", "8 channels", "28 channels"),
        "neurosurgeon": ("split 3 at 6", "split 3 at 10", "split 3 at 16"),
        "jpeg": ("jpeg 5 at 64", "jpeg 20 at 64", "jpeg 80 at 64"),
        "webp": ("webp 1 at 64", "webp 10 at 64", "webp 75 at 64"),
    }.items():
        found = [classes(scheme, name) for name in names]
        assert found == sorted(found), scheme
        assert found[-1] > 0.5, scheme  # of a hundred classes


@pytest.mark.data
@pytest.mark.parametrize("name", ["shallow-deep", "branchynet", "ensemble", "clio"])
def test_the_weights_are_as_accurate_as_the_index_says(
    name: str, schemes: dict[str, AnyScheme], calibration: ImageSet
) -> None:
    """On the first pictures of those that were counted: a share of them is off by three deviations at most."""
    scheme = schemes[name]
    found = scheme.answer(np.array(calibration.images)).logits.argmax(axis=2) == calibration.labels  # (rows, N)
    for entry in load_index(STORED).entries.values():
        for row, right in zip(scheme.rows, found, strict=True) if name in entry.accuracy else ():
            said = entry.accuracy[name]["rows"][row]["accuracy_classes"]
            assert abs(right.mean() - said) < 3 * (0.25 / PICTURES) ** 0.5, row
