# SPDX-License-Identifier: Apache-2.0
"""Camera and hub through thick and thin. The numbers are those of the list in docs/hardware.md."""

from dataclasses import replace

import pytest
from bleak.backends.device import BLEDevice
from bleak.exc import BleakBluetoothNotAvailableError, BleakBluetoothNotAvailableReason, BleakError
from bumble import att, hci
from bumble.gatt import GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR
from bumble_bleak import Scanner, backend_on

from fleet.ble import service
from fleet.ble.gaps import GapCounter
from fleet.ble.hub import Phase as HubPhase
from fleet.errors import FleetError
from fleet.link.parameters import LinkParameters
from fleet.packet import ExitNotice, Header, PacketError


def stage(inference, number, count, length=244):
    return [Header(inference, number, 0, k, 7).pack() + bytes(length - 8) for k in range(count)]


def heard(world):
    return [(h.inference_id, h.stage, h.first) for h in (Header.unpack(packet) for _, packet in world.packets)]


def wish(**changes):
    return LinkParameters(**{"ci_ms": 30.0, "phy": "2M", "transport": "bumble", **changes})


def asks_nobody(world):
    """The camera is content with the interval; nothing else is going on."""
    world.advance(1.5)


# What travels ---------------------------------------------------------------------------------------------------
def test_packets_arrive_stamped_in_order_and_the_exit_notice_gets_back(world):
    world.add_camera()
    world.add_hub()
    world.join()
    assert world.camera.offer(7, 1, stage(7, 1, 6))
    world.until(lambda: len(world.packets) == 6)
    headers = [Header.unpack(packet) for _, packet in world.packets]
    assert [h.first for h in headers] == [0, 1, 2, 3, 4, 5]
    assert [h.sequence for h in headers] == [0, 1, 2, 3, 4, 5]
    assert [h.age for h in headers] == [0, 0, 0, 0, 1, 1]
    assert world.hub.stop(ExitNotice(7, 3, 1, 0.8))
    world.until(lambda: world.exits)
    assert world.exits[0][1].inference_id == 7
    assert not world.camera.offer(7, 2, stage(7, 2, 1))  # that inference is over


def test_a_notice_is_written_five_times_at_most_and_told_once(world):
    world.add_camera()
    world.add_hub()
    world.join()
    world.hub.stop(ExitNotice(7, 3, 1, 0.8))
    world.advance(2)
    assert (world.hub.exits_sent, len(world.exits)) == (5, 1)


def test_a_notice_is_no_longer_written_once_a_newer_inference_is_heard(world):
    world.add_camera()
    world.add_hub()
    world.join()
    world.camera.offer(7, 1, stage(7, 1, 1))
    world.until(lambda: world.packets)
    world.hub.stop(ExitNotice(7, 3, 1, 0.8))
    world.camera.offer(8, 1, stage(8, 1, 1))
    world.until(lambda: len(world.packets) == 2)
    world.advance(1)
    assert world.hub.exits_sent <= 3


def test_the_newest_stage_replaces_what_was_not_handed_over(world):
    world.add_camera(wish=wish(ci_ms=100.0))
    world.add_hub(ci_ms=100.0)
    world.join()
    asks_nobody(world)
    world.camera.offer(1, 1, stage(1, 1, 1))
    world.until(lambda: world.packets)
    world.advance(0.101)  # just after an event
    del world.packets[:]
    world.camera.offer(1, 2, stage(1, 2, 4))
    world.advance(0.02)
    world.camera.offer(1, 3, stage(1, 3, 4))
    world.advance(0.02)
    world.camera.offer(1, 4, stage(1, 4, 4))
    world.advance(0.2)
    assert heard(world) == [(1, 4, k) for k in range(4)]


def test_totals_of_the_camera_add_up(world):
    world.add_camera()
    world.add_hub()
    world.join()
    for number in range(1, 9):
        world.camera.offer(4, number, stage(4, number, 9))
        world.advance(0.04)
    totals = world.camera.statistics
    assert totals.offered == totals.sent + totals.dropped + totals.pending
    assert totals.sent == len(world.packets)


