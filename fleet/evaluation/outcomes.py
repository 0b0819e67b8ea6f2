# SPDX-License-Identifier: Apache-2.0
"""How frames end: who answers, when the device and the hub hold the answer, and what it took (design section 10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleet.evaluation.air import Air, FloatVector, IntVector
from fleet.evaluation.replay import LOCAL_ANSWER_BYTES, BoolVector, Timeline
from fleet.link.airtime import T_IFS_US
from fleet.platforms import PlatformProfile

EMPTY_US = 0.0


@dataclass(frozen=True)
class Outcomes:
    """One scheme at one operating point on all images, each of shape (N,).

    Attributes:
        latency: seconds until the device holds the answer.
        hub_latency: seconds until the hub does.
        busy: seconds that the processor works.
        radio_uj: of every event from the first one after something was there to send, until the answer.
        sent_bytes: on the air, headers included.
        packets: on the air.
        events: connection events of ``radio_uj``.
        compute: of ``latency``, the device's work until something can be sent, or until it answers itself.
        wait: of ``latency``, from then on until the hub begins with what it answers on.
        cloud: of ``latency``, what the hub takes for that.
        downlink: of ``latency``, from then on until the device holds the answer.
    """

    latency: FloatVector
    hub_latency: FloatVector
    busy: FloatVector
    radio_uj: FloatVector
    sent_bytes: FloatVector
    packets: FloatVector
    events: FloatVector
    compute: FloatVector
    wait: FloatVector
    cloud: FloatVector
    downlink: FloatVector

    def energy_mj(self, profile: PlatformProfile) -> FloatVector:
        """Processor and radio; NaN where the processor's power is unknown."""
        power = np.nan if profile.power_mw is None else profile.power_mw
        out: FloatVector = self.busy * power + self.radio_uj * 1e-3
        return out


def fleet_outcomes(timeline: Timeline, answered: FloatVector, local_at: FloatVector) -> tuple[Outcomes, BoolVector]:
    """FLEET's frames.

    Args:
        timeline: of the link.
        answered: when the hub has its own answer if the device gives none, infinite where never, shape (N,).
        local_at: when the device has its own, shape (N,).

    Returns:
        The outcomes, and whether the hub's answer came first.
    """
    air, traffic = timeline.air, timeline.traffic
    notice_event, notice_at = timeline.notice_at(answered)
    by_hub = notice_at <= local_at
    local_event = air.event_from(local_at)
    last = np.minimum(notice_event, local_event)
    noticed = notice_event == last
    reported = (local_event == last) & ~by_hub  # the device's answer travels in the last event
    packets, sizes, extra = traffic.until(last)
    last_packets, last_bytes, last_us = (np.where(noticed, part, 0.0) for part in traffic.within(last))
    last_packets = np.where(reported, 1.0, last_packets)
    last_bytes = np.where(reported, LOCAL_ANSWER_BYTES, last_bytes)
    last_us = np.where(reported, air.up_us[LOCAL_ANSWER_BYTES], last_us)
    events = (last - timeline.first_event + 1).astype(float)
    silent = air.energy_uj(0, EMPTY_US)
    final = np.where(noticed, air.energy_uj(last_packets, last_us, notice=True), air.energy_uj(last_packets, last_us))
    latency = np.where(by_hub, notice_at, local_at)
    return (
        Outcomes(
            latency=latency,
            hub_latency=_hub_latency(timeline, answered, local_event, reported),
            busy=latency,
            radio_uj=(events - 1) * silent + extra + final,
            sent_bytes=sizes + last_bytes,
            packets=packets + last_packets,
            events=events,
            compute=np.where(by_hub, timeline.ready_s, local_at),
            wait=np.where(by_hub, answered - timeline.exit_s - timeline.ready_s, 0.0),
            cloud=np.where(by_hub, timeline.exit_s, 0.0),
            downlink=np.where(by_hub, notice_at - np.where(by_hub, answered, 0.0), 0.0),
        ),
        by_hub,
    )


def _hub_latency(
    timeline: Timeline, answered: FloatVector, local_event: IntVector, reported: BoolVector
) -> FloatVector:
    """When the hub has an answer: its own, or the device's once that is here and no exit runs any more."""
    air = timeline.air
    heard = air.time_of(local_event) + single_packet_us(air, LOCAL_ANSWER_BYTES) * 1e-6
    running = (timeline.done - timeline.exit_s < heard[:, None]) & (timeline.done > heard[:, None])
    heard_and_free = np.where(running, timeline.done, 0.0).max(axis=1, initial=0.0)
    taken = np.where(running.any(axis=1), heard_and_free, heard)
    out: FloatVector = np.where(reported & (answered > heard), taken, answered)
    return out


def single_packet_us(air: Air, size: int) -> float:
    """From an event's anchor to the end of the camera's one packet."""
    return float(air.poll_us + T_IFS_US + air.up_us[size])


def local_outcomes(air: Air, answered: FloatVector) -> Outcomes:
    """Local early exit's frames: no radio until the answer; the hub then hears of it by one packet.

    Args:
        air: the link.
        answered: when the device has its answer, shape (N,).
    """
    none = np.zeros(len(answered))
    heard = air.time_of(air.event_from(answered)) + single_packet_us(air, LOCAL_ANSWER_BYTES) * 1e-6
    return Outcomes(answered, heard, answered, none, none, none, none, answered, none, none, none)


def upload_outcomes(air: Air, ready_s: float, sizes: IntVector, *, cloud_s: float) -> Outcomes:
    """Frames of a scheme that works on the device, sends bytes all of which are needed, and waits.

    Args:
        air: the link; its acknowledgement model counts here.
        ready_s: seconds that the device works before the first byte can travel.
        sizes: bytes of each image, shape (N,).
        cloud_s: seconds that the hub takes.
    """
    link = air.link
    room, payload = link.effective_packets, link.payload
    packets = -(-sizes // payload)
    bursts = np.maximum(-(-packets // room), 1)
    apart = 2 if link.ack == "next_event" else 1
    first = air.event_from(np.full(len(sizes), ready_s))
    last = first + apart * (bursts - 1)
    in_last = packets - (bursts - 1) * room
    rest = sizes - (packets - 1) * payload  # bytes of the last packet
    per_packet = air.poll_us + T_IFS_US + air.up_us[payload] + T_IFS_US
    end_us = (in_last - 1) * per_packet + air.poll_us + T_IFS_US + air.up_us[rest]
    answered = air.time_of(last) + end_us * 1e-6 + cloud_s
    notice_event = air.event_from(answered)
    notice_at = air.time_of(notice_event) + air.notice_us * 1e-6
    events = (notice_event - first + 1).astype(float)
    silent = air.energy_uj(0, EMPTY_US)
    full = air.energy_uj(room, room * air.up_us[payload])
    final = air.energy_uj(in_last, (in_last - 1) * air.up_us[payload] + air.up_us[rest])
    notice = air.energy_uj(0, EMPTY_US, notice=True)
    radio = (bursts - 1) * full + final + notice + (events - bursts - 1) * silent
    ready = np.full(len(sizes), ready_s)
    return Outcomes(
        latency=notice_at,
        hub_latency=answered,
        busy=ready,
        radio_uj=radio,
        sent_bytes=sizes.astype(float),
        packets=packets.astype(float),
        events=events,
        compute=ready,
        wait=answered - cloud_s - ready,
        cloud=np.full(len(sizes), cloud_s),
        downlink=notice_at - answered,
    )
