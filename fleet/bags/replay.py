# SPDX-License-Identifier: Apache-2.0
"""Replays a bag: from its pictures through device, radio and hub, or from its packets through the hub alone.

Both are virtual time. A bag, a model and the same settings give the same result on every run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fleet.bags.definitions import IMAGE, PACKETS
from fleet.bags.reader import BagReader, Message
from fleet.bags.recording import Key, Recording, Said, stamp_of
from fleet.bundle import Bundle
from fleet.codec import FloatArray
from fleet.exits import Prediction
from fleet.hub import Batch, Hub
from fleet.inbox import Waiting
from fleet.inference import Device
from fleet.link.parameters import LinkParameters
from fleet.motion import Square
from fleet.packet import LOCAL_ANSWER_STAGE
from fleet.session import Answer, CloudSession
from fleet.simulation import SimulatedFrame, Simulation
from fleet.sources.decode import UnreadableImage, decode_image
from fleet.sources.frame import RgbImage

ForwardMany = Callable[[Mapping[int, Sequence[FloatArray]]], Mapping[int, FloatArray]]
"""Views of several exits, each with a batch, to logits: :meth:`fleet.fusion.CloudNetwork.forward_many` on arrays."""

NS = 1_000_000_000
REMEMBERED_FRAMES = 64  # as the cloud node


@dataclass
class Replay:
    """What a replay of one camera said.

    Attributes:
        camera: its namespace.
        source: ``images`` or ``packets``.
        said: of every frame that it could answer, in order.
        heard: frames that there was anything of, answered or not.
        unreadable: pictures that do not decode, or packets that this bundle cannot read.
        total: pictures or packets.
        formats: of the pictures.
    """

    camera: str
    source: str
    said: dict[Key, Said] = field(default_factory=dict)
    heard: dict[Key, None] = field(default_factory=dict)
    unreadable: int = 0
    total: int = 0
    formats: set[str] = field(default_factory=set)


def prediction_said(
    bundle: Bundle,
    prediction: Prediction,
    stage: int,
    *,
    latency_ms: float | None = None,
    energy_mj: float | None = None,
) -> Said:
    """An answer of hub or device in the words of a label."""
    own = stage == LOCAL_ANSWER_STAGE
    return Said(
        group=prediction.group,
        class_name=bundle.classes.names[prediction.class_index],
        class_index=prediction.class_index,
        source="device" if own else "hub",
        exit_stage=None if own else stage,
        latency_ms=latency_ms,
        energy_mj=energy_mj,
    )


# From pictures ------------------------------------------------------------------------------------------------
@dataclass
class ImageReplay:
    """One camera's pictures through device, radio and hub.

    Attributes:
        device: with a paced profile.
        prepare: a picture, RGB of shape (H, W, 3), to the network's input.
        forward: the hub's network.
        fused: which stages each exit fuses.
        exit_s: seconds that an exit takes on the hub.
        seed: of phases and losses.
    """

    device: Device
    prepare: Callable[[Any], FloatArray]
    forward: ForwardMany
    fused: Mapping[int, tuple[int, ...]]
    exit_s: float
    seed: int = 0

    def run(
        self,
        bag: BagReader,
        recording: Recording,
        link: Callable[[LinkParameters], LinkParameters],
        done: Callable[[], None] = lambda: None,
    ) -> Replay:
        """Replay a camera.

        Args:
            bag: open.
            recording: of the camera.
            link: the user's wishes for a link of the bag.
            done: called once a picture.

        Raises:
            FleetError: the bag is damaged.
        """
        replay = Replay(recording.camera, "images")
        links = [(time, link(parameters)) for time, parameters in recording.links] or [(0, link(LinkParameters()))]
        begun, changes = links[0][1], links[1:]
        bundle = self.device.bundle
        simulation = Simulation(
            self.device, CloudSession(bundle, self.fused), self._one, begun, exit_s=self.exit_s, seed=self.seed
        )
        ids = recording.ids_by_stamp()
        for message in bag.messages((IMAGE,), (recording.camera,)):
            while changes and changes[0][0] <= message.time_ns:
                simulation.radio.scheduler.configure(changes.pop(0)[1])
            stamp = stamp_of(message.content.header)
            waiting = ids.get(stamp)
            key = (stamp, waiting.pop(0)) if waiting else (stamp, -1 - replay.total)
            replay.total += 1
            replay.formats.add(str(message.content.format))
            done()
            frame = recording.frames.get(key)
            view = _view(bytes(message.content.data), frame.region if frame is not None else None)
            if view is None:
                replay.unreadable += 1
                continue
            replay.heard[key] = None
            replay.said[key] = self._said(simulation.run(self.prepare(view)))
        return replay

    def _one(self, stage: int, maps: Sequence[FloatArray]) -> FloatArray:
        logits: FloatArray = self.forward({stage: [m[None] for m in maps]})[stage][0]
        return logits

    def _said(self, frame: SimulatedFrame) -> Said:
        """What a consumer of ``label`` would have got first: the hub's answer, unless only the device had one."""
        outcome = frame.outcome
        prediction, stage = outcome.prediction, outcome.stage
        if frame.hub is not None:
            prediction, stage = frame.hub[0].prediction, frame.hub[0].stage
        power = self.device.profile.power_mw
        return prediction_said(
            self.device.bundle,
            prediction,
            stage,
            latency_ms=1e3 * outcome.latency,
            energy_mj=frame.energy_mj(power) if power is not None else None,
        )


