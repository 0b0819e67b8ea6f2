# SPDX-License-Identifier: Apache-2.0
"""Bags as files: both storages, and everything that may be wrong with one."""

from __future__ import annotations

import random
import re
import sqlite3

import numpy as np
import pytest
from bag_facts import BEGIN_NS, FRAMES, fleet_bag

from fleet.bags.definitions import ALL, IMAGE, LABEL, LINK, PACKETS, definition, full_name, place_of, quoted, typestore
from fleet.bags.evaluation import Wishes, evaluate_bag
from fleet.bags.reader import BagReader, is_bag
from fleet.bags.writer import BagWriter
from fleet.errors import FleetError

STORAGES = ("mcap", "sqlite3")


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_written_is_read(simulated, tmp_path, storage):
    with BagWriter(tmp_path / "bag", storage) as writer:
        for k in range(3):
            packet = simulated.message("fleet_msgs/msg/FeaturePacket", data=np.arange(k + 8, dtype=np.uint8))
            writer.write("/yard/gate", PACKETS, BEGIN_NS + k, packet)
        label = simulated.message("fleet_msgs/msg/Label", group="pet", hub_latency=0.5)
        writer.write("/", LABEL, BEGIN_NS - 1, label)
    with BagReader(tmp_path / "bag") as bag:
        assert bag.cameras == ["/", "/yard/gate"]
        assert (bag.count("/yard/gate", PACKETS), bag.count("/", PACKETS)) == (3, 0)
        read = list(bag.messages((PACKETS, LABEL), bag.cameras))
        assert [(m.camera, m.name, m.time_ns - BEGIN_NS) for m in read] == [
            ("/", LABEL, -1),
            *(("/yard/gate", PACKETS, k) for k in range(3)),
        ]
        assert read[0].content.group == "pet"
        assert bytes(read[-1].content.data) == bytes(range(10))
        assert list(bag.messages((PACKETS,), ("/",))) == []


def test_topics_are_told_by_name_and_type():
    for name, topic in ALL.items():
        camera = "" if name.startswith("/") else "/yard/gate"
        assert place_of(full_name(camera, name), topic.type) == (camera, name)
        assert place_of(full_name(camera, name), "std_msgs/msg/String") is None
    assert place_of("/label", ALL[LABEL].type) == ("/", LABEL)
    assert place_of("/backyard/link/exit", ALL["exit"].type) == ("/backyard", "link/exit")
    assert place_of("/backyard/mislabel", ALL[LABEL].type) is None


def test_every_definition_in_a_bag_can_be_parsed_again():
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: PLC0415

    for topic in ALL.values():
        text, digest = definition(topic.type)
        store = get_typestore(Stores.EMPTY)
        store.register(get_types_from_msg(text, topic.type))
        assert store.hash_rihs01(topic.type) == digest
        assert {name for name, _ in store.fielddefs[topic.type][1]} >= set(topic.needs)


def test_text_constants_are_quoted_once():
    given = 'string PHY_1M=1M\nstring<=8 phy\nstring NAME = "x"\nuint8 HUB=1\nstring name\n'
    assert quoted(given) == 'string PHY_1M="1M"\nstring<=8 phy\nstring NAME = "x"\nuint8 HUB=1\nstring name\n'
    assert quoted(quoted(given)) == quoted(given)


