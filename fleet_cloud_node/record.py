# SPDX-License-Identifier: Apache-2.0
"""What the cloud node remembers of its work, for its log and its diagnostics."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from typing import Any

import numpy as np

from fleet.hub import Batch, Hub
from fleet.unanswered import Throttle, Unanswered, Why


class Record:
    """Counts, times, and the lines that are worth a log.

    Args:
        logger: the node's.
        model: name of the bundle.
    """

    def __init__(self, logger: Any, model: str) -> None:
        self.answers = 0
        self.exit_s: deque[float] = deque(maxlen=200)
        """Times of batches, decoding included, s."""
        self._logger = logger
        self._model = model
        self._batches: deque[int] = deque(maxlen=200)
        self._ages_s: deque[float] = deque(maxlen=1000)
        self._unanswered: Counter[Why] = Counter()
        self._throttle = Throttle()
        self._overflowed = 0

    def tell(self, hub: Hub, batch: Batch, now: float) -> None:
        """A batch is done: log what was no packet, what had to make room, and which inferences had no answer.

        Args:
            hub: that it came from.
            batch: of which everything is published.
            now: seconds, on the clock of the packets' ``since``.
        """
        if batch.tasks:
            self._batches.append(len(batch.tasks))
        self._ages_s.extend(now - packet.since for _, packet in batch.heard)
        for name, packet in batch.malformed:
            from_whom = f" from {name}" if name else ""
            self._logger.warning(
                f"a malformed packet of {len(packet.packet)} bytes{from_whom} was dropped; is the camera's model "
                f"{self._model}?",
                throttle_duration_sec=5.0,
            )
        if hub.overflowed != self._overflowed:
            self._overflowed = hub.overflowed
            self._logger.warning(
                f"too busy: {hub.overflowed} packets were dropped before anybody looked at them",
                throttle_duration_sec=5.0,
            )
        for name, ended in batch.unanswered:
            self._unanswered[ended.why] += ended.count
            self._tell_unanswered(name, ended, now)

    def _tell_unanswered(self, name: str, ended: Unanswered, now: float) -> None:
        kind = (name, ended.why)
        if self._throttle.may_tell(kind, now):
            more = self._throttle.kept_back(kind)
            since = f" ({more} more like it since the last such line)" if more else ""
            self._logger.info(f"{f'{name}: ' if name else ''}{ended}{since}")

    def values(self) -> dict[str, object]:
        """For diagnostics."""
        values: dict[str, object] = {"answers": self.answers}
        values |= {f"unanswered, {why.value}": self._unanswered[why] for why in Why}
        if ages := list(self._ages_s):
            values["packet age p95 [ms]"] = round(float(np.percentile(ages, 95)) * 1e3, 2)
        if times := list(self.exit_s):
            values["exit median [ms]"] = round(statistics.median(times) * 1e3, 2)
        if batches := list(self._batches):
            values["exits a pass, mean"] = round(statistics.mean(batches), 2)
        return values
