# SPDX-License-Identifier: Apache-2.0
"""Every key and shape of the public state dictionaries, rebuilt here from the published tables."""

from collections.abc import Iterator

import pytest
import torch

from fleet.backbones import build_backbone

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def linear(name: str, into: int, out: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, into)
    yield f"{name}.bias", (out,)


def mobilenetv3() -> Iterator[tuple[str, tuple[int, ...]]]:
    def conv(name: str, into: int, out: int, kernel: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.0.weight", (out, into, kernel, kernel)
        yield from norm(f"{name}.1", out)

    yield from conv("features.0", 3, 16, 3)
    # kernel, expanded, out, width of squeeze-and-excite (0: none), as the public checkpoint has them
    rows = [
        (3, 16, 16, 0), (3, 64, 24, 0), (3, 72, 24, 0), (5, 72, 40, 24), (5, 120, 40, 32), (5, 120, 40, 32),
        (3, 240, 80, 0), (3, 200, 80, 0), (3, 184, 80, 0), (3, 184, 80, 0), (3, 480, 112, 120),
        (3, 672, 112, 168), (5, 672, 160, 168), (5, 960, 160, 240), (5, 960, 160, 240),
    ]  # fmt: skip
    into = 16
    for n, (kernel, expanded, out, squeezed) in enumerate(rows, start=1):
        m = 0
        block = f"features.{n}.block"
        if expanded != into:
            yield from conv(f"{block}.{m}", into, expanded, 1)
            m += 1
        yield from conv(f"{block}.{m}", 1, expanded, kernel)
        m += 1
        if squeezed:
            for fc, a, b in (("fc1", expanded, squeezed), ("fc2", squeezed, expanded)):
                yield f"{block}.{m}.{fc}.weight", (b, a, 1, 1)
                yield f"{block}.{m}.{fc}.bias", (b,)
            m += 1
        yield from conv(f"{block}.{m}", expanded, out, 1)
        into = out
    yield from conv("features.16", 160, 960, 1)
    yield from linear("classifier.0", 960, 1280)
    yield from linear("classifier.3", 1280, 1000)


def resnet34() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "conv1.weight", (64, 3, 7, 7)
    yield from norm("bn1", 64)
    into = 64
    for layer, (out, count) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for i in range(count):
            block = f"layer{layer}.{i}"
            for k, width in ((1, into), (2, out)):
                yield f"{block}.conv{k}.weight", (out, width, 3, 3)
                yield from norm(f"{block}.bn{k}", out)
            if into != out:
                yield f"{block}.downsample.0.weight", (out, into, 1, 1)
                yield from norm(f"{block}.downsample.1", out)
            into = out
    yield from linear("fc", 512, 1000)


def inceptionv3() -> Iterator[tuple[str, tuple[int, ...]]]:
    def conv(name: str, into: int, out: int, height: int = 1, width: int = 0) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.conv.weight", (out, into, height, width or height)
        yield from norm(f"{name}.bn", out)

    yield from conv("Conv2d_1a_3x3", 3, 32, 3)
    yield from conv("Conv2d_2a_3x3", 32, 32, 3)
    yield from conv("Conv2d_2b_3x3", 32, 64, 3)
    yield from conv("Conv2d_3b_1x1", 64, 80)
    yield from conv("Conv2d_4a_3x3", 80, 192, 3)
    for name, into, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        block = f"Mixed_{name}"
        yield from conv(f"{block}.branch1x1", into, 64)
        yield from conv(f"{block}.branch5x5_1", into, 48)
        yield from conv(f"{block}.branch5x5_2", 48, 64, 5)
        yield from conv(f"{block}.branch3x3dbl_1", into, 64)
        yield from conv(f"{block}.branch3x3dbl_2", 64, 96, 3)
        yield from conv(f"{block}.branch3x3dbl_3", 96, 96, 3)
        yield from conv(f"{block}.branch_pool", into, pooled)
    yield from conv("Mixed_6a.branch3x3", 288, 384, 3)
    yield from conv("Mixed_6a.branch3x3dbl_1", 288, 64)
    yield from conv("Mixed_6a.branch3x3dbl_2", 64, 96, 3)
    yield from conv("Mixed_6a.branch3x3dbl_3", 96, 96, 3)
    for name, w in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        block = f"Mixed_{name}"
        yield from conv(f"{block}.branch1x1", 768, 192)
        yield from conv(f"{block}.branch7x7_1", 768, w)
        yield from conv(f"{block}.branch7x7_2", w, w, 1, 7)
        yield from conv(f"{block}.branch7x7_3", w, 192, 7, 1)
        yield from conv(f"{block}.branch7x7dbl_1", 768, w)
        yield from conv(f"{block}.branch7x7dbl_2", w, w, 7, 1)
        yield from conv(f"{block}.branch7x7dbl_3", w, w, 1, 7)
        yield from conv(f"{block}.branch7x7dbl_4", w, w, 7, 1)
        yield from conv(f"{block}.branch7x7dbl_5", w, 192, 1, 7)
        yield from conv(f"{block}.branch_pool", 768, 192)
    yield from conv("AuxLogits.conv0", 768, 128)
    yield from conv("AuxLogits.conv1", 128, 768, 5)
    yield from linear("AuxLogits.fc", 768, 1000)
    yield from conv("Mixed_7a.branch3x3_1", 768, 192)
    yield from conv("Mixed_7a.branch3x3_2", 192, 320, 3)
    yield from conv("Mixed_7a.branch7x7x3_1", 768, 192)
    yield from conv("Mixed_7a.branch7x7x3_2", 192, 192, 1, 7)
    yield from conv("Mixed_7a.branch7x7x3_3", 192, 192, 7, 1)
    yield from conv("Mixed_7a.branch7x7x3_4", 192, 192, 3)
    for name, into in (("7b", 1280), ("7c", 2048)):
        block = f"Mixed_{name}"
        yield from conv(f"{block}.branch1x1", into, 320)
        yield from conv(f"{block}.branch3x3_1", into, 384)
        yield from conv(f"{block}.branch3x3_2a", 384, 384, 1, 3)
        yield from conv(f"{block}.branch3x3_2b", 384, 384, 3, 1)
        yield from conv(f"{block}.branch3x3dbl_1", into, 448)
        yield from conv(f"{block}.branch3x3dbl_2", 448, 384, 3)
        yield from conv(f"{block}.branch3x3dbl_3a", 384, 384, 1, 3)
        yield from conv(f"{block}.branch3x3dbl_3b", 384, 384, 3, 1)
        yield from conv(f"{block}.branch_pool", into, 192)
    yield from linear("fc", 2048, 1000)


PUBLIC = {"mobilenetv3": mobilenetv3, "resnet34": resnet34, "inceptionv3": inceptionv3}
PARAMETERS = {"mobilenetv3": 5_483_032, "resnet34": 21_797_672, "inceptionv3": 27_161_264}


@pytest.mark.parametrize("size", [224, 64, 32])
@pytest.mark.parametrize("name", PUBLIC)
def test_every_variant_has_the_public_keys_and_shapes(name: str, size: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, input_size=size, classes=1000)
    ours = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    published: Shapes = dict(PUBLIC[name]())
    assert sorted(ours.items()) == sorted(published.items())


@pytest.mark.parametrize("name", PUBLIC)
def test_the_number_of_parameters_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, input_size=224, classes=1000)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == PARAMETERS[name]