# Complaint 1 ----------------------------------------------------------------------------------------------------
def test_complaint_1_what_the_hubs_host_loses_shows_in_the_gaps(world):
    world.add_camera()
    world.add_hub()
    world.join()
    turn = iter(range(1000))
    world.backend.client.host_loses = staticmethod(lambda _: next(turn) % 5 == 0)
    for inference in range(20):
        world.camera.offer(inference, 1, stage(inference, 1, 4))
        world.advance(0.06)
    assert len(world.packets) == 64
    assert world.hub.gaps.received == 64
    assert world.hub.gaps.lost in (15, 16)  # the first one of all leaves no gap


# Complaint 2 ----------------------------------------------------------------------------------------------------
def test_complaint_2_nothing_is_sent_before_the_subscription_and_ready(world):
    world.add_camera()
    seen = []
    notify = world.camera._device.notify_subscriber

    async def watched(connection, characteristic, value, *more):
        if characteristic is world.camera._features:
            seen.append((world.now, world.camera.state.phase.name))
        await notify(connection, characteristic, value, *more)

    world.camera._device.notify_subscriber = watched
    world.add_hub()
    for number in range(200):
        world.camera.offer(number, 1, stage(number, 1, 2))
        world.advance(0.005)
    assert seen
    assert {phase for _, phase in seen} == {"SENDING"}
    first = Header.unpack(world.packets[0][1])
    assert first.sequence == 0  # and the very first one arrived


def test_complaint_2_subscribed_but_not_ready_is_not_enough(world):
    world.add_camera()
    central = world.make_central()
    _, peer = world.run(connect(world, central))
    features = peer.get_characteristics_by_uuid(service_uuid(service.FEATURES))[0]
    got = []
    world.run(peer.subscribe(features, got.append))
    world.camera.offer(1, 1, stage(1, 1, 3, length=20))
    world.advance(1)
    assert not got
    exit_ = peer.get_characteristics_by_uuid(service_uuid(service.EXIT))[0]
    world.run(exit_.write_value(service.ready(world.camera.settings.identity), with_response=True))
    world.advance(1)
    assert len(got) == 3
    world.run(peer.unsubscribe(features, got.append))
    world.camera.offer(2, 1, stage(2, 1, 3, length=20))
    world.advance(1)
    assert len(got) == 3


# Complaint 3 ----------------------------------------------------------------------------------------------------
def test_complaint_3_a_hub_that_never_asks_for_an_mtu_is_asked(world):
    world.add_camera()
    world.add_hub(mtu=23)
    world.join()
    world.until(lambda: world.camera.payload == 244, limit=10)
    world.until(lambda: world.hub.state.link.payload == 244)


def test_complaint_3_mtu_23_carries_whole_packets_of_20_bytes(world):
    world.add_camera()
    central = world.make_central()
    central.gatt_server.max_mtu = 23
    world.add_hub(central=central, mtu=23)
    world.join()
    world.advance(3)
    assert world.camera.payload == 20
    assert world.hub.state.link.payload == 20
    world.camera.offer(3, 1, [*stage(3, 1, 5, length=20), *stage(3, 1, 1, length=21)])
    world.advance(1)
    assert [len(packet) for _, packet in world.packets] == [20] * 5
    assert world.camera.statistics.dropped == 1


@pytest.mark.parametrize(("octets", "payload"), [(27, 20), (123, 116), (251, 244)])
def test_complaint_3_packets_follow_the_data_length(world, octets, payload):
    world.add_camera(octets=octets)
    world.add_hub()
    world.join()
    assert world.camera.payload == payload
    world.until(lambda: world.hub.state.link.octets == octets)
    world.camera.offer(3, 1, stage(3, 1, 4, length=payload))
    world.until(lambda: len(world.packets) == 4)


def test_complaint_3_packets_that_no_longer_fit_after_a_change_are_dropped_and_counted(world):
    world.add_camera(wish=wish(ci_ms=1000.0))
    world.add_hub(ci_ms=1000.0)
    world.join(limit=120)
    world.advance(3)
    world.camera.offer(3, 1, stage(3, 1, 1))
    world.until(lambda: world.packets)
    world.advance(0.1)
    world.camera.offer(3, 2, stage(3, 2, 3))
    world.call(world.camera.ask, wish(ci_ms=1000.0, payload=100))
    assert world.camera.payload == 100
    world.advance(3)
    assert world.camera.statistics.dropped == 3
    assert len(world.packets) == 1


