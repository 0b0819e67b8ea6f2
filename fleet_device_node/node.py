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
from fleet.link.parameters import LinkParameters as Link
from fleet.motion import Seen
from fleet.packet import LOCAL_ANSWER_STAGE, MAX_PAYLOAD, MIN_PAYLOAD, ExitNotice, next_id
from fleet.platforms import PlatformProfile, load_profile
from fleet.resources import find_model
from fleet.runtime import CancelledError, DeviceNetwork
from fleet.sources import Frame, RegionSource, Source, SourceGone, SourceTimeout, open_source, roi_named
from fleet.sources.watch import SourceWatch
from fleet_device_node.image_topic import PREFIX, ImageTopic
from fleet_device_node.link_watch import LinkWatch
from fleet_device_node.messages import Ended, report_message
from fleet_device_node.reports import Join
from fleet_device_node.settings import DeviceSettings
from fleet_device_node.surroundings import NodeSurroundings
from fleet_msgs.msg import (
    ExitDecision,
    InferenceReport,
    Label,
    LinkParameters,
    LinkReport,
    LinkStatistics,
    PacketData,
    StageFeatures,
)
from fleet_ros.labels import LabelPublisher
from fleet_ros.messages import label_message, link_of
from fleet_ros.node import ManagedNode
from fleet_ros.node import main as run_node
from fleet_ros.qos import EVENTS, IMAGES, LATCHED, OVERRIDABLE, REPORTS
from fleet_ros.settings import declare

READ_TIMEOUT = 0.5


