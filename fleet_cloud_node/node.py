# SPDX-License-Identifier: Apache-2.0
"""The cloud node: fuses what has arrived, runs exits on it, and says stop when one is sure."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import Header

from fleet.bundle import Bundle
from fleet.codec import FloatArray, StageBuffer
from fleet.fusion import load_cloud
from fleet.hub import Batch, Hub
from fleet.inbox import Waiting
from fleet.resources import find_model
from fleet.session import HOLD_S, Answer, ExitTask, Taken
from fleet_cloud_node.record import Record
from fleet_cloud_node.settings import CloudSettings, pick_device
from fleet_msgs.msg import ExitDecision, ExitRun, FeaturePacket, Label
from fleet_ros.cameras import topic_of
from fleet_ros.diagnostics import Health, Hearing
from fleet_ros.labels import LabelPublisher
from fleet_ros.messages import bounded, label_message
from fleet_ros.node import ManagedNode, seconds_since
from fleet_ros.node import main as run_node
from fleet_ros.qos import EVENTS, OVERRIDABLE, PACKETS
from fleet_ros.settings import declare

REMEMBERED_FRAMES = 64


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
    labels: LabelPublisher
    runs: Any
    headers: OrderedDict[int, Header] = dataclasses.field(default_factory=OrderedDict)
    subscription: Any = None

    def remember(self, heard: Waiting) -> None:
        """Keep the header of a packet's frame."""
        self.headers[heard.inference_id] = heard.note
        while len(self.headers) > REMEMBERED_FRAMES:
            self.headers.popitem(last=False)


