# SPDX-License-Identifier: Apache-2.0
"""Training of the baselines: only what a scheme may change changes, and an interruption leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coloured_pictures import CONFIG
from torch import Tensor, nn

from fleet.backbones import Backbone
from fleet.baselines import own
from fleet.baselines.config import Budget, load_baselines_config
from fleet.baselines.jpeg import random_settings, to_bytes
from fleet.baselines.registry import PARTS, begin
from fleet.baselines.shallow_deep import Joint, adaptive_weights, work_shares
from fleet.baselines.training import Batch, Moment, Run, Task
from fleet.errors import FleetError
from fleet.training.augment import normalise
from fleet.training.data import ImageSet

Sets = tuple[ImageSet, ImageSet]
BUDGET = Budget(epochs=2, batch=8)
FROZEN = {"shallow-deep", "clio", "neurosurgeon"}


def samples(sets: Sets) -> Tensor:
    return normalise(torch.from_numpy(np.array(sets[0].images[:16])))


def run_of(part: str, base: Backbone, sets: Sets, output: Path, budget: Budget = BUDGET) -> Run:
    torch.manual_seed(11)  # heads begin at random
    return Run(begin(part, base, samples(sets)), budget, CONFIG, sets[0], output)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


# Neurosurgeon has a test of its own at 64 pixels: at 32 too few maps are larger than the smallest size.
@pytest.mark.parametrize("part", [*(part for part in PARTS if part != "neurosurgeon"), Joint.name])
def test_training_changes_all_that_it_may_and_leaves_the_base_network_alone(
    part: str, base: Backbone, sets: Sets, tmp_path: Path
) -> None:
    untouched = state(base)
    run = run_of(part, base, sets, tmp_path)
    old, new = run.recipe.parameters()
    trained = {id(p) for p in (*old, *new)}
    before = {name: p.detach().clone() for name, p in run.recipe.model.named_parameters()}
    network = getattr(run.recipe, "network", run.recipe.model)
    inside = state(network.backbone) if part in FROZEN else {}
    heard: list[Moment] = []
    run.train(heard.append)
    assert [moment.step for moment in heard] == list(range(1, 9))
    changed = {name for name, p in run.recipe.model.named_parameters() if not torch.equal(p, before[name])}
    expected = {name for name, p in run.recipe.model.named_parameters() if id(p) in trained}
    if part == "clio":  # two random widths a step need not draw each adapter
        changed, expected = ({n for n in names if not n.startswith("adapters.")} for names in (changed, expected))
    if part.startswith("shallow-deep"):  # maps of four cells a side have nothing to mix
        changed, expected = ({n for n in names if not n.endswith("mixture")} for names in (changed, expected))
    assert changed == expected
    for key, value in inside.items():
        assert torch.equal(network.backbone.state_dict()[key], value), key
    for key, value in base.state_dict().items():
        assert torch.equal(untouched[key], value), key


def test_neurosurgeons_blocks_learn_at_64_pixels(tmp_path: Path) -> None:
    from fleet.backbones import build_backbone  # noqa: PLC0415
    from fleet.training.data import ClassTable  # noqa: PLC0415

    torch.manual_seed(0)
    backbone = build_backbone("mobilenetv3", input_size=64, classes=4)
    with torch.no_grad():
        backbone.train()(torch.randn(16, 3, 64, 64))
    images = np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3)).astype(np.uint8)
    names = tuple("abcd")
    data = ImageSet(images, np.arange(12) % 4, ClassTable(names, (), np.zeros(0, np.int64), names))
    recipe = begin("neurosurgeon", backbone, normalise(torch.from_numpy(images)))
    _, new = recipe.parameters()
    frozen = state(recipe.network.backbone)  # type: ignore[attr-defined]
    recipe.set_training()
    batch = Batch(torch.from_numpy(images), torch.from_numpy(data.labels), torch.Generator().manual_seed(1), 0.0)
    recipe.loss(batch, Task(replace(CONFIG, input_size=64), data, 0.5)).backward()
    touched = [p for p in new if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(touched) >= 3  # at first only the last norm of each of the three drawn blocks, which begins at zero
    for key, value in recipe.network.backbone.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(frozen[key], value), key


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("part", ["shallow-deep", "branchynet", "clio", "jpeg"])
def test_an_interrupted_training_ends_with_the_same_weights(
    part: str, base: Backbone, sets: Sets, tmp_path: Path
) -> None:
    whole = run_of(part, base, sets, tmp_path / "whole").train()
    for stop in (3, 4):  # within an epoch, and at its end

        def hear(moment: Moment, stop: int = stop) -> None:
            if moment.step == stop + 1:
                raise StoppedError

        first = run_of(part, base, sets, tmp_path / f"parts{stop}")
        with pytest.raises(StoppedError):
            first.train(hear, save_every_s=0.0)
        second = run_of(part, base, sets, tmp_path / f"parts{stop}")
        assert 0 < second.step <= stop + 1
        resumed = second.train()
        for key, value in whole.state_dict().items():
            assert torch.equal(resumed.state_dict()[key], value), (stop, key)


def test_a_finished_training_is_not_done_again(base: Backbone, sets: Sets, tmp_path: Path) -> None:
    run_of("ensemble-1", base, sets, tmp_path).train()
    heard: list[Moment] = []
    again = run_of("ensemble-1", base, sets, tmp_path)
    again.train(heard.append)
    assert not heard
    spent = again.spent()
    assert (spent["images"], spent["steps"], spent["epochs"]) == (64, 8, 2)


def test_a_checkpoint_of_another_budget_is_refused(base: Backbone, sets: Sets, tmp_path: Path) -> None:
    run_of("ensemble-1", base, sets, tmp_path).train()
    with pytest.raises(FleetError, match="another configuration"):
        run_of("ensemble-1", base, sets, tmp_path, replace(BUDGET, epochs=3))


def test_a_part_that_there_is_not(base: Backbone, sets: Sets) -> None:
    with pytest.raises(FleetError, match="no baseline has a part 'ensemble-4'"):
        begin("ensemble-4", base, samples(sets))


def test_shallow_deeps_weights_grow_to_each_exits_share_of_the_work(base: Backbone) -> None:
    shares = work_shares(base)
    assert list(shares) == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 1
    assert adaptive_weights(shares, 0.0) == pytest.approx([min(0.01, s) for s in shares])
    assert adaptive_weights(shares, 1.0) == pytest.approx(shares)
    half = adaptive_weights(shares, 0.5)
    assert all(0 < w <= s for w, s in zip(half, shares, strict=True))


def test_pictures_to_bytes_and_back_are_the_same_pictures(sets: Sets) -> None:
    images = np.array(sets[0].images[:5])
    assert (to_bytes(normalise(torch.from_numpy(images))) == images).all()


def test_settings_to_train_on_cover_qualities_sizes_and_formats() -> None:
    drawn = random_settings(4000, 64, torch.Generator().manual_seed(3))
    assert {s.size for s in drawn} == {64, 48, 32}
    assert {s.format for s in drawn} == {"jpeg", "webp"}
    assert (min(s.quality for s in drawn), max(s.quality for s in drawn)) == (4, 95)
    assert sum(s.format == "webp" for s in drawn) / len(drawn) == pytest.approx(0.25, abs=0.03)


def test_the_shipped_budgets_name_every_part() -> None:
    folder = Path(__file__).resolve().parents[2] / "config"
    found = load_baselines_config(folder / "baselines.yaml")
    assert set(found.schemes) == {*PARTS, own.NAME}
    assert (folder / found.training).is_file()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("training: a\nschemes: {jpeg: {epochs: 0}}", "at least one epoch"),
        ("training: a\nschemes: {jpeg: {epoch: 1}}", "unknown setting 'epoch'"),
        ("schemes: {}", "training"),
        ("training: [", "not valid YAML"),
    ],
)
def test_a_wrong_configuration_is_one_line(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "baselines.yaml"
    path.write_text(text)
    with pytest.raises(FleetError, match=problem) as caught:
        load_baselines_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("part", "frozen"), [("ensemble-5", 3), ("ensemble-5-whole", 0), ("ensemble-1", 0)])
def test_of_an_ensemble_s_member_the_last_two_stages_are_trained_unless_all_are_asked_for(
    base: Backbone, sets: Sets, part: str, frozen: int
) -> None:
    recipe = begin(part, base, samples(sets))
    assert recipe.name == part
    stages = list(recipe.member.stages)  # type: ignore[attr-defined]
    recipe.set_training()
    before = [state(stage) for stage in stages]
    images = torch.from_numpy(sets[0].images[:4].copy())
    labels = torch.from_numpy(sets[0].labels[:4].copy())
    recipe.loss(Batch(images, labels, torch.Generator().manual_seed(1), 0.0), Task(CONFIG, sets[0], 0.5)).backward()
    trained = [any(p.grad is not None for p in stage.parameters()) for stage in stages]
    assert trained == [False] * frozen + [True] * (len(stages) - frozen)
    for n in range(frozen):  # running statistics, too
        assert all(torch.equal(before[n][key], value) for key, value in stages[n].state_dict().items())
