# SPDX-License-Identifier: Apache-2.0
"""Stage 0: the picture's transform, its order on the air, and its files in a bundle."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.bundle import MANIFEST, Bundle
from fleet.codec import Quantiser, StageBuffer, StageLayout, coder_named, encode_stage
from fleet.errors import FleetError
from fleet.ladder import Ladder
from fleet.packet import Header
from fleet.runtime import DeviceNetwork

torch = pytest.importorskip("torch", reason="torch is not installed")
from safetensors.torch import load_file, save_file  # noqa: E402

from fleet.backbones import STD  # noqa: E402
from fleet.fusion import CloudNetwork, load_cloud  # noqa: E402
from fleet.picture import PictureEncoder, PictureExit, cosines  # noqa: E402


def layout(waves, *, channels=8, grid=4):
    return StageLayout(
        stage=0,
        quantiser=Quantiser((-2.0,) * channels, (0.25,) * channels, 16),
        ladder=Ladder(grid, 0),
        rungs=(grid,),
        mean_levels=(8,) * channels,
        waves=waves,
    )


# The transform ------------------------------------------------------------------------------------------------
def test_the_cosines_are_orthonormal_and_begin_with_the_mean():
    basis = cosines(8, 64).reshape(64, 64)
    np.testing.assert_allclose(basis @ basis.T, np.eye(64), atol=1e-6)
    np.testing.assert_allclose(basis[0], 1 / 8, atol=1e-6)
    np.testing.assert_allclose(cosines(8, 3)[1].mean(0), cosines(8, 3)[2].mean(1), atol=1e-6)  # zigzag: across, down


def test_the_encoder_begins_as_jpeg_s_transform():
    encoder = PictureEncoder(16, grid=2, luma=3, chroma=1, levels=64)
    grey = torch.tensor(STD)[:, None, None].reciprocal() * torch.full((1, 3, 16, 16), 0.4)
    numbers = encoder(grey)[0]  # (5, 2, 2)
    np.testing.assert_allclose(numbers[0].detach(), 8 * 0.4 * 3 / sum(STD), rtol=1e-4)  # eight times the block's mean
    np.testing.assert_allclose(numbers[1:].detach(), 0.0, atol=1e-4)  # no colour, no waves


def test_the_exit_begins_by_undoing_the_transform():
    encoder = PictureEncoder(16, grid=2, luma=64, chroma=16, levels=64)  # everything but the colours' fine detail
    exit0 = PictureExit(encoder.channels, grid=2, block=8, stages=[]).eval()
    exit0.start_as_inverse(encoder)
    picture = torch.nn.functional.interpolate(torch.randn(2, 3, 8, 8), scale_factor=2.0)  # without such detail
    with torch.no_grad():
        latent = encoder(picture)
        again = exit0.picture(torch.cat([latent, torch.ones_like(latent)], dim=1))
    np.testing.assert_allclose(again, picture, atol=1e-3)


def test_zero_is_a_level_of_every_number():
    encoder = PictureEncoder(16, grid=2, luma=4, chroma=2, levels=64)
    nothing = torch.zeros(1, encoder.channels, 2, 2)
    np.testing.assert_allclose(encoder.quantise(nothing).detach(), 0.0, atol=1e-5)


# The order ----------------------------------------------------------------------------------------------------
@given(waves=st.lists(st.integers(1, 5), min_size=1, max_size=5), grid=st.sampled_from([2, 4, 8]))
def test_a_wave_travels_whole_before_the_next_begins(waves, grid):
    made = layout(tuple(waves), channels=sum(waves), grid=grid)
    order = made.spread_order
    assert sorted(order.tolist()) == list(range(made.count))
    first = 0
    for end in np.cumsum(waves).tolist():
        channels = set((order[first * grid**2 : end * grid**2] // grid**2).tolist())
        assert channels == set(range(first, end))
        first = end


@pytest.mark.parametrize("waves", [(8, 1), (0, 8), (-1, 9), (3, 4)])
def test_waves_that_do_not_share_the_channels_out_are_refused(waves):
    with pytest.raises(FleetError, match="waves share 8 channels"):
        layout(waves)


def test_waves_and_rungs_exclude_each_other():
    with pytest.raises(FleetError, match="of one rung"):
        replace(layout(()), ladder=Ladder(2, 1), rungs=(2, 4), waves=(4, 4))


def test_the_first_packet_describes_the_whole_picture_coarsely(picture_bundle):
    made = picture_bundle.layouts[0]
    levels = np.random.default_rng(3).integers(0, 16, (made.channels, 4, 4))
    packets = encode_stage(
        made, made.quantiser.dequantise(levels), inference_id=1, payload=76, coder=coder_named("plain")
    )
    buffer = StageBuffer(made)
    buffer.add(Header.unpack(packets[0]), packets[0])
    known = buffer.view()[made.channels :]
    assert known[:8].all()  # the first wave
    assert not known[9:].any()


# The bundle ---------------------------------------------------------------------------------------------------
def test_a_bundle_with_a_picture_comes_back_as_it_was_saved(with_picture, tiny_bundle):
    bundle, encoder, _ = with_picture
    assert bundle.picture is not None
    assert sorted(bundle.layouts) == [0, *sorted(tiny_bundle.layouts)]
    assert bundle.exit_stages == tiny_bundle.exit_stages
    assert sum(bundle.layouts[0].waves) == bundle.layouts[0].channels == encoder.channels
    plain = bundle.without_picture()
    assert plain.layouts == tiny_bundle.layouts
    assert plain.picture is None
    # Brightness of three colours, two waves along a row of eight, five down a column, two colours at half the
    # resolution and the sums for that; then five operations to code a number, and what its contexts look at.
    macs = 3 * 1024 + 2 * 1024 + 5 * 8 * 16 + 6 * 256 + 4 * 256 + 3 * 1024
    macs += 5 * 9 * 16 + 16 * bundle.layouts[0].contexts.operations
    assert sum(bundle.picture.macs.values()) == macs


def test_the_device_s_stage_0_gives_what_the_encoder_does(with_picture):
    bundle, encoder, _ = with_picture
    network = DeviceNetwork(bundle)
    image = network.prepare(np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    with torch.no_grad():
        expected = encoder(torch.from_numpy(image))[0]
    # Weights are kept in half precision.
    np.testing.assert_allclose(network.run_picture(image), expected, atol=0.02)


def test_the_hub_s_exit_0_is_what_was_exported_within_a_byte_s_step(with_picture, tiny_bundle):
    bundle, _, exit0 = with_picture
    cloud = load_cloud(bundle)
    assert cloud.fused == {0: (0,), **load_cloud(tiny_bundle).fused}
    maps = [torch.randn(4, 18, 4, 4)]
    with torch.no_grad():
        expected = cloud.backbone.from_stage(3, exit0(maps))
        found = cloud(0, maps)
    assert found.shape == (4, len(bundle.classes))
    np.testing.assert_allclose(found, expected, atol=0.05 * float(expected.abs().max()))
    own, shared = (part.stages[1].state_dict()["block.0.0.weight"] for part in (cloud.exits["0"], cloud.backbone))
    assert not torch.equal(own, shared)


def test_exits_of_different_frames_go_through_the_trunk_together(with_picture):
    cloud = load_cloud(with_picture[0])
    assert isinstance(cloud, CloudNetwork)
    random = torch.Generator().manual_seed(5)
    layouts = with_picture[0].layouts
    views = {
        n: [
            torch.randn(
                2, 2 * layouts[m].channels, layouts[m].ladder.finest, layouts[m].ladder.finest, generator=random
            )
            for m in cloud.fused[n]
        ]
        for n in (0, 1, 3, 4)
    }
    with torch.no_grad():
        together = cloud.forward_many(views)
        for n, maps in views.items():
            torch.testing.assert_close(together[n], cloud(n, maps), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.pop("cloud"), "it has no 'cloud'"),
        (lambda p: p.pop("latent"), "it has no 'latent'"),
        (lambda p: p.update(cloud="other.safetensors"), "no checksum for 'other.safetensors'"),
        (lambda p: p["latent"].update(base=3), "has no 3 blocks"),
        (lambda p: p["latent"].update(waves=[1, 2]), "waves share 9 channels"),
        (lambda p: p.update(files={}), "needs the name of a file"),
    ],
)
def test_a_manifest_that_describes_no_picture_is_refused_in_one_line(with_picture, tmp_path, change, words):
    folder = tmp_path / "damaged"
    shutil.copytree(with_picture[0].path, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest["picture"])
    if words.startswith("has no 3"):
        manifest["picture"]["latent"].update(rungs=[3], doublings=0)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(FleetError, match=words) as refused:
        Bundle.load(folder)
    assert "\n" not in str(refused.value)


def test_a_hub_s_file_of_another_picture_is_refused_in_one_line(with_picture, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(with_picture[0].path, folder)
    state = load_file(folder / "picture.safetensors")
    state.pop("paint.bias")
    save_file(state, folder / "picture.safetensors")
    with pytest.raises(FleetError, match="does not fit the manifest") as refused:
        load_cloud(replace(with_picture[0], path=folder))
    assert "\n" not in str(refused.value)
