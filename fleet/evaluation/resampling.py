# SPDX-License-Identifier: Apache-2.0
"""95 % intervals by the percentile bootstrap, all numbers of a row on the same resamples, so that ratios are paired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)
Means = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of a number of images.

    Attributes:
        weights: how often each image is drawn, over their number, shape (resamples, N).
    """

    weights: npt.NDArray[np.float64]

    @classmethod
    def of(cls, images: int, *, seed: int, resamples: int = RESAMPLES) -> Bootstrap:
        """Draw the resamples once; everything that is compared must use the same."""
        drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
        return cls(drawn / images)

    def means(self, columns: Mapping[tuple[str, str], npt.NDArray[np.floating]]) -> dict[tuple[str, str], Means]:
        """The mean of every column in every resample, shape (resamples,) each.

        Args:
            columns: one value an image, by any names.
        """
        if not columns:
            return {}
        found = self.weights @ np.stack([np.asarray(c, float) for c in columns.values()], axis=1)
        return dict(zip(columns, found.T, strict=True))


def interval(means: Means) -> tuple[float, float]:
    """The interval that holds 95 % of the resamples."""
    low, high = np.percentile(means, PERCENTILES)
    return float(low), float(high)