def test_a_bag_is_never_written_over(tmp_path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(FleetError, match="exists already: give another --output"):
        BagWriter(tmp_path / "bag")


# Damage -------------------------------------------------------------------------------------------------------
def one_line(done) -> str:
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_bag_that_is_cut_short_is_one_line(make_bag, storage, share):
    bag = make_bag(storage=storage)
    (file,) = (path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(FleetError, match=re.escape(str(bag))) as caught:
        evaluate_bag(bag, Wishes())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("storage", STORAGES)
def test_flipped_bytes_are_one_line_or_do_no_harm(make_bag, storage):
    """Thirty times a few bytes at random places, where lengths, types and offsets are too."""
    bag = make_bag(storage=storage, frames=2)
    (file,) = (path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    whole = file.read_bytes()
    refused: list[str] = []
    for seed in range(30):
        rng = random.Random(seed)
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 4, 64))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        file.write_bytes(damaged)
        try:
            evaluate_bag(bag, Wishes())
        except FleetError as err:
            refused.append(str(err))
    assert len(refused) >= 5
    assert not any("\n" in line for line in refused)


@pytest.mark.parametrize("storage", STORAGES)
def test_metadata_of_all_kinds_is_one_line(make_bag, storage):
    bag = make_bag(storage=storage, frames=1)
    metadata = bag / "metadata.yaml"
    good = metadata.read_text()
    for text in (
        "",
        "]",
        "a: [",
        "rosbag2_bagfile_information: 5",
        good[:200],
        good.replace("version: 8", "version: 99"),
    ):
        metadata.write_text(text)
        with pytest.raises(FleetError, match="is damaged or cut short") as caught:
            BagReader(bag)
        assert "\n" not in str(caught.value)


def test_what_is_no_bag_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "zero.mcap").touch()
    (tmp_path / "words.mcap").write_text("not a bag")
    (tmp_path / "words.db3").write_text("not a bag" * 100)
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    (tmp_path / "notes.txt").write_text("hello")
    with sqlite3.connect(tmp_path / "other.db3") as other:
        other.execute("CREATE TABLE birds (name TEXT)")
    for name, words in (
        ("absent", "there is no bag"),
        ("empty", "is no bag: it has no metadata.yaml"),
        ("zero.mcap", "is empty (0 bytes)"),
        ("words.mcap", "is damaged or cut short"),
        ("words.db3", "is damaged or cut short"),
        ("old.bag", "ROS 1"),
        ("notes.txt", "is no bag: give a bag's directory"),
        ("other.db3", "is damaged or cut short"),
    ):
        assert words in one_line(fleet_bag("evaluate", tmp_path / name))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_without_messages_is_empty(tmp_path, storage):
    BagWriter(tmp_path / "bag", storage).close()
    assert "is empty: nothing was recorded" in one_line(fleet_bag("evaluate", tmp_path / "bag"))


def test_a_recording_that_did_not_come_to_its_end_is_told_from_a_foreign_folder(make_bag):
    bag = make_bag(frames=1)
    (bag / "metadata.yaml").unlink()
    with pytest.raises(FleetError, match="its recording did not come to its end"):
        BagReader(bag)


@pytest.fixture
def foreign(tmp_path):
    """A bag with given topics, types and bytes, by rosbags itself."""

    def make(*topics, storage="mcap", name="bag"):
        from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: PLC0415

        plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
        with Writer(tmp_path / name, version=8, storage_plugin=plugin) as writer:
            for k, (topic, msgtype, text, data) in enumerate(topics):
                connection = writer.add_connection(topic, msgtype, msgdef=text, rihs01="RIHS01_0")
                writer.write(connection, BEGIN_NS + k, data)
        return tmp_path / name

    return make


STRING = ("std_msgs/msg/String", "string data\n", b"\0\1\0\0\6\0\0\0hello\0\0\0")


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_of_something_else_says_what_it_holds(foreign, storage):
    bag = foreign(("/chatter", *STRING), ("/backyard/label", *STRING), storage=storage)
    line = one_line(fleet_bag("evaluate", bag))
    assert "holds nothing of FLEET, only /chatter (std_msgs/msg/String), /backyard/label (std_msgs/msg/String)" in line


def test_topics_of_another_type_are_left_aside(foreign, simulated):
    label = simulated.message("fleet_msgs/msg/Label", group="pet")
    data = bytes(typestore().serialize_cdr(label, ALL[LABEL].type))
    bag = foreign(
        ("/a/label", ALL[LABEL].type, definition(ALL[LABEL].type)[0], data),
        ("/a/link/packets", *STRING),
        ("/a/image/compressed", *STRING),
    )
    with pytest.raises(FleetError, match="no pictures or packets of /a"):
        evaluate_bag(bag, Wishes())