class DeviceNode(ManagedNode):
    """A worker thread runs frame after frame; callbacks bring notices, link parameters and radio reports."""

    part = "camera"
    settings: DeviceSettings

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("device_node", **kwargs)
        declare(self, DeviceSettings, self._on_settings)
        self._lock = threading.Lock()
        self._bundle: Bundle | None = None
        self._profile: PlatformProfile | None = None
        self._network: DeviceNetwork | None = None
        self._around: NodeSurroundings | None = None
        self._source: RegionSource | None = None
        self._watch: SourceWatch | None = None
        self._link = LinkWatch()
        self._worker: threading.Thread | None = None
        self._header = Header()
        self._payload = MAX_PAYLOAD
        self._radio: Link | None = None
        self._frames = self._by_hub = self._unanswered = 0
        self._last_id: int | None = None
        self._pending: PendingAnswers[tuple[Outcome, Header]] = PendingAnswers(self.settings.answer_timeout)
        self._join: Join[Ended, LinkReport] = Join(timeout=1.0)
        options: dict[str, Any] = {"qos_overriding_options": OVERRIDABLE}
        self._features = self.create_publisher(StageFeatures, "features", EVENTS, **options)
        self._labels = LabelPublisher(self, **options)
        self._reports = self.create_publisher(InferenceReport, "inference", REPORTS, **options)
        self._images = self.create_publisher(CompressedImage, "image/compressed", IMAGES, **options)
        self.create_subscription(ExitDecision, "link/exit", self._on_exit, EVENTS, **options)
        self.create_subscription(LinkParameters, "link/parameters", self._on_link, LATCHED, **options)
        self.create_subscription(LinkReport, "link/report", self._on_link_report, EVENTS, **options)
        self.create_subscription(LinkStatistics, "link/statistics", self._on_statistics, EVENTS, **options)
        self.create_timer(0.02, self._on_tick)

    # Life cycle -------------------------------------------------------------------------------------------
    def configure(self) -> None:
        """Load the model and the platform."""
        settings = self.settings
        self._profile = load_profile(settings.platform, time_scale=settings.time_scale)
        bundle = Bundle.load(find_model(settings.model))
        self._bundle = dataclasses.replace(bundle, coder=coder_named(settings.codec)) if settings.codec else bundle
        if settings.race and not bundle.local_exits:
            raise FleetError(f"race: the model {bundle.path} has no local exits to race with; say race: false")
        if settings.thrifty and bundle.picture is None:
            raise FleetError(f"thrifty: the model {bundle.path} has no stage 0 to be thrifty with; say thrifty: false")
        self._network = DeviceNetwork(
            self._bundle,
            precision=settings.precision,  # type: ignore[arg-type] - checked by the settings
            threads=settings.threads,
        )

    def activate(self) -> None:
        """Open the source and begin."""
        assert self._network is not None
        camera = self._open_source()
        self._source = RegionSource(camera, roi_named(self.settings.roi))
        self._watch = SourceWatch(self.seconds())
        self.get_logger().info(f"source: {camera.description}")
        self._around = NodeSurroundings(
            self, self._network, self._publish_features, interruptible=self.settings.interruptible
        )
        self._around.link = self._radio
        self._around.payload = self._payload  # the link may have been told before, and is told only once
        self._worker = threading.Thread(
            target=self._work, args=(self._source, camera, self._around), name="inference", daemon=True
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
        self._around = self._source = self._watch = self._worker = None
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
        if self._source is not None:
            self._source.roi = roi_named(new.roi)

    # The worker's thread ----------------------------------------------------------------------------------
    def _work(self, source: RegionSource, camera: Source | ImageTopic, around: NodeSurroundings) -> None:
        try:
            self._run_frames(source, camera, around)
        except FleetError as err:
            self.problem = str(err)
        except Exception as err:
            self.problem = f"inference failed: {type(err).__name__}: {err}"
        if not around.closed:
            self._drain(around)
            self.finished.set()

    def _run_frames(self, source: RegionSource, camera: Source | ImageTopic, around: NodeSurroundings) -> None:
        assert self._bundle is not None
        assert self._network is not None
        assert self._profile is not None
        race = self._network if self.settings.race else None
        device = Device(self._bundle, self._network, self._profile, race, self.settings.thrifty)
        # A random start: a hub that remembers the ids of before a restart must not take these for repeats.
        inference_id = secrets.randbits(16)
        give_up = around.now() + self.settings.wait_for_hub
        while not (self._link.connected or around.closed) and around.now() < give_up:
            around.pause_until(around.now() + 0.02)
        due = begun = slot = around.now()
        while not around.closed:
            while not around.closed and around.now() < due:
                around.pause_until(min(due, around.now() + 0.25))
                due = self._due(slot, begun)  # somebody may have set another rate meanwhile
            try:
                frame = source.read(READ_TIMEOUT)
            except SourceTimeout as err:
                self._say(self._looked(around.now(), picture=False, gone=isinstance(err, SourceGone)))
                continue
            if frame is None:
                return
            begun = around.now()
            self._say(self._looked(begun, picture=True))
            self._last_id = inference_id = next_id(inference_id)
            self._header = self._header_of(camera)
            around.begin(inference_id)
            try:
                outcome = device.infer(self._network.prepare(frame.view), inference_id, around, ready=begun)
            except CancelledError:
                self._unanswered += 1
                self.get_logger().info(f"frame {inference_id} gets no label: the device stops in the middle of it")
                return
            except Exception as err:
                self._unanswered += 1
                self.get_logger().error(f"frame {inference_id} gets no label: {err}")
                raise
            self._conclude(outcome, frame, around)
            self._publish_image(frame)  # behind the answer: that somebody looks on must not make it late
            slot = due
            due = self._due(slot, begun)

    def _looked(self, now: float, *, picture: bool, gone: bool = False) -> str | None:
        """Note whether there was a picture. Returns a line if that is news."""
        watch = self._watch
        if watch is None:  # the node stops
            return None
        return watch.picture(now) if picture else watch.nothing(now, gone=gone)

    def _say(self, line: str | None) -> None:
        if line is not None and self._source is not None:
            self.get_logger().warning(f"{self._source.description}: {line}")

    def _due(self, slot: float, begun: float) -> float:
        """When the next frame is due: the grid of a camera with this rate; a frame that took longer moves it."""
        rate = self.settings.frame_rate
        return max(slot + 1 / rate, begun) if rate > 0 else begun

    def _header_of(self, camera: Source | ImageTopic) -> Header:
        if isinstance(camera, ImageTopic):
            return camera.header
        return Header(stamp=self.get_clock().now().to_msg(), frame_id=self.get_namespace().strip("/") or "camera")

    def _conclude(self, outcome: Outcome, frame: Frame, around: NodeSurroundings) -> None:
        ended = Ended(outcome, self._header, frame.name, frame.truth, frame.region)
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
        self._tell(self._link.told(self.seconds(), connected=msg.connected))
        # The radio's last word on a frame comes with the next event or the next frame.
        self._join.timeout = max(1.0, 2.5e-3 * msg.ci_ms)
        self._payload = msg.payload
        try:
            self._radio = link_of(msg) if msg.connected else None
        except FleetError:  # a PHY that this version does not know: frames go on without its times
            self._radio = None
        if self._around is not None:
            self._around.payload = msg.payload
            self._around.link = self._radio

    def _on_link_report(self, msg: LinkReport) -> None:
        with self._lock:
            pair = self._join.add_theirs(msg.inference_id, msg)
        if pair is not None:
            self._publish_report(*pair)

    def _on_statistics(self, _msg: LinkStatistics) -> None:
        self._tell(self._link.beat(self.seconds()))

    def _tell(self, line: str | None) -> None:
        if line is not None:
            self.get_logger().warning(line)

    def _on_tick(self) -> None:
        self._tell(self._link.look(self.seconds()))
        if self._around is not None:
            self._around.link = self._radio if self._link.connected else None
        if self._frames:
            self._flush(everything=False)

    def _flush(self, *, everything: bool) -> None:
        """Publish what nobody else will: answers the hub did not confirm, reports without a radio's half."""
        now = self.seconds()
        with self._lock:
            answers = self._pending.due(now, all_of_them=everything or not self._link.connected)
            alone = self._join.overdue(now, all_of_them=everything)
        if answers and self._link.connected and not everything:
            last = answers[-1][0].inference_id
            self.get_logger().info(
                f"frame {last}: the hub did not confirm the device's answer in time; the device publishes it",
                throttle_duration_sec=5.0,
            )
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

    def _publish_report(self, ended: Ended, radio: LinkReport | None) -> None:
        if self._bundle is not None and self._profile is not None:
            self._reports.publish(report_message(ended, radio, self._bundle, self._profile))

    def _publish_image(self, frame: Frame) -> None:
        if self.count_subscribers(self._images.topic_name) == 0:
            return
        done, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(frame.image[..., ::-1]))
        if done:
            self._images.publish(CompressedImage(header=self._header, format="jpeg", data=jpeg.tobytes()))

    def health(self) -> tuple[bytes, str, dict[str, object]]:
        """See the base class."""
        source, watch = self._source, self._watch
        values: dict[str, object] = {
            "frames": self._frames,
            "answered by the hub": self._by_hub,
            "answered by the device": self._frames - self._by_hub,
            "frames without a label": self._unanswered,
            "last frame": "" if self._last_id is None else self._last_id,
            "unreadable frames": source.skipped if source is not None else 0,
            # What a replay must know of a run (fleet.bags.recording).
            **{name: getattr(self.settings, name) for name in ("model", "platform", "precision", "codec", "race")},
            "time scale": self.settings.time_scale,
            "bundle": self._bundle.identity.hex() if self._bundle is not None else "",
        }
        if source is not None and source.roi == "motion":
            values |= {f"motion: {seen.value}": source.seen[seen] for seen in Seen}
        if not self.is_active:
            return DiagnosticStatus.WARN, "inactive", values
        if watch is not None and (complaint := watch.complaint(self.seconds())) is not None:
            return DiagnosticStatus.ERROR, complaint, values
        if not self._link.connected:
            return DiagnosticStatus.WARN, f"{self._link.why}: the device answers by itself", values
        return DiagnosticStatus.OK, "active", values


def main() -> None:
    """Run the device node."""
    run_node(DeviceNode)