def _view(data: bytes, region: Square | None) -> RgbImage | None:
    """The part of a picture that was classified, or None where it does not decode or has no such part."""
    try:
        picture = decode_image(data)
    except UnreadableImage:
        return None
    if region is None:
        return picture
    view = region.of(picture)
    return view if view.shape[:2] == (region.side, region.side) else None


# From packets -------------------------------------------------------------------------------------------------
@dataclass
class PacketReplay:
    """All cameras' packets through one hub, at the times that the bag has.

    As in the cloud node packets wait while a batch of exits runs, which takes :attr:`exit_s` however many are in it,
    and are looked at together when it is over.

    Attributes:
        hub: fresh.
        forward: its network.
        exit_s: seconds that a batch of exits takes.
    """

    hub: Hub
    forward: ForwardMany
    exit_s: float
    _replays: dict[str, Replay] = field(default_factory=dict)
    _stamps: dict[str, dict[int, int]] = field(default_factory=dict)
    _arrived: Counter[tuple[str, Key]] = field(default_factory=Counter)
    _batch: Batch | None = None
    _busy_until: float = 0.0

    def run(
        self, bag: BagReader, cameras: Collection[str], done: Callable[[], None] = lambda: None
    ) -> dict[str, Replay]:
        """Replay cameras.

        Args:
            bag: open.
            cameras: whose packets.
            done: called once a packet.

        Raises:
            FleetError: the bag is damaged.
        """
        self._replays = {camera: Replay(camera, "packets") for camera in cameras}
        self._stamps = {camera: {} for camera in cameras}
        begun: int | None = None
        now = 0.0
        for message in bag.messages((PACKETS,), cameras):
            begun = message.time_ns if begun is None else begun
            now = max((message.time_ns - begun) / NS, now)
            self._work_until(now, begun)
            self._put(message, now)
            done()
            if self._batch is None:
                self._begin(now, begun)
        self._work_until(np.inf, begun or 0)
        for (camera, key), count in self._arrived.items():
            if count:
                self._replays[camera].heard[key] = None
        return self._replays

    def _put(self, message: Message, now: float) -> None:
        self._replays[message.camera].total += 1
        packet = Waiting(bytes(message.content.data), now, stamp_of(message.content.header))
        self.hub.put(message.camera, packet)
        if (key := _key(packet)) is not None:
            self._arrived[message.camera, key] += 1

    def _work_until(self, time: float, begun: int) -> None:
        """Let every batch end that ends before ``time``, and every exit begin that has waited long enough."""
        while True:
            held = self.hub.held_until
            if self._batch is None and held is not None and held <= time:
                self._begin(held, begun)
                continue
            if self._batch is None or self._busy_until > time:
                return
            batch, self._batch = self._batch, None
            ended = self._busy_until
            logits = batch.by_camera({n: list(rows) for n, rows in self.forward(batch.views()).items()})
            self._publish(self.hub.conclude(batch, logits).items(), ended, begun)
            self._begin(ended, begun)

    def _begin(self, now: float, begun: int) -> None:
        """Look at what waits, and begin a batch if there is an exit to run."""
        batch = self.hub.next_batch(self.hub.collect(), now=now)
        for camera, packet in batch.heard:
            self._remember(camera, packet)
        for camera, packet in batch.malformed:
            self._replays[camera].unreadable += 1
            if (key := _key(packet)) is not None:
                self._arrived[camera, key] -= 1
        self._publish((*batch.late_answers, *batch.answers.items()), now, begun)
        if batch.tasks:
            self._batch, self._busy_until = batch, now + self.exit_s

    def _remember(self, camera: str, packet: Waiting) -> None:
        """Keep the stamp of a packet's frame for its label, as the cloud node keeps the header."""
        stamps = self._stamps[camera]
        stamps[packet.inference_id] = packet.note
        if len(stamps) > REMEMBERED_FRAMES:
            del stamps[next(iter(stamps))]

    def _publish(self, answers: Iterable[tuple[str, Answer]], now: float, begun: int) -> None:
        for camera, answer in answers:
            stamp = self._stamps[camera].get(answer.inference_id, 0)
            latency_ms = 1e3 * ((begun - stamp) / NS + now) if stamp > 0 else None
            key = (stamp, answer.inference_id)
            said = prediction_said(self.hub.bundle, answer.prediction, answer.stage, latency_ms=latency_ms)
            self._replays[camera].said.setdefault(key, said)


def _key(packet: Waiting) -> Key | None:
    """The frame that a packet says it is of."""
    return (packet.note, packet.inference_id) if packet.inference_id >= 0 else None
