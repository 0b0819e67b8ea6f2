# SPDX-License-Identifier: Apache-2.0
"""`fleet trace` and `fleet sweep` on a bundle with real, untrained networks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fleet.backbones.stage import Macs
from fleet.cli import app
from fleet.codec import StageBuffer, encode_stage
from fleet.errors import FleetError
from fleet.evaluation import recording, rivals
from fleet.evaluation.plan import parse_plan
from fleet.evaluation.recorder import Pictures, Recorder
from fleet.evaluation.sweep import run_sweep
from fleet.evaluation.trace import (
    Trace,
    fleet_logits,
    fleet_sets,
    picture_logits,
    picture_sets,
    picture_sizes,
    read_index,
)
from fleet.fusion import load_cloud
from fleet.packet import Header
from fleet.runtime import DeviceNetwork

torch = pytest.importorskip("torch", reason="torch is not installed")

LINKS = [{"ci_ms": [7.5, 30], "packets": [2], "phy": ["1M"], "payload": 120, "ack": ["link_layer"]}]
PLAN = {"links": LINKS, "platforms": ["cortex-a77-500"], "fleet": ["fleet", "fleet-single"]}


def pictures(path, labels, each=3):
    """A tar of LABEL/FILE of noise."""
    random = np.random.default_rng(len(labels))
    with tarfile.open(path, "w") as tar:
        for number in range(each):
            for label in labels:
                data = cv2.imencode(".png", random.integers(0, 255, (32, 32, 3), np.uint8))[1].tobytes()
                member = tarfile.TarInfo(f"{label}/{number}.png")
                member.size = len(data)
                tar.addfile(member, BytesIO(data))
    return path


def arguments(bundle, folder, out, *options):
    test = pictures(folder / "test.tar", ("n01", "n02", "pet", "n05"))
    calibration = pictures(folder / "train.tar", ("n01", "n03", "n04"), each=4)
    return [
        *("trace", str(bundle.path), str(test), "--calibration", str(calibration), "--calibration-pictures", "7"),
        *("--payload", "120", "--output", str(out), *options),
    ]


def run(*options):
    result = CliRunner().invoke(app, list(map(str, options)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def traced_bundle(tiny_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trace")
    run(*arguments(tiny_bundle, folder, folder / "trace", "--sets", "2"))
    return folder / "trace"


def test_a_state_s_logits_are_those_of_a_hub_that_received_its_packets(tiny_bundle, traced_bundle):
    from fleet.fusion import load_cloud  # noqa: PLC0415
    from fleet.runtime import DeviceNetwork  # noqa: PLC0415
    from fleet.sources import open_source  # noqa: PLC0415

    trace = Trace.load(traced_bundle)
    cloud, network = load_cloud(tiny_bundle), DeviceNetwork(tiny_bundle)
    with open_source(str(traced_bundle.parent / "test.tar"), realtime=False) as source:
        frames = list(iter(source.read, None))
    index = trace.index
    in_order = (index.payloads[120].states, trace.array("test", fleet_logits(120)))
    in_sets = (index.sets[120][1].states, trace.array("test", fleet_sets(120)))
    assert in_sets[1].shape[1] == 2
    compared = 0
    for image in (0, 1):
        features = network.prepare(frames[image].image)
        packets = {}
        for n in network.stage_numbers:
            output = network.run(n, features)
            features = output.features
            if n in tiny_bundle.layouts:
                layout = tiny_bundle.layouts[n]
                packets[n] = encode_stage(layout, output.latent, inference_id=0, payload=120, coder=tiny_bundle.coder)
        np.testing.assert_allclose(trace.array("test", "local")[image], features[0], atol=2e-2)
        for sets, (states, logits) in ((False, in_order), (True, in_sets)):
            for place in range(0, len(states), 7):
                state = states[place]
                wanted = {state.stage: state.own, state.stage - 1: state.before}
                found = logits[place, image]
                chosen = {}
                exists = True
                for n in cloud.fused[state.stage]:
                    many = len(packets[n])
                    picked = [k for k in range(32) if wanted[n] >> k & 1] if sets else list(range(wanted[n]))
                    exists = exists and (not picked or picked[-1] < many)
                    chosen[n] = picked
                if not exists:
                    assert np.isnan(found).all()
                    continue
                maps = []
                for n in cloud.fused[state.stage]:
                    buffer = StageBuffer(tiny_bundle.layouts[n])
                    for k in chosen[n]:
                        buffer.add(Header.unpack(packets[n][k]), packets[n][k])
                    maps.append(torch.from_numpy(buffer.view()[None]))
                with torch.inference_mode():
                    expected = cloud(state.stage, maps)[0].numpy()
                np.testing.assert_allclose(found, expected, atol=2e-2)
                compared += 1
    assert compared > 20


def test_a_recording_that_was_broken_off_goes_on_where_it_was(tiny_bundle, traced_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "BATCH", 3)
    seen = []
    mark = Recorder.mark

    def breaks(self, name, done):
        mark(self, name, done)
        seen.append((name, done))
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "mark", breaks)
    command = arguments(tiny_bundle, tmp_path, tmp_path / "trace", "--sets", "2")
    with pytest.raises((KeyboardInterrupt, SystemExit, AssertionError)):
        run(*command)
    assert not Trace(tmp_path / "trace", read_index(tmp_path / "trace")).payloads
    run(*command)
    done = [d for name, d in seen if name == f"test/{fleet_logits(120)}"]
    assert done == sorted(set(done))  # no batch was run twice
    one, other = (Trace.load(p).array("test", fleet_logits(120)) for p in (traced_bundle, tmp_path / "trace"))
    np.testing.assert_allclose(one, other, atol=1e-2)
    before = len(seen)
    run(*command)
    assert len(seen) == before


def test_a_trace_is_not_mixed_with_another_bundle_s_or_other_pictures(tiny_bundle, traced_bundle, tmp_path):
    with pytest.raises(FleetError, match="other pictures"):
        run(*arguments(tiny_bundle, tmp_path, traced_bundle, "--limit", "2"))
    with pytest.raises(FleetError, match="with a grid of 0, not 2"):
        run(*arguments(tiny_bundle, tmp_path, traced_bundle, "--grid", "2"))
    with pytest.raises(FleetError, match="12 pictures, not 99"):
        run(*arguments(tiny_bundle, tmp_path, tmp_path / "new", "--calibration-pictures", "99"))


def test_a_damaged_trace_is_refused_in_one_line(traced_bundle, tmp_path):
    import shutil  # noqa: PLC0415

    copy = shutil.copytree(traced_bundle, tmp_path / "copy")
    with (copy / "test" / "local.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(FleetError, match=r"local\.npy has changed"):
        Trace.load(copy)
    (copy / "test" / "local.npy").unlink()
    with pytest.raises(FleetError, match=r"local\.npy is missing"):
        Trace.load(copy)
    (copy / "index.json").write_text("{")
    with pytest.raises(FleetError, match="damaged"):
        Trace.load(copy)
    with pytest.raises(FleetError, match="is no trace"):
        Trace.load(tmp_path)


@dataclass
class Step:
    name: str
    macs: Macs
    stage: int | None
    activations: int = 0


@dataclass
class Exit:
    name: str
    stage: int
    row: int
    shared: tuple
    own: tuple


@dataclass
class Upload:
    name: str
    row: int
    steps: tuple
    after: int | None
    split: int | None
    settings: dict


@dataclass
class Answers:
    logits: np.ndarray
    bytes: np.ndarray


STEP = Step("stage 1", Macs(conv=100_000), 1)
GOOD = {"n01": 0, "n02": 1, "pet": 1, "n03": 2, "n04": 3, "n05": 4}


class Rival:
    """Knows the truth of every image but the first so many."""

    note, temperatures, rows = "for tests", (1.0, 1.0), ("poor", "good")

    def __init__(self, name, truths):
        self.name, self.truths = name, truths
        self.kind = "local" if name == "branchynet" else "offload"
        self.exits = (Exit("1", 1, 0, (STEP,), ()), Exit("2", 2, 1, (STEP,), (STEP,)))
        self.uploads = (
            Upload("small", 0, (STEP,), None, None, {"headers": "standard"}),
            Upload("large", 1, (STEP,), None, None, {"headers": "standard"}),
            Upload("large, stripped", 1, (STEP,), None, None, {"headers": "stripped"}),
        )

    def answer(self, images):
        truth = self.truths[len(images)]
        wrong = (truth + 1) % 5
        logits = np.stack([np.eye(5)[wrong], np.eye(5)[truth]]).astype(np.float32) * 5
        sizes = (
            np.repeat([[100], [900], [300]], len(images), axis=1)
            if self.kind == "offload"
            else np.zeros((0, len(images)))
        )
        return Answers(logits, sizes.astype(np.int32))


@pytest.fixture
def with_rivals(traced_bundle, tmp_path):
    import shutil  # noqa: PLC0415

    copy = shutil.copytree(traced_bundle, tmp_path / "copy")
    recorder = Recorder(copy, read_index(copy))
    groups = {s: np.asarray(Trace(copy, recorder.index).array(s, "truths")) for s in ("test", "calibration")}
    first_class = {g: c for c, g in reversed(list(enumerate(recorder.index.classes.group_of)))}
    truths = {len(t): np.asarray([first_class[g] for g in t]) for t in groups.values()}
    schemes = [Rival(name, truths) for name in ("branchynet", "jpeg")]
    for split, truth in groups.items():
        rivals.save_rivals(recorder, schemes, split, np.zeros((len(truth), 32, 32, 3), np.uint8))
    return copy


def test_a_sweep_compares_every_scheme_at_the_same_accuracy(with_rivals):
    trace = Trace.load(with_rivals)
    assert trace.rivals == ("branchynet", "jpeg")
    document = run_sweep(trace, parse_plan(PLAN, default_name="small"), workers=1)
    assert document["kind"] == "sweep"
    assert document["conditions"]["test"]["pictures"] == 12
    assert len(document["rows"]) == 2
    assert document["schemes"]["jpeg-stripped"]["family"] == "jpeg-stripped"
    for row in document["rows"]:
        schemes, ci_ms = row["schemes"], row["link"]["ci_ms"]
        assert row["target"] == pytest.approx(0.99)  # the best local early exit is always right
        assert row["bound_ms"] == pytest.approx(1.5 * ci_ms + 5)
        assert schemes["branchynet"]["reached"]
        assert schemes["branchynet"]["point"]["exits"] == ["2"]
        assert schemes["branchynet"]["latency_ms"] == pytest.approx(3 * 100_000 / 650e6 * 1000, abs=1e-4)
        assert schemes["branchynet"]["radio_mj"] == 0
        assert schemes["jpeg"]["point"]["upload"] == "large"  # the small one is never right
        assert schemes["jpeg"]["bytes"] == 900
        assert schemes["jpeg-stripped"]["bytes"] == 300
        assert schemes["jpeg"]["accuracy"] == 1.0
        assert not schemes["fleet"]["reached"]  # untrained
        assert not schemes["whole-network"]["reached"]
        assert row["best"]["all"] == "branchynet"
        assert row["best"]["partition"] is None
        for result in schemes.values():
            if result["reached"]:
                assert sum(result["latency_parts_ms"].values()) == pytest.approx(result["latency_ms"], abs=1e-3)
                low, high = result["latency_ms_95"]
                assert low <= result["latency_ms"] + 1e-3
                assert high >= result["latency_ms"] - 1e-3


def test_speed_ups_are_the_rival_s_mean_over_ours_and_paired(with_rivals):
    """With a target that everybody reaches, FLEET's untrained exits are compared, too."""
    plan = parse_plan({**PLAN, "target_loss": 1.0, "curves": True}, default_name="small")
    row = run_sweep(Trace.load(with_rivals), plan, workers=1)["rows"][0]
    ours, jpeg = row["schemes"]["fleet"], row["schemes"]["jpeg"]
    up = row["speed_up"]["fleet"]["jpeg"]
    assert up["value"] == pytest.approx(jpeg["latency_ms"] / ours["latency_ms"], abs=1e-3)
    assert up["bound"] == pytest.approx(jpeg["latency_ms"] / row["bound_ms"], abs=1e-3)
    assert up["95"][0] <= up["value"] <= up["95"][1]
    saving = row["energy_saving"]["fleet"]["jpeg"]
    assert saving["value"] == pytest.approx(jpeg["energy_mj"] / ours["energy_mj"], rel=1e-2)
    assert row["byte_ratio"]["fleet"]["jpeg"]["value"] == pytest.approx(ours["bytes"] / jpeg["bytes"], abs=1e-3)
    assert {point["upload"] for point in row["curves"]["jpeg"]} == {"small", "large"}
    assert [point["threshold"] for point in row["curves"]["fleet-single"]][:2] == ["0.1", "0.2"]


