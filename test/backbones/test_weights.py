# SPDX-License-Identifier: Apache-2.0
"""Weights go from network to file and back, between input sizes, and to other classes."""

from pathlib import Path

import pytest
import torch

from fleet.backbones import build_backbone, load_weights, save_weights
from fleet.errors import FleetError
from fleet.fusion import load_cloud


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "base.safetensors"
    save_weights(build_backbone("mobilenetv3", input_size=64, classes=5), path)
    return path


def test_half_precision_weights_come_back_and_fit_another_input_size(saved: Path) -> None:
    torch.manual_seed(1)
    original = build_backbone("mobilenetv3", input_size=64, classes=5)
    other = build_backbone("mobilenetv3", input_size=32, classes=5)
    assert load_weights(other, saved) == ()
    for key, value in other.state_dict().items():
        torch.testing.assert_close(value, original.state_dict()[key], rtol=1e-3, atol=1e-6)
    assert saved.stat().st_size < 11_500_000


def test_with_other_classes_only_the_last_layer_is_left_alone(saved: Path) -> None:
    backbone = build_backbone("mobilenetv3", input_size=64, classes=9)
    before = backbone.classifier[3].weight.clone()
    assert load_weights(backbone, saved) == ("classifier.3.weight", "classifier.3.bias")
    assert torch.equal(backbone.classifier[3].weight, before)


def test_a_plain_state_dictionary_loads(tmp_path: Path) -> None:
    original = build_backbone("mobilenetv3", input_size=32, classes=5)
    torch.save(original.state_dict(), tmp_path / "public.pth")
    other = build_backbone("mobilenetv3", input_size=32, classes=5)
    load_weights(other, tmp_path / "public.pth")
    assert torch.equal(other.classifier[0].weight, original.classifier[0].weight)


def broken(path: Path) -> None:
    path.write_bytes(b"nothing of the kind")


@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("none.pth", lambda path: None, "no weights at"),
        ("none.safetensors", lambda path: None, "no weights at"),
        ("bad.pth", broken, "damaged"),
        ("bad.safetensors", broken, "damaged"),
        ("whole.pth", lambda path: torch.save({"model": {}, "step": 3}, path), "plain state dictionary"),
        ("other.pth", lambda path: torch.save({"conv1.weight": torch.zeros(3)}, path), "is not a mobilenetv3"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path: Path, name: str, write, says: str) -> None:
    write(tmp_path / name)
    with torch.device("meta"):
        backbone = build_backbone("mobilenetv3", input_size=32, classes=5)
    with pytest.raises(FleetError, match=says) as caught:
        load_weights(backbone, tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_base_network_of_a_bundle_can_be_trained_further(tiny_bundle) -> None:
    backbone = build_backbone("mobilenetv3", input_size=64, classes=len(tiny_bundle.classes))
    assert load_weights(backbone, tiny_bundle.cloud_path) == ()
    shipped = load_cloud(tiny_bundle).backbone.state_dict()
    assert all(torch.equal(value, shipped[key]) for key, value in backbone.state_dict().items())
