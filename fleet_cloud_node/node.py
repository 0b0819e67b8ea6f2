# SPDX-License-Identifier: Apache-2.0
"""The cloud node: fuses what has arrived, runs exits on it, and says stop when one is sure."""

from __future__ import annotations

import dataclasses
import statistics
import threading
from collections import OrderedDict, deque
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import Header

from fleet.bundle import Bundle
from fleet.codec import StageBuffer
from fleet.errors import FleetError
from fleet.fusion import load_cloud
from fleet.packet import HEADER, HEADER_BYTES
from fleet.resources import find_model
from fleet.session import Answer, CloudSession, ExitTask, Taken
from fleet_msgs.msg import ExitDecision, FeaturePacket, Label
from fleet_ros.messages import label_message
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
    compute_device: str = setting("auto", "torch device: auto, cpu or cuda", read_only=True)


class CloudNode(ManagedNode):
    """A worker thread runs the newest exit whenever it is free; the packet callback only takes packets in."""

    settings: CloudSettings

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("cloud_node", **kwargs)
        declare(self, CloudSettings, self._on_settings)
        self._condition = threading.Condition()
        self._bundle: Bundle | None = None
        self._network: Any = None
        self._device = "cpu"
        self._session: CloudSession | None = None
        self._worker: threading.Thread | None = None
        self._headers: OrderedDict[int, Header] = OrderedDict()
        self._forward_s: deque[float] = deque(maxlen=200)
        self._answers = 0
        options: dict[str, Any] = {"qos_overriding_options": OVERRIDABLE}
        self._exits = self.create_publisher(ExitDecision, "exit", EVENTS, **options)
        self._labels = self.create_publisher(Label, "label", LABELS, **options)
        self._subscription: Any = None

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
            views = [StageBuffer(self._bundle.layouts[n]).view() for n in fused]
            self._forward(stage, [torch.from_numpy(view[None]) for view in views])

    def activate(self) -> None:
        """Listen, with a fresh session."""
        assert self._bundle is not None
        self._session = self._new_session()
        # Subscribed only while active: the bridge takes a subscriber for a hub that listens.
        self._subscription = self.create_subscription(
            FeaturePacket, "link/packets", self._on_packet, PACKETS, qos_overriding_options=OVERRIDABLE
        )
        self._worker = threading.Thread(target=self._work, args=(self._session,), name="exits", daemon=True)
        self._worker.start()

    def deactivate(self) -> None:
        """Stop listening."""
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        with self._condition:
            self._session = None
            self._condition.notify_all()
        if self._worker is not None:
            self._worker.join(timeout=5.0)
            self._worker = None

    def cleanup(self) -> None:
        """Let go of the network."""
        self._bundle = self._network = None

    def _new_session(self) -> CloudSession:
        assert self._bundle is not None
        bundle = self._bundle
        if self.settings.threshold > 0:
            thresholds = dict.fromkeys(bundle.layouts, self.settings.threshold)
            bundle = dataclasses.replace(bundle, decider=dataclasses.replace(bundle.decider, thresholds=thresholds))
        return CloudSession(bundle, self._network.fused)

    def _on_settings(self, _old: CloudSettings, _new: CloudSettings) -> None:
        with self._condition:
            if self._session is not None:
                self._session.bundle = self._new_session().bundle

    # Packets in -------------------------------------------------------------------------------------------
    def _on_packet(self, msg: FeaturePacket) -> None:
        packet = bytes(msg.data)
        with self._condition:
            session = self._session
            if session is None:
                return
            taken = session.take(packet)
            if taken in (Taken.NEW, Taken.LOCAL_ANSWER):
                self._remember(packet, msg.header)
                self._condition.notify_all()
        if taken is Taken.MALFORMED:
            self.get_logger().warning(
                f"a malformed packet of {len(packet)} bytes was dropped; is the camera's model {self.settings.model}?",
                throttle_duration_sec=5.0,
            )

    def _remember(self, packet: bytes, header: Header) -> None:
        if len(packet) >= HEADER_BYTES:
            self._headers[HEADER.unpack_from(packet)[0]] = header
            while len(self._headers) > REMEMBERED_FRAMES:
                self._headers.popitem(last=False)

    # The worker's thread ----------------------------------------------------------------------------------
    def _work(self, session: CloudSession) -> None:
        while True:
            with self._condition:
                task = None
                while self._session is session and (task := session.next_task()) is None:
                    self._condition.wait(0.5)
                if self._session is not session:
                    return
            assert task is not None
            try:
                self._serve(session, task)
            except Exception as err:
                # Whatever a packet did to this frame, the next frames shall have a hub.
                self.get_logger().error(
                    f"inference {task.inference_id} failed: {type(err).__name__}: {err}", throttle_duration_sec=5.0
                )

    def _serve(self, session: CloudSession, task: ExitTask | Answer) -> None:
        if isinstance(task, Answer):
            self._publish(task)
            return
        logits = self._forward(task.stage, [torch.from_numpy(m[None]) for m in task.maps])
        with self._condition:
            _, answer = session.conclude(task, logits)
        if answer is not None:
            self._publish(answer)

    def _forward(self, stage: int, maps: list[torch.Tensor]) -> Any:
        begun = self.seconds()
        with torch.inference_mode():
            logits = self._network(stage, [m.to(self._device) for m in maps])[0].cpu().numpy()
        self._forward_s.append(self.seconds() - begun)
        return logits

    def _publish(self, answer: Answer) -> None:
        assert self._bundle is not None
        header = self._headers.get(answer.inference_id, Header())
        prediction = answer.prediction
        self._exits.publish(
            ExitDecision(
                header=header,
                inference_id=answer.inference_id,
                stage=answer.stage,
                class_index=prediction.class_index,
                confidence=self._bundle.decider.confidence(prediction),
            )
        )
        # A header that is not known any more has no stamp to count from.
        known = answer.inference_id in self._headers
        latency = seconds_since(self.get_clock(), header.stamp) if known else float("nan")
        self._labels.publish(
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

    def health(self) -> tuple[bytes, str, dict[str, object]]:
        """See the base class."""
        session = self._session
        values: dict[str, object] = {"answers": self._answers, "model": self.settings.model, "device": self._device}
        if session is not None:
            values |= {f"packets {taken.value}": count for taken, count in session.counts.items()}
        if self._forward_s:
            values["exit forward median [ms]"] = round(statistics.median(self._forward_s) * 1e3, 2)
        return (
            (DiagnosticStatus.OK, "active", values) if self.is_active else (DiagnosticStatus.WARN, "inactive", values)
        )


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