# Complaint 4 ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ci_ms", [7.5, 100.0])
def test_complaint_4_never_more_than_two_events_worth_waits_in_the_controller(world, ci_ms):
    world.add_camera(wish=wish(ci_ms=ci_ms))
    world.add_hub(ci_ms=ci_ms)
    world.join()
    asks_nobody(world)
    buffer = world.camera._current.bumble.data_packet_queue
    most = 0
    for number in range(400):
        world.camera.offer(number, 1, stage(number, 1, 50))
        world.advance(0.003)
        most = max(most, buffer.pending)
    per_event = world.camera.state.link.effective_packets
    assert most <= (per_event + 1 if ci_ms > 20 else 2 * per_event)
    world.advance(3)
    totals = world.camera.statistics
    assert totals.sent == len(world.packets)  # what was sent arrived, what was not is known
    assert totals.dropped > 10 * totals.sent


def test_complaint_4_a_dead_radio_holds_one_events_worth_and_no_more(world):
    world.add_camera()
    world.add_hub()
    world.join()
    asks_nobody(world)
    world.air.blackout = True
    for number in range(300):
        world.camera.offer(number, 1, stage(number, 1, 20))
        world.advance(0.01)
    assert world.camera._current.bumble.data_packet_queue.pending <= world.camera.state.link.effective_packets + 1
    assert world.camera.statistics.sent <= world.camera.state.link.effective_packets + 1


# Complaint 5 ----------------------------------------------------------------------------------------------------
def test_complaint_5_the_camera_gets_the_interval_it_asks_for(world):
    world.add_camera(wish=wish(ci_ms=100.0))
    world.add_hub(ci_ms=30.0)
    world.join()
    world.until(lambda: world.hub.state.link.ci_ms == 100.0)
    assert world.camera.state.link.ci_ms == 100.0
    assert world.air.update_requests == 1


def test_complaint_5_refused_intervals_are_asked_for_a_few_times_and_then_lived_with(world):
    world.air.refuses_updates = True
    world.add_camera(wish=wish(ci_ms=100.0))
    world.add_hub(ci_ms=45.0)
    world.join()
    world.advance(120)
    assert 3 <= world.air.update_requests <= 9  # three times, each in both ways that there are
    asked = world.air.update_requests
    world.advance(300)
    assert world.air.update_requests == asked
    assert world.camera.state.link.ci_ms == world.hub.state.link.ci_ms == 45.0
    world.camera.offer(1, 1, stage(1, 1, 4))
    world.until(lambda: len(world.packets) == 4)


def test_complaint_5_a_hub_that_hangs_up_when_asked_is_not_asked_again(world):
    world.air.hangs_up_on_updates = True
    world.add_camera(wish=wish(ci_ms=100.0))
    world.add_hub(ci_ms=30.0)
    world.until(lambda: world.camera.state.connections == 3, limit=60)  # once may be chance
    world.join()
    world.advance(60)
    assert world.hub.state.phase is HubPhase.CONNECTED
    assert world.hub.state.connections == 3
    assert any("not asked again" in state.message for state in world.camera_states)


def test_complaint_5_a_blackout_or_a_hub_that_starts_anew_is_not_taken_for_offence(world):
    world.add_camera(wish=wish(ci_ms=100.0))
    world.add_hub(ci_ms=30.0, supervision_ms=420.0)
    for turn in (1, 2, 3):
        world.until(lambda turn=turn: world.hub.state.connections == turn, limit=60)
        world.until(lambda: world.camera._current and world.camera._current.asked_at is not None, limit=10)
        if turn < 3:
            world.drop(hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR)
    world.until(lambda: world.hub.state.link.ci_ms == 100.0, limit=30)
    assert not any("not asked again" in state.message for state in world.camera_states)


def test_a_change_of_the_wish_is_asked_for_while_connected(world):
    world.add_camera()
    world.add_hub()
    world.join()
    world.advance(2)
    world.call(world.camera.ask, wish(ci_ms=50.0))
    world.until(lambda: world.hub.state.link.ci_ms == 50.0)


def test_another_phy_is_asked_for_while_connected(world):
    world.add_camera()
    world.add_hub()
    world.join()
    world.advance(2)
    assert world.hub.state.link.phy == "2M"
    world.call(world.camera.ask, wish(ci_ms=50.0, phy="1M"))
    world.until(lambda: (world.hub.state.link.ci_ms, world.hub.state.link.phy) == (50.0, "1M"))


