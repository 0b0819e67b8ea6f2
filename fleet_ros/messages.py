# SPDX-License-Identifier: Apache-2.0
"""Messages that more than one node builds."""

from __future__ import annotations

from std_msgs.msg import Header

from fleet.exits import Classes, Prediction
from fleet.link.parameters import LinkParameters
from fleet_msgs.msg import Label
from fleet_msgs.msg import LinkParameters as LinkParametersMsg

WORDS_BYTES = 128


def bounded(text: str, size: int = WORDS_BYTES) -> str:
    """A text cut to the size of a bounded string, which counts bytes."""
    return text.encode()[:size].decode(errors="ignore")


def link_of(message: LinkParametersMsg) -> LinkParameters:
    """The link that a message tells of.

    Raises:
        FleetError: no node of ours says such a thing.
    """
    names = ("ci_ms", "packets", "payload", "phy", "ack", "transport")
    # float32 on the wire: 0.1 arrives as 0.10000000149
    return LinkParameters(loss=round(float(message.loss), 6), **{key: getattr(message, key) for key in names})


def label_message(
    classes: Classes,
    header: Header,
    inference_id: int,
    prediction: Prediction,
    *,
    source: int,
    stage: int,
    hub_latency: float,
) -> Label:
    """A label as cloud and device publish it.

    Args:
        classes: of the bundle.
        header: of the source image.
        inference_id: 0..65535.
        prediction: the answer.
        source: ``Label.HUB`` or ``Label.DEVICE``.
        stage: the exit that answered, or 15.
        hub_latency: seconds, NaN where no hub was involved.
    """
    return Label(
        header=header,
        inference_id=inference_id,
        group=prediction.group,
        group_confidence=prediction.group_confidence,
        class_name=bounded(classes.names[prediction.class_index]),
        class_index=prediction.class_index,
        class_confidence=prediction.class_confidence,
        source=source,
        stage=stage,
        hub_latency=hub_latency,
    )
