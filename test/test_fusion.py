# SPDX-License-Identifier: Apache-2.0
"""The hub's network: two stages' maps in, one exit's logits out, over one shared trunk."""

import json
from dataclasses import replace

import pytest
import torch

from fleet.backbones import build_backbone
from fleet.bundle import MANIFEST, Bundle, sha256_of
from fleet.codec import Quantiser, StageLayout
from fleet.errors import FleetError
from fleet.fusion import CloudNetwork, CombinationBlocks, ExitBlock, load_cloud, packed_trunk, with_trunk


@pytest.fixture(scope="module")
def cloud(tiny_bundle):
    return load_cloud(tiny_bundle)


def maps_for(bundle, cloud, n, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layouts = [bundle.layouts[m] for m in cloud.fused[n]]
    return [torch.randn(batch, 2 * o.channels, o.ladder.finest, o.ladder.finest, generator=generator) for o in layouts]


def test_an_exit_fuses_its_stage_and_the_one_before(cloud):
    assert cloud.fused == {1: (1,), 2: (1, 2), 3: (2, 3), 4: (3, 4), 5: (4, 5), 6: (5, 6), 7: (6, 7), 8: (7, 8)}


@pytest.mark.parametrize(("fuse", "last"), [(1, (8,)), (2, (7, 8)), (3, (6, 7, 8))])
def test_as_many_stages_are_fused_as_is_said(fuse, last):
    backbone = build_backbone("mobilenetv3", input_size=32, classes=3)
    network = CloudNetwork(backbone, dict.fromkeys(range(1, 9), 2), fuse=fuse)
    assert network.fused[8] == last
    assert network.fused[1] == (1,)


@pytest.mark.parametrize("n", range(1, 9))
def test_every_exit_gives_a_logit_a_class_for_every_frame_of_a_batch(tiny_bundle, cloud, n):
    maps = maps_for(tiny_bundle, cloud, n, batch=2)
    with torch.inference_mode():
        logits = cloud(n, maps)
        alone = cloud(n, [m[1:] for m in maps])
    assert logits.shape == (2, len(tiny_bundle.classes))
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits[1:], alone, rtol=1e-3, atol=1e-4)


def test_both_maps_matter(tiny_bundle, cloud):
    with torch.inference_mode():
        older, newer = maps_for(tiny_bundle, cloud, 4)
        whole = cloud(4, [older, newer])
        assert not torch.equal(cloud(4, [torch.zeros_like(older), newer]), whole)
        assert not torch.equal(cloud(4, [older, torch.zeros_like(newer)]), whole)


def test_an_exit_s_block_gives_what_the_next_stage_expects(tiny_bundle, cloud):
    specs = {spec.n: spec for spec in cloud.backbone.stage_specs}
    with torch.inference_mode():
        for n in cloud.fused:
            fused = cloud.exits[str(n)](maps_for(tiny_bundle, cloud, n))
            assert fused.shape == (1, specs[n].channels, specs[n].size, specs[n].size)


def test_maps_of_any_grid_are_brought_to_the_size_of_the_stage():
    block = ExitBlock([2, 3], 5, size=8).eval()
    with torch.inference_mode():
        assert block([torch.zeros(1, 2, 16, 16), torch.zeros(1, 3, 4, 4)]).shape == (1, 5, 8, 8)


def view_at(size, finest, channels=2, value=1.0):
    """A view of which the first size x size of every finest x finest coefficients are known."""
    known = torch.full((1, channels, finest, finest), (size / finest) ** 2)
    return torch.cat([torch.full_like(known, value), known], dim=1)


@pytest.mark.parametrize(
    ("older", "newer", "block"),
    [(4, 4, 0), (4, 8, 1), (4, 16, 2), (8, 4, 3), (16, 16, 8), (0, 4, 0), (8, 15, 4), (7.9, 16, 2)],
)
def test_every_combination_of_sizes_has_a_block_and_a_size_counts_once_it_is_complete(older, newer, block):
    blocks = CombinationBlocks([4, 4], 5, size=8, sizes=[(4, 8, 16), (4, 8, 16)])
    assert len(blocks.blocks) == 9
    assert blocks.combination([view_at(older, 16), view_at(newer, 16)]).tolist() == [block]


