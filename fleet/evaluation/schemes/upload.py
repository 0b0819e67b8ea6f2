# SPDX-License-Identifier: Apache-2.0
"""Schemes that compute, send every byte and wait: partitioned networks and image codecs (design section 10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.evaluation.air import Air, IntVector
from fleet.evaluation.certainty import Judged
from fleet.evaluation.outcomes import Outcomes, local_outcomes, upload_outcomes
from fleet.evaluation.schemes.local import step_seconds
from fleet.platforms import PlatformProfile

HEADERS = "headers"
STRIPPED = "stripped"


@dataclass(frozen=True)
class Uploads:
    """A scheme's operating points on one platform.

    Attributes:
        names: of the points.
        ready_s: seconds of work before the first byte can travel, one a point.
        sizes: bytes of every image, shape (points, N); 0 where the device answers itself.
        judged: what the hub makes of them, one row a point.
    """

    names: tuple[str, ...]
    ready_s: tuple[float, ...]
    sizes: IntVector
    judged: Judged

    @classmethod
    def of(
        cls, scheme: Mapping[str, Any], judged: Judged, sizes: npt.NDArray[np.integer], profile: PlatformProfile
    ) -> Uploads:
        """A scheme as the trace's index describes it.

        Args:
            scheme: of ``index.rivals``.
            judged: its rows.
            sizes: what each of its uploads adds, shape (uploads, N).
            profile: of the platform.
        """
        uploads = scheme["uploads"]
        total = np.asarray(sizes, np.int64).copy()
        for place, upload in enumerate(uploads):
            if upload["after"] is not None:  # an earlier upload's bytes come first; it stands before this one
                total[place] += total[int(upload["after"])]
        rows = [int(upload["row"]) for upload in uploads]
        return cls(
            tuple(str(upload["name"]) for upload in uploads),
            tuple(sum(step_seconds(profile, step) for step in upload["steps"]) for upload in uploads),
            total,
            Judged(judged.certainty[rows], judged.answer[rows], judged.right[rows]),
        )

    def only(self, points: list[int]) -> Uploads:
        """Some of the points."""
        judged = self.judged
        return Uploads(
            tuple(self.names[p] for p in points),
            tuple(self.ready_s[p] for p in points),
            self.sizes[points],
            Judged(judged.certainty[points], judged.answer[points], judged.right[points]),
        )

    def accuracy(self, point: int) -> float:
        """Share of images that a point gets right."""
        return float(self.judged.right[point].mean())

    def worth_trying(self, target: float) -> list[int]:
        """Points that reach a target and that no other beats in both work and bytes, or the most accurate alone.

        Which point is right does not hang on the link, and of two points the one with less work and no more bytes
        (of any image) is never later.
        """
        accuracies = self.judged.right.mean(axis=1)
        reach = np.flatnonzero(accuracies >= target - 1e-9)
        if not len(reach):
            return [int(accuracies.argmax())]
        return [int(p) for p in reach if not any(self._beats(int(q), int(p)) for q in reach if q != p)]

    def _beats(self, other: int, point: int) -> bool:
        if self.ready_s[other] > self.ready_s[point] or (self.sizes[other] > self.sizes[point]).any():
            return False
        same = self.ready_s[other] == self.ready_s[point] and (self.sizes[other] == self.sizes[point]).all()
        return not same or other < point

    def end(self, point: int, air: Air, *, cloud_s: float) -> Outcomes:
        """How the frames of one point end."""
        if not self.sizes[point].any():  # the whole network on the device
            return local_outcomes(air, np.full(len(air.first), self.ready_s[point]))
        return upload_outcomes(air, self.ready_s[point], self.sizes[point], cloud_s=cloud_s)


def variants(scheme: Mapping[str, Any]) -> dict[str, list[int]]:
    """Points by what is appended to the scheme's name: ``-stripped`` for stripped headers, nothing for the rest."""
    found: dict[str, list[int]] = {}
    for place, upload in enumerate(scheme["uploads"]):
        suffix = f"-{STRIPPED}" if upload["settings"].get(HEADERS) == STRIPPED else ""
        found.setdefault(suffix, []).append(place)
    return found
