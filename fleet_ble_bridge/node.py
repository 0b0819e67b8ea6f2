# SPDX-License-Identifier: Apache-2.0
"""The bridge node: releases packets only in connection events and carries exit notices back.

One parameter chooses what is behind it: a model of the whole link (``emulated``), or one half of a real one, the
camera's (``bumble``) or the hub's (``bleak``). Topics and services are the same.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections import OrderedDict
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from fleet.ble.settings import check_name
from fleet.errors import FleetError
from fleet.link.accounting import Event, InferenceAccount, LinkTotals
from fleet.link.parameters import LinkParameters
from fleet.link.scheduler import Scheduler
from fleet.packet import ExitNotice, PacketError
from fleet.packet import Header as PacketHeader
from fleet_ble_bridge.messages import (
    event_message,
    exit_message,
    parameters_message,
    report_message,
    statistics_message,
)
from fleet_ble_bridge.real import Happenings, RadioSettings, RealRadio, open_radio
from fleet_msgs.msg import ExitDecision, FeaturePacket, LinkEvent, LinkReport, LinkStatistics, StageFeatures
from fleet_msgs.msg import LinkParameters as LinkParametersMsg
from fleet_msgs.srv import Renegotiate
from fleet_ros.diagnostics import Health, Hearing
from fleet_ros.node import ManagedNode
from fleet_ros.node import main as run_node
from fleet_ros.qos import EVENTS, LATCHED, OVERRIDABLE, PACKETS
from fleet_ros.settings import declare, setting

REMEMBERED_FRAMES = 16
UNKNOWN = "_NODE_NAME_UNKNOWN_"  # rcl's word for a node that was found just now


@dataclasses.dataclass(frozen=True)
class BridgeSettings:
    """Parameters of the bridge node."""

    ci_ms: float = setting(10.0, "connection interval [ms], 7.5 to 4000 in steps of 1.25")
    packets: int = setting(4, "payloads asked for in one connection event")
    payload: int = setting(244, "bytes of one packet, 20 to 244")
    phy: str = setting("1M", "radio mode: 1M, 2M, 500k or 125k")
    loss: float = setting(0.0, "probability that a packet is lost on the air, 0 to 1")
    ack: str = setting("link_layer", "how reliable transfers are acknowledged: link_layer or next_event")
    transport: str = setting("emulated", "emulated, or a real radio: bleak (hub), bumble (camera)", read_only=True)
    seed: int = setting(0, "of the emulated losses; 0 draws one", read_only=True)
    model: str = setting("backyard", "a real radio: model bundle, the same at both ends", read_only=True)
    adapter: str = setting("hci-socket:0", "bumble: the camera's Bluetooth controller", read_only=True)
    camera_name: str = setting("fleet camera", "bumble: what a scanner shows", read_only=True)
    camera_address: str = setting("", "bleak: the camera to take; empty: any that offers FLEET", read_only=True)
    secure: bool = setting(False, "a real radio: bonded peers and encrypted links only", read_only=True)
    pair: bool = setting(False, "bumble, secure: let another hub bond", read_only=True)
    bonds: str = setting("~/.config/fleet/bonds.json", "bumble, secure: file that keeps the bonds", read_only=True)
    attempts: int = setting(0, "bleak: failures in a row until the node gives up; 0: never", read_only=True)

    def __post_init__(self) -> None:
        """Check the link as a whole.

        Raises:
            FleetError: no BLE link can be like this, or no scanner could show the camera's name.
        """
        self.link()
        if self.transport == "bumble":
            check_name(self.camera_name)
        if self.is_real and self.loss > 0:
            raise FleetError(f"transport {self.transport} loses what the air loses: loss is for emulated")

    @property
    def is_real(self) -> bool:
        """Whether there is a radio, or a model of one."""
        return self.transport != "emulated"

    def radio(self) -> RadioSettings:
        """What a real radio needs to know."""
        return RadioSettings(
            link=self.link(),
            model=self.model,
            adapter=self.adapter,
            address=self.camera_address,
            name=self.camera_name,
            secure=self.secure,
            pair=self.pair,
            bonds=self.bonds if self.secure else "",
            attempts=self.attempts,
        )

    def link(self) -> LinkParameters:
        """The parameters of the link."""
        names = ("ci_ms", "packets", "payload", "phy", "loss", "ack", "transport")
        return LinkParameters(**{name: getattr(self, name) for name in names})


class BridgeNode(ManagedNode):
    """A thread runs the scheduler's events on time; callbacks hand it features and exits."""

    part = "radio"
    settings: BridgeSettings

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("bridge_node", **kwargs)
        declare(self, BridgeSettings, self._on_settings)
        self._condition = threading.Condition()
        self._scheduler: Scheduler | None = None
        self._real: RealRadio | None = None
        self._thread: threading.Thread | None = None
        self._headers: OrderedDict[int, Header] = OrderedDict()
        self._unreported: OrderedDict[int, None] = OrderedDict()
        self._connected = False
        self._last_totals: tuple[float, LinkTotals] | None = None
        self._hearing = Hearing(self, {"": "features"}, self.seconds())
        options: dict[str, Any] = {"qos_overriding_options": OVERRIDABLE}
        self._packet_publisher = self.create_publisher(FeaturePacket, "link/packets", PACKETS, **options)
        self._exit_publisher = self.create_publisher(ExitDecision, "link/exit", EVENTS, **options)
        self._link_publisher = self.create_publisher(LinkParametersMsg, "link/parameters", LATCHED, **options)
        self._report_publisher = self.create_publisher(LinkReport, "link/report", EVENTS, **options)
        self._statistics_publisher = self.create_publisher(LinkStatistics, "link/statistics", EVENTS, **options)
        self._event_publisher = self.create_publisher(LinkEvent, "link/events", EVENTS, **options)
        self.create_subscription(StageFeatures, "features", self._on_features, EVENTS, **options)
        self.create_subscription(ExitDecision, "exit", self._on_exit, EVENTS, **options)
        self.create_service(Renegotiate, "link/renegotiate", self._on_renegotiate)
        self.create_timer(1.0, self._publish_statistics)
        self.create_timer(0.25, self._watch_hub)
        self.create_timer(0.05, self._collect_reports)

    # Life cycle -------------------------------------------------------------------------------------------
    def activate(self) -> None:
        """Connect: the emulated link's first event is at a random phase within the first interval."""
        self._hearing = Hearing(self, {"": "features"}, self.seconds())
        if self.settings.is_real:
            self._open_radio()
            return
        link = self.settings.link()
        seed = self.settings.seed or secrets.randbits(31)
        phase = (seed % 9973) / 9973 * link.ci_s
        self._scheduler = Scheduler(link, start=self.seconds(), phase=phase, seed=seed)
        self._connected = self._hub_listens()
        self._publish_parameters()
        self._thread = threading.Thread(target=self._run_radio, name="radio", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        """Disconnect."""
        real, self._real = self._real, None
        if real is not None:
            real.close()
        with self._condition:
            self._scheduler = None
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
            self._thread = None
        self._connected = False
        self._publish_parameters()

    # A real radio: all of these are called in its thread --------------------------------------------------
    def _open_radio(self) -> None:
        happens = Happenings(
            packet=self._on_air_packet,
            notice=lambda notice: self._exit_publisher.publish(self._exit_message(notice)),
            changed=self._on_radio_change,
            ended=self._on_radio_end,
            log=self.get_logger().warning,
        )
        self._real = open_radio(self.settings.transport, self.settings.radio(), happens)
        self._publish_parameters()
        self._real.start()

    def _on_air_packet(self, packet: bytes, age_s: float | None) -> None:
        inference_id = PacketHeader.unpack(packet).inference_id
        with self._condition:
            header = self._headers.get(inference_id)
            if header is None:  # a camera's stamp does not travel: derived once a frame
                stamp = self.get_clock().now() - Duration(seconds=age_s or 0.0)
                header = Header(stamp=stamp.to_msg(), frame_id=self.get_namespace().strip("/") or "camera")
                if age_s is not None:  # else one that says more may follow
                    self._remember(inference_id, header)
        self._packet_publisher.publish(FeaturePacket(header=header, data=packet))

    def _on_radio_change(self) -> None:
        real = self._real
        if real is not None:
            if real.connected != self._connected:
                self._connected = real.connected
                self.get_logger().info("connected" if self._connected else "the link is lost")
            self._publish_parameters()

    def _on_radio_end(self, problem: str) -> None:
        self.problem = problem
        self.finished.set()

    # The emulated radio's thread -----------------------------------------------------------------------------------
    def _run_radio(self) -> None:
        try:
            self._run_events()
        except Exception as err:
            # A bridge whose radio has stopped must not look alive.
            self.problem = f"the radio stopped: {type(err).__name__}: {err}"
            self.finished.set()

    def _run_events(self) -> None:
        scheduler = self._scheduler
        while scheduler is not None:
            with self._condition:
                while self._scheduler is scheduler and self.seconds() < scheduler.next_event:
                    self.wait(self._condition, scheduler.next_event)
                if self._scheduler is not scheduler:
                    return
                scheduler.skip_to(self.seconds())
                event = scheduler.event()
                reports = self._closed_accounts(scheduler)
            self._play(event)
            for report in reports:
                self._publish_report(report)

    def _play(self, event: Event) -> None:
        """Let the event's packets arrive when their air time is over."""
        if event.exit is not None and event.exit_at is not None:
            self._pause_until(event.exit_at)
            self._exit_publisher.publish(self._exit_message(event.exit))
        for packet, arrival in zip(event.delivered, event.arrivals, strict=True):
            self._pause_until(arrival)
            header = self._header_of(PacketHeader.unpack(packet).inference_id)
            self._packet_publisher.publish(FeaturePacket(header=header, data=packet))
        if (event.sent or event.notice is not None) and self._event_publisher.get_subscription_count():
            self._event_publisher.publish(self._event_message(event))

    def _pause_until(self, time: float) -> None:
        pause = threading.Condition()
        with pause:
            while self.is_active and self.seconds() < time:
                self.wait(pause, time)

    def _closed_accounts(self, scheduler: Scheduler) -> list[InferenceAccount]:
        closed = []
        for inference_id in list(self._unreported):
            account = scheduler.report(inference_id)
            if account is None or account.closed:
                del self._unreported[inference_id]
            if account is not None and account.closed:
                closed.append(account)
        return closed

    # Callbacks --------------------------------------------------------------------------------------------
    def _on_features(self, msg: StageFeatures) -> None:
        self._hearing.heard("", self.seconds())
        with self._condition:
            if self._scheduler is None and self._real is None:
                return
            if msg.inference_id not in self._headers:
                self._remember(msg.inference_id, msg.header)
            if self._real is not None:
                self._unreported[msg.inference_id] = None
                self._real.offer(msg.inference_id, msg.stage, [bytes(p.data) for p in msg.packets])
                return
            assert self._scheduler is not None
            if self._scheduler.offer(msg.inference_id, msg.stage, [bytes(p.data) for p in msg.packets]):
                self._unreported[msg.inference_id] = None
            reports = self._closed_accounts(self._scheduler)
        for report in reports:
            self._publish_report(report)

    def _remember(self, inference_id: int, header: Header) -> None:
        self._headers[inference_id] = header
        if len(self._headers) > REMEMBERED_FRAMES:
            self._headers.popitem(last=False)

    def _on_exit(self, msg: ExitDecision) -> None:
        try:
            notice = ExitNotice(msg.inference_id, msg.class_index, msg.stage, msg.confidence).on_air()
        except PacketError as err:
            self.get_logger().warning(f"an exit was not sent: {err}", throttle_duration_sec=5.0)
            return
        with self._condition:
            if self._real is not None:
                self._real.stop(notice)
            elif self._scheduler is not None:
                self._scheduler.stop(notice)

    def _on_settings(self, _old: BridgeSettings, new: BridgeSettings) -> None:
        with self._condition:
            if self._real is not None and (refusal := self._real.ask(new.link())):
                self.get_logger().warning(refusal)
            if self._scheduler is not None:
                self._scheduler.configure(new.link())
                self._condition.notify_all()
        self._publish_parameters()

    def _on_renegotiate(self, request: Renegotiate.Request, response: Renegotiate.Response) -> Renegotiate.Response:
        if self.settings.transport == "bleak":
            response.accepted = False
            response.message = "over transport bleak the camera asks for the link: renegotiate on the camera's side"
            response.parameters = self._parameters_message()
            return response
        wanted = {
            "ci_ms": float(request.ci_ms) or None,
            "packets": request.packets or None,
            "payload": request.payload or None,
            "phy": request.phy or None,
            # float32 on the wire: 0.1 arrives as 0.10000000149
            "loss": None if request.loss < 0 else round(float(request.loss), 6),
        }
        changes = [Parameter(name, value=value) for name, value in wanted.items() if value is not None]
        result = self.set_parameters_atomically(changes)
        response.accepted, response.message = result.successful, result.reason
        response.parameters = self._parameters_message()
        return response

    def _collect_reports(self) -> None:
        """The accounts that a camera's real radio has closed."""
        real = self._real
        if real is None:
            return
        for inference_id in list(self._unreported):
            account = real.report(inference_id)
            overtaken = inference_id != next(reversed(self._unreported))
            if account is None and overtaken:  # of a connection that is no more
                self._unreported.pop(inference_id, None)
            elif account is not None and account.closed:
                self._unreported.pop(inference_id, None)
                self._publish_report(account)

    def _watch_hub(self) -> None:
        if self.settings.is_real:
            return
        connected = self.is_active and self._hub_listens()
        if connected != self._connected:
            self._connected = connected
            self.get_logger().info("the hub is there" if connected else "the hub is gone")
            self._publish_parameters()

    def _hub_listens(self) -> bool:
        """Whether somebody takes packets who can also end an inference: a recorder or a view only listens."""
        takers = self.get_subscriptions_info_by_topic(self._packet_publisher.topic_name)
        enders = self.get_publishers_info_by_topic(self.resolve_topic_name("exit"))
        named = [
            {(i.node_namespace, i.node_name) for i in infos if i.node_name != UNKNOWN} for infos in (takers, enders)
        ]
        return bool(named[0] & named[1])

    # Messages ---------------------------------------------------------------------------------------------
    def _stamp(self) -> Header:
        return Header(stamp=self.get_clock().now().to_msg(), frame_id=self.get_namespace().strip("/"))

    def _header_of(self, inference_id: int) -> Header:
        return self._headers.get(inference_id, Header())

    def _exit_message(self, notice: ExitNotice) -> ExitDecision:
        return exit_message(self._header_of(notice.inference_id), notice)

    def _event_message(self, event: Event) -> LinkEvent:
        stamp = self.get_clock().now() - Duration(seconds=self.seconds() - event.time)
        return event_message(Header(stamp=stamp.to_msg(), frame_id=self.get_namespace().strip("/")), event)

    def _parameters_message(self) -> LinkParametersMsg:
        link = self._real.link if self._real is not None else self.settings.link()
        return parameters_message(self._stamp(), link, connected=self._connected)

    def _publish_parameters(self) -> None:
        self._link_publisher.publish(self._parameters_message())

    def _publish_report(self, account: InferenceAccount) -> None:
        self._report_publisher.publish(report_message(self._header_of(account.inference_id), account))

    def _publish_statistics(self) -> None:
        real = self._real
        if real is not None:
            totals, now = real.totals(), self.seconds()
        else:
            with self._condition:
                if self._scheduler is None:
                    self._last_totals = None
                    return
                totals, now = self._scheduler.statistics, self.seconds()
        before, self._last_totals = self._last_totals, (now, totals)
        then, old = before if before is not None else (now - 1.0, LinkTotals())
        span = max(now - then, 1e-3)
        self._statistics_publisher.publish(statistics_message(self._stamp(), totals, old, span))

    def health(self) -> Health:
        """See the base class."""
        real = self._real
        link = real.link if real is not None else self.settings.link()
        values: dict[str, object] = {"ci_ms": link.ci_ms, "phy": link.phy, "packets": link.effective_packets}
        if self._last_totals is not None:
            totals = self._last_totals[1]
            values |= {"events": totals.events, "missed": totals.missed, "sent": totals.sent, "lost": totals.lost}
        if not self.is_active:
            return DiagnosticStatus.WARN, "inactive", values
        message = "connected"
        if real is not None:
            message, more = real.health()
            values |= dict(more)
            if not self._connected or self.settings.transport == "bleak":  # a hub has no camera of its own to miss
                return DiagnosticStatus.OK if self._connected else DiagnosticStatus.WARN, message, values
        elif not self._connected:
            return DiagnosticStatus.WARN, "no hub at the other end", values
        level, line = self._hearing.state(self.seconds())
        return level, message if level == DiagnosticStatus.OK else line, values


def main() -> None:
    """Run the bridge node."""
    run_node(BridgeNode)
