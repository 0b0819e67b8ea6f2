# SPDX-License-Identifier: Apache-2.0
"""Messages that more than one node builds."""

from __future__ import annotations

from std_msgs.msg import Header

from fleet.exits import Classes, Prediction
from fleet_msgs.msg import Label

WORDS_BYTES = 128


def bounded(text: str, size: int = WORDS_BYTES) -> str:
    """A text cut to the size of a bounded string, which counts bytes."""
    return text.encode()[:size].decode(errors="ignore")


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
