# SPDX-License-Identifier: Apache-2.0
"""Whole inferences over the real radio code: the real device, the real session, the network alone is made up."""

import numpy as np
import pytest

from fleet.ble.hub import Phase as HubPhase
from fleet.inference import Device
from fleet.link.parameters import LinkParameters
from fleet.packet import LOCAL_ANSWER_STAGE, ExitNotice, Header, next_id
from fleet.platforms import PlatformProfile
from fleet.runtime import StageOutput
from fleet.session import Answer, CloudSession

SURE = [10.0, 0.0, 0.0, 0.0, 0.0]
UNSURE = [0.3, 0.2, 0.1, 0.0, 0.0]
OWN = [0.0, 0.0, 0.0, 5.0, 0.0]
FUSED = {1: (1,), **{n: (n - 1, n) for n in range(2, 9)}}
IMAGE = np.zeros((1, 3, 32, 32), np.float32)
STAGES = 10


class Network:
    """Stages that give noise, and a head that takes everything for a bison."""

    stage_numbers = tuple(range(1, STAGES + 1))

    def __init__(self, bundle):
        self.bundle = bundle

    def run(self, n, features):
        if n == STAGES:
            return StageOutput(np.array([OWN], np.float32), None)
        layout = self.bundle.layouts.get(n)
        latent = None
        if layout is not None:
            levels = np.random.default_rng(n).integers(0, 16, (layout.channels, 8, 8))
            latent = layout.quantiser.dequantise(levels)
        return StageOutput(np.zeros((1, n, 4, 4), np.float32), latent)


class Surroundings:
    """The device's clock and radio: whatever it waits for, the world's loop goes on meanwhile."""

    def __init__(self, world):
        self.world, self.current, self.events = world, None, []

    @property
    def payload(self):
        return self.world.camera.payload

    def now(self):
        return self.world.now

    def offer(self, inference_id, stage, packets):
        self.world.call(self.world.camera.offer, inference_id, stage, packets)

    def wait_until(self, time):
        while not self._notice() and time - self.world.now > 1e-6:
            for at, event in [e for e in self.events if e[0] <= self.world.now]:
                self.events.remove((at, event))
                event()
            self.world.advance(min(0.0005, time - self.world.now))
        return self._notice()

    def _notice(self):
        return next((notice for _, notice in self.world.exits if notice.inference_id == self.current), None)


class CloudHub:
    """The hub's session behind the hub's radio: every packet may make an exit run, two milliseconds long."""

    def __init__(self, world, bundle, sure_at):
        self.world, self.bundle, self.sure_at = world, bundle, sure_at
        self.session, self.busy, self.answers = CloudSession(bundle, FUSED), False, []
        world.on_packet = self.take

    def take(self, packet):
        self.session.take(packet)
        self.go_on()

    def go_on(self):
        task = None if self.busy else self.session.next_task()
        if isinstance(task, Answer):
            self.answer(task)
        elif task is not None:
            self.busy = True
            self.world.loop.call_later(0.002, self.conclude, task)

    def conclude(self, task):
        self.busy = False
        _, answer = self.session.conclude(task, SURE if task.stage >= self.sure_at else UNSURE)
        if answer is not None:
            self.answer(answer)
        self.go_on()

    def answer(self, answer):
        self.answers.append(answer)
        confidence = self.bundle.decider.confidence(answer.prediction)
        self.world.hub.stop(ExitNotice(answer.inference_id, answer.prediction.class_index, answer.stage, confidence))


@pytest.fixture
def make(make_world, small_bundle):
    """A camera with its device, and a hub that is sure from some stage on."""

    def make_them(sure_at, *, ci_ms=30.0, seconds=0.02, secure=False, mtu=247, **air):
        world = make_world(**air)
        world.add_camera(
            wish=LinkParameters(ci_ms=ci_ms, phy="2M", transport="bumble"),
            identity=small_bundle.identity,
            secure=secure,
        )
        central = world.make_central()
        central.gatt_server.max_mtu = mtu
        world.add_hub(identity=small_bundle.identity, secure=secure, central=central, mtu=mtu)
        hub = CloudHub(world, small_bundle, sure_at)
        world.join()
        world.advance(1.5)
        profile = PlatformProfile("paced", 100.0, "test", stage_seconds=dict.fromkeys(range(1, STAGES + 1), seconds))
        return world, hub, Device(small_bundle, Network(small_bundle), profile), Surroundings(world)

    return make_them


def infer(device, around, inference_id):
    around.current = inference_id
    return device.infer(IMAGE, inference_id, around)


@pytest.mark.parametrize("sure_at", [1, 3, 6])
def test_the_hub_ends_an_inference_over_the_radio(make, sure_at):
    _, hub, device, around = make(sure_at)
    outcome = infer(device, around, 7)
    assert outcome.by_hub
    assert outcome.stage == sure_at
    assert outcome.prediction.group == "vehicle"
    assert [answer.inference_id for answer in hub.answers] == [7]
    assert outcome.latency < 0.02 * sure_at + 4 * 0.03


def test_a_hundred_inferences_each_get_the_hubs_answer(make):
    world, hub, device, around = make(2)
    inference_id = 65500  # round the corner of the ids
    for _ in range(100):
        assert infer(device, around, inference_id).by_hub
        inference_id = next_id(inference_id)
    assert len(hub.answers) == 100
    assert world.hub.gaps.lost == 0
    assert not world.errors


def test_without_an_answer_the_devices_own_travels_and_the_hub_hears_of_it(make):
    world, hub, device, around = make(99, seconds=0.003)  # too fast for the last stage's ladder to be complete
    outcome = infer(device, around, 7)
    assert not outcome.by_hub
    assert outcome.prediction.group == "animal"
    world.until(lambda: hub.answers)
    assert hub.answers[0].stage == LOCAL_ANSWER_STAGE
    assert hub.answers[0].is_local


def test_an_inference_over_a_link_that_loses_a_third(make):
    world, _, device, around = make(3, seconds=0.05)
    world.air.loss = 0.3
    outcomes = [infer(device, around, 100 + k) for k in range(20)]
    assert sum(outcome.by_hub for outcome in outcomes) >= 15
    assert world.hub.gaps.lost == 0


def test_an_inference_at_mtu_23(make):
    world, _, device, around = make(1, mtu=23)
    assert world.camera.payload == 20
    outcome = infer(device, around, 7)
    assert outcome.by_hub
    assert all(len(packet) <= 20 for _, packet in world.packets)


def test_an_inference_over_an_encrypted_link(make):
    world, _, device, around = make(2, secure=True)
    assert world.radio.encrypted
    assert infer(device, around, 7).by_hub


def test_a_reconnect_in_the_middle_of_an_inference(make):
    world, _, device, around = make(7, seconds=0.3)
    around.events.append((world.now + 0.65, world.drop))
    outcome = infer(device, around, 7)
    assert outcome.by_hub
    assert world.hub.state.connections == 2
    stages = {Header.unpack(packet).stage for _, packet in world.packets}
    assert {1, 7} <= stages


def test_a_radio_that_is_dead_during_an_inference_delays_nothing(make):
    world, _, device, around = make(2)
    world.air.blackout = True
    outcome = infer(device, around, 7)
    assert not outcome.by_hub
    assert outcome.latency == pytest.approx(STAGES * 0.02, rel=0.01)
    world.until(lambda: world.hub.state.phase is not HubPhase.CONNECTED)
    world.air.blackout = False
    world.until(lambda: world.hub.state.connections == 2, limit=120)
    world.join()
    assert infer(device, around, 8).by_hub
