# SPDX-License-Identifier: Apache-2.0
"""Models for tests: one that exists in memory only, and one on disk with real networks in it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

# Before torch is there: threads that wait for each other cost ten times what they save on a busy machine, and where a
# command takes more than one all the same, they shall not wait in a loop.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hypothesis import settings

from fleet.bundle import Bundle, StageFile
from fleet.codec import CODERS, Quantiser, StageLayout
from fleet.exits import Classes, Decider
from fleet.ladder import Ladder

# A busy machine is no reason to fail: properties are about results, and pytest's own time limit guards against hanging.
settings.register_profile("fleet", deadline=None)
settings.load_profile("fleet")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A command that takes all cores for PyTorch, as its user wants it to, does not keep them for later tests."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


CLASSES = Classes(
    ids=("n01", "n02", "n03", "n04", "n05"),
    names=("tractor", "tabby", "collie", "bison", "bench"),
    group_of=(0, 1, 1, 2, 3),
    groups=("vehicle", "pet", "animal", "none"),
)
SENT = 8
HEAD = 10


def _layout(stage: int) -> StageLayout:
    channels = 2 + stage % 3
    return StageLayout(
        stage=stage,
        quantiser=Quantiser((-1.0,) * channels, (0.125,) * channels, 16),
        ladder=Ladder(2, 2),
        rungs=(2, 4, 6, 8),
        mean_levels=(8,) * channels,
    )


@pytest.fixture(scope="session")
def small_bundle() -> Bundle:
    """A model of eight stages that are sent, one that is not, and a head; it has no files and thresholds of 0.8."""
    return Bundle(
        path=Path("small"),
        name="small",
        identity=bytes(range(8)),
        backbone="mobilenetv3",
        input_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        classes=CLASSES,
        exit_stages=SENT,
        stages=tuple(StageFile(n, {"float": f"{n}.onnx"}, {"conv": 1_000_000}) for n in range(1, HEAD + 1)),
        layouts={n: _layout(n) for n in range(1, SENT + 1)},
        decider=Decider(CLASSES, {}, dict.fromkeys(range(1, SENT + 1), 0.8)),
        coder=CODERS[0],
        cloud_file="cloud.safetensors",
        trained=False,
        checksums={},
    )


@pytest.fixture(scope="session")
def picture_bundle(small_bundle: Bundle) -> Bundle:
    """The small bundle with a stage 0 of two waves."""
    layout = StageLayout(
        stage=0,
        quantiser=Quantiser((-1.0,) * 40, (0.125,) * 40, 16),
        ladder=Ladder(4, 0),
        rungs=(4,),
        mean_levels=(8,) * 40,
        waves=(8, 32),
    )
    return replace(
        small_bundle,
        layouts={0: layout, **small_bundle.layouts},
        decider=replace(small_bundle.decider, thresholds={0: 0.8, **small_bundle.decider.thresholds}),
        picture=StageFile(0, {"float": "stage00.onnx"}, {"conv": 200_000}),
        picture_file="picture.safetensors",
    )


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle on disk: an untrained MobileNetV3 for 32x32 pixels and five classes. Do not change its files."""
    from fleet.export import untrained_bundle  # noqa: PLC0415 - torch is heavy, and most tests do without

    return untrained_bundle(tmp_path_factory.mktemp("models") / "tiny", classes=CLASSES, seed=1, input_size=32)


@pytest.fixture(scope="session")
def with_picture(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Any, Any]:
    """The tiny bundle with an untrained stage 0, and the modules that it was made of."""
    import torch  # noqa: PLC0415

    from fleet.baselines.store import base_network  # noqa: PLC0415
    from fleet.export import counted, export_picture, guessed, picture_layout  # noqa: PLC0415
    from fleet.fusion import load_cloud  # noqa: PLC0415
    from fleet.picture import PictureEncoder, PictureExit  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("models") / "picture"
    shutil.copytree(tiny_bundle.path, folder)
    torch.manual_seed(0)
    base = base_network(tiny_bundle)
    encoder = PictureEncoder(32, grid=4, luma=5, chroma=2, levels=64)
    stages = load_cloud(tiny_bundle).backbone.stages[:3]
    exit0 = PictureExit(encoder.channels, grid=4, block=8, stages=stages).eval()
    exit0.start_as_inverse(encoder)
    with torch.no_grad():
        for parameter in exit0.stages.parameters():  # as training would
            parameter.add_(0.01 * torch.randn_like(parameter))
    images = torch.randn(16, 3, 32, 32)
    latents = encoder(images).detach().numpy()
    layouts = counted({0: guessed(picture_layout(encoder, torch.zeros(9)), latents)}, {0: latents})
    stage = export_picture(folder, encoder, exit0, base, layouts[0])
    bundle = replace(
        Bundle.load(folder),
        layouts={**layouts, **tiny_bundle.layouts},
        picture=stage,
        picture_file="picture.safetensors",
    )
    return bundle.save(), encoder, exit0


@pytest.fixture
def tiny_copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the tiny bundle's directory, to be damaged."""
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "copy"))
