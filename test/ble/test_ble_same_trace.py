# SPDX-License-Identifier: Apache-2.0
"""One trace of stages, the same packets: bumble peripheral, emulated bridge, simulator and bare scheduler."""

import math

import pytest
from test_ble_link import asks_nobody, stage, wish

from fleet.link.parameters import LinkParameters
from fleet.link.scheduler import Scheduler
from fleet.packet import Header
from fleet.simulation import SimulatedRadio

CI_MS = (30.0, 100.0, 400.0)


def trace_of(ci_ms):
    """Three inferences with stages every 17.3 ms: (s after an event's time, inference, stage, packets).

    None of them lies within the last tenth of an interval, in which a camera has handed its packets over already.
    """
    ci_s, found = ci_ms / 1000, []
    for inference in (1, 2, 3):
        for number in range(1, 9):
            time = 0.05 * ci_s + (inference - 1) * 0.4 + number * 0.0173
            if time % ci_s < 0.9 * ci_s - 0.002:
                found.append((time, inference, number, stage(inference, number, number + 1)))
    assert len(found) > 12
    return found


def on_the_air(packets):
    """What identifies packets in their order; sequence numbers count from the first of them."""
    headers = [Header.unpack(packet) for packet in packets]
    return [(h.inference_id, h.stage, h.first, h.age, (h.sequence - headers[0].sequence) & 255) for h in headers]


def by_scheduler(link, trace):
    scheduler, sent = Scheduler(link, start=0.0), []
    for time, *offer in [*trace, (trace[-1][0] + 3.0, 9, 1, [])]:
        while scheduler.next_event <= time:
            sent += scheduler.event().delivered
        scheduler.offer(*offer)
    return on_the_air(sent)


@pytest.mark.parametrize("ci_ms", CI_MS)
def test_the_camera_over_the_virtual_radio_emits_the_schedulers_packets(world, ci_ms):
    world.add_camera(wish=wish(ci_ms=ci_ms), lead_s=0.001)
    world.add_hub(ci_ms=ci_ms)
    world.join()
    asks_nobody(world)
    world.camera.offer(0, 1, stage(0, 1, 1))
    world.until(lambda: world.packets, step=0.0005)
    world.advance(2 * ci_ms / 1000)
    del world.packets[:]
    anchor = world.radio.anchor
    for time, *offer in trace_of(ci_ms):
        world.advance(anchor + time - world.now)
        assert world.camera.offer(*offer)
    world.advance(3.0)
    expected = by_scheduler(world.camera.state.link, trace_of(ci_ms))
    assert on_the_air([packet for _, packet in world.packets]) == expected


@pytest.mark.parametrize("ci_ms", CI_MS)
def test_the_simulator_emits_the_schedulers_packets(ci_ms):
    heard = []

    class Listener:
        """A hub that has no answer."""

        next_time = math.inf

        def send(self, event):
            heard.extend(event.delivered)

    link = LinkParameters(ci_ms=ci_ms, phy="2M")
    radio = SimulatedRadio(Scheduler(link, start=0.0), Listener())
    for time, *offer in trace_of(ci_ms):
        assert radio.wait_until(time) is None
        radio.offer(*offer)
    radio.wait_until(radio.time + 3.0)
    assert on_the_air(heard) == by_scheduler(link, trace_of(ci_ms))


@pytest.mark.ros
@pytest.mark.parametrize("ci_ms", CI_MS)
def test_the_emulated_bridge_node_emits_the_schedulers_packets(ros, ci_ms):
    from fleet_msgs.msg import ExitDecision, FeaturePacket, PacketData, StageFeatures  # noqa: PLC0415

    class Clock:
        time = 100.0

    node = ros.bridge("/trace", ci_ms=ci_ms, phy="2M")
    node.seconds = lambda: Clock.time
    node.wait = lambda condition, _until: condition.wait(0.002)  # the clock stands still until this test moves it
    listener, heard = ros.listener(), []
    listener.create_subscription(FeaturePacket, "/trace/link/packets", heard.append, 100)
    listener.create_publisher(ExitDecision, "/trace/exit", 10)  # a hub, not a recorder
    features = listener.create_publisher(StageFeatures, "/trace/features", 10)
    node.start()
    ros.until(lambda: features.get_subscription_count() and node._connected, "discovery")
    scheduler, offered, anchor = node._scheduler, 0, node._scheduler.next_event

    def expect(time):
        """Let the clock go on, event after event, and wait until all that they delivered has been heard."""
        while scheduler.next_event <= time:
            Clock.time = scheduler.next_event + 0.6 * ci_ms / 1000
            now = Clock.time
            ros.until(lambda now=now: scheduler.next_event > now, "the event")
            ros.until(lambda: len(heard) == scheduler.statistics.sent, "its packets")
        Clock.time = max(Clock.time, time)

    for time, inference, number, packets in trace_of(ci_ms):
        expect(anchor + time)
        offered += len(packets)
        message = StageFeatures(inference_id=inference, stage=number, payload=244)
        message.packets = [PacketData(data=packet) for packet in packets]
        features.publish(message)
        ros.until(lambda offered=offered: scheduler.statistics.offered == offered, "the offer")
    expect(Clock.time + 3.0)
    assert scheduler.statistics.missed == 0
    assert on_the_air([bytes(m.data) for m in heard]) == by_scheduler(node.settings.link(), trace_of(ci_ms))