def test_two_processes_give_what_one_gives(with_rivals):
    plan = parse_plan({**PLAN, "units": ["group", "class"]}, default_name="small")
    one, two = (run_sweep(Trace.load(with_rivals), plan, workers=n) for n in (1, 2))
    assert one == two


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc, which is not here")
def test_a_sweep_that_is_killed_leaves_no_worker_behind(with_rivals, tmp_path):
    config = tmp_path / "plan.yaml"
    config.write_text(json.dumps({**PLAN, "units": ["group", "class"], "links": [{**LINKS[0], "packets": [1, 2, 3]}]}))
    mark = f"FLEET_TEST_MARK={tmp_path.name}".encode()
    command = [sys.executable, "-m", "fleet", "sweep", str(with_rivals), str(config), "--workers", "2"]
    sweep = subprocess.Popen(
        [*command, "--output", str(tmp_path / "out.json")],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "FLEET_TEST_MARK": tmp_path.name},
    )

    def workers():
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes() and b"spawn_main" in (entry / "cmdline").read_bytes():
                    found.add(entry.name)
            except OSError:  # it has just ended, or is somebody else's
                continue
        return found

    def until(condition, what):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.02)

    try:
        until(lambda: len(workers()) == 2 or sweep.poll() is not None, "two workers")
        assert sweep.poll() is None
    finally:
        sweep.kill()
        sweep.wait()
    until(lambda: not workers(), f"the end of {workers()}")


