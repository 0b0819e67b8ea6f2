# SPDX-License-Identifier: Apache-2.0
"""A bag as a running system would have given it, made by the simulator: no camera, no radio, no data set, no ROS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import Nodetype

from fleet.bags.definitions import ALL, DIAGNOSTICS, IMAGE, INFERENCE, LABEL, LINK, PACKETS, typestore
from fleet.bags.replay import ForwardMany
from fleet.bags.writer import BagWriter
from fleet.inference import Device
from fleet.link.accounting import Event
from fleet.link.parameters import LinkParameters
from fleet.packet import LOCAL_ANSWER_STAGE, Header
from fleet.session import CloudSession
from fleet.simulation import SimulatedFrame, Simulation
from fleet.sources import Frame

NS = 1_000_000_000
HUB, DEVICE = 1, 2  # fleet_msgs/msg/Label


@dataclass(frozen=True)
class System:
    """What the recorded system is made of.

    Attributes:
        device: with a paced profile.
        prepare: a picture to the network's input.
        forward: the hub's network.
        fused: which stages each exit fuses.
        link: the radio.
        exit_s: what an exit takes on the hub.
        codec: of the features, for the device's diagnostics.
    """

    device: Device
    prepare: Any
    forward: ForwardMany
    fused: Any
    link: LinkParameters
    exit_s: float = 0.005
    codec: str = ""


def record(
    writer: BagWriter,
    camera: str,
    system: System,
    frames: Iterable[Frame],
    *,
    begin_ns: int,
    period_s: float,
    seed: int = 0,
    first_id: int = 1,
    pictures: str = "",
    topics: Sequence[str] = (IMAGE, PACKETS, LABEL, INFERENCE, LINK, DIAGNOSTICS),
) -> int:
    """Run frames through the simulator and write what one would have heard.

    Args:
        writer: of the bag.
        camera: namespace.
        system: that is simulated.
        frames: of the camera.
        begin_ns: when the first frame is ready, since 1970.
        period_s: from frame to frame.
        seed: of phases and losses.
        first_id: inference id of the first frame.
        pictures: ``png`` or ``jpeg``; empty for none.
        topics: that are recorded.

    Returns:
        How many frames.
    """
    bundle = system.device.bundle

    def forward(stage: int, maps: Sequence[Any]) -> Any:
        return system.forward({stage: [m[None] for m in maps]})[stage][0]

    simulation = Simulation(
        system.device,
        CloudSession(bundle, system.fused),
        forward,
        system.link,
        exit_s=system.exit_s,
        seed=seed,
    )
    arrived: list[tuple[float, bytes]] = []
    send = simulation.radio.hub.send

    def tap(event: Event) -> None:
        arrived.extend(zip(event.arrivals, event.delivered, strict=True))
        send(event)

    simulation.radio.hub.send = tap  # type: ignore[method-assign]

    def write(name: str, time_ns: int, /, **values: Any) -> None:
        if name in topics:
            writer.write("" if name == DIAGNOSTICS else camera, name, time_ns, message(ALL[name].type, **values))

    write(LINK, begin_ns - NS, **_link(system.link))
    write(DIAGNOSTICS, begin_ns - NS, status=[_status(camera, system)])
    count = 0
    for frame in frames:
        arrived.clear()
        simulation._id = (first_id + count - 1) % 65536  # the simulator counts from 1
        journey = simulation.run(system.prepare(frame.image))
        ready = begin_ns + round(count * period_s * NS)
        header = _header(ready)
        inference_id = (first_id + count) % 65536
        if pictures:
            good, data = cv2.imencode(f".{pictures}", np.ascontiguousarray(frame.image[..., ::-1]))
            assert good
            write(IMAGE, ready, header=header, format=pictures, data=data)
        for time, packet in arrived:
            assert Header.unpack(packet).inference_id == inference_id
            when = ready + round((time - journey.outcome.started) * NS)
            write(PACKETS, when, header=header, data=np.frombuffer(packet, np.uint8))
        after, label = _label(journey, bundle, header, inference_id)
        write(LABEL, ready + round(after * NS), **label)
        write(INFERENCE, ready + round((after + 0.05) * NS), **_report(journey, system, header, inference_id, frame))
        count += 1
    return count


def message(msgtype: str, /, **values: Any) -> Any:
    """A message of the type store with these values, the others zero or empty."""
    store = typestore()
    _, fields = store.fielddefs[msgtype]
    made = {name: values.pop(name) if name in values else _zero(kind) for name, kind in fields}
    assert not values, f"{msgtype} has no {', '.join(values)}"
    return store.types[msgtype](**made)


def _zero(kind: Any) -> Any:
    node, detail = kind
    if node == Nodetype.NAME:
        return message(detail)
    if node == Nodetype.BASE:
        return {"string": "", "bool": False}.get(detail[0], 0.0 if detail[0].startswith("float") else 0)
    (inner, name), length = detail
    if inner == Nodetype.BASE and name[0] not in ("string", "bool"):
        return np.zeros(length if node == Nodetype.ARRAY else 0, name[0])
    return []


def _header(stamp_ns: int) -> Any:
    stamp = message("builtin_interfaces/msg/Time", sec=stamp_ns // NS, nanosec=stamp_ns % NS)
    return message("std_msgs/msg/Header", stamp=stamp, frame_id="camera")


def _link(link: LinkParameters) -> dict[str, Any]:
    named = {key: getattr(link, key) for key in ("ci_ms", "phy", "payload", "packets", "loss", "ack", "transport")}
    return named | {"effective_packets": link.effective_packets, "connected": True}


def _status(camera: str, system: System) -> Any:
    profile, bundle = system.device.profile, system.device.bundle
    values = {
        "platform": profile.name,
        "time scale": profile.time_scale,
        "model": bundle.path,
        "bundle": bundle.identity.hex(),
        "precision": "float",
        "codec": system.codec,
    }
    pairs = [message("diagnostic_msgs/msg/KeyValue", key=key, value=str(value)) for key, value in values.items()]
    name = f"{camera.strip('/')}/device_node: state"
    return message("diagnostic_msgs/msg/DiagnosticStatus", name=name, values=pairs)


def _label(journey: SimulatedFrame, bundle: Any, header: Any, inference_id: int) -> tuple[float, dict[str, Any]]:
    """Seconds from the frame on, and the first label that a consumer would have got."""
    outcome = journey.outcome
    prediction, stage, after = outcome.prediction, outcome.stage, outcome.latency
    if journey.hub is not None:
        (answer, after) = journey.hub
        prediction, stage = answer.prediction, answer.stage
    return after, {
        "header": header,
        "inference_id": inference_id,
        "group": prediction.group,
        "group_confidence": prediction.group_confidence,
        "class_name": bundle.classes.names[prediction.class_index],
        "class_index": prediction.class_index,
        "class_confidence": prediction.class_confidence,
        "source": DEVICE if stage == LOCAL_ANSWER_STAGE else HUB,
        "stage": stage,
        "hub_latency": after if journey.hub is not None else float("nan"),
    }


def _report(journey: SimulatedFrame, system: System, header: Any, inference_id: int, frame: Frame) -> dict[str, Any]:
    outcome, bundle = journey.outcome, system.device.bundle
    power = system.device.profile.power_mw
    radio = journey.account.energy_uj * 1e-3 if journey.account is not None else float("nan")
    return {
        "header": header,
        "inference_id": inference_id,
        "name": frame.name,
        "truth": bundle.classes.group_named(frame.truth) or "",
        "group": outcome.prediction.group,
        "class_name": bundle.classes.names[outcome.prediction.class_index],
        "class_index": outcome.prediction.class_index,
        "source": HUB if outcome.by_hub else DEVICE,
        "exit_stage": outcome.stage,
        "stages_run": outcome.stages_run,
        "compute_time": outcome.busy,
        "latency": outcome.latency,
        "compute_energy_mj": float("nan") if power is None else outcome.busy * power,
        "radio_energy_mj": radio,
    }
