# SPDX-License-Identifier: Apache-2.0
"""Clock and radio of :mod:`fleet.inference` for a camera without ROS."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from fleet.link.parameters import LinkParameters
from fleet.notices import Notices


class Radio(Protocol):
    """What is needed of :class:`fleet.ble.radio.CameraRadio`."""

    payload: int
    link: LinkParameters | None

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """Hand over a stage's packets; never blocks."""


class RadioSurroundings(Notices):
    """What the frames' loop sees of time and radio; the radio's thread calls :meth:`hear`.

    Args:
        cancel: cuts the running stage short.
        clock: monotonic seconds.
    """

    radio: Radio

    def __init__(self, cancel: Callable[[], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(cancel, clock)

    @property
    def payload(self) -> int:
        """See :class:`fleet.inference.Surroundings`."""
        return self.radio.payload

    @property
    def link(self) -> LinkParameters | None:
        """See :class:`fleet.inference.Surroundings`."""
        return self.radio.link

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """See :class:`fleet.inference.Surroundings`."""
        self.radio.offer(inference_id, stage, packets)