@pytest.mark.parametrize("data", [b"", b"\0\1\0\0", b"\0\1\0\0" + b"\xff" * 200, b"\xff" * 64])
def test_a_message_that_does_not_decode_is_one_line(foreign, data):
    bag = foreign(("/a/link/packets", ALL[PACKETS].type, definition(ALL[PACKETS].type)[0], data))
    assert "is damaged or cut short: " in one_line(fleet_bag("evaluate", bag))


def test_messages_of_another_version_say_which_field_is_missing(foreign):
    text = "uint8 data\n"
    bag = foreign(("/a/image/compressed", ALL[IMAGE].type, text, b"\0\1\0\0\1"))
    with pytest.raises(
        FleetError, match=r"another version of FLEET: its sensor_msgs/msg/CompressedImage has no header, format"
    ):
        evaluate_bag(bag, Wishes())


def test_a_definition_with_bare_text_constants_is_read_as_ros2_bag_writes_it(foreign, simulated):
    link = simulated.message(ALL[LINK].type, ci_ms=30.0, phy="1M", payload=100, packets=2, ack="link_layer")
    data = bytes(typestore().serialize_cdr(link, ALL[LINK].type))
    text = re.sub(r'="(\w+)"', r"=\1", definition(ALL[LINK].type)[0])
    assert "PHY_1M=1M" in text
    with BagReader(foreign(("/a/link/parameters", ALL[LINK].type, text, data))) as bag:
        (message,) = bag.messages((LINK,), bag.cameras)
    assert (message.content.ci_ms, message.content.payload) == (30.0, 100)


def test_a_definition_that_cannot_be_read_is_replaced_by_ours(foreign, simulated):
    label = simulated.message("fleet_msgs/msg/Label", group="pet")
    data = bytes(typestore().serialize_cdr(label, ALL[LABEL].type))
    with BagReader(foreign(("/a/label", ALL[LABEL].type, "import os; os.remove('x')", data))) as bag:
        (message,) = bag.messages((LABEL,), bag.cameras)
    assert message.content.group == "pet"


# As a source --------------------------------------------------------------------------------------------------
def open_(spec, **options):
    from fleet.sources import open_source  # noqa: PLC0415

    return open_source(str(spec), **options)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_is_a_source_of_its_pictures_with_their_names_and_truths(make_bag, storage):
    from fleet.sources.photos import PhotoSource  # noqa: PLC0415

    bag = make_bag(storage=storage)
    photos = PhotoSource(seed=0, resolution=(96, 64))
    for spec in (bag, next(bag.glob("bag.*"))):
        assert is_bag(spec)
        with open_(spec) as source:
            assert (source.live, source.description) == (False, f"{FRAMES} pictures of /backyard in bag {spec}")
            for number in range(FRAMES):
                frame, photo = source.read(), photos.frame(number)
                assert np.array_equal(frame.image, photo.image)
                assert (frame.name, frame.truth) == (photo.name, photo.truth)
            assert source.read() is None
            assert source.skipped == 0


def test_of_several_cameras_one_must_be_named(make_bag):
    bag = make_bag(cameras=("/porch", "/yard/gate"), frames=2)
    with pytest.raises(FleetError, match=re.escape(f"choose one with {bag}#porch")):
        open_(bag)
    with open_(f"{bag}#yard/gate", loop=True) as source:
        assert "/yard/gate" in source.description
        assert len([source.read() for _ in range(5)]) == 5
    with pytest.raises(FleetError, match="no pictures of /cellar, only of /porch, /yard/gate"):
        open_(f"{bag}#cellar")


def test_a_source_without_pictures_or_of_damaged_ones_is_one_line(make_bag, tmp_path):
    with pytest.raises(FleetError, match="has no pictures"):
        open_(make_bag("packets", pictures="", frames=1))
    (tmp_path / "torn.mcap").write_bytes(b"\x89MCAP0\r\n" + b"\x01" * 40)
    with pytest.raises(FleetError, match="is damaged or cut short"):
        open_(tmp_path / "torn.mcap")
