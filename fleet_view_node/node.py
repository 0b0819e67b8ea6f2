# SPDX-License-Identifier: Apache-2.0
"""The view node: listens to everything that cameras, radios and hub say of a frame, and serves a page that shows it.

It only listens. When something happened is read off a message's DDS time stamp, set when it was published, so that a
busy listener shows the same times as an idle one. It keeps away from ``link/packets`` of an emulated link, whose bridge
takes a subscriber for a hub.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from fleet.bundle import Bundle
from fleet.errors import FleetError
from fleet.packet import LOCAL_ANSWER_STAGE, PacketError
from fleet.packet import Header as PacketHeader
from fleet.platforms import load_profile
from fleet.resources import find_model
from fleet.view.journey import Answer, ExitRun, Report, StageDone
from fleet.view.pictures import prepare
from fleet.view.state import CameraView, Facts
from fleet_msgs.msg import ExitDecision, FeaturePacket, InferenceReport, Label, LinkEvent, StageFeatures
from fleet_msgs.msg import ExitRun as ExitRunMsg
from fleet_msgs.msg import LinkParameters as LinkParametersMsg
from fleet_ros.diagnostics import Diagnostics, Health
from fleet_ros.messages import link_of
from fleet_ros.node import main as run_node
from fleet_ros.qos import EVENTS, LABELS, LATCHED, PACKETS, REPORTS
from fleet_ros.settings import declare, setting
from fleet_view_node.server import PageServer

PORT = 8742
PICTURES_PER_S = 15.0
POLITENESS = 10


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """Parameters of the view node."""

    host: str = setting(
        "127.0.0.1", "address that the page is served on; any other lets the network look on, unasked", read_only=True
    )
    port: int = setting(PORT, "TCP port of the page; 0: any free one", read_only=True, within=(0, 65535))
    browser: bool = setting(False, "open a browser, where there is a screen", read_only=True)
    cameras: tuple[str, ...] = setting(
        ("",), "namespaces of the cameras; an empty name is the node's own namespace", read_only=True
    )
    conditions: str = setting("{}", "what fleet up knows of the run, a JSON object", read_only=True)


class ViewNode(Node):  # type: ignore[misc]
    """Callbacks put facts into one view a camera; the server's thread takes snapshots out of them."""

    settings: ViewSettings
    # The events executor cannot pass a message's time stamp on (rclpy 9.1.2).
    executor_kind = SingleThreadedExecutor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("view_node", **kwargs)
        declare(self, ViewSettings)
        os.nice(POLITENESS)  # where the processor is scarce, looking on comes last
        logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # what strangers send is no event of ours
        self.finished = threading.Event()
        self._lock = threading.Lock()
        conditions = _conditions(self.settings.conditions)
        names = list(self.settings.cameras)
        own = self.get_namespace().strip("/") or "camera"
        self._views = {name or own: CameraView(facts_of(conditions, name)) for name in names}
        self._pictured = dict.fromkeys(self._views, -math.inf)
        self._listening_to_packets: set[str] = set()
        for shown, name in zip(self._views, names, strict=True):
            self._listen(shown, name)
        self._server = PageServer(self.settings.host, self.settings.port, self, log=self._complain)
        url = self._url = self._server.start()
        self._diagnostics = Diagnostics(self, "view", self.health)
        print(f"view: {url}", flush=True)  # noqa: T201 - the user's line
        if self.settings.browser and _has_screen(os.environ):
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    def health(self) -> Health:
        """Level, line and values for diagnostics."""
        return DiagnosticStatus.OK, f"serving {self._url}", {"cameras": len(self._views)}

    def stop(self) -> None:
        """Close the page's server."""
        self._server.stop()

    def _complain(self, line: str) -> None:
        self.get_logger().warning(line, throttle_duration_sec=5.0)

    def _listen(self, camera: str, name: str) -> None:
        def listen(kind: Any, topic: str, callback: Callable[[CameraView, Any, float], None], qos: Any) -> None:
            place = f"{name.rstrip('/')}/{topic}" if name else topic
            self.create_subscription(kind, place, _with_time(partial(self._take, camera, callback)), qos)

        listen(LinkParametersMsg, "link/parameters", partial(self._on_link, camera, name), LATCHED)
        listen(StageFeatures, "features", _on_features, EVENTS)
        listen(LinkEvent, "link/events", _on_event, EVENTS)
        listen(ExitRunMsg, "exit/runs", _on_run, EVENTS)
        listen(ExitDecision, "exit", lambda view, msg, at: view.on_decision(msg.inference_id, at), EVENTS)
        listen(ExitDecision, "link/exit", lambda view, msg, at: view.on_notice(msg.inference_id, at), EVENTS)
        listen(Label, "label", _on_label, LABELS)
        listen(InferenceReport, "inference", _on_report, REPORTS)
        place = f"{name.rstrip('/')}/image/compressed" if name else "image/compressed"
        self.create_subscription(CompressedImage, place, partial(self._on_picture, camera), qos_profile_sensor_data)

    # Callbacks --------------------------------------------------------------------------------------------
    def _take(self, camera: str, callback: Callable[[CameraView, Any, float], None], msg: Any, at: float) -> None:
        with self._lock:
            callback(self._views[camera], msg, at)

    def _on_link(self, camera: str, name: str, view: CameraView, msg: LinkParametersMsg, _at: float) -> None:
        try:
            view.on_link(link_of(msg), connected=msg.connected)
        except FleetError:
            return  # no node of ours says such a thing
        if msg.transport == "bleak" and camera not in self._listening_to_packets:
            self._listening_to_packets.add(camera)
            place = f"{name.rstrip('/')}/link/packets" if name else "link/packets"
            callback = _with_time(partial(self._take, camera, _on_packet))
            self.create_subscription(FeaturePacket, place, callback, PACKETS)

    def _on_picture(self, camera: str, msg: CompressedImage) -> None:
        stamp = _seconds(msg.header)  # of the pictures, not of now: late ones come in bunches
        if 0.0 <= stamp - self._pictured[camera] < 1 / PICTURES_PER_S:
            return
        self._pictured[camera] = stamp
        view = self._views[camera]
        picture = prepare(bytes(msg.data), view.facts.input_size)  # some milliseconds: not under the lock
        if picture is not None:
            with self._lock:
                view.on_picture(key_of(msg.header), picture)

    # What the server shows --------------------------------------------------------------------------------
    @property
    def cameras(self) -> Sequence[str]:
        """See :class:`fleet_view_node.server.Feed`."""
        return list(self._views)

    def news(self, camera: str) -> object:
        """See :class:`fleet_view_node.server.Feed`."""
        now = time.time()
        with self._lock:
            view = self._views[camera]
            return view.version, now if view.is_live(now) else None

    def snapshot(self, camera: str) -> dict[str, Any]:
        """See :class:`fleet_view_node.server.Feed`."""
        with self._lock:
            return self._views[camera].snapshot(time.time())

    def frame(self, camera: str, seq: int) -> dict[str, Any] | None:
        """See :class:`fleet_view_node.server.Feed`."""
        with self._lock:
            return self._views[camera].frame(seq, time.time())

    def picture(self, camera: str, key: str) -> bytes | None:
        """See :class:`fleet_view_node.server.Feed`."""
        with self._lock:
            picture = self._views[camera].pictures.get(key)
        return picture.shown if picture is not None else None

    def thumb(self, camera: str, number: int) -> bytes | None:
        """See :class:`fleet_view_node.server.Feed`."""
        with self._lock:
            return self._views[camera].sightings.thumb(number)


