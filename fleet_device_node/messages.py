# SPDX-License-Identifier: Apache-2.0
"""What the device node says of a frame whose inference is over."""

from __future__ import annotations

import dataclasses

from std_msgs.msg import Header

from fleet.bundle import Bundle
from fleet.inference import Outcome
from fleet.motion import Square
from fleet.platforms import PlatformProfile
from fleet_msgs.msg import InferenceReport, LinkReport
from fleet_ros.messages import bounded

NAME_BYTES = 256


@dataclasses.dataclass(frozen=True)
class Ended:
    """A frame whose inference is over, waiting for the radio's report.

    Attributes:
        outcome: how it ended.
        header: of the source image.
        name: of its file, empty for a camera.
        truth: the folder that it was in, if any.
        region: the square that was classified; None for the whole frame.
    """

    outcome: Outcome
    header: Header
    name: str
    truth: str | None
    region: Square | None


def report_message(ended: Ended, radio: LinkReport | None, bundle: Bundle, profile: PlatformProfile) -> InferenceReport:
    """One frame's journey.

    Args:
        ended: the device's half.
        radio: the bridge's half; None where it did not report.
        bundle: the model.
        profile: of the device, for its energy.
    """
    outcome = ended.outcome
    prediction = outcome.prediction
    report = InferenceReport(
        header=ended.header,
        inference_id=outcome.inference_id,
        name=ended.name.encode()[-NAME_BYTES:].decode(errors="ignore"),
        truth=bundle.classes.group_named(ended.truth) or "",
        group=prediction.group,
        class_name=bounded(bundle.classes.names[prediction.class_index]),
        class_index=prediction.class_index,
        confidence=bundle.decider.confidence(prediction),
        source=InferenceReport.HUB if outcome.by_hub else InferenceReport.DEVICE,
        exit_stage=outcome.stage,
        local_stage=outcome.local_stage or 0,
        stages_run=outcome.stages_run,
        compute_time=outcome.busy,
        latency=outcome.latency,
        compute_energy_mj=profile.energy_mj(outcome.busy),
        radio_energy_mj=float("nan"),
    )
    if (region := ended.region) is not None:
        report.roi_left, report.roi_top, report.roi_side = region.left, region.top, region.side
    if radio is not None:
        report.radio_reported = True
        report.radio_energy_mj = radio.energy_mj
        report.packets, report.packets_lost = radio.packets_sent, radio.packets_lost
        report.bytes, report.events = radio.bytes_sent, radio.events
    return report
