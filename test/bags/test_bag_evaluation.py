# SPDX-License-Identifier: Apache-2.0
"""A bag replayed through the code that ran it."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from bag_facts import BEGIN_NS, FIRST_ID, FRAMES, fleet_bag, fleet_bag_process

from fleet.bags.definitions import DIAGNOSTICS, INFERENCE, LABEL, LINK, PACKETS
from fleet.bags.evaluation import Wishes, evaluate_bag
from fleet.bags.writer import BagWriter
from fleet.errors import FleetError
from fleet.link.parameters import LinkParameters
from fleet.packet import LocalAnswer

IDS = [(FIRST_ID + k) % 65536 for k in range(FRAMES)]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("source", ["images", "packets"])
def test_a_replay_says_what_the_run_said(make_bag, storage, source):
    found = evaluate_bag(make_bag(storage=storage), Wishes(source=source)).as_json()
    camera = found["cameras"]["/backyard"]
    assert camera["frames"] == camera["compared"] == camera["replay"]["labels"] == FRAMES
    assert camera["differences"] == []
    assert camera["replay"]["exits"] == camera["bag"]["exits"]
    for spread in ("p50", "p95", "p99"):
        assert camera["replay"]["latency_ms"][spread] == pytest.approx(camera["bag"]["latency_ms"][spread], abs=0.01)
    assert camera["replay"]["frames_with_truth"] == FRAMES
    assert camera["replay"]["accuracy_groups"] == camera["bag"]["accuracy_groups"]
    if source == "images":
        assert camera["replay"]["energy_mj"]["p50"] == pytest.approx(camera["bag"]["energy_mj"]["p50"], abs=0.01)


def test_twice_is_the_same_to_the_byte(make_bag, tmp_path):
    """In a process of its own, where hashes are others and nothing was run before, and in this one."""
    bag = make_bag(cameras=("/porch", "/yard/gate"), frames=3, pictures="jpeg")
    for source in ("images", "packets"):
        runs = []
        for evaluate in (fleet_bag_process, fleet_bag):
            out = tmp_path / f"{source}{len(runs)}.json"
            wishes = ("--link", "loss=0.3", "packets=2") if source == "images" else ()
            done = evaluate("evaluate", bag, "--from", source, *wishes, "--json", out)
            assert done.returncode == 0, done.stderr
            runs.append((done.stdout, out.read_bytes()))
        assert runs[0] == runs[1]
        assert json.loads(runs[0][1])["cameras"].keys() == {"/porch", "/yard/gate"}


def test_the_storage_makes_no_difference(make_bag):
    found = [
        evaluate_bag(make_bag(storage, storage=storage), Wishes()).as_json()["cameras"]
        for storage in ("mcap", "sqlite3")
    ]
    assert found[0] == found[1]


def test_a_single_storage_file_is_a_bag_too(make_bag):
    for storage, suffix in (("mcap", ".mcap"), ("sqlite3", ".db3")):
        bag = make_bag(storage, storage=storage)
        found = evaluate_bag(bag / f"{storage}{suffix}", Wishes()).as_json()
        assert found["cameras"]["/backyard"]["differences"] == []


def test_every_camera_is_replayed_from_what_it_has_and_one_can_be_chosen(make_bag, simulated, tiny_system, tmp_path):
    bag = make_bag(cameras=("/porch", "/yard/gate"), frames=3)
    found = evaluate_bag(bag, Wishes(cameras=("yard/gate/",))).as_json()
    assert list(found["cameras"]) == ["/yard/gate"]
    assert found["cameras"]["/yard/gate"]["differences"] == []
    with pytest.raises(FleetError, match=r"no camera /cellar; it has: /porch, /yard/gate"):
        evaluate_bag(bag, Wishes(cameras=("cellar",)))

    mixed = tmp_path / "mixed"
    with BagWriter(mixed) as writer:
        for k, (camera, pictures) in enumerate((("/a", "png"), ("/b", ""))):
            frames = [_frame(k), _frame(k + 1)]
            options = {"begin_ns": BEGIN_NS + k, "period_s": 2.0, "pictures": pictures}
            simulated.record(writer, camera, tiny_system, frames, **options)
    cameras = evaluate_bag(mixed, Wishes()).as_json()["cameras"]
    assert {name: camera["from"] for name, camera in cameras.items()} == {"/a": "images", "/b": "packets"}
    assert [camera["differences"] for camera in cameras.values()] == [[], []]


def _frame(seed):
    from fleet.sources import Frame  # noqa: PLC0415

    return Frame(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8), f"{seed}.png", "pet", None)


def test_labels_that_differ_are_listed_with_both_words(make_bag, tiny_system, unsure, tmp_path):
    """The bag's run never let an exit answer before the last; the replay's model does."""
    bag = make_bag(system=unsure, pictures="")
    found = evaluate_bag(bag, Wishes(source="packets", model=str(tiny_system.device.bundle.path)))
    (camera,) = found.cameras.values()
    told = camera.as_json()
    changed = {i for i, label in _labels(bag).items() if label != _said(camera, i)}
    assert {d.id for d in camera.differences()} == changed
    assert sum(told["different"].values()) == len(changed)
    for difference in camera.differences():
        assert difference.bag.group in difference.line()
        assert difference.line().split()[0] == str(difference.id)


def _labels(path):
    from fleet.bags.reader import BagReader  # noqa: PLC0415

    with BagReader(path) as bag:
        return {
            m.content.inference_id: (m.content.group, m.content.class_name) for m in bag.messages((LABEL,), bag.cameras)
        }


def _said(camera, inference_id):
    for key, said in camera.replay.said.items():
        if key[1] == inference_id:
            return said.group, said.class_name
    return None


def test_a_hub_that_is_slower_answers_later_and_a_camera_of_another_link_too(make_bag):
    bag = make_bag()
    quick, slow = (
        evaluate_bag(bag, Wishes(source="packets", exit_ms=ms)).as_json()["cameras"]["/backyard"] for ms in (1.0, 40.0)
    )
    assert slow["replay"]["latency_ms"]["p50"] > quick["replay"]["latency_ms"]["p50"] + 30
    usual, rare = (
        evaluate_bag(bag, Wishes(link=link)).as_json()["cameras"]["/backyard"]["replay"]["latency_ms"]["p50"]
        for link in ((), ("ci_ms=500",))
    )
    assert rare > 2 * usual


def test_the_link_follows_the_renegotiations_of_the_bag(make_bag, simulated, tiny_system, tmp_path):
    """Two frames on a quick link, two on one whose next event comes after the device is done."""
    slow = LinkParameters(ci_ms=4000, packets=1)
    bag = tmp_path / "bag"
    frames = [_frame(k) for k in range(4)]
    with BagWriter(bag) as writer:
        options = {"period_s": 5.0, "pictures": "png"}
        simulated.record(writer, "/a", tiny_system, frames[:2], begin_ns=BEGIN_NS, **options)
        other = replace(tiny_system, link=slow)
        simulated.record(writer, "/a", other, frames[2:], begin_ns=BEGIN_NS + 30_000_000_000, first_id=3, **options)
    (camera,) = evaluate_bag(bag, Wishes()).cameras.values()
    latency = [said.latency_ms for said in camera.replay.said.values()]
    assert [said.source for said in camera.replay.said.values()][2:] == ["device", "device"]
    assert max(latency[:2]) < min(latency[2:])


def test_what_the_bag_lacks_is_counted_and_not_taken_for_a_difference(make_bag, simulated, tiny_system, tmp_path):
    no_labels = make_bag("no_labels", topics=("image/compressed", PACKETS, LINK, DIAGNOSTICS))
    camera = evaluate_bag(no_labels, Wishes()).as_json()["cameras"]["/backyard"]
    assert (camera["frames"], camera["compared"], camera["frames_without_label_in_bag"]) == (FRAMES, 0, FRAMES)
    assert camera["replay"]["labels"] == FRAMES
    assert camera["replay"]["accuracy_groups"] is None

    late = tmp_path / "late"  # the recorder came after the second frame: its labels are latched, its pictures are gone
    with BagWriter(late) as writer:
        options = {"period_s": 2.0, "pictures": "png"}
        words = (LABEL, INFERENCE, LINK)
        simulated.record(writer, "/a", tiny_system, [_frame(1)], begin_ns=BEGIN_NS, topics=words, **options)
        simulated.record(
            writer, "/a", tiny_system, [_frame(2)], begin_ns=BEGIN_NS + 2_000_000_000, first_id=2, **options
        )
    camera = evaluate_bag(late, Wishes()).as_json()["cameras"]["/a"]
    assert (camera["frames"], camera["compared"], camera["labels_not_replayed"]) == (1, 1, 1)


def test_a_camera_without_stamps_is_told_apart_by_ids_alone(make_bag, simulated, monkeypatch):
    header = simulated._header
    monkeypatch.setattr(simulated, "_header", lambda _stamp: header(0))
    bag = make_bag()
    for source in ("images", "packets"):
        camera = evaluate_bag(bag, Wishes(source=source)).as_json()["cameras"]["/backyard"]
        assert (camera["compared"], camera["differences"]) == (FRAMES, [])


# Another model ------------------------------------------------------------------------------------------------
@pytest.fixture
def other_model(tiny_bundle, tmp_path):
    """The same network with other thresholds, and so another identity."""
    from fleet.bundle import Bundle  # noqa: PLC0415

    path = shutil.copytree(tiny_bundle.path, tmp_path / "other")
    copy = Bundle.load(path)
    return replace(copy, decider=replace(copy.decider, thresholds=dict.fromkeys(copy.layouts, 0.01))).save()


def test_a_bag_of_another_bundle_says_so(make_bag, other_model, tiny_bundle):
    bag = make_bag()
    for source in ("images", "packets"):
        done = fleet_bag("evaluate", bag, "--from", source, "--model", other_model.path)
        assert done.returncode == 0, done.stderr
        assert f"note: /backyard was recorded with another bundle ({tiny_bundle.path}, " in done.stdout
        assert tiny_bundle.identity.hex() in done.stdout
        assert other_model.identity.hex() in done.stdout


def test_packets_of_another_bundle_are_refused_unless_it_is_asked_for(make_bag, simulated, monkeypatch):
    monkeypatch.setattr(simulated, "_status", _of_nobody(simulated._status))
    done = fleet_bag_process("evaluate", make_bag(), "--from", "packets")
    assert done.returncode == 2
    assert "was recorded with another bundle" in done.stderr
    assert "--model" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def _of_nobody(status):
    """The model that the bag names is not on this machine."""

    def made(camera, system):
        message = status(camera, system)
        for pair in message.values:
            pair.value = "/nowhere/model" if pair.key == "model" else pair.value
        return message

    return made


def test_a_bag_without_diagnostics_gives_its_bundle_away_by_its_labels(make_bag):
    bag = make_bag(topics=("image/compressed", LABEL, LINK))
    found = evaluate_bag(bag, Wishes(model="backyard"))
    assert any("was recorded with another bundle than" in note for note in found.notes)


# What may be wrong --------------------------------------------------------------------------------------------
def test_packets_of_garbage_are_counted_and_harm_no_frame(make_bag, simulated, monkeypatch):
    clean = evaluate_bag(make_bag(), Wishes(source="packets")).as_json()["cameras"]["/backyard"]
    rng = np.random.default_rng(0)
    junk = itertools.cycle(
        [b"", b"?", rng.bytes(244), bytes(8), LocalAnswer(1, 60000, 0.5).pack(), b"\xff" * 244, rng.bytes(60)]
    )
    write = BagWriter.write

    def noisy(writer, camera, name, time_ns, message):
        write(writer, camera, name, time_ns, message)
        if name == PACKETS:
            data = np.frombuffer(next(junk), np.uint8)
            noise = simulated.message("fleet_msgs/msg/FeaturePacket", header=message.header, data=data)
            write(writer, camera, name, time_ns, noise)

    monkeypatch.setattr(BagWriter, "write", noisy)
    found = evaluate_bag(make_bag("noisy"), Wishes(source="packets")).as_json()["cameras"]["/backyard"]
    assert found["packets"] == 2 * clean["packets"]
    assert found["unreadable"] > clean["packets"] / 2
    assert found["replay"]["labels"] >= FRAMES - 1  # noise that happens to be a header begins a frame of its own


def test_pictures_that_do_not_decode_are_counted(make_bag, simulated, monkeypatch):
    encode = simulated.cv2.imencode
    made = iter(range(100))

    def sometimes(suffix, picture):
        good, data = encode(suffix, picture)
        return good, data if next(made) % 2 else np.frombuffer(b"no picture", np.uint8)

    monkeypatch.setattr(simulated.cv2, "imencode", sometimes)
    camera = evaluate_bag(make_bag(), Wishes()).as_json()["cameras"]["/backyard"]
    assert (camera["images"], camera["unreadable"], camera["frames"]) == (FRAMES, FRAMES // 2, FRAMES // 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "sound"], "--from is auto, images or packets, not 'sound'"),
        (["--link", "ci_ms=5"], "5 ms"),
        (["--link", "ci=30"], "'ci' is not a setting of a link"),
        (["--link", "ci_ms=30", "packets=none"], "packets"),
        (["--platform", "abacus"], "abacus"),
        (["--platform", "native"], "does not say how long a stage takes"),
        (["--from", "packets", "--link", "ci_ms=30"], "packets are replayed as they came"),
        (["--model", "no_such"], "no model bundle 'no_such'"),
        (["--camera", "cellar"], "no camera /cellar"),
        (["--json", "/no/such/folder/x.json"], "cannot write"),
    ],
)
def test_a_wrong_wish_is_one_line(make_bag, arguments, words):
    done = fleet_bag("evaluate", make_bag(frames=1), *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_words_of_a_bag_cannot_steer_the_terminal(make_bag, simulated, monkeypatch):
    label = simulated._label

    def rude(*arguments):
        after, values = label(*arguments)
        return after, values | {"class_name": "\x1b[2Jtractor\n"}

    monkeypatch.setattr(simulated, "_label", rude)
    done = fleet_bag_process("evaluate", make_bag(frames=1))
    assert done.returncode == 0, done.stderr
    assert "?[2Jtractor?" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_link_that_is_none_names_the_camera(make_bag, simulated, monkeypatch):
    link = simulated._link
    monkeypatch.setattr(simulated, "_link", lambda parameters: link(parameters) | {"ci_ms": 1.0})
    with pytest.raises(FleetError, match="link/parameters of /backyard are those of no link"):
        evaluate_bag(make_bag(frames=1), Wishes())


def test_nothing_to_replay_is_said(make_bag):
    bag = make_bag(topics=(LABEL, INFERENCE, LINK))
    with pytest.raises(FleetError, match="no pictures or packets of /backyard"):
        evaluate_bag(bag, Wishes())
    with pytest.raises(FleetError, match="no link/packets of /backyard"):
        evaluate_bag(bag, Wishes(source="packets"))