def test_the_camera_gives_up_the_place_of_somebody_who_is_no_hub(world):
    world.add_camera()
    nobody = world.make_central("C0:00:00:00:00:09")
    connection = world.run(nobody.connect_le(hci.Address(world.camera.settings.address)))
    gone = []
    connection.on("disconnection", gone.append)
    world.add_hub()
    world.until(lambda: gone, limit=90)
    world.join(limit=90)


def test_whoever_stops_listening_stops_the_pump(world):
    world.add_camera()
    world.add_hub()
    world.join()
    current = world.camera._current
    pumps = []
    for _ in range(20):
        pumps.append(current._tasks["pump"])
        world.call(current.subscription, False)
        world.advance(0.011)
        world.call(current.subscription, True)
        world.advance(0.041)
    assert [pump.done() for pump in pumps] == [True] * 20


def test_a_notice_that_is_no_notice_does_not_touch_the_connection(world):
    world.add_camera()
    world.add_hub()
    world.join()
    for confidence in (float("nan"), float("inf")):
        with pytest.raises(PacketError):
            world.call(world.hub.stop, ExitNotice(7, 3, 1, confidence))
    world.advance(5)
    assert (world.hub.state.phase, world.hub.state.connections) == (HubPhase.CONNECTED, 1)


def test_a_hosts_second_telling_of_a_packet_is_no_loss():
    gaps = GapCounter()
    for sequence in (0, 1, 1, 2):
        gaps.count(sequence)
    assert (gaps.received, gaps.lost) == (3, 0)


@pytest.mark.parametrize("ci_ms", [5.0, 4500.0])
def test_an_interval_that_ble_does_not_have_is_not_believed(world, ci_ms, monkeypatch):
    world.add_camera()
    monkeypatch.setattr(
        "bumble.device.Connection.Parameters.connection_interval",
        property(lambda _: ci_ms, lambda _, __: None),
        raising=False,
    )
    world.add_hub()
    world.join(limit=120)
    assert world.camera.state.link.ci_ms == min(4000.0, max(7.5, ci_ms))


# Complaint 6 ----------------------------------------------------------------------------------------------------
def test_complaint_6_a_reconnect_in_mid_inference_goes_on_with_its_later_stages(world):
    world.add_camera()
    world.add_hub()
    world.join()
    world.camera.offer(5, 1, stage(5, 1, 2))
    world.until(lambda: len(world.packets) == 2)
    world.drop()
    world.advance(0.01)
    assert not world.camera.offer(5, 2, stage(5, 2, 2))  # nobody is there
    world.until(lambda: world.hub.state.connections == 2)
    world.join()
    assert world.camera.offer(5, 3, stage(5, 3, 2))
    world.until(lambda: len(world.packets) == 4)
    assert heard(world)[2:] == [(5, 3, 0), (5, 3, 1)]
    assert world.hub.gaps.lost == 0
    world.hub.stop(ExitNotice(5, 0, 3, 0.9))
    world.until(lambda: world.exits)


def test_complaint_6_a_blackout_ends_with_the_supervision_time_out_and_heals(world):
    world.add_camera()
    world.add_hub()
    world.join()
    asks_nobody(world)
    world.air.blackout, began = True, world.now
    world.until(lambda: world.hub.state.phase is not HubPhase.CONNECTED, limit=20)
    world.until(lambda: world.camera.state.phase.name == "ADVERTISING", limit=20)
    assert 5.9 < world.now - began < 7.0
    world.advance(30)
    assert "is it switched on" in world.hub.state.message
    world.air.blackout = False
    world.until(lambda: world.hub.state.connections == 2, limit=60)
    world.join()
    world.camera.offer(6, 1, stage(6, 1, 2))
    world.until(lambda: len(world.packets) == 2)
    assert not world.errors


def test_complaint_6_pauses_grow_but_never_beyond_half_a_minute(world):
    world.add_hub()
    world.advance(600)
    pauses = [state for state in world.hub_states if state.phase is HubPhase.PAUSING]
    assert 600 / (10 + 30) - 2 <= len(pauses) <= 600 / 10
    assert world.hub.state.failures == len(pauses)
    world.add_camera()
    world.join(limit=45)
    assert world.hub.state.message == ""


