# SPDX-License-Identifier: Apache-2.0
"""A network small enough to train baselines on within a test, and pictures that it learns in seconds."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from coloured_pictures import COLOURS, CONFIG, GROUPS, SIZE, picture

from fleet.backbones import Backbone, build_backbone
from fleet.bundle import Bundle
from fleet.exits import Classes
from fleet.export import untrained_bundle
from fleet.training.data import ImageSet, load_training_sets


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tar of 40 pictures of four classes in turn, and their class table."""
    root = tmp_path_factory.mktemp("data") / "coloured"
    root.mkdir()
    with tarfile.open(root / "train.tar.gz", "w:gz") as tar:
        for number, name in enumerate(list(COLOURS) * 10):
            done, encoded = cv2.imencode(".png", cv2.cvtColor(picture(name, number), cv2.COLOR_RGB2BGR))
            assert done
            member = tarfile.TarInfo(f"{name}/{number}.png")
            member.size = len(encoded)
            tar.addfile(member, io.BytesIO(encoded.tobytes()))
    (root / "classes.tsv").write_text("".join(f"{n}\t{GROUPS[n]}\ta {n}\n" for n in COLOURS), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def sets(coloured: Path) -> tuple[ImageSet, ImageSet]:
    """32 training and 8 calibration pictures."""
    return load_training_sets(CONFIG.data, coloured, size=SIZE, cache=coloured / "cache")


@pytest.fixture(scope="session")
def coloured_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An untrained bundle of the four classes; do not change its files."""
    groups = ("vehicle", "pet", "animal", "none")
    classes = Classes(tuple(COLOURS), tuple(f"a {n}" for n in COLOURS), (0, 1, 2, 3), groups)
    return untrained_bundle(tmp_path_factory.mktemp("models") / "coloured", classes=classes, seed=3, input_size=SIZE)


@pytest.fixture
def base() -> Backbone:
    """A network whose norms have seen something, so that every stage has a scale."""
    torch.manual_seed(2)
    backbone = build_backbone("mobilenetv3", input_size=SIZE, classes=4)
    with torch.no_grad():
        backbone.train()(torch.randn(16, 3, SIZE, SIZE))
    return backbone.eval()


@pytest.fixture(scope="session")
def pictures() -> npt.NDArray[np.uint8]:
    """Six smooth pictures with some detail, as photographs have; shape (6, 32, 32, 3)."""
    random = np.random.default_rng(5)
    coarse = random.integers(0, 255, (6, 5, 5, 3)).astype(np.uint8)
    enlarged = np.stack([cv2.resize(one, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for one in coarse])
    return np.clip(enlarged.astype(int) + random.integers(-12, 12, enlarged.shape), 0, 255).astype(np.uint8)
