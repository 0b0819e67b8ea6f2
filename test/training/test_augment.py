# SPDX-License-Identifier: Apache-2.0
"""Random changes of the training images stay within what the configuration says."""

import numpy as np
import pytest
import torch

from fleet.backbones import MEAN, STD
from fleet.training.augment import augment, mix, normalise
from fleet.training.config import AugmentConfig

NOTHING = AugmentConfig(padding=0, aspect=1.0, jitter=0.0)


def images(count: int = 8, size: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normalised_bytes_have_the_published_mean_and_deviation() -> None:
    one = torch.tensor([[[[255, 0, 128]]]], dtype=torch.uint8)
    expected = [(value / 255 - mean) / std for value, mean, std in zip((255, 0, 128), MEAN, STD, strict=True)]
    torch.testing.assert_close(normalise(one).flatten(), torch.tensor(expected))


def test_with_everything_off_an_image_is_only_mirrored() -> None:
    source = images()
    plain = normalise(source)
    changed = augment(source, NOTHING, size=16, smallest_crop=1.0, random=seeded())
    same = [torch.allclose(a, b, atol=1e-4) for a, b in zip(changed, plain, strict=True)]
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-4) for a, b in zip(changed, plain, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)


def test_halving_the_size_takes_the_mean_of_four_cells() -> None:
    source = images()
    halved = augment(source, NOTHING, size=8, smallest_crop=1.0, random=seeded())
    expected = torch.nn.functional.avg_pool2d(normalise(source), 2)
    fits = [
        torch.allclose(a, b, atol=1e-4) or torch.allclose(a, b.flip(-1), atol=1e-4)
        for a, b in zip(halved, expected, strict=True)
    ]
    assert all(fits)


@pytest.mark.parametrize("size", [8, 16, 24])
def test_the_same_seed_gives_the_same_images_and_another_seed_others(size: int) -> None:
    config = AugmentConfig(padding=2, aspect=1.3, jitter=0.3)
    first = augment(images(), config, size=size, smallest_crop=0.4, random=seeded())
    assert first.shape == (8, 3, size, size)
    assert torch.equal(first, augment(images(), config, size=size, smallest_crop=0.4, random=seeded()))
    assert not torch.equal(first, augment(images(), config, size=size, smallest_crop=0.4, random=seeded(4)))


@pytest.mark.parametrize("config", [AugmentConfig(mixup=0.4), AugmentConfig(cutmix=1.0)])
def test_mixed_targets_say_how_much_of_each_image_is_left(config: AugmentConfig) -> None:
    ones = torch.cat([torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)])
    targets = torch.eye(2)
    for seed in range(20):
        mixed, shares = mix(ones, targets, config, random=seeded(seed))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), shares[:, 1])
        torch.testing.assert_close(shares.sum(1), torch.ones(2))


def test_without_mixing_batches_pass_unchanged() -> None:
    source, targets = torch.rand(4, 3, 8, 8), torch.eye(4)
    mixed, shares = mix(source, targets, NOTHING, random=seeded())
    assert mixed is source
    assert shares is targets