def test_complaint_6_a_hub_may_be_told_to_give_up(world):
    world.add_hub(attempts=3)
    with pytest.raises(FleetError, match="no connection to the camera after 3 attempts: no camera is heard"):
        world.run(world.hub_task)


# Complaint 7 ----------------------------------------------------------------------------------------------------
def test_complaint_7_after_every_failure_scanner_and_client_are_new_ones(world, monkeypatch):
    scanners = []
    start = Scanner.start

    async def watched(self):
        scanners.append(self)
        if len(scanners) in (2, 3):  # the adapter or the daemon is gone for a while
            raise BleakBluetoothNotAvailableError("gone", BleakBluetoothNotAvailableReason.POWERED_OFF)
        await start(self)

    monkeypatch.setattr(Scanner, "start", watched)
    world.add_camera()
    world.add_hub()
    world.join()
    world.drop(hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR)
    world.until(lambda: world.hub.state.connections == 2)
    assert len(set(map(id, scanners))) == len(scanners) == 4
    assert len(world.backend.client.ever) == 2
    assert any("there is no Bluetooth" in state.message for state in world.hub_states)


@pytest.mark.parametrize("trouble", [BleakError("org.bluez went away"), OSError("no D-Bus"), EOFError()])
def test_complaint_7_whatever_the_system_raises_is_tried_again(world, monkeypatch, trouble):
    start, left = Scanner.start, [trouble, trouble]

    async def failing(self):
        if left:
            raise left.pop()
        await start(self)

    monkeypatch.setattr(Scanner, "start", failing)
    world.add_camera()
    world.add_hub()
    world.join()
    assert world.hub.state.failures == 2
    assert all("\n" not in state.message for state in world.hub_states)


# Complaint 9 ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("ci_ms", "timeout"), [(30.0, 6.0), (1000.0, 6.0), (4000.0, 10.0)])
def test_complaint_9_the_supervision_time_out_is_asked_for(world, ci_ms, timeout):
    world.add_camera(wish=wish(ci_ms=ci_ms))
    world.add_hub(ci_ms=30.0, supervision_ms=420.0)
    world.join()
    world.until(lambda: world.hub.state.link.supervision_ms == timeout * 1000, limit=60)
    assert world.radio.timeout_s == timeout


def test_complaint_9_a_second_without_radio_does_not_drop_the_link(world):
    world.add_camera()
    world.add_hub(supervision_ms=420.0)
    world.join()
    world.until(lambda: world.radio.timeout_s == 6.0)
    world.air.blackout = True
    world.advance(3.0)
    world.air.blackout = False
    world.camera.offer(1, 1, stage(1, 1, 1))
    world.until(lambda: world.packets, limit=2)
    assert world.hub.state.connections == 1


# The two must belong together -----------------------------------------------------------------------------------
CAMERA = "D0:00:00:00:00:01"


def test_a_hub_with_another_bundle_refuses_the_camera_in_one_line(world):
    world.add_camera(identity=b"camera..", address=CAMERA)
    world.add_hub(identity=b"hub.....", wanted=CAMERA)
    with pytest.raises(FleetError, match="runs another model") as caught:
        world.run(world.hub_task)
    assert "\n" not in str(caught.value)
    assert b"camera..".hex() in str(caught.value)
    assert b"hub.....".hex() in str(caught.value)
    world.advance(1)
    assert world.camera.state.phase.name == "ADVERTISING"  # free for a hub of its own


def test_a_camera_refuses_a_hub_that_does_not_check(world, monkeypatch):
    monkeypatch.setattr("fleet.ble.hub.Hub._check_identity", lambda *_: None)
    world.add_camera(identity=b"camera..", address=CAMERA)
    world.add_hub(identity=b"hub.....", wanted=CAMERA)
    with pytest.raises(FleetError, match="another model"):
        world.run(world.hub_task)
    assert any(b"hub.....".hex() in state.message for state in world.camera_states)