def _with_time(callback: Callable[[Any, float], None]) -> Callable[[Any, Any], None]:
    """A subscription's callback that gets the time at which the message was published, s."""

    def call(msg: Any, info: Mapping[str, Any]) -> None:
        published = info.get("source_timestamp") or 0
        callback(msg, published * 1e-9 if published > 0 else time.time())

    return call


def _seconds(header: Header) -> float:
    return float(header.stamp.sec) + float(header.stamp.nanosec) * 1e-9


def key_of(header: Header) -> str:
    """Names a frame's picture: the image and everything that is said of it carry the same stamp."""
    return f"{header.stamp.sec}.{header.stamp.nanosec:09d}"


def _on_features(view: CameraView, msg: StageFeatures, at: float) -> None:
    size = sum(len(packet.data) for packet in msg.packets)
    done = StageDone(msg.stage, at, len(msg.packets), size)
    view.on_stage(msg.inference_id, key_of(msg.header), _seconds(msg.header), done)


def _on_event(view: CameraView, msg: LinkEvent, at: float) -> None:
    anchor = _seconds(msg.header)
    # Simulated time says nothing about the other times.
    anchor = anchor if abs(at - anchor) < 5.0 else at - msg.air_time
    notice = (msg.notice_id, msg.notice_heard) if msg.notice else None
    view.on_event(msg.inference_id, anchor, list(msg.stages), list(msg.sizes), list(msg.lost), notice)