def test_losses_slow_down_what_needs_every_byte(with_rivals, tmp_path):
    config = tmp_path / "losses.yaml"
    losses = {**PLAN, "target_loss": 1.0, "losses": {"shares": [0, 0.4, 0.8], "masks": 3}}
    config.write_text(json.dumps(losses))
    out = tmp_path / "losses.json"
    run("sweep", with_rivals, config, "--output", out, "--workers", 1)
    document = json.loads(out.read_text())
    assert document["kind"] == "losses"
    assert document["conditions"]["losses"]["first_pictures"] == {"120": 2}
    rows = [row for row in document["rows"] if row["link"]["ci_ms"] == 7.5]
    assert [row["loss"] for row in rows] == [row["link"]["loss"] for row in rows] == [0, 0.4, 0.8]
    for name in ("jpeg", "fleet"):
        times = [row["schemes"][name]["latency_ms"] for row in rows]
        assert times[0] < times[2]
    still = [row["schemes"]["branchynet"]["latency_ms"] for row in rows]
    assert len(set(still)) == 1


def test_a_plan_that_the_trace_cannot_serve_is_refused_in_one_line(traced_bundle, tmp_path):
    def refused(entries):
        config = tmp_path / "plan.yaml"
        config.write_text(json.dumps(entries))
        with pytest.raises(FleetError) as caught:
            run("sweep", traced_bundle, config, "--output", tmp_path / "out.json")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "--payload 244" in refused({**PLAN, "links": [{"ci_ms": 10}]})
    assert "no rival 'clio'" in refused({**PLAN, "rivals": ["clio"]})
    assert "without local exits" in refused({**PLAN, "fleet": ["fleet-race"]})
    assert "does not say how long" in refused({**PLAN, "platforms": ["native"]})
    assert "no variant fleeet" in refused({**PLAN, "fleet": ["fleeet"]})
    assert "unknown key link" in refused({**PLAN, "link": []})
    assert "below 1" in refused({**PLAN, "losses": {"shares": [1.0]}})
    assert "multiple of 1.25" in refused({**PLAN, "links": [{"ci_ms": 8}]})
    assert "no key cy" in refused({**PLAN, "links": [{"cy": 8}]})


