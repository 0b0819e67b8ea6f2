# SPDX-License-Identifier: Apache-2.0
"""The device node: camera, stages in ONNX Runtime, encoded features, and the device's own answers."""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from fleet.answers import PendingAnswers
from fleet.bundle import Bundle
from fleet.coders import coder_named
from fleet.errors import FleetError
from fleet.inference import Device, Outcome
from fleet.link.parameters import CI_MAX_MS, CI_MIN_MS
from fleet.packet import LOCAL_ANSWER_STAGE, MAX_PAYLOAD, MIN_PAYLOAD, ExitNotice, next_id
from fleet.platforms import PlatformProfile, load_profile
from fleet.resources import find_model
from fleet.runtime import CancelledError, DeviceNetwork
from fleet.sources import Frame, Source, SourceTimeout, open_source
from fleet_device_node.image_topic import PREFIX, ImageTopic
from fleet_device_node.reports import Join
from fleet_device_node.surroundings import NodeSurroundings
from fleet_msgs.msg import (
    ExitDecision,
    InferenceReport,
    Label,
    LinkParameters,
    LinkReport,
    PacketData,
    StageFeatures,
)
from fleet_ros.messages import bounded, label_message
from fleet_ros.node import ManagedNode
from fleet_ros.node import main as run_node
from fleet_ros.qos import EVENTS, IMAGES, LABELS, LATCHED, OVERRIDABLE, REPORTS
from fleet_ros.settings import declare, setting

READ_TIMEOUT = 0.5
SILENT_SOURCE_S = 5.0


@dataclasses.dataclass(frozen=True)
class DeviceSettings:
    """Parameters of the device node."""

    source: str = setting(
        "auto",
        "auto, photos, a camera index, a file, directory or tar of images, a video, a URL, or ros:/TOPIC",
        read_only=True,
    )
    loop: bool = setting(False, "begin a finite source again when it ends", read_only=True)
    frame_rate: float = setting(8.0, "frames a second at most; 0: as fast as inference goes", within=(0.0, 1000.0))
    model: str = setting("backyard", "model bundle: a directory, or the name of one that is installed", read_only=True)
    precision: str = setting("float", "which ONNX stages run: float or int8", read_only=True)
    codec: str = setting("", "fleet, plain, paper or paper-deflate; empty: the model's own", read_only=True)
    threads: int = setting(1, "threads of one stage", read_only=True, within=(1, 64))
    platform: str = setting("native", "platform profile to pace the stages to: a name or a YAML file", read_only=True)
    time_scale: float = setting(
        1.0, "factor on the profile's times; 3.56 makes 64x64 cost what 224x224 costs", read_only=True
    )
    interruptible: bool = setting(True, "an exit notice cuts the running stage short", read_only=True)
    answer_timeout: float = setting(
        0.5, "time after which the device publishes its own answer unless the hub was heard [s]", within=(0.0, 60.0)
    )

    wait_for_hub: float = setting(
        0.0, "time that the first frame waits at most for a hub to be there [s]", read_only=True, within=(0.0, 600.0)
    )

    def __post_init__(self) -> None:
        """Check what a range cannot say.

        Raises:
            FleetError: an unknown precision or codec, or a time scale that is not positive.
        """
        if self.codec:
            coder_named(self.codec)
        if self.precision not in ("float", "int8"):
            raise FleetError(f"precision is float or int8, not '{self.precision}'")
        if not self.time_scale > 0:
            raise FleetError(f"time_scale must be positive, not {self.time_scale:g}")


@dataclasses.dataclass(frozen=True)
class _Ended:
    """A frame whose inference is over, waiting for the radio's report."""

    outcome: Outcome
    header: Header
    name: str
    truth: str


