# SPDX-License-Identifier: Apache-2.0
"""The device's ear: its thread waits for a time or for the exit notice that another thread brings."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fleet.packet import ExitNotice
from fleet.runtime import CancelledError


class Notices:
    """What :class:`fleet.inference.Surroundings` needs of a clock and of the downlink, for real threads.

    Args:
        cancel: cuts the running stage short.
        now: seconds on a monotonic clock.
        wait: waits, with the condition held, until it is notified or a time of that clock has come, or for less.
        interruptible: whether a notice ends a stage in its middle, or is looked at between stages only.
    """

    def __init__(
        self,
        cancel: Callable[[], None],
        now: Callable[[], float],
        wait: Callable[[threading.Condition, float], None] | None = None,
        *,
        interruptible: bool = True,
    ) -> None:
        self._cancel = cancel
        self._now = now
        self._wait = wait if wait is not None else self._wait_at_wall_pace
        self._interruptible = interruptible
        self._condition = threading.Condition()
        self._current: int | None = None
        self._notice: ExitNotice | None = None
        self._closed = False

    def _wait_at_wall_pace(self, condition: threading.Condition, until: float) -> None:
        condition.wait(max(until - self._now(), 0.0))

    def begin(self, inference_id: int) -> None:
        """From now on notices for this inference count."""
        with self._condition:
            self._current, self._notice = inference_id, None

    def hear(self, notice: ExitNotice) -> bool:
        """An exit notice came off the air. Returns whether the running inference is over by it."""
        with self._condition:
            if notice.inference_id != self._current or self._notice is not None:
                return False
            self._notice = notice
            self._condition.notify_all()
            if self._interruptible:
                self._cancel()
            return True

    def heard(self, inference_id: int) -> bool:
        """Whether a notice for this inference, the newest, has come."""
        with self._condition:
            return self._notice is not None and self._current == inference_id

    def close(self) -> None:
        """Cut short whatever runs or waits; who waits for an answer sees a CancelledError."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            self._cancel()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def pause_until(self, time: float) -> None:
        """Wait between frames; returns early when closed."""
        with self._condition:
            while not self._closed and self._now() < time:
                self._wait(self._condition, time)

    def now(self) -> float:
        """See :class:`fleet.inference.Surroundings`."""
        return self._now()

    def wait_until(self, time: float) -> ExitNotice | None:
        """See :class:`fleet.inference.Surroundings`.

        Raises:
            CancelledError: the device closes.
        """
        with self._condition:
            while not self._closed and self._now() < time and (self._notice is None or not self._interruptible):
                self._wait(self._condition, time)
            if self._closed and self._notice is None:
                raise CancelledError("the device closes")
            return self._notice
