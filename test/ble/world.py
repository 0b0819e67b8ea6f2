# SPDX-License-Identifier: Apache-2.0
"""A camera and a hub, both the real code, joined by a virtual radio on virtual time."""

import asyncio
import contextlib

from bumble import hci
from bumble.device import Device, DeviceConfiguration
from bumble.pairing import PairingConfig, PairingDelegate
from bumble.transport.common import AsyncPipeSink
from bumble_bleak import backend_on
from virtual_radio import VirtualAir, VirtualController
from virtual_time import VirtualTimeLoop

from fleet.ble.camera import Camera
from fleet.ble.hub import Hub, HubSettings
from fleet.ble.hub import Phase as HubPhase
from fleet.ble.settings import CameraSettings
from fleet.link.parameters import LinkParameters

IDENTITY = bytes(range(8))
HUB_ADDRESS = "C0:00:00:00:00:02"


def sides(controller):
    """What a host takes for the source and the sink of an HCI transport."""
    return controller, AsyncPipeSink(controller)


class World:
    """Everything on one loop: ``world.run(coroutine)``, ``world.until(condition)``, ``world.advance(seconds)``."""

    def __init__(self, **air):
        self.loop = VirtualTimeLoop()
        asyncio.set_event_loop(self.loop)
        self.packets, self.exits, self.camera_states, self.hub_states = [], [], [], []
        self.errors = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.air = self.run(self._make(VirtualAir, **air))
        self.camera = self.hub = self.central = self.backend = None
        self.hub_task = None
        self.on_packet = lambda packet: None

    async def _make(self, kind, *args, **kwargs):
        return kind(*args, **kwargs)

    # Time -----------------------------------------------------------------------------------------------------
    @property
    def now(self):
        return self.loop.time()

    def run(self, work, limit=300.0):
        return self.loop.run_until_complete(asyncio.wait_for(work, limit))

    def call(self, function, *args):
        """Call something that wants a running loop."""
        return self.run(self._make(function, *args))

    def advance(self, seconds):
        self.run(asyncio.sleep(seconds), limit=None)

    def until(self, condition, limit=60.0, step=0.001):
        """Let time pass until the condition holds; fails with what was seen."""
        end = self.now + limit
        while not condition():
            assert self.now < end, (
                f"not within {limit} s: {self.hub_states[-3:]} {self.camera_states[-3:]} {self.errors}"
            )
            self.advance(step)

    # The two ends ---------------------------------------------------------------------------------------------
    def add_camera(self, *, octets=251, knows_2m=True, wish=None, identity=IDENTITY, **settings):
        wish = wish or LinkParameters(ci_ms=30.0, phy="2M", transport="bumble")
        self.run(self._add_camera(octets, knows_2m, CameraSettings(identity=identity, wish=wish, **settings)))
        return self.camera

    async def _add_camera(self, octets, knows_2m, settings):
        controller = VirtualController("camera", link=self.air)
        controller.most_octets, controller.knows_2m = octets, knows_2m
        self.camera = Camera(
            *sides(controller),
            settings,
            on_exit=lambda notice: self.exits.append((self.now, notice)),
            on_change=self.camera_states.append,
        )
        await self.camera.start()

    def make_central(self, address=HUB_ADDRESS):
        return self.run(self._make_central(address))

    async def _make_central(self, address):
        controller = VirtualController("hub", link=self.air)
        configuration = DeviceConfiguration(name="hub", address=hci.Address(address), irk=bytes(range(16)))
        device = Device.from_config_with_hci(configuration, *sides(controller))
        device.pairing_config_factory = lambda _: PairingConfig(
            sc=True, mitm=False, bonding=True, delegate=PairingDelegate()
        )
        await device.power_on()
        return device

    def add_hub(self, *, identity=IDENTITY, wanted="", secure=False, attempts=0, central=None, **radio):
        self.central = central or self.make_central()
        self.backend = backend_on(self.central, **radio)
        settings = HubSettings(identity=identity, address=wanted, secure=secure, attempts=attempts)
        self.hub = self.run(
            self._make(Hub, settings, on_packet=self._on_packet, backend=self.backend, on_change=self.hub_states.append)
        )
        self.hub_task = self.loop.create_task(self.hub.run())
        return self.hub

    def _on_packet(self, packet):
        self.packets.append((self.now, packet))
        self.on_packet(packet)

    def join(self, limit=60.0):
        """Wait until features may travel."""
        self.until(lambda: self.hub_task.done() or self.hub.state.phase is HubPhase.CONNECTED, limit)
        if self.hub_task.done():
            self.hub_task.result()
        self.until(lambda: self.camera.state.phase.name == "SENDING", limit)

    @property
    def radio(self):
        """The one connection on the air."""
        (link,) = self.air.links
        return link

    def drop(self, reason=hci.HCI_ErrorCode.REMOTE_USER_TERMINATED_CONNECTION_ERROR):
        """Both ends are told that the connection is over."""
        self.call(self.radio.drop, reason)

    def close(self):
        if self.hub_task is not None:
            self.hub_task.cancel()
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.close()
        asyncio.set_event_loop(None)