def test_images_of_a_batch_that_arrived_at_different_sizes_get_each_its_own_block():
    torch.manual_seed(0)
    blocks = CombinationBlocks([4, 4], 5, size=8, sizes=[(4, 8), (2, 4)]).eval()
    pairs = [(8, 2), (4, 4), (8, 4), (4, 2), (8, 2)]
    maps = [[view_at(a, 8, value=k), view_at(b, 4, value=-k)] for k, (a, b) in enumerate(pairs)]
    with torch.inference_mode():
        together = blocks([torch.cat(parts) for parts in zip(*maps, strict=True)])
        alone = torch.cat([blocks(of_image) for of_image in maps])
    torch.testing.assert_close(together, alone)
    assert len(set(blocks.combination([torch.cat(parts) for parts in zip(*maps, strict=True)]).tolist())) == 4


def test_the_trunk_is_shared_and_not_copied(cloud):
    """One model for every exit: an exit adds its own block and nothing else."""
    trunk = {id(p) for p in cloud.backbone.parameters()}
    blocks = {id(p) for p in cloud.exits.parameters()}
    assert not trunk & blocks
    assert {id(p) for p in cloud.parameters()} == trunk | blocks


def test_a_loaded_network_is_ready_to_run(cloud):
    assert not any(module.training for module in cloud.modules())
    assert all(p.dtype == torch.float32 for p in cloud.parameters())


def test_a_manifest_with_too_few_stages_is_refused(tiny_bundle):
    with pytest.raises(FleetError, match="export it again"):
        load_cloud(replace(tiny_bundle, stages=tiny_bundle.stages[:9]))


# What does not fit --------------------------------------------------------------------------------------------
def other_layout(layout):
    return StageLayout(layout.stage, Quantiser((0.0,) * 9, (1.0,) * 9, 16), layout.ladder, layout.rungs, (0,) * 9)


@pytest.mark.parametrize(
    "changes",
    [
        lambda b: {"backbone": "resnet34"},
        lambda b: {"backbone": "perceptron"},
        lambda b: {"input_size": 48},
        lambda b: {
            "classes": replace(b.classes, ids=b.classes.ids[:4], names=b.classes.names[:4], group_of=(0, 1, 1, 2))
        },
        lambda b: {"layouts": {**b.layouts, 3: other_layout(b.layouts[3])}},
        lambda b: {"layouts": {**b.layouts, 99: b.layouts[8]}},
        lambda b: {"cloud_file": b.stages[0].files["float"]},
        lambda b: {"cloud_file": "nowhere.safetensors"},
    ],
    ids=["backbone", "no backbone", "input size", "classes", "channels", "stages", "no safetensors", "no file"],
)
def test_weights_that_do_not_fit_the_manifest_are_refused_in_one_line(tiny_bundle, changes):
    with pytest.raises(FleetError) as problem:
        load_cloud(replace(tiny_bundle, **changes(tiny_bundle)))
    assert len(str(problem.value).splitlines()) == 1
    assert len(str(problem.value)) < 500


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"\xff" * 64, lambda data: b""])
def test_weights_that_were_damaged_before_the_manifest_was_written_are_refused(tiny_copy, damage):
    file = tiny_copy / "cloud.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    manifest = json.loads((tiny_copy / MANIFEST).read_text())
    manifest["files"]["cloud.safetensors"] = sha256_of(file)
    (tiny_copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(FleetError, match=r"cloud\.safetensors does not fit the manifest"):
        load_cloud(Bundle.load(tiny_copy))


def test_a_trunk_that_has_moved_a_little_comes_back_finer_than_in_half_precision():
    random = torch.Generator().manual_seed(0)
    base = {"wide.weight": torch.randn(64, 96, 1, 1, generator=random).half(), "norm.bias": torch.randn(64).half()}
    trunk = {key: value.float() + 0.02 * torch.randn(value.shape, generator=random) for key, value in base.items()}
    packed = packed_trunk(trunk, base)
    assert packed["trunk_change.wide.weight"].dtype == torch.int8
    again = with_trunk({f"backbone.{key}": value for key, value in base.items()} | packed)
    assert set(again) == {"backbone.wide.weight", "backbone.norm.bias"}
    torch.testing.assert_close(again["backbone.norm.bias"], trunk["norm.bias"])
    error = (again["backbone.wide.weight"] - trunk["wide.weight"]).abs().max()
    assert error < (trunk["wide.weight"].half().float() - trunk["wide.weight"]).abs().max()
