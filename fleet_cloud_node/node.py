# SPDX-License-Identifier: Apache-2.0
"""The cloud node: fuses what has arrived, runs exits on it, and says stop when one is sure."""

from __future__ import annotations

import dataclasses
import re
import statistics
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import Header

from fleet.bundle import Bundle
from fleet.codec import FloatArray, StageBuffer
from fleet.errors import FleetError
from fleet.fusion import load_cloud
from fleet.hub import Batch, Hub
from fleet.packet import HEADER, HEADER_BYTES
from fleet.resources import find_model
from fleet.session import Answer, ExitTask, Taken
from fleet_msgs.msg import ExitDecision, ExitRun, FeaturePacket, Label
from fleet_ros.messages import bounded, label_message
from fleet_ros.node import ManagedNode, seconds_since
from fleet_ros.node import main as run_node
from fleet_ros.qos import EVENTS, LABELS, OVERRIDABLE, PACKETS
from fleet_ros.settings import declare, setting

REMEMBERED_FRAMES = 64


@dataclasses.dataclass(frozen=True)
class CloudSettings:
    """Parameters of the cloud node."""

    model: str = setting("backyard", "model bundle: a directory, or the name of one that is installed", read_only=True)
    threshold: float = setting(
        0.0, "certainty from which an exit answers, 0 to 1; 0 takes each exit's own from the bundle", within=(0.0, 1.0)
    )
    threads: int = setting(1, "threads of one forward pass", read_only=True, within=(1, 64))
    cameras: tuple[str, ...] = setting(
        ("",), "namespaces of the cameras; an empty name is the node's own namespace", read_only=True
    )
    compute_device: str = setting("auto", "torch device: auto, cpu or cuda", read_only=True)

    def __post_init__(self) -> None:
        """Check what a type cannot say.

        Raises:
            FleetError: no camera, one that is named twice, or a name that is no namespace.
        """
        names = list(self.cameras)
        if not names or len(set(names)) != len(names):
            raise FleetError(f"cameras must list every camera's namespace once, not {names}")
        for name in filter(None, names):
            if not re.fullmatch(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*/?", name, re.ASCII) or "__" in name:
                raise FleetError(f"'{name}' is not a camera's namespace: letters, digits and single _, with / between")


@dataclasses.dataclass
class _Camera:
    """One camera's topics, and the headers of its newest frames.

    Attributes:
        exits: publisher of ``exit``.
        labels: publisher of ``label``.
        runs: publisher of ``exit/runs``.
        headers: of the source images, by inference id.
        subscription: of ``link/packets``, while the node is active.
    """

    exits: Any
    labels: Any
    runs: Any
    headers: OrderedDict[int, Header] = dataclasses.field(default_factory=OrderedDict)
    subscription: Any = None

    def remember(self, packet: bytes, header: Header) -> None:
        """Keep the header of a packet's frame."""
        if len(packet) >= HEADER_BYTES:
            self.headers[HEADER.unpack_from(packet)[0]] = header
            while len(self.headers) > REMEMBERED_FRAMES:
                self.headers.popitem(last=False)


class CloudNode(ManagedNode):
    """A worker thread runs the newest exits of all cameras together; the packet callbacks only take packets in."""

    settings: CloudSettings

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("cloud_node", **kwargs)
        declare(self, CloudSettings, self._on_settings)
        self._condition = threading.Condition()
        self._bundle: Bundle | None = None
        self._network: Any = None
        self._device = "cpu"
        self._hub: Hub | None = None
        self._worker: threading.Thread | None = None
        self._forward_s: deque[float] = deque(maxlen=200)
        self._batches: deque[int] = deque(maxlen=200)
        self._answers = 0
        self._options: dict[str, Any] = {"qos_overriding_options": OVERRIDABLE}
        self._cameras = {name: self._camera(name) for name in self.settings.cameras}

    def _camera(self, name: str) -> _Camera:
        return _Camera(
            self.create_publisher(ExitDecision, _topic(name, "exit"), EVENTS, **self._options),
            self.create_publisher(Label, _topic(name, "label"), LABELS, **self._options),
            self.create_publisher(ExitRun, _topic(name, "exit/runs"), EVENTS, **self._options),
        )

    # Life cycle -------------------------------------------------------------------------------------------
    def configure(self) -> None:
        """Load the bundle and run every exit once, so that the first frame does not pay for it."""
        torch.set_num_threads(self.settings.threads)
        self._device = _pick_device(self.settings.compute_device)
        self._bundle = Bundle.load(find_model(self.settings.model))
        if not self._bundle.trained:
            self.get_logger().warning(f"{self._bundle.path} is untrained: its labels mean nothing")
        self._network = load_cloud(self._bundle, device=self._device)
        for stage, fused in self._network.fused.items():
            self._forward({stage: [StageBuffer(self._bundle.layouts[n]).view()[None] for n in fused]})

    def activate(self) -> None:
        """Listen, with fresh sessions."""
        self._hub = Hub(self._deciding(), self._network.fused)
        # Subscribed only while active: the bridge takes a subscriber for a hub that listens.
        for name, camera in self._cameras.items():
            camera.subscription = self.create_subscription(
                FeaturePacket, _topic(name, "link/packets"), partial(self._on_packet, name), PACKETS, **self._options
            )
        self._worker = threading.Thread(target=self._work, args=(self._hub,), name="exits", daemon=True)
        self._worker.start()

    def deactivate(self) -> None:
        """Stop listening."""
        for camera in self._cameras.values():
            if camera.subscription is not None:
                self.destroy_subscription(camera.subscription)
                camera.subscription = None
        with self._condition:
            self._hub = None
            self._condition.notify_all()
        if self._worker is not None:
            self._worker.join(timeout=5.0)
            self._worker = None

    def cleanup(self) -> None:
        """Let go of the network."""
        self._bundle = self._network = None

    def _deciding(self) -> Bundle:
        """The bundle with the thresholds that are set."""
        assert self._bundle is not None
        if self.settings.threshold <= 0:
            return self._bundle
        thresholds = dict.fromkeys(self._bundle.layouts, self.settings.threshold)
        decider = dataclasses.replace(self._bundle.decider, thresholds=thresholds)
        return dataclasses.replace(self._bundle, decider=decider)

    def _on_settings(self, _old: CloudSettings, _new: CloudSettings) -> None:
        with self._condition:
            if self._hub is not None:
                self._hub.decide_by(self._deciding())

    # Packets in -------------------------------------------------------------------------------------------
    def _on_packet(self, name: str, msg: FeaturePacket) -> None:
        packet = bytes(msg.data)
        with self._condition:
            if self._hub is None:
                return
            taken = self._hub.take(name, packet)
            if taken in (Taken.NEW, Taken.LOCAL_ANSWER):
                self._cameras[name].remember(packet, msg.header)
                self._condition.notify_all()
        if taken is Taken.MALFORMED:
            self.get_logger().warning(
                f"a malformed packet of {len(packet)} bytes{f' from {name}' if name else ''} was dropped; is the "
                f"camera's model {self.settings.model}?",
                throttle_duration_sec=5.0,
            )

    # The worker's thread ----------------------------------------------------------------------------------
    def _work(self, hub: Hub) -> None:
        while True:
            with self._condition:
                batch = Batch({}, {})
                while self._hub is hub and not (batch := hub.next_batch()):
                    self._condition.wait(0.5)
                if self._hub is not hub:
                    return
            try:
                self._serve(hub, batch)
            except Exception as err:
                # Whatever a packet did to this frame, the next frames shall have a hub.
                which = ", ".join(f"{name or 'inference'} {task.inference_id}" for name, task in batch.tasks.items())
                self.get_logger().error(f"{which} failed: {type(err).__name__}: {err}", throttle_duration_sec=5.0)

    def _serve(self, hub: Hub, batch: Batch) -> None:
        for name, answer in batch.answers.items():
            self._publish(name, answer)
        if not batch.tasks:
            return
        logits = batch.by_camera(self._forward(batch.views()))
        self._batches.append(len(batch.tasks))
        with self._condition:
            answers = hub.conclude(batch, logits)
        for name, answer in answers.items():
            self._publish(name, answer)
        for name, task in batch.tasks.items():
            if self._cameras[name].runs.get_subscription_count():
                self._publish_run(name, task, logits[name], name in answers)

    def _forward(self, views: Mapping[int, Sequence[FloatArray]]) -> dict[int, FloatArray]:
        begun = self.seconds()
        with torch.inference_mode():
            given = {n: [torch.from_numpy(m).to(self._device) for m in maps] for n, maps in views.items()}
            logits = {n: rows.cpu().numpy() for n, rows in self._network.forward_many(given).items()}
        self._forward_s.append(self.seconds() - begun)
        return logits

    def _publish(self, name: str, answer: Answer) -> None:
        assert self._bundle is not None
        camera = self._cameras[name]
        header = camera.headers.get(answer.inference_id, Header())
        prediction = answer.prediction
        camera.exits.publish(
            ExitDecision(
                header=header,
                inference_id=answer.inference_id,
                stage=answer.stage,
                class_index=prediction.class_index,
                confidence=self._bundle.decider.confidence(prediction),
            )
        )
        # A header that is not known any more has no stamp to count from.
        known = answer.inference_id in camera.headers
        latency = seconds_since(self.get_clock(), header.stamp) if known else float("nan")
        camera.labels.publish(
            label_message(
                self._bundle.classes,
                header,
                answer.inference_id,
                prediction,
                source=Label.DEVICE if answer.is_local else Label.HUB,
                stage=answer.stage,
                hub_latency=latency,
            )
        )
        self._answers += 1

    def _publish_run(self, name: str, task: ExitTask, logits: FloatArray, answered: bool) -> None:
        assert self._bundle is not None
        decider = self._deciding().decider
        prediction = decider.predict(task.stage, logits)
        self._cameras[name].runs.publish(
            ExitRun(
                header=self._cameras[name].headers.get(task.inference_id, Header()),
                inference_id=task.inference_id,
                stage=task.stage,
                group=prediction.group,
                class_name=bounded(self._bundle.classes.names[prediction.class_index]),
                group_confidence=prediction.group_confidence,
                class_confidence=prediction.class_confidence,
                certainty=prediction.certainty,
                threshold=decider.thresholds.get(task.stage, float("inf")),
                answered=answered,
                duration=self._forward_s[-1],
            )
        )

    def health(self) -> tuple[bytes, str, dict[str, object]]:
        """See the base class."""
        hub = self._hub
        values: dict[str, object] = {"answers": self._answers, "model": self.settings.model, "device": self._device}
        if hub is not None:
            counted = [session.counts for session in list(hub.sessions.values())]
            values |= {f"packets {taken.value}": sum(counts[taken] for counts in counted) for taken in Taken}
            values["cameras heard"] = f"{len(counted)} of {len(self._cameras)}"
        if self._forward_s:
            values["exit forward median [ms]"] = round(statistics.median(self._forward_s) * 1e3, 2)
        if self._batches:
            values["exits a pass, mean"] = round(statistics.mean(self._batches), 2)
        return (
            (DiagnosticStatus.OK, "active", values) if self.is_active else (DiagnosticStatus.WARN, "inactive", values)
        )


def _topic(camera: str, name: str) -> str:
    """A camera's topic; the camera without a name is in the node's own namespace."""
    return f"{camera.rstrip('/')}/{name}" if camera else name


def _pick_device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise FleetError("compute_device is cuda, but this machine has no GPU that torch can use: say auto or cpu")
    if name not in ("cpu", "cuda"):
        raise FleetError(f"compute_device is auto, cpu or cuda, not '{name}'")
    return name


def main() -> None:
    """Run the cloud node."""
    run_node(CloudNode)
