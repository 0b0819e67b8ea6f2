# SPDX-License-Identifier: Apache-2.0
"""What a bag tells of a run beside its pictures and packets: labels, reports, the link, and under which conditions."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fleet.bags.definitions import DIAGNOSTICS, INFERENCE, LABEL, LINK
from fleet.bags.reader import BagReader
from fleet.errors import FleetError
from fleet.link.parameters import LinkParameters
from fleet.motion import Square
from fleet.packet import LOCAL_ANSWER_STAGE

Source = Literal["hub", "device"]
Key = tuple[int, int]
"""A frame: the stamp of its picture in ns, and its inference id. Ids alone come round, stamps alone may be missing."""

DEVICE_NODE = "device_node"
CLOUD_NODE = "cloud_node"
FORWARD = "exit median [ms]"  # in the cloud node's diagnostics
_BY_HUB = 1  # fleet_msgs/msg/Label: HUB


@dataclass(frozen=True)
class Said:
    """What one run said of a frame.

    Attributes:
        group: for example ``vehicle``.
        class_name: the fine class in words.
        class_index: into the bundle's classes.
        source: who answered.
        exit_stage: the exit that answered; None for the device's own answer.
        latency_ms: until the answer was there: at the device, or at the hub where only packets are replayed.
        energy_mj: compute and radio; None where either is unknown.
    """

    group: str
    class_name: str
    class_index: int
    source: Source
    exit_stage: int | None
    latency_ms: float | None = None
    energy_mj: float | None = None


@dataclass
class RecordedFrame:
    """One frame of a bag.

    Attributes:
        name: file name, empty for a camera.
        truth: what its folder named, empty where unknown.
        label: the first label that was published of it; its latency is the hub's.
        latency_ms: until the device held an answer.
        energy_mj: of compute and radio.
        region: the square of the picture that was classified; None for all of it.
    """

    name: str = ""
    truth: str = ""
    label: Said | None = None
    latency_ms: float | None = None
    energy_mj: float | None = None
    region: Square | None = None


@dataclass(frozen=True)
class Setup:
    """What the nodes' diagnostics say of the run; empty where they do not.

    Attributes:
        platform: profile that the device was paced to.
        time_scale: factor on its times.
        precision: which ONNX stages ran.
        codec: of the features.
        race: whether local exits ran beside the radio.
        model: of the device, else of the hub, as its user named it.
        bundle: identity of that model, in hexadecimal digits.
        exit_ms: median time of the hub's forward passes; None where it did not say.
    """

    platform: str = ""
    time_scale: float = 1.0
    precision: str = ""
    codec: str = ""
    race: bool = False
    model: str = ""
    bundle: str = ""
    exit_ms: float | None = None


@dataclass
class Recording:
    """One camera's part of a bag.

    Attributes:
        camera: its namespace.
        frames: in the order in which they were first heard of.
        links: when the link became what, in order; times in ns since 1970.
        setup: of the run.
    """

    camera: str
    frames: dict[Key, RecordedFrame] = field(default_factory=dict)
    links: list[tuple[int, LinkParameters]] = field(default_factory=list)
    setup: Setup = Setup()

    def frame(self, key: Key) -> RecordedFrame:
        """The frame of that key, a new one if it was not heard of."""
        return self.frames.setdefault(key, RecordedFrame())

    def ids_by_stamp(self) -> dict[int, list[int]]:
        """Inference ids of the frames with a stamp, in order: pictures carry a stamp and no id."""
        found: dict[int, list[int]] = {}
        for stamp, inference_id in self.frames:
            found.setdefault(stamp, []).append(inference_id)
        return found


def stamp_of(header: Any) -> int:
    """A header's stamp in ns."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def read_recordings(bag: BagReader, cameras: Collection[str]) -> dict[str, Recording]:
    """Everything but pictures and packets, by camera.

    Args:
        bag: open.
        cameras: whose.

    Raises:
        FleetError: the bag is damaged.
    """
    found = {camera: Recording(camera) for camera in cameras}
    for message in bag.messages((LABEL, INFERENCE, LINK, DIAGNOSTICS), cameras):
        content = message.content
        if message.name == DIAGNOSTICS:
            for recording in found.values():
                recording.setup = _learn(recording, content.status)
            continue
        recording = found[message.camera]
        if message.name == LINK:
            link = _link(content, bag, message.camera)
            if not recording.links or recording.links[-1][1] != link:
                recording.links.append((message.time_ns, link))
            continue
        frame = recording.frame((stamp_of(content.header), int(content.inference_id)))
        if message.name == INFERENCE:
            frame.name, frame.truth = content.name, content.truth
            frame.latency_ms = _known(content.latency, 1e3)
            frame.energy_mj = _known(content.compute_energy_mj + content.radio_energy_mj)
            frame.region = _region(content)
        elif frame.label is None:  # a consumer drops the second one
            frame.label = said_by(content)
    return found


def said_by(label: Any) -> Said:
    """What a ``fleet_msgs/msg/Label`` says."""
    return Said(
        group=label.group,
        class_name=label.class_name,
        class_index=int(label.class_index),
        source="hub" if label.source == _BY_HUB else "device",
        exit_stage=None if label.stage == LOCAL_ANSWER_STAGE else int(label.stage),
        latency_ms=_known(label.hub_latency, 1e3),
    )


def _region(report: Any) -> Square | None:
    """The square that was classified; a bag of before there was one has none."""
    side = int(getattr(report, "roi_side", 0))
    return Square(int(report.roi_left), int(report.roi_top), side) if side else None


def _known(number: float, factor: float = 1.0) -> float | None:
    return float(number) * factor if math.isfinite(number) else None


def _link(content: Any, bag: BagReader, camera: str) -> LinkParameters:
    """The link of a message. Numbers are float32 there: 0.1 comes as 0.10000000149."""
    try:
        return LinkParameters(
            ci_ms=round(float(content.ci_ms), 4),
            packets=int(content.packets),
            phy=content.phy,
            payload=int(content.payload),
            loss=round(float(content.loss), 6),
            ack=content.ack,
        )
    except (FleetError, ValueError, OverflowError) as err:
        raise FleetError(f"{bag.path}: link/parameters of {camera} are those of no link: {err}") from err


def _learn(recording: Recording, statuses: Iterable[Any]) -> Setup:
    setup = recording.setup
    for status in statuses:
        place, _, node = status.name.partition(":")[0].rpartition("/")  # backyard/device_node: state
        values = {value.key: value.value for value in status.values}
        if node == DEVICE_NODE and place.strip("/") == recording.camera.strip("/"):
            setup = replace(
                setup,
                platform=values.get("platform", setup.platform),
                time_scale=_number(values.get("time scale")) or setup.time_scale,
                precision=values.get("precision", setup.precision),
                codec=values.get("codec", setup.codec),
                race=values.get("race", str(setup.race)) == "True",
                model=values.get("model", setup.model),
                bundle=values.get("bundle", setup.bundle),
            )
        elif node == CLOUD_NODE:  # the hub of several cameras is in a namespace of its own
            setup = replace(
                setup,
                model=setup.model or values.get("model", ""),
                bundle=setup.bundle or values.get("bundle", ""),
                exit_ms=_number(values.get(FORWARD)) or setup.exit_ms,
            )
    return setup


def _number(text: str | None) -> float | None:
    """A positive number in a text, if there is one."""
    try:
        number = float(text or "nan")
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None