def test_links_on_which_nothing_fits_are_left_out_and_the_rest_ascends():
    blocks = [{"ci_ms": {"from": 7.5, "to": 100, "count": 5}, "phy": ["1M", "125k"], "ack": ["link_layer"]}]
    plan = parse_plan({"links": blocks}, default_name="x")
    of_phy = {links[0].phy: [link.ci_ms for link in links] for links in plan.links}
    assert of_phy["1M"] == [7.5, 13.75, 27.5, 52.5, 100.0]
    assert of_phy["125k"] == [27.5, 52.5, 100.0]


# The picture itself -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def picture_trace(with_picture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("picture")
    run(*arguments(with_picture[0], folder, folder / "trace"))
    run(*arguments(with_picture[0], folder, folder / "trace", "--picture-only", "--payload", "40", "--sets", "3"))
    return folder / "trace"


def test_the_picture_s_logits_are_those_of_a_hub_that_received_its_packets(with_picture, picture_trace):
    bundle = with_picture[0]
    trace, cloud, network = Trace.load(picture_trace), load_cloud(bundle), DeviceNetwork(bundle)
    frames = Pictures(str(picture_trace.parent / "test.tar")).read()
    logits, sizes = (trace.array("test", name(40)) for name in (picture_logits, picture_sizes))
    sets = np.load(picture_trace / "test" / f"{picture_sets(120)}.npy")
    for image, frame in enumerate(frames):
        latent = network.run_picture(network.prepare(frame.image))
        packets = encode_stage(bundle.layouts[0], latent, inference_id=0, payload=40, coder=bundle.coder)
        assert [len(packet) for packet in packets] == [size for size in sizes[:, image] if size]
        buffer = StageBuffer(bundle.layouts[0])
        for count, packet in enumerate(packets):
            buffer.add(Header.unpack(packet), packet)
            with torch.inference_mode():
                expected = cloud(0, [torch.from_numpy(buffer.view()[None])])[0]
            np.testing.assert_allclose(logits[count, image], expected, rtol=2e-2, atol=2e-2)
        assert np.isnan(logits[len(packets) :, image]).all()
    in_order = trace.array("test", picture_logits(120))[:, :3]
    for count, row in enumerate(in_order, start=1):
        np.testing.assert_allclose(sets[(1 << count) - 2], row, rtol=1e-2, atol=1e-2)


