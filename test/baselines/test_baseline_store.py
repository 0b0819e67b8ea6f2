# SPDX-License-Identifier: Apache-2.0
"""Weights of the baselines on disk, and the command that makes them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from coloured_pictures import CONFIG
from typer.testing import CliRunner

from fleet.backbones import Backbone
from fleet.baselines import SCHEMES, load_schemes
from fleet.baselines.finish import families
from fleet.baselines.jpeg import _QUALITIES
from fleet.baselines.own import build
from fleet.baselines.registry import PARTS, fill
from fleet.baselines.shallow_deep import ShallowDeep
from fleet.baselines.store import INDEX, base_network, digest, load_index
from fleet.bundle import Bundle
from fleet.cli import app
from fleet.errors import FleetError
from fleet.runtime import DeviceNetwork
from fleet.training.checkpoint import load_checkpoint

RUNNER = CliRunner()
ROOT = Path(__file__).resolve().parents[2]


def invoke(verb: str, *arguments: object) -> str:
    threads = ("--threads", "1") if verb in ("train", "export") else ()
    result = RUNNER.invoke(app, ["baselines", verb, *map(str, arguments), *threads])
    if result.exception is not None:
        raise result.exception
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, coloured: Path, coloured_bundle: Bundle
) -> tuple[Path, Path, list[str]]:
    """Configuration and folder of baselines that were trained for one step each, and the options for the command."""
    root = tmp_path_factory.mktemp("baselines")
    (root / "base.yaml").write_text(yaml.safe_dump(CONFIG.to_dict()))
    budgets = {part: {"epochs": 1, "batch": 32} for part in PARTS if part != "neurosurgeon"}
    config = root / "baselines.yaml"
    config.write_text(yaml.safe_dump({"training": "base.yaml", "schemes": budgets}))
    options = ["--model", str(coloured_bundle.path), "--data", str(coloured), "--cache", str(coloured / "cache")]
    said = invoke("train", config, *options, "--runs", root / "runs")
    assert all(f"{part}: 1 steps" in said for part in budgets)
    said = invoke("export", config, *options, "--runs", root / "runs", "--output", root / "out")
    assert "neurosurgeon is not trained yet" in said
    return config, root / "out", options


def test_what_was_trained_loads_with_the_averaged_weights_in_half_precision(
    trained: tuple[Path, Path, list[str]], coloured_bundle: Bundle, pictures: object
) -> None:
    config, stored, _ = trained
    schemes = load_schemes(coloured_bundle, stored)
    assert list(schemes) == [name for name in SCHEMES if name != "neurosurgeon"]
    found = schemes["shallow-deep"]
    assert isinstance(found, ShallowDeep)
    average = load_checkpoint(config.parent / "runs" / "shallow-deep.pt")["ema"]["model"]
    for key, value in found.network.heads.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, average[key].half().float())
    assert isinstance(pictures, np.ndarray)
    for scheme in schemes.values():
        answers = scheme.answer(pictures)
        assert answers.logits.shape == (len(scheme.rows), len(pictures), 4)
        assert np.isfinite(answers.logits).all()
        assert len(scheme.temperatures) == len(scheme.rows)
        parts = scheme.exits if scheme.kind == "local" else scheme.uploads
        assert {part.row for part in parts} == set(range(len(scheme.rows)))
        assert len(answers.bytes) == (0 if scheme.kind == "local" else len(parts))


def test_one_scheme_can_be_asked_for(trained: tuple[Path, Path, list[str]], coloured_bundle: Bundle) -> None:
    assert list(load_schemes(coloured_bundle, trained[1], ["webp"])) == ["webp"]
    with pytest.raises(FleetError, match="no baseline 'neurosurgeon'"):
        load_schemes(coloured_bundle, trained[1], ["neurosurgeon"])


def test_the_frozen_base_network_is_not_stored_again(trained: tuple[Path, Path, list[str]]) -> None:
    sizes = {path.stem: path.stat().st_size for path in trained[1].glob("*.safetensors")}
    assert sizes["shallow-deep"] < 0.05 * sizes["branchynet"]
    assert sizes["clio"] < 0.6 * sizes["branchynet"]


def test_temperatures_and_accuracies_of_the_calibration_split_are_written_down(
    trained: tuple[Path, Path, list[str]],
) -> None:
    index = load_index(trained[1])
    entry = index.entries["jpeg"]
    assert set(entry.temperatures) == {"jpeg", "webp"}
    assert entry.accuracy["jpeg"]["pictures"] == 8
    row = entry.accuracy["jpeg"]["rows"]["jpeg 50 at 32"]
    assert set(row) == {"accuracy_groups", "accuracy_wake_words", "accuracy_classes"}
    card = (trained[1] / "README.md").read_text()
    assert "| branchynet | backbone and heads jointly" in card
    assert "non-commercial research" in card


def test_the_compute_plan_has_every_scheme_and_ours(trained: tuple[Path, Path, list[str]]) -> None:
    plan = json.loads((trained[1] / "plan.json").read_text())
    named = {scheme["name"]: scheme for scheme in plan["schemes"]}
    assert set(named) == {"branchynet", "shallow-deep", "ensemble", "clio", "jpeg"}  # this base network has no exits
    assert named["ensemble"]["images"] == 7 * 32
    assert named["shallow-deep"]["frozen"]
    assert not named["branchynet"]["frozen"]
    assert all(scheme["full_command"] for scheme in plan["schemes"])


@pytest.fixture
def copied(trained: tuple[Path, Path, list[str]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[1], tmp_path / "baselines"))


def test_a_changed_file_is_refused(copied: Path, coloured_bundle: Bundle) -> None:
    path = copied / "clio.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FleetError, match=r"clio.safetensors is missing or not the file"):
        load_schemes(coloured_bundle, copied)
    assert "ensemble" in load_schemes(coloured_bundle, copied, ["ensemble"])


def test_another_base_network_is_refused(copied: Path, tiny_bundle: Bundle) -> None:
    with pytest.raises(FleetError, match="another base network"):
        load_schemes(tiny_bundle, copied)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.pop("classes"), "is damaged: KeyError 'classes'"),
        (lambda c: c.update(format=9), "has format 9"),
        (lambda c: c["entries"]["clio"]["temperatures"].update(clio=[1.0]), "clio has 9 rows of logits, but 1"),
        (lambda c: c["entries"]["clio"].update(file="ensemble.safetensors"), "not the file"),
    ],
)
def test_a_damaged_index_is_one_line(change: object, problem: str, copied: Path, coloured_bundle: Bundle) -> None:
    content = json.loads((copied / INDEX).read_text())
    change(content)  # type: ignore[operator]
    (copied / INDEX).write_text(json.dumps(content))
    with pytest.raises(FleetError, match=problem) as caught:
        load_schemes(coloured_bundle, copied)
    assert "\n" not in str(caught.value)


def test_weights_of_something_else_are_refused(base: Backbone) -> None:
    state = dict(base.state_dict())
    state.pop("classifier.3.bias")
    with pytest.raises(FleetError, match=r"weights of jpeg do not fit: classifier.3.bias"):
        fill(base, state, "jpeg")
    state["classifier.3.bias"] = torch.zeros(7)
    with pytest.raises(FleetError, match="do not fit"):
        fill(base, state, "jpeg")


def test_no_baselines_there(tmp_path: Path, coloured_bundle: Bundle) -> None:
    with pytest.raises(FleetError, match="holds no baselines"):
        load_schemes(coloured_bundle, tmp_path)
    with pytest.raises(FleetError, match="no baseline 'yolo'"):
        families(("yolo",))


def test_an_export_without_a_finished_training_says_what_to_do(
    trained: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    config, _, options = trained
    with pytest.raises(FleetError, match="has no finished training: fleet baselines train"):
        invoke("export", config, *options, "--runs", tmp_path, "--output", tmp_path / "out")


def test_a_training_goes_on_from_stored_weights_and_adds_up_what_was_spent(
    trained: tuple[Path, Path, list[str]], coloured_bundle: Bundle, tmp_path: Path
) -> None:
    config, stored, options = trained
    only = ("--only", "shallow-deep")
    invoke("train", config, *options, "--runs", tmp_path, *only, "--further", stored)
    state = load_checkpoint(tmp_path / "shallow-deep.pt")
    before = load_index(stored).entries["shallow-deep"].spent[0]
    assert (state["spent"]["steps"], state["spent"]["images"]) == (2 * before["steps"], 2 * before["images"])
    found = load_schemes(coloured_bundle, stored)["shallow-deep"]
    assert isinstance(found, ShallowDeep)
    began = found.network.heads.state_dict()
    fresh = load_checkpoint(config.parent / "runs" / "shallow-deep.pt")["model"]
    weights = [key for key, value in began.items() if value.is_floating_point() and value.ndim > 1]
    moved = [float((state["model"][key] - began[key].float()).abs().max()) for key in weights]
    assert max(moved) < 0.01
    assert set(fresh) == set(state["model"])
    with pytest.raises(FleetError, match="belongs to another configuration"):
        invoke("train", config, *options, "--runs", config.parent / "runs", *only, "--further", stored)
    with pytest.raises(FleetError, match="has no budget for"):
        invoke("train", config, *options, "--runs", tmp_path, "--only", "neurosurgeon", "--further", stored)
    with pytest.raises(FleetError, match="holds no baselines"):
        invoke("train", config, *options, "--runs", tmp_path / "other", *only, "--further", tmp_path)


def test_stored_weights_are_measured_anew_without_their_trainings(
    trained: tuple[Path, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, stored, options = trained
    copy = Path(shutil.copytree(stored, tmp_path / "stored"))
    monkeypatch.setitem(_QUALITIES, "jpeg", ((10, 50), (30,), (), (40,)))
    with pytest.raises(FleetError, match="temperatures"):
        invoke_load(copy, options)
    again = ("export", config, *options, "--runs", tmp_path / "none", "--output", copy, "--stored")
    said = invoke(*again, "--only", "jpeg")
    assert "jpeg written to" in said
    before, after = (json.loads((folder / INDEX).read_text())["entries"] for folder in (stored, copy))
    assert len(after["jpeg"]["temperatures"]["jpeg"]) == 4
    assert after["jpeg"]["sha256"] == before["jpeg"]["sha256"]
    assert after["jpeg"]["spent"] == before["jpeg"]["spent"]
    assert {k: v for k, v in after.items() if k != "jpeg"} == {k: v for k, v in before.items() if k != "jpeg"}
    assert "neurosurgeon is not trained yet" in invoke(*again)
    (copy / "jpeg.safetensors").write_bytes(b"")
    with pytest.raises(FleetError, match="is not the file that"):
        invoke(*again, "--only", "jpeg")


def invoke_load(folder: Path, options: list[str]) -> None:
    load_schemes(Bundle.load(options[1]), folder, ("jpeg",))


def test_baselines_of_another_base_network_are_not_mixed(trained: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    config, stored, options = trained
    copy = Path(shutil.copytree(stored, tmp_path / "mixed"))
    content = json.loads((copy / INDEX).read_text())
    (copy / INDEX).write_text(json.dumps(content | {"base": "0" * 64}))
    with pytest.raises(FleetError, match="belongs to another base network"):
        invoke("export", config, *options, "--runs", config.parent / "runs", "--output", copy, "--only", "clio")


def test_trained_heads_become_local_exits_of_a_bundle(
    trained: tuple[Path, Path, list[str]], coloured_bundle: Bundle, tmp_path: Path
) -> None:
    config, stored, options = trained
    copy = Path(shutil.copytree(coloured_bundle.path, tmp_path / "bundle"))
    invoke("attach", copy, "--config", config, "--stored", stored, *options[2:], "--stages", "5,8")
    bundle = Bundle.load(copy)
    assert sorted(bundle.local_exits) == [5, 8]
    exits = {e.stage: e for e in load_schemes(bundle, stored)["shallow-deep"].exits}  # type: ignore[union-attr]
    for n, head in bundle.local_exits.items():
        assert head.macs["linear"] == exits[n].own[0].macs.linear
        assert head.temperature > 0
        assert head.threshold > 0 or math.isinf(head.threshold)
    with pytest.raises(FleetError, match="no trained head behind stage 4"):
        invoke("attach", copy, "--config", config, "--stored", stored, *options[2:], "--stages", "4")
    with pytest.raises(FleetError, match="not 'five'"):
        invoke("attach", copy, "--config", config, "--stored", stored, *options[2:], "--stages", "five")


def test_our_own_heads_become_local_exits_and_are_no_rival(
    trained: tuple[Path, Path, list[str]], coloured_bundle: Bundle, tmp_path: Path
) -> None:
    config, stored, options = trained
    budgets = yaml.safe_load(config.read_text()) | {"schemes": {"local-exits": {"epochs": 1, "batch": 32}}}
    own = config.with_name("own.yaml")
    own.write_text(yaml.safe_dump(budgets))
    invoke("train", own, *options, "--runs", tmp_path / "runs")
    checkpoint = tmp_path / "runs" / "local-exits.pt"
    copy = Path(shutil.copytree(coloured_bundle.path, tmp_path / "bundle"))
    attach = ("attach", copy, "--config", config, "--stored", stored, *options[2:], "--own")
    invoke(*attach, checkpoint, "--stages", "8,13")
    bundle = Bundle.load(copy)
    assert sorted(bundle.local_exits) == [8, 13]
    assert all(head.macs["depthwise"] > 0 for head in bundle.local_exits.values())
    assert bundle.notes["local exits"].endswith("32 images, 1 epochs")
    network = build(base_network(bundle))
    network.heads.load_state_dict(load_checkpoint(checkpoint)["ema"]["model"])
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        expected = network.eval()(images)[0]
    device = DeviceNetwork(bundle)
    features = images.numpy()
    for n in range(1, 9):
        features = device.run(n, features).features
    np.testing.assert_allclose(device.run_local(8, features).ravel(), expected[0].numpy(), atol=0.02)
    for wrong, said in (
        (config.parent / "runs" / "clio.pt", "another training"),
        (tmp_path / "no.pt", "no checkpoint"),
    ):
        with pytest.raises(FleetError, match=said):
            invoke(*attach, wrong)


def test_the_hash_of_a_network_is_that_of_its_weights(coloured_bundle: Bundle) -> None:
    one, other = base_network(coloured_bundle), base_network(coloured_bundle)
    assert digest(one) == digest(other)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    assert digest(one) != digest(other)
