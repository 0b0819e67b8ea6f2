# SPDX-License-Identifier: Apache-2.0
"""Recording a running system, and replaying what was recorded."""

from __future__ import annotations

import itertools
import json
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from typer.testing import CliRunner

pytestmark = pytest.mark.ros
pytest.importorskip("rosbags", reason="rosbags is not installed")

from fleet.bags.definitions import ALL, IMAGE, INFERENCE, LABEL, LINK, PACKETS, typestore  # noqa: E402
from fleet.bags.reader import BagReader  # noqa: E402
from fleet.cli import app  # noqa: E402
from fleet_bag_node.node import MESSAGES  # noqa: E402
from fleet_msgs.msg import FeaturePacket, LinkParameters  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 45.0
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Recorder:
    """A running ``fleet bag record`` and what it has said."""

    def __init__(self, *arguments: object, before: Callable[[], None] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fleet", "bag", "record", *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=before,  # noqa: PLW1509 - a limit of the process's own
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def finish(self) -> int:
        try:
            code = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            pytest.fail("the recorder still runs; it said:\n" + "\n".join(self.lines))
        self._reader.join(5.0)
        return code

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.finish()


@pytest.fixture
def recorder():
    started: list[Recorder] = []

    def start(*arguments: object, **options: object) -> Recorder:
        started.append(Recorder(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait(10)


def evaluated_in_a_process(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fleet", "bag", "evaluate", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def evaluated_here(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["bag", "evaluate", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def evaluate_twice(bag: Path, source: str) -> tuple[str, dict]:
    """The same text and the same numbers, in a process of its own and in this one."""
    runs = []
    for number, evaluate in enumerate((evaluated_in_a_process, evaluated_here)):
        out = bag.with_name(f"{bag.name}-{source}{number}.json")
        runs.append((evaluate(str(bag), "--from", source, "--json", str(out)), out.read_bytes()))
    assert runs[0] == runs[1]
    return runs[0][0], json.loads(runs[0][1])


@pytest.mark.timeout(240)  # both storages have the same run, but each its replays
def test_a_recorded_run_is_replayed_the_same_twice_and_its_packets_give_its_labels(
    fleet_up, recorder, listener, tmp_path, tiny_bundle
):
    records = {
        storage: recorder("--output", tmp_path / storage, "--storage", storage, "--namespace", "backyard")
        for storage in ("mcap", "sqlite3")
    }
    # A packet every 100 ms: an exit runs on each of them alone, in the replay as it did live, however busy the machine.
    slow = ("--link", "ci_ms=100", "packets=1", "--time-scale", "40", "--frame-rate", "1")
    stack = fleet_up("--source", "photos", "--duration", "8", "--platform", "cortex-a77-200", *slow)
    assert stack.finish() == 0, stack.output
    for record in records.values():
        assert record.interrupt() == 0, record.lines
        assert "Traceback" not in "\n".join(record.lines)

    for bag, source in itertools.product((tmp_path / storage for storage in records), ("packets", "images")):
        with BagReader(bag) as read:
            assert read.cameras == ["/backyard"]
            counts = {name: read.count("/backyard", name) for name in ALL if not name.startswith("/")}
        assert counts["features"] == 0
        assert all(counts[name] >= 1 for name in (IMAGE, PACKETS, LABEL, INFERENCE, LINK)), counts
        assert counts[LABEL] >= 5

        told, document = evaluate_twice(bag, source)
        assert document["conditions"]["identity"] == tiny_bundle.identity.hex()
        assert not any("another bundle" in note for note in document["notes"])
        camera = document["cameras"]["/backyard"]
        assert camera["compared"] >= 4, told
        assert camera["replay"]["frames_with_truth"] >= 4
        if source == "packets":
            assert camera["differences"] == [], told
            assert camera["replay"]["exits"] == camera["bag"]["exits"]
        else:
            device = document["conditions"]["devices"]["/backyard"]
            assert (device["platform"], device["time_scale"]) == ("cortex-a77-200", 40.0)
            assert device["links"][0]["ci_ms"] == 100.0
            assert any("JPEG" in note for note in document["notes"])


def test_the_definitions_in_a_bag_are_those_of_the_nodes(listener):
    """By the hash that the nodes themselves announce (REP 2016)."""
    for name, kind in MESSAGES.items():
        publisher = listener.node.create_publisher(kind, f"probe{name}", 1)
        listener.spin_until(lambda p=publisher: listener.node.get_publishers_info_by_topic(p.topic_name), name)
        (info,) = listener.node.get_publishers_info_by_topic(publisher.topic_name)
        assert typestore().hash_rihs01(ALL[name].type) == str(info.topic_type_hash), name


def test_every_camera_that_is_heard_is_recorded_until_the_duration_is_over(recorder, listener, tmp_path):
    bag = tmp_path / "bag"
    record = recorder("--output", bag, "--duration", "1")
    publishers = [listener.node.create_publisher(FeaturePacket, f"/{name}/link/packets", 10) for name in ("a", "b/c")]

    def over() -> bool:
        for publisher in publishers:
            publisher.publish(FeaturePacket(data=bytes(range(20))))
        return record.process.poll() is not None

    listener.spin_until(over, "the end of the recording")
    assert record.finish() == 0, record.lines
    with BagReader(bag) as read:
        assert read.cameras == ["/a", "/b/c"]
        message = next(iter(read.messages((PACKETS,), ("/b/c",))))
        assert bytes(message.content.data) == bytes(range(20))


def test_where_nothing_is_heard_no_bag_is_left(recorder, domain, tmp_path):
    record = recorder("--output", tmp_path / "bag", "--namespace", "cellar")
    _until_it_looks(record)
    assert record.interrupt() == 2
    assert any("nothing was heard of /cellar" in line for line in record.lines), record.lines
    assert not (tmp_path / "bag").exists()


def _until_it_looks(record: Recorder) -> None:
    """The recorder has said that it subscribed: from then on it is ready for Ctrl-C."""
    import time  # noqa: PLC0415

    end = time.monotonic() + DEADLINE
    while not any("recording /" in line for line in record.lines):
        assert record.process.poll() is None, record.lines
        assert time.monotonic() < end, record.lines
        time.sleep(0.05)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_full_disk_is_one_line(recorder, listener, tmp_path, storage):
    def small_disk() -> None:  # with room for the shared memory of DDS
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))

    record = recorder("--output", tmp_path / "bag", "--storage", storage, before=small_disk)
    publisher = listener.node.create_publisher(MESSAGES[IMAGE], "/a/image/compressed", 10)
    picture = MESSAGES[IMAGE](format="jpeg", data=bytes(500_000))

    def over() -> bool:
        publisher.publish(picture)
        return record.process.poll() is not None

    listener.spin_until(over, "the end of the recording")
    assert record.finish() == 2, record.lines
    problems = [line for line in record.lines if "recording /" not in line]
    assert len(problems) == 1, record.lines
    assert f"cannot write {tmp_path / 'bag'}" in problems[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--storage", "tape"], "storage is mcap or sqlite3, not 'tape'"),
        (["--namespace", "a b"], "'a b' is not a namespace"),
        (["--output", "/no/such/folder/bag"], "its directory is not there"),
        (["--output", "."], "exists already"),
        (["--log-level", "loud"], "log level is"),
    ],
)
def test_a_wrong_wish_is_one_line(recorder, domain, arguments, words):
    record = recorder(*arguments)
    assert record.finish() == 2
    assert len(record.lines) == 1, record.lines
    assert words in record.lines[0]


def test_who_only_listens_to_packets_is_not_taken_for_a_hub(fleet_up, recorder, listener, tmp_path):
    links = listener.listen(LinkParameters, "link/parameters", LATCHED)
    listener.listen(FeaturePacket, "link/packets", 100)
    record = recorder("--output", tmp_path / "bag")
    stack = fleet_up("--source", "photos", "--only", "bridge_node")
    listener.spin_until(lambda: any("link/packets" in line for line in record.lines), "the recorder at the bridge")
    listener.spin_until(lambda: links, "what the bridge says of the link")
    listener.spin_for(1.0)  # four looks of the bridge
    assert not any(link.connected for _, link in links)
    hub = fleet_up("--only", "cloud_node")
    listener.spin_until(lambda: links[-1][1].connected, "the hub")
    hub.interrupt()
    listener.spin_until(lambda: not links[-1][1].connected, "the hub's end")
    stack.interrupt()
