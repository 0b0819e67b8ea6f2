# SPDX-License-Identifier: Apache-2.0
"""The camera's radio in its thread: an adapter that comes and goes (complaint 7, the camera's side)."""

import asyncio
import queue
import threading

import pytest
from test_ble_camera_command import serve
from virtual_radio import VirtualAir, VirtualController
from world import IDENTITY

import fleet.ble.radio
from fleet.ble.background import Background
from fleet.ble.radio import CameraRadio
from fleet.ble.settings import CameraSettings, Phase
from fleet.errors import FleetError
from fleet.packet import Header

LIMIT_S = 20


class Adapter:
    """A virtual controller behind TCP, to be unplugged."""

    def __init__(self):
        self.ready = threading.Event()
        self.background = Background(self.run, on_end=lambda _error: None, name="adapter")
        self.background.start()
        assert self.ready.wait(LIMIT_S)

    async def run(self):
        self.port, self.transport = await serve()
        self.controller = VirtualController(
            "camera", host_source=self.transport.source, host_sink=self.transport.sink, link=VirtualAir()
        )
        self.ready.set()
        await asyncio.get_running_loop().create_future()

    def fall_silent(self):
        """Gone without a word, as a Linux HCI socket's adapter goes."""
        self.controller.on_packet = lambda _packet: None

    def speak(self):
        del self.controller.on_packet

    def unplug(self):
        self.background.call(self.transport.sink.transport.close)


@pytest.fixture
def adapter():
    made = Adapter()
    yield made
    made.background.close()


def test_complaint_7_a_camera_opens_an_adapter_again_that_went_away(adapter, monkeypatch):
    monkeypatch.setattr(fleet.ble.radio, "FIRST_PAUSE_S", 0.05)
    advertising = threading.Semaphore(0)

    def on_change(state):
        if state.phase is Phase.ADVERTISING:
            advertising.release()

    radio = CameraRadio(
        f"tcp-client:127.0.0.1:{adapter.port}",
        CameraSettings(IDENTITY),
        on_exit=lambda notice: None,
        on_change=on_change,
    )
    radio.start()
    assert advertising.acquire(timeout=LIMIT_S)
    adapter.unplug()
    assert advertising.acquire(timeout=LIMIT_S)
    radio.offer(1, 1, [Header(1, 1, 0, 0, 1).pack()])  # nobody is there: nothing happens
    assert radio.report(1) is None
    assert radio.statistics().sent == 0
    radio.close()


def test_complaint_7_an_adapter_that_goes_without_a_word_is_missed(adapter, monkeypatch):
    monkeypatch.setattr(fleet.ble.radio, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("fleet.ble.camera.ASK_CONTROLLER_S", 0.05)
    monkeypatch.setattr("fleet.ble.camera.POWER_ON_S", 0.5)
    phases = queue.Queue()
    radio = CameraRadio(
        f"tcp-client:127.0.0.1:{adapter.port}",
        CameraSettings(IDENTITY),
        on_exit=lambda notice: None,
        on_change=lambda state: phases.put(state.phase),
    )
    radio.start()
    assert phases.get(timeout=LIMIT_S) is Phase.ADVERTISING
    adapter.fall_silent()
    assert phases.get(timeout=LIMIT_S) is Phase.OFF
    adapter.speak()
    assert phases.get(timeout=LIMIT_S) is Phase.ADVERTISING
    radio.close()


def test_an_adapter_that_never_answers_is_one_line(monkeypatch):
    monkeypatch.setattr("fleet.ble.camera.POWER_ON_S", 0.2)

    async def mute():
        port, transport = await serve()
        ports.append((port, transport))
        await asyncio.get_running_loop().create_future()

    ports = []
    background = Background(mute, on_end=lambda _error: None, name="mute")
    background.start()
    while not ports:
        threading.Event().wait(0.01)
    radio = CameraRadio(f"tcp-client:127.0.0.1:{ports[0][0]}", CameraSettings(IDENTITY), on_exit=lambda notice: None)
    with pytest.raises(FleetError, match="does not answer"):
        radio.start()
    background.close()
