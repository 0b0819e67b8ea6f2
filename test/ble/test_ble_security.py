# SPDX-License-Identifier: Apache-2.0
"""Bonds: made once, kept, lost, refused. Complaint 8 of docs/hardware.md."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from bleak.exc import BleakError
from bumble import att, core, hci
from bumble.device import Peer

from fleet.ble import service
from fleet.ble.hub import Phase as HubPhase
from fleet.errors import FleetError
from fleet.packet import ExitNotice, Header

OTHER = "C0:00:00:00:00:99"


def stage(inference, number, count):
    return [Header(inference, number, 0, k, 7).pack() + bytes(236) for k in range(count)]


def works(world, inference):
    del world.packets[:]
    world.camera.offer(inference, 1, stage(inference, 1, 3))
    world.until(lambda: len(world.packets) == 3)
    world.hub.stop(ExitNotice(inference, 0, 1, 0.9))
    world.until(lambda: world.exits and world.exits[-1][1].inference_id == inference)


async def connect(world, central):
    connection = await central.connect_le(hci.Address(world.camera.settings.address), timeout=10)
    peer = Peer(connection)
    await peer.discover_all()
    return connection, peer


def attribute(peer, uuid):
    return peer.get_characteristics_by_uuid(core.UUID(uuid))[0]


def test_a_secure_camera_and_a_secure_hub_bond_encrypt_and_talk(world):
    world.add_camera(secure=True)
    world.add_hub(secure=True)
    world.join()
    assert world.camera.state.encrypted
    assert world.radio.encrypted
    assert world.hub.state.link.encrypted
    assert world.hub.state.link.secure
    works(world, 1)


def test_after_a_reconnect_the_link_is_encrypted_and_subscribed_again_without_pairing(world):
    world.add_camera(secure=True)
    world.add_hub(secure=True)
    world.join()
    paired = []
    world.central.on("pairing_start", paired.append)
    for turn in (2, 3, 4):
        world.drop()
        world.until(lambda turn=turn: world.hub.state.connections == turn)
        world.join()
        assert world.radio.encrypted
        works(world, turn)
    assert not paired


def test_a_bond_survives_a_restart_of_the_camera(world, tmp_path):
    bonds = tmp_path / "bonds.json"
    world.add_camera(secure=True, bonds=bonds)
    world.add_hub(secure=True)
    world.join()
    assert bonds.stat().st_mode & 0o077 == 0  # who has the keys can listen
    world.run(world.camera.stop())
    world.add_camera(secure=True, bonds=bonds)
    world.until(lambda: world.hub.state.connections == 2, limit=120)
    world.join()
    works(world, 9)


def test_complaint_8_a_camera_that_lost_its_bond_is_paired_with_again(world):
    world.add_camera(secure=True)
    world.add_hub(secure=True)
    world.join()
    world.camera._device.keystore.all_keys.clear()
    world.drop()
    world.until(lambda: world.hub.state.connections == 2, limit=120)
    world.join()
    assert any("bond with the camera is lost" in state.message for state in world.hub_states)
    works(world, 5)


def test_complaint_8_a_lost_bond_is_noticed_where_pairing_says_that_it_is_done(world, monkeypatch):
    """BlueZ's way: pair() returns at once where there is a bond, and the first encrypted request fails."""
    world.add_camera(secure=True)
    world.add_hub(secure=True)
    world.join()
    pair, read = world.backend.client.pair, world.backend.client.read_gatt_char

    async def knows(client):
        return await client.central.keystore.get(str(client._connection.peer_address)) is not None

    async def pair_like_bluez(client, *args, **kwargs):
        if not await knows(client):
            await pair(client, *args, **kwargs)

    async def read_like_bluez(client, *args, **kwargs):
        if await knows(client) and not client._connection.is_encrypted:
            try:
                await client._ask(client._connection.encrypt())
            except BleakError:
                await client.disconnect()
                raise BleakError("Not connected") from None
        return await read(client, *args, **kwargs)

    monkeypatch.setattr(world.backend.client, "pair", pair_like_bluez)
    monkeypatch.setattr(world.backend.client, "read_gatt_char", read_like_bluez)
    world.drop()
    world.until(lambda: world.hub.state.connections == 2, limit=60)  # with the bond all is well
    world.camera._device.keystore.all_keys.clear()
    world.drop()
    world.until(lambda: world.hub.state.connections == 3, limit=240)
    assert any("bond with the camera is lost" in state.message for state in world.hub_states)


def test_one_failure_does_not_cost_the_bond(world, monkeypatch):
    world.add_camera(secure=True)
    world.add_hub(secure=True)
    world.join()
    unpaired = []
    monkeypatch.setattr(world.backend.client, "unpair", lambda *_: unpaired.append(1))
    read, turns = world.backend.client.read_gatt_char, iter([1, 1])

    async def fails_twice(client, *args, **kwargs):
        if next(turns, 0):
            raise BleakError("Not connected")
        return await read(client, *args, **kwargs)

    monkeypatch.setattr(world.backend.client, "read_gatt_char", fails_twice)
    world.drop()
    world.until(lambda: world.hub.state.connections == 2, limit=60)
    assert not unpaired


