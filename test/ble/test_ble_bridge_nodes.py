# SPDX-License-Identifier: Apache-2.0
"""Both halves of the bridge node, joined over the air: the topics are those of the emulated bridge."""

import asyncio
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from bumble.device import Device, DeviceConfiguration
from bumble.hci import Address
from bumble.transport import open_transport
from bumble_bleak import backend_on
from test_ble_camera_command import serve
from virtual_radio import VirtualAir, VirtualController
from world import HUB_ADDRESS

import fleet.ble.radio
from fleet.ble.background import Background
from fleet.errors import FleetError
from fleet.packet import Header as PacketHeader
from fleet_msgs.msg import (
    ExitDecision,
    FeaturePacket,
    LinkParameters,
    LinkReport,
    LinkStatistics,
    PacketData,
    StageFeatures,
)
from fleet_msgs.srv import Renegotiate
from fleet_ros.qos import LATCHED

pytestmark = pytest.mark.ros


class Air:
    """A virtual air in a thread, with two controllers at the ends of TCP connections."""

    def __init__(self):
        self.ports = []
        self.background = Background(self.run, on_end=lambda _error: None, name="air")
        self.background.start()
        while len(self.ports) < 2:
            time.sleep(0.01)

    async def run(self):
        air = VirtualAir()
        for name in ("camera", "hub"):
            port, transport = await serve()
            VirtualController(name, host_source=transport.source, host_sink=transport.sink, link=air)
            self.ports.append(port)
        await asyncio.get_running_loop().create_future()


@pytest.fixture
def air():
    made = Air()
    yield made
    made.background.close()


def over_tcp(port, monkeypatch):
    """The hub's radio drives a bumble device at the end of a TCP connection, in place of the system's Bluetooth."""

    async def run(self):
        async with await open_transport(f"tcp-client:127.0.0.1:{port}") as transport:
            configuration = DeviceConfiguration(name="hub", address=Address(HUB_ADDRESS))
            central = Device.from_config_with_hci(configuration, transport.source, transport.sink)
            await central.power_on()
            self._backend = backend_on(central, ci_ms=15.0)
            await real(self)

    real = fleet.ble.radio.HubRadio._run
    monkeypatch.setattr(fleet.ble.radio.HubRadio, "_run", run)


def test_features_and_exits_travel_between_the_two_nodes(air, ros, tiny_bundle, monkeypatch):
    over_tcp(air.ports[1], monkeypatch)
    model = str(tiny_bundle.path)
    adapter = f"tcp-client:127.0.0.1:{air.ports[0]}"
    camera = ros.bridge("/cam", transport="bumble", adapter=adapter, model=model, ci_ms=15.0)
    hub = ros.bridge("/hub", transport="bleak", model=model)
    node = ros.listener()
    heard = {}

    def listen(kind, topic, qos=50):
        heard[topic] = []
        node.create_subscription(kind, topic, heard[topic].append, qos)

    for namespace in ("cam", "hub"):
        listen(LinkParameters, f"/{namespace}/link/parameters", LATCHED)
        listen(LinkStatistics, f"/{namespace}/link/statistics")
    listen(FeaturePacket, "/hub/link/packets")
    listen(ExitDecision, "/cam/link/exit")
    listen(LinkReport, "/cam/link/report")
    features = node.create_publisher(StageFeatures, "/cam/features", 10)
    exits = node.create_publisher(ExitDecision, "/hub/exit", 10)
    camera.start()
    hub.start()

    def newest(topic):
        return heard[topic][-1] if heard[topic] else None

    def connected():
        both = [newest(f"/{namespace}/link/parameters") for namespace in ("cam", "hub")]
        return all(said is not None and said.connected for said in both)

    ros.until(connected, "both ends connected")
    for namespace, transport in (("cam", "bumble"), ("hub", "bleak")):
        said = newest(f"/{namespace}/link/parameters")
        assert (said.transport, said.ci_ms, said.payload) == (transport, 15.0, 244)
    ros.until(lambda: features.get_subscription_count() and exits.get_subscription_count(), "discovery")

    packets = [PacketHeader(77, 1, 0, k, 3).pack() + bytes(100) for k in range(3)]
    message = StageFeatures(inference_id=77, stage=1, payload=244, packets=[PacketData(data=p) for p in packets])
    message.header.stamp.sec = 12
    features.publish(message)
    ros.until(lambda: len(heard["/hub/link/packets"]) == 3, "three packets")
    assert [PacketHeader.unpack(bytes(m.data)).first for m in heard["/hub/link/packets"]] == [0, 1, 2]
    stamps = {(m.header.stamp.sec, m.header.stamp.nanosec) for m in heard["/hub/link/packets"]}
    assert len(stamps) == 1  # one frame, one stamp, though the radio carries none
    assert abs(stamps.pop()[0] - time.time()) < 5

    exits.publish(ExitDecision(inference_id=77, stage=1, class_index=2, confidence=0.8))
    ros.until(lambda: heard["/cam/link/exit"], "the exit at the camera")
    answer = heard["/cam/link/exit"][0]
    assert (answer.inference_id, answer.class_index, answer.header.stamp.sec) == (77, 2, 12)
    ros.until(lambda: heard["/cam/link/report"], "the radio's report")
    report = heard["/cam/link/report"][0]
    assert (report.inference_id, report.packets_sent, report.exit_delivered) == (77, 3, True)
    ros.until(lambda: (s := newest("/hub/link/statistics")) and s.packets_sent == 3, "the hub's statistics")
    assert newest("/hub/link/statistics").bytes_sent == 324
    assert camera.health()[1] == hub.health()[1] == "connected"

    response = hub._on_renegotiate(Renegotiate.Request(ci_ms=30.0, loss=-1.0), Renegotiate.Response())
    assert not response.accepted
    assert "camera's side" in response.message
    response = camera._on_renegotiate(Renegotiate.Request(ci_ms=30.0, loss=-1.0), Renegotiate.Response())
    assert response.accepted
    ros.until(lambda: newest("/hub/link/parameters").ci_ms == 30.0, "the interval that the camera asked for")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"transport": "bumble", "adapter": "bogus:0"}, "is not a Bluetooth transport"),
        ({"transport": "bumble", "adapter": "serial:/dev/no-such-device"}, "cannot be opened"),
        ({"transport": "bleak", "model": "/no/such/model"}, "no model bundle"),
    ],
)
def test_a_radio_that_cannot_be_used_is_one_clear_line(ros, tiny_bundle, parameters, says):
    node = ros.bridge("/bad", **{"model": str(tiny_bundle.path), **parameters})
    with pytest.raises(FleetError, match=says) as caught:
        node.start()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a name that is longer than what a scanner is shown"])
def test_a_camera_has_a_name_that_a_scanner_can_show(ros, name):
    with pytest.raises(FleetError, match="scanner"):
        ros.bridge("/bad", transport="bumble", camera_name=name)


def test_a_real_radio_takes_no_emulated_loss(ros):
    with pytest.raises(FleetError, match="loss is for emulated"):
        ros.bridge("/bad", transport="bleak", loss=0.2)