def _on_packet(view: CameraView, msg: FeaturePacket, at: float) -> None:
    try:
        head = PacketHeader.unpack(bytes(msg.data))
    except PacketError:
        return
    view.on_packet(head.inference_id, key_of(msg.header), _seconds(msg.header), head.stage, len(msg.data), at)


def _on_run(view: CameraView, msg: ExitRunMsg, at: float) -> None:
    run = ExitRun(
        stage=msg.stage,
        at=at,
        duration=msg.duration,
        certainty=msg.certainty,
        threshold=msg.threshold,
        group=msg.group,
        class_name=msg.class_name,
        answered=msg.answered,
    )
    view.on_run(msg.inference_id, run)


def _on_label(view: CameraView, msg: Label, at: float) -> None:
    local = msg.stage == Label.LOCAL_ANSWER
    known = [c for c in (msg.group_confidence, msg.class_confidence) if math.isfinite(c)]
    answer = Answer(
        msg.group,
        msg.class_name,
        known[0] if known else math.nan,
        "device" if local or msg.source == Label.DEVICE else "hub",
        None if local else msg.stage,
    )
    view.on_label(msg.inference_id, key_of(msg.header), _seconds(msg.header), answer, at)


def _on_report(view: CameraView, msg: InferenceReport, at: float) -> None:
    local = msg.exit_stage == LOCAL_ANSWER_STAGE
    by_hub = msg.source == InferenceReport.HUB
    answer = Answer(
        msg.group, msg.class_name, msg.confidence, "hub" if by_hub else "device", None if local else msg.exit_stage
    )
    radio = bool(msg.radio_reported)
    report = Report(
        answer=answer,
        latency=msg.latency,
        compute=msg.compute_time,
        energy_mj=msg.compute_energy_mj + msg.radio_energy_mj,
        radio_mj=msg.radio_energy_mj,
        stages_run=msg.stages_run,
        packets=msg.packets if radio else None,
        lost=msg.packets_lost if radio else None,
        size=msg.bytes if radio else None,
        name=msg.name,
        truth=msg.truth,
    )
    view.on_report(msg.inference_id, key_of(msg.header), _seconds(msg.header), report, at)


def facts_of(conditions: Mapping[str, Any], camera: str) -> Facts:
    """What the run's conditions say of a camera.

    Args:
        conditions: as :attr:`fleet.description.Description.conditions`.
        camera: its name where there are several.

    Raises:
        FleetError: a model or platform that is not there.
    """
    several = conditions.get("cameras")
    said = several.get(camera, {}) if isinstance(several, dict) else conditions
    shown = {key: said.get(key) for key in ("source", "model", "platform", "time_scale", "frame_rate", "precision")}
    shown |= {"description": conditions.get("description"), "codec": said.get("codec") or None}
    if not said.get("model"):  # a hub whose cameras run elsewhere
        return Facts(conditions=shown)
    bundle = Bundle.load(find_model(str(said["model"])))
    profile = load_profile(str(said.get("platform") or "native"), time_scale=float(said.get("time_scale") or 1.0))
    return Facts(
        exit_stages=bundle.exit_stages,
        shown=bundle.picture is not None,
        input_size=bundle.input_size,
        stages=bundle.stages,
        profile=profile,
        conditions=shown | {"model": bundle.name, "codec": said.get("codec") or bundle.coder.name},
    )


def _conditions(text: str) -> Mapping[str, Any]:
    try:
        said = json.loads(text)
    except ValueError as err:
        raise FleetError(f"parameter conditions is not a JSON object: {err}") from err
    if not isinstance(said, dict):
        raise FleetError("parameter conditions is not a JSON object")
    return said


def _has_screen(environment: Mapping[str, str]) -> bool:
    screen = environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    return bool(screen) and not environment.get("CI")


def main() -> None:
    """Run the view node."""
    run_node(ViewNode)
