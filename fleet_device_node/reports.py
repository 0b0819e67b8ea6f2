# SPDX-License-Identifier: Apache-2.0
"""Joins what the device and the radio say of one frame, in whichever order they say it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Ours = TypeVar("Ours")
Theirs = TypeVar("Theirs")


@dataclass
class Join(Generic[Ours, Theirs]):
    """Pairs two reports by inference id; the device's waits for the radio's for a bounded time.

    Attributes:
        timeout: seconds until the device's report goes out alone.
        memory: radio reports that are kept for an inference that has not ended yet.
    """

    timeout: float
    memory: int = 32
    _ours: OrderedDict[int, tuple[float, Ours]] = field(default_factory=OrderedDict)
    _theirs: OrderedDict[int, Theirs] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._ours)

    def add_ours(self, inference_id: int, report: Ours, now: float) -> tuple[Ours, Theirs] | None:
        """The device's report. Returns the pair if the radio's is there already."""
        if inference_id in self._theirs:
            return report, self._theirs.pop(inference_id)
        self._ours[inference_id] = (now + self.timeout, report)
        return None

    def add_theirs(self, inference_id: int, report: Theirs) -> tuple[Ours, Theirs] | None:
        """The radio's report. Returns the pair if the device's is there already."""
        if inference_id in self._ours:
            return self._ours.pop(inference_id)[1], report
        self._theirs[inference_id] = report
        if len(self._theirs) > self.memory:
            self._theirs.popitem(last=False)
        return None

    def overdue(self, now: float, *, all_of_them: bool = False) -> list[Ours]:
        """The device's reports that go out alone now, oldest first."""
        late = [i for i, (deadline, _) in self._ours.items() if all_of_them or deadline <= now]
        return [self._ours.pop(i)[1] for i in late]