class DeviceNode(ManagedNode):
    """A worker thread runs frame after frame; callbacks bring notices, link parameters and radio reports."""

    settings: DeviceSettings

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("device_node", **kwargs)
        declare(self, DeviceSettings, self._on_settings)
        self._lock = threading.Lock()
        self._bundle: Bundle | None = None
        self._profile: PlatformProfile | None = None
        self._network: DeviceNetwork | None = None
        self._around: NodeSurroundings | None = None
        self._source: Source | ImageTopic | None = None
        self._worker: threading.Thread | None = None
        self._header = Header()
        self._connected = False
        self._payload = MAX_PAYLOAD
        self._frames = self._by_hub = 0
        self._pending: PendingAnswers[tuple[Outcome, Header]] = PendingAnswers(self.settings.answer_timeout)
        self._join: Join[_Ended, LinkReport] = Join(timeout=1.0)
        options: dict[str, Any] = {"qos_overriding_options": OVERRIDABLE}
        self._features = self.create_publisher(StageFeatures, "features", EVENTS, **options)
        self._labels = self.create_publisher(Label, "label", LABELS, **options)
        self._reports = self.create_publisher(InferenceReport, "inference", REPORTS, **options)
        self._images = self.create_publisher(CompressedImage, "image/compressed", IMAGES, **options)
        self.create_subscription(ExitDecision, "link/exit", self._on_exit, EVENTS, **options)
        self.create_subscription(LinkParameters, "link/parameters", self._on_link, LATCHED, **options)
        self.create_subscription(LinkReport, "link/report", self._on_link_report, EVENTS, **options)
        self.create_timer(0.02, self._on_tick)

    # Life cycle -------------------------------------------------------------------------------------------
    def configure(self) -> None:
        """Load the model and the platform."""
        settings = self.settings
        self._profile = load_profile(settings.platform, time_scale=settings.time_scale)
        bundle = Bundle.load(find_model(settings.model))
        self._bundle = dataclasses.replace(bundle, coder=coder_named(settings.codec)) if settings.codec else bundle
        self._network = DeviceNetwork(
            self._bundle,
            precision=settings.precision,  # type: ignore[arg-type] - checked by the settings
            threads=settings.threads,
        )

    def activate(self) -> None:
        """Open the source and begin."""
        assert self._network is not None
        self._source = self._open_source()
        self.get_logger().info(f"source: {self._source.description}")
        self._around = NodeSurroundings(
            self, self._network, self._publish_features, interruptible=self.settings.interruptible
        )
        self._around.payload = self._payload  # the link may have been told before, and is told only once
        self._worker = threading.Thread(
            target=self._work, args=(self._source, self._around), name="inference", daemon=True
        )
        self._worker.start()

    def deactivate(self) -> None:
        """Stop the worker, let go of the camera, and tell what is still untold."""
        if self._around is not None:
            self._around.close()
        if self._source is not None:
            self._source.close()
        if self._worker is not None:
            self._worker.join(timeout=2.0)
        self._around = self._source = self._worker = None
        self._flush(everything=True)

    def cleanup(self) -> None:
        """Let go of the model."""
        self._bundle = self._network = self._profile = None

    def _open_source(self) -> Source | ImageTopic:
        if self.settings.source.startswith(PREFIX):
            return ImageTopic(self, self.settings.source)
        return open_source(
            self.settings.source,
            loop=self.settings.loop,
            on_skip=lambda line: self.get_logger().warning(line),
        )

    def _on_settings(self, _old: DeviceSettings, new: DeviceSettings) -> None:
        self._pending.timeout = new.answer_timeout

    # The worker's thread ----------------------------------------------------------------------------------
    def _work(self, source: Source | ImageTopic, around: NodeSurroundings) -> None:
        try:
            self._run_frames(source, around)
        except CancelledError:
            return
        except FleetError as err:
            self.problem = str(err)
        except Exception as err:
            self.problem = f"inference failed: {type(err).__name__}: {err}"
        if not around.closed:
            self._drain(around)
            self.finished.set()

    def _run_frames(self, source: Source | ImageTopic, around: NodeSurroundings) -> None:
        assert self._bundle is not None
        assert self._network is not None
        assert self._profile is not None
        device = Device(self._bundle, self._network, self._profile)
        # A random start: a hub that remembers the ids of before a restart must not take these for repeats.
        inference_id = secrets.randbits(16)
        give_up = around.now() + self.settings.wait_for_hub
        while not (self._connected or around.closed) and around.now() < give_up:
            around.pause_until(around.now() + 0.02)
        due = begun = slot = last_frame = around.now()
        while not around.closed:
            while not around.closed and around.now() < due:
                around.pause_until(min(due, around.now() + 0.25))
                due = self._due(slot, begun)  # somebody may have set another rate meanwhile
            try:
                frame = source.read(READ_TIMEOUT)
            except SourceTimeout as err:
                if around.now() - last_frame > SILENT_SOURCE_S:
                    self.get_logger().warning(f"still no picture: {err}", throttle_duration_sec=SILENT_SOURCE_S)
                continue
            last_frame = around.now()
            if frame is None:
                return
            begun = around.now()
            inference_id = next_id(inference_id)
            self._header = self._header_of(source)
            self._publish_image(frame)
            around.begin(inference_id)
            outcome = device.infer(self._network.prepare(frame.image), inference_id, around, ready=begun)
            self._conclude(outcome, frame, around)
            slot = due
            due = self._due(slot, begun)

    def _due(self, slot: float, begun: float) -> float:
        """When the next frame is due: the grid of a camera with this rate; a frame that took longer moves it."""
        rate = self.settings.frame_rate
        return max(slot + 1 / rate, begun) if rate > 0 else begun

    def _header_of(self, source: Source | ImageTopic) -> Header:
        if isinstance(source, ImageTopic):
            return source.header
        return Header(stamp=self.get_clock().now().to_msg(), frame_id=self.get_namespace().strip("/") or "camera")

    def _conclude(self, outcome: Outcome, frame: Frame, around: NodeSurroundings) -> None:
        assert self._bundle is not None
        truth = self._bundle.classes.group_named(frame.truth) or ""
        ended = _Ended(outcome, self._header, frame.name.encode()[-256:].decode(errors="ignore"), truth)
        with self._lock:
            self._frames += 1
            self._by_hub += outcome.by_hub
            # The hub's notice may have come at the very moment at which the device was done.
            if not outcome.by_hub and not around.heard(outcome.inference_id):
                self._pending.add(outcome.inference_id, (outcome, self._header), self.seconds())
            pair = self._join.add_ours(outcome.inference_id, ended, self.seconds())
        if pair is not None:
            self._publish_report(*pair)

    def _drain(self, around: NodeSurroundings) -> None:
        """The source has ended: give the last frames' reports the time they need."""
        deadline = around.now() + max(self._join.timeout, self._pending.timeout)
        while not around.closed and around.now() < deadline and (len(self._join) or len(self._pending)):
            around.pause_until(around.now() + 0.02)

    # Callbacks --------------------------------------------------------------------------------------------
    def _on_exit(self, msg: ExitDecision) -> None:
        if self._bundle is None:
            return
        notice = ExitNotice(msg.inference_id, msg.class_index, msg.stage, msg.confidence)
        known = notice.stage in self._bundle.layouts or notice.stage == LOCAL_ANSWER_STAGE
        if not known or notice.class_index >= len(self._bundle.classes):
            self.get_logger().warning(
                f"an exit notice of exit {notice.stage} names class {notice.class_index}: this model lacks one of them",
                throttle_duration_sec=5.0,
            )
            return
        if self._around is not None:
            self._around.hear(notice)
        # In this order, or an answer that begins to wait in between would never be confirmed.
        with self._lock:
            self._pending.confirm(notice.inference_id)

    def _on_link(self, msg: LinkParameters) -> None:
        if not (MIN_PAYLOAD <= msg.payload <= MAX_PAYLOAD and CI_MIN_MS <= msg.ci_ms <= CI_MAX_MS):
            self.get_logger().warning(
                f"no link has payloads of {msg.payload} bytes every {msg.ci_ms:g} ms; going on with the one before",
                throttle_duration_sec=5.0,
            )
            return
        self._connected = msg.connected
        # The radio's last word on a frame comes with the next event or the next frame.
        self._join.timeout = max(1.0, 2.5e-3 * msg.ci_ms)
        self._payload = msg.payload
        if self._around is not None:
            self._around.payload = msg.payload

    def _on_link_report(self, msg: LinkReport) -> None:
        with self._lock:
            pair = self._join.add_theirs(msg.inference_id, msg)
        if pair is not None:
            self._publish_report(*pair)

    def _on_tick(self) -> None:
        if self._frames:
            self._flush(everything=False)

    def _flush(self, *, everything: bool) -> None:
        """Publish what nobody else will: answers the hub did not confirm, reports without a radio's half."""
        now = self.seconds()
        with self._lock:
            answers = self._pending.due(now, all_of_them=everything or not self._connected)
            alone = self._join.overdue(now, all_of_them=everything)
        for outcome, header in answers:
            self._publish_label(outcome, header)
        for ended in alone:
            self._publish_report(ended, None)

    # Messages ---------------------------------------------------------------------------------------------
    def _publish_features(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        assert self._around is not None
        self._features.publish(
            StageFeatures(
                header=self._header,
                inference_id=inference_id,
                stage=stage,
                payload=self._around.payload,
                packets=[PacketData(data=packet) for packet in packets],
            )
        )

    def _publish_label(self, outcome: Outcome, header: Header) -> None:
        if self._bundle is None:
            return
        self._labels.publish(
            label_message(
                self._bundle.classes,
                header,
                outcome.inference_id,
                outcome.prediction,
                source=Label.DEVICE,
                stage=outcome.stage,
                hub_latency=float("nan"),
            )
        )

    def _publish_report(self, ended: _Ended, radio: LinkReport | None) -> None:
        if self._bundle is None or self._profile is None:
            return
        outcome = ended.outcome
        classes = self._bundle.classes
        prediction = outcome.prediction
        report = InferenceReport(
            header=ended.header,
            inference_id=outcome.inference_id,
            name=ended.name,
            truth=ended.truth,
            group=prediction.group,
            class_name=bounded(classes.names[prediction.class_index]),
            class_index=prediction.class_index,
            confidence=self._bundle.decider.confidence(prediction),
            source=InferenceReport.HUB if outcome.by_hub else InferenceReport.DEVICE,
            exit_stage=outcome.stage,
            stages_run=outcome.stages_run,
            compute_time=outcome.busy,
            latency=outcome.latency,
            compute_energy_mj=self._profile.energy_mj(outcome.busy),
            radio_energy_mj=float("nan"),
        )
        if radio is not None:
            report.radio_reported = True
            report.radio_energy_mj = radio.energy_mj
            report.packets, report.packets_lost = radio.packets_sent, radio.packets_lost
            report.bytes, report.events = radio.bytes_sent, radio.events
        self._reports.publish(report)

    def _publish_image(self, frame: Frame) -> None:
        if self.count_subscribers(self._images.topic_name) == 0:
            return
        done, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(frame.image[..., ::-1]))
        if done:
            self._images.publish(CompressedImage(header=self._header, format="jpeg", data=jpeg.tobytes()))

    def health(self) -> tuple[bytes, str, dict[str, object]]:
        """See the base class."""
        values: dict[str, object] = {
            "frames": self._frames,
            "answered by the hub": self._by_hub,
            "unreadable frames": self._source.skipped if self._source is not None else 0,
            "platform": self.settings.platform,
        }
        if not self.is_active:
            return DiagnosticStatus.WARN, "inactive", values
        if not self._connected:
            return DiagnosticStatus.WARN, "no hub: the device answers by itself", values
        return DiagnosticStatus.OK, "active", values


def main() -> None:
    """Run the device node."""
    run_node(DeviceNode)