@pytest.mark.parametrize("theirs", [{"identity": b"stranger"}, {"secure": True}])
def test_a_neighbours_camera_is_left_alone_and_ones_own_is_found(world, theirs):
    world.add_camera(address="D0:00:00:00:00:09", **theirs)
    world.add_hub()
    world.until(lambda: "looking for another one" in world.hub.state.message, limit=30)
    assert "D0:00:00:00:00:09" in world.hub.state.message
    world.add_camera(address=CAMERA)
    world.join(limit=90)
    assert world.hub.state.camera == CAMERA


def test_a_camera_that_was_given_the_right_bundle_meanwhile_is_tried_again(world):
    world.add_camera(identity=b"an older")
    world.add_hub()
    world.until(lambda: "another model" in world.hub.state.message, limit=30)
    world.run(world.camera.stop())
    world.add_camera()
    world.join(limit=180)


def test_a_hub_takes_the_camera_with_its_address_only(world):
    world.add_camera(address="D0:00:00:00:00:01")
    first = world.camera
    world.add_camera(address="D0:00:00:00:00:02")
    world.add_hub()
    world.hub_task.cancel()
    world.hub.settings = type(world.hub.settings)(world.hub.settings.identity, address="d0:00:00:00:00:02")
    world.hub_task = world.loop.create_task(world.hub.run())
    world.join()
    assert world.hub.state.camera == "D0:00:00:00:00:02"
    assert first.state.phase.name == "ADVERTISING"


# Hostile hubs ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [b"", b"\x01", bytes(5), bytes(7), b"\x02" + bytes(8), bytes(100)])
def test_what_is_no_notice_and_not_ready_is_an_error_of_the_protocol(world, value):
    world.add_camera()
    central = world.make_central()
    _, peer = world.run(connect(world, central))
    exit_ = peer.get_characteristics_by_uuid(service_uuid(service.EXIT))[0]
    with pytest.raises(att.ATT_Error) as caught:
        world.run(exit_.write_value(value, with_response=True))
    assert caught.value.error_code == att.ErrorCode.INVALID_ATTRIBUTE_LENGTH
    world.run(exit_.write_value(value, with_response=False))
    world.advance(1)
    assert world.camera.state.phase.name == "CONNECTED"
    assert not world.exits


def test_the_link_characteristic_can_be_read_at_any_mtu(world):
    world.add_camera()
    central = world.make_central()
    _, peer = world.run(connect(world, central))
    link = peer.get_characteristics_by_uuid(service_uuid(service.LINK))[0]
    report = service.LinkReport.unpack(world.run(link.read_value()))
    assert report.identity == world.camera.settings.identity
    assert report.packets >= 1
    configuration = [d for d in link.descriptors if d.type == GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR]
    assert len(configuration) == 1


def service_uuid(text):
    from bumble.core import UUID  # noqa: PLC0415

    return UUID(text)


async def connect(world, central):
    from bumble.device import Peer  # noqa: PLC0415

    connection = await central.connect_le(hci.Address(world.camera.settings.address), timeout=10)
    peer = Peer(connection)
    await peer.discover_all()
    return connection, peer


def test_complaint_6_a_connection_that_a_dead_hub_left_behind_is_hung_up_first(world):
    world.add_camera()
    central = world.make_central()
    world.run(connect(world, central))  # by a hub's process that is no more
    assert world.camera.state.phase.name == "CONNECTED"

    class Adapter:
        @classmethod
        async def get(cls, **_):
            return cls()

        async def get_connected_devices(self, uuids):
            assert service.SERVICE in uuids
            return [BLEDevice(world.camera.settings.address, None, hci.Address(world.camera.settings.address))]

    class Adopting(world_client(central)):
        async def connect(self, pair, **more):
            held = list(central.connections.values())
            if held:
                self._connection = held[0]
                self._connection.on("disconnection", self._on_disconnection)
            else:
                await super().connect(pair, **more)

    world.add_hub(central=central)
    world.hub._backend = replace(world.backend, adapter=Adapter, client=Adopting)
    world.join()
    assert world.hub.state.failures == 0


def world_client(central):
    return backend_on(central).client


def test_complaint_6_a_silent_link_is_probed(world):
    world.add_camera()
    world.add_hub()
    world.join()
    reads = []
    report = world.camera._on_read
    world.camera._link.value._read = lambda connection: (reads.append(world.now), report(connection))[1]
    world.advance(200)
    assert 2 <= len(reads) <= 4
    assert world.hub.state.phase is HubPhase.CONNECTED
