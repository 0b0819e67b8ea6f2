# SPDX-License-Identifier: Apache-2.0
"""Clock and radio of :mod:`fleet.inference`, made of a camera's radio and a condition variable; no ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from fleet.packet import ExitNotice
from fleet.runtime import CancelledError


class Radio(Protocol):
    """What is needed of :class:`fleet.ble.radio.CameraRadio`."""

    payload: int

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """Hand over a stage's packets; never blocks."""


class RadioSurroundings:
    """What the frames' loop sees of time and radio; the radio's thread calls :meth:`hear`.

    Args:
        cancel: cuts the running stage short.
        clock: monotonic seconds.
    """

    radio: Radio

    def __init__(self, cancel: Callable[[], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cancel = cancel
        self._clock = clock
        self._condition = threading.Condition()
        self._current: int | None = None
        self._notice: ExitNotice | None = None
        self._closed = False

    def begin(self, inference_id: int) -> None:
        """From now on notices for this inference count."""
        with self._condition:
            self._current, self._notice = inference_id, None

    def hear(self, notice: ExitNotice) -> None:
        """An exit notice came off the air."""
        with self._condition:
            if notice.inference_id == self._current and self._notice is None:
                self._notice = notice
                self._condition.notify_all()
                self._cancel()

    def close(self) -> None:
        """Cut short whatever runs or waits."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            self._cancel()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def pause_until(self, until: float) -> None:
        """Wait between frames; returns early when closed."""
        with self._condition:
            while not self._closed and (left := until - self._clock()) > 0:
                self._condition.wait(left)

    # fleet.inference.Surroundings -------------------------------------------------------------------------
    @property
    def payload(self) -> int:
        """See :class:`fleet.inference.Surroundings`."""
        return self.radio.payload

    def now(self) -> float:
        """See :class:`fleet.inference.Surroundings`."""
        return self._clock()

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """See :class:`fleet.inference.Surroundings`."""
        self.radio.offer(inference_id, stage, packets)

    def wait_until(self, time: float) -> ExitNotice | None:
        """See :class:`fleet.inference.Surroundings`.

        Raises:
            CancelledError: the camera is switched off.
        """
        with self._condition:
            while not self._closed and self._notice is None and (left := time - self._clock()) > 0:
                self._condition.wait(left)
            if self._closed and self._notice is None:
                raise CancelledError("the camera is switched off")
            return self._notice