def test_variants_with_the_picture_stand_beside_the_others(picture_trace, tmp_path):
    """Untrained exits are worth nothing: with this target everybody may answer at once."""
    every = ["fleet", "fleet-picture", "fleet-picture-thrifty"]
    plan = parse_plan({**PLAN, "fleet": every, "target_loss": 1.0, "guard": False}, default_name="all")
    found = run_sweep(Trace.load(picture_trace), plan, workers=1)
    for row in found["rows"]:
        assert set(every) <= {name for name, scheme in row["schemes"].items() if scheme["reached"]}
        picture, thrifty = (row["schemes"][name] for name in every[1:])
        assert thrifty["bytes"] <= picture["bytes"]
    losses = {"shares": [0, 0.5], "masks": 2}
    lossy = parse_plan({**PLAN, "fleet": ["fleet-picture"], "target_loss": 1.0, "losses": losses}, default_name="lossy")
    without, half = (
        row["schemes"]["fleet-picture"] for row in run_sweep(Trace.load(picture_trace), lossy, workers=1)["rows"][:2]
    )
    assert half["latency_ms"] > without["latency_ms"]


def test_a_trace_of_another_picture_is_recorded_anew_and_everything_else_kept(with_picture, picture_trace, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(with_picture[0].path, folder)
    layout = with_picture[0].layouts[0]
    quantiser = replace(layout.quantiser, step=tuple(2 * step for step in layout.quantiser.step))
    layouts = {**with_picture[0].layouts, 0: replace(layout, quantiser=quantiser)}
    other = replace(with_picture[0], path=folder, layouts=layouts).save()
    shutil.copytree(picture_trace, tmp_path / "trace")
    shutil.copy(picture_trace.parent / "test.tar", tmp_path)
    before = read_index(tmp_path / "trace").arrays
    run(*arguments(other, tmp_path, tmp_path / "trace", "--picture-only"))
    after = read_index(tmp_path / "trace").arrays
    assert after["test/picture-120-logits"] != before["test/picture-120-logits"]
    kept = {name for name in before if "/picture-" not in name}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


def test_a_model_without_a_picture_has_none_to_record(tiny_bundle, tmp_path):
    result = CliRunner().invoke(app, arguments(tiny_bundle, tmp_path, tmp_path / "trace", "--picture-only"))
    assert result.exit_code != 0
    assert "has no stage 0" in str(result.exception or result.output)
