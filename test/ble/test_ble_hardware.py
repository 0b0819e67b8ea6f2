# SPDX-License-Identifier: Apache-2.0
"""Two real controllers, where a machine has them: FLEET_BLE_CAMERA and FLEET_BLE_HUB name them as bumble does."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest
from bumble.device import Device, DeviceConfiguration
from bumble.hci import Address
from bumble_bleak import backend_on
from world import HUB_ADDRESS, IDENTITY

from fleet.ble.adapter import open_adapter
from fleet.ble.camera import Camera
from fleet.ble.hub import Hub, HubSettings
from fleet.ble.settings import CameraSettings
from fleet.packet import ExitNotice, Header

pytestmark = pytest.mark.hardware
LIMIT_S = 60


def two_controllers():
    """The names of both, or a reason to skip."""
    camera, hub = os.environ.get("FLEET_BLE_CAMERA"), os.environ.get("FLEET_BLE_HUB")
    if camera and hub:
        return camera, hub
    adapters = sorted(Path("/sys/class/bluetooth").glob("hci?")) if Path("/sys/class/bluetooth").is_dir() else []
    virtual = "/dev/vhci is there" if Path("/dev/vhci").exists() else "no /dev/vhci"
    pytest.skip(
        f"no two Bluetooth controllers ({len(adapters)} adapters, {virtual}): name them in FLEET_BLE_CAMERA and "
        "FLEET_BLE_HUB, for example usb:0 and usb:1; they are taken away from the system meanwhile"
    )


def test_packets_and_an_exit_notice_travel_between_two_real_controllers():
    asyncio.run(asyncio.wait_for(talk(*two_controllers()), LIMIT_S))


async def talk(camera_name, hub_name):
    loop = asyncio.get_running_loop()
    packets, heard, exits = [], asyncio.Event(), loop.create_future()

    def on_packet(packet):
        packets.append(packet)
        if len(packets) == 4:
            heard.set()

    async with open_adapter(camera_name) as one, open_adapter(hub_name) as other:
        camera = Camera(one.source, one.sink, CameraSettings(IDENTITY), on_exit=exits.set_result)
        await camera.start()
        configuration = DeviceConfiguration(name="hub", address=Address(HUB_ADDRESS))
        central = Device.from_config_with_hci(configuration, other.source, other.sink)
        await central.power_on()
        hub = Hub(HubSettings(IDENTITY), on_packet=on_packet, backend=backend_on(central, supervision_ms=6000))
        task = loop.create_task(hub.run())
        try:
            while camera.state.phase.name != "SENDING":
                await asyncio.sleep(0.05)
            await asyncio.sleep(2)  # MTU and data length
            size = camera.payload
            camera.offer(1, 1, [Header(1, 1, 0, k, 7).pack() + bytes(size - 8) for k in range(4)])
            await heard.wait()
            hub.stop(ExitNotice(1, 0, 1, 0.9))
            assert (await exits).inference_id == 1
            assert [Header.unpack(packet).first for packet in packets] == [0, 1, 2, 3]
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await camera.stop()