class CloudNode(ManagedNode):
    """A worker thread runs the newest exits of all cameras together; the packet callbacks only take packets in."""

    part = "hub"
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
        self._record = Record(self.get_logger(), self.settings.model)
        self._options: dict[str, Any] = {"qos_overriding_options": OVERRIDABLE}
        self._cameras = {name: self._camera(name) for name in self.settings.cameras}
        self._hearing = self._listen()

    def _camera(self, name: str) -> _Camera:
        return _Camera(
            self.create_publisher(ExitDecision, topic_of(name, "exit"), EVENTS, **self._options),
            LabelPublisher(self, name, **self._options),
            self.create_publisher(ExitRun, topic_of(name, "exit/runs"), EVENTS, **self._options),
        )

    def _listen(self) -> Hearing:
        return Hearing(self, {name: topic_of(name, "link/packets") for name in self._cameras}, self.seconds())

    # Life cycle -------------------------------------------------------------------------------------------
    def configure(self) -> None:
        """Load the bundle and run every exit once, so that the first frame does not pay for it."""
        torch.set_num_threads(self.settings.threads)
        self._device = pick_device(self.settings.torch_device)
        self._bundle = Bundle.load(find_model(self.settings.model))
        if not self._bundle.trained:
            self.get_logger().warning(f"{self._bundle.path} is untrained: its labels mean nothing")
        self._network = load_cloud(self._bundle, device=self._device)
        for stage, fused in self._network.fused.items():
            self._forward({stage: [StageBuffer(self._bundle.layouts[n]).view()[None] for n in fused]})

    def activate(self) -> None:
        """Listen, with fresh sessions."""
        self._hub = Hub(self._deciding(), self._network.fused, hold_s=self._hold_s(self.settings))
        self._hearing = self._listen()
        # Subscribed only while active: the bridge takes a subscriber for a hub that listens.
        for name, camera in self._cameras.items():
            camera.subscription = self.create_subscription(
                FeaturePacket, topic_of(name, "link/packets"), partial(self._on_packet, name), PACKETS, **self._options
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

    @staticmethod
    def _hold_s(settings: CloudSettings) -> float:
        return HOLD_S if settings.hold else 0.0

    def _on_settings(self, _old: CloudSettings, new: CloudSettings) -> None:
        with self._condition:
            if self._hub is not None:
                self._hub.decide_by(self._deciding())
                self._hub.hold_s = self._hold_s(new)

    # Packets in -------------------------------------------------------------------------------------------
    def _on_packet(self, name: str, msg: FeaturePacket) -> None:
        now = self.seconds()
        packet = Waiting(bytes(msg.data), now, msg.header)
        with self._condition:
            if self._hub is not None:
                self._hub.put(name, packet)
                self._hearing.heard(name, now)
                self._condition.notify_all()

    # The worker's thread ----------------------------------------------------------------------------------
    def _work(self, hub: Hub) -> None:
        while True:
            with self._condition:
                while self._hub is hub and not hub.waiting and not self._is_due(hub):
                    held = hub.held_until
                    if held is None:
                        self._condition.wait(0.5)
                    else:
                        self.wait(self._condition, held)
                if self._hub is not hub:
                    return
                arrived = hub.collect()
            begun = self.seconds()
            batch = Batch()
            try:
                batch = hub.next_batch(arrived, now=begun)
                self._serve(hub, batch, begun)
            except Exception as err:
                # Whatever a packet did to this frame, the next frames shall have a hub.
                which = ", ".join(f"{name or 'inference'} {task.inference_id}" for name, task in batch.tasks.items())
                self.get_logger().error(
                    f"{which or 'a packet'} failed: {type(err).__name__}: {err}", throttle_duration_sec=5.0
                )

    def _is_due(self, hub: Hub) -> bool:
        """Whether an exit has waited long enough for a packet that was announced."""
        held = hub.held_until
        return held is not None and held <= self.seconds()

    def _serve(self, hub: Hub, batch: Batch, begun: float) -> None:
        for name, packet in batch.heard:
            self._cameras[name].remember(packet)
        for name, answer in (*batch.late_answers, *batch.answers.items()):
            self._publish(name, answer)
        if batch.tasks:
            logits = batch.by_camera(self._forward(batch.views()))
            answers = hub.conclude(batch, logits)
            # Decoding is part of what an exit takes.
            self._record.exit_s.append(self.seconds() - begun)
            for name, answer in answers.items():
                self._publish(name, answer)
            for name, task in batch.tasks.items():
                if self._cameras[name].runs.get_subscription_count():
                    self._publish_run(name, task, logits[name], name in answers)
        self._record.tell(hub, batch, self.seconds())

    def _forward(self, views: Mapping[int, Sequence[FloatArray]]) -> dict[int, FloatArray]:
        with torch.inference_mode():
            given = {n: [torch.from_numpy(m).to(self._device) for m in maps] for n, maps in views.items()}
            return {n: rows.cpu().numpy() for n, rows in self._network.forward_many(given).items()}

    def _publish(self, name: str, answer: Answer) -> None:
        assert self._bundle is not None
        camera = self._cameras[name]
        header = camera.headers.get(answer.inference_id, Header())
        prediction = answer.prediction
        # The label first: whoever has heard the exit relies on it, even if this process dies between the two.
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
        camera.exits.publish(
            ExitDecision(
                header=header,
                inference_id=answer.inference_id,
                stage=answer.stage,
                class_index=prediction.class_index,
                confidence=self._bundle.decider.confidence(prediction),
            )
        )
        self._record.answers += 1

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
                threshold=decider.threshold(task.stage, arrived=task.arrived),
                answered=answered,
                duration=self._record.exit_s[-1],
            )
        )

    def health(self) -> Health:
        """See the base class."""
        hub = self._hub
        bundle = self._bundle.identity.hex() if self._bundle is not None else ""
        values: dict[str, object] = {"model": self.settings.model, "bundle": bundle, "device": self._device}
        values |= self._record.values()
        if hub is not None:
            counted = [session.counts for session in list(hub.sessions.values())]
            values |= {f"packets {taken.value}": sum(counts[taken] for counts in counted) for taken in Taken}
            values |= {"packets overtaken": hub.overtaken, "packets dropped": hub.overflowed, "waiting": hub.waiting}
            values["cameras heard"] = f"{len(counted)} of {len(self._cameras)}"
        if not self.is_active:
            return DiagnosticStatus.WARN, "inactive", values
        return (*self._hearing.state(self.seconds()), values)


def main() -> None:
    """Run the cloud node."""
    run_node(CloudNode)