@pytest.mark.parametrize("content", ["", "[]", "null", "{]", '{"a": 1}', None])
def test_a_file_of_bonds_that_cannot_be_used_is_named_at_once(world, tmp_path, content):
    bonds = tmp_path / "bonds.json"
    if content is None:
        bonds.mkdir()
    else:
        bonds.write_text(content)
    with pytest.raises(FleetError, match=str(bonds)):
        world.add_camera(secure=True, bonds=bonds)


def test_a_place_where_no_bonds_can_be_kept_is_named_at_once(world):
    with pytest.raises(FleetError, match=r"cannot keep bonds in /proc/no/bonds\.json"):
        world.add_camera(secure=True, bonds=Path("/proc/no/bonds.json"))


def test_complaint_8_a_hub_that_lost_its_bond_is_told_what_to_do(world):
    world.add_camera(secure=True)
    world.add_hub(secure=True)
    world.join()
    world.central.keystore.all_keys.clear()
    world.drop()
    world.until(lambda: "start the camera with --pair" in world.hub.state.message, limit=120)
    assert any("--pair" in state.message for state in world.camera_states)
    assert world.hub.state.connections == 1


def test_complaint_8_with_pairing_open_a_hub_that_lost_its_bond_pairs_again(world):
    world.add_camera(secure=True, pairing=True)
    world.add_hub(secure=True)
    world.join()
    world.central.keystore.all_keys.clear()
    world.drop()
    world.until(lambda: world.hub.state.connections == 2, limit=120)
    world.join()
    works(world, 5)


def test_a_stranger_can_neither_pair_nor_read_nor_write_nor_subscribe(world):
    world.add_camera(secure=True)
    world.add_hub(secure=True)
    world.join()
    world.hub_task.cancel()
    world.until(lambda: world.camera.state.phase.name == "ADVERTISING")
    stranger = world.make_central(OTHER)
    connection, peer = world.run(connect(world, stranger))
    features, exit_, link = (attribute(peer, uuid) for uuid in (service.FEATURES, service.EXIT, service.LINK))
    got = []
    for attempt in (
        link.read_value,
        lambda: exit_.write_value(service.ready(world.camera.settings.identity), with_response=True),
        lambda: exit_.write_value(ExitNotice(1, 0, 1, 0.9).pack(), with_response=True),
        lambda: peer.subscribe(features, got.append),
        lambda: peer.subscribe(link, got.append),
    ):
        with pytest.raises(att.ATT_Error) as caught:
            world.run(attempt())
        assert caught.value.error_code == att.ErrorCode.INSUFFICIENT_ENCRYPTION
    with pytest.raises(core.ProtocolError):
        world.run(connection.pair())
    world.camera.offer(1, 1, stage(1, 1, 3))
    world.advance(2)
    assert not got
    assert not world.exits
    assert "--pair" in world.camera.state.message


def test_a_stranger_does_not_keep_the_hub_out_for_long(world):
    world.add_camera(secure=True)
    stranger = world.make_central(OTHER)
    connection, _ = world.run(connect(world, stranger))
    gone = []
    connection.on("disconnection", gone.append)
    world.add_hub(secure=True)
    world.until(lambda: gone, limit=40)
    world.until(lambda: world.hub.state.phase is HubPhase.CONNECTED, limit=60)


def test_a_hub_that_does_not_encrypt_is_told_that_it_must(world):
    world.add_camera(secure=True, address="D0:00:00:00:00:01")
    world.add_hub(secure=False, wanted="D0:00:00:00:00:01")
    with pytest.raises(FleetError, match="talks to bonded hubs only") as caught:
        world.run(world.hub_task)
    assert "\n" not in str(caught.value)


def test_legacy_pairing_is_sent_away(world):
    from bumble.pairing import PairingConfig, PairingDelegate  # noqa: PLC0415

    world.add_camera(secure=True)
    old = world.make_central(OTHER)
    old.pairing_config_factory = lambda _: PairingConfig(sc=False, mitm=False, bonding=True, delegate=PairingDelegate())
    connection, _ = world.run(connect(world, old))
    gone = []
    connection.on("disconnection", gone.append)
    with contextlib.suppress(asyncio.CancelledError):  # the camera hangs up before pairing is said to be over
        world.run(connection.pair())
    world.until(lambda: gone, limit=5)
    assert not world.run(world.camera._bonded())
    assert any("Secure Connections" in state.message for state in world.camera_states)


def test_an_open_camera_takes_a_hub_without_a_bond(world):
    world.add_camera(secure=False)
    world.add_hub(secure=False)
    world.join()
    assert not world.radio.encrypted
    works(world, 1)
