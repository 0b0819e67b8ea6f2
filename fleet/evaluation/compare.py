# SPDX-License-Identifier: Apache-2.0
"""Bytes of two codecs at equal accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TOLERANCE = 0.005
"""What counts as equal accuracy, as a share (half a point)."""
FIRST_EXITS = 5
KEY = "accuracy_groups"

Exits = Sequence[Mapping[str, Any]]


def bytes_at_equal_accuracy(ours: Exits, theirs: Exits) -> dict[str, Any]:
    """Compare the first five exits of one codec with another's, as ``fleet evaluate --json`` lists them.

    ``full_ladder``: both send everything; ``equal`` says whether the accuracies are within half a point.
    ``fewest``: both send the fewest rungs that reach the lower of the two full ladders' accuracies less half a point.

    Args:
        ours: exits with their rungs, the finest last.
        theirs: the same exits.

    Returns:
        One entry an exit, and the mean ratios of bytes.
    """
    entries = []
    for one, other in list(zip(ours, theirs, strict=True))[:FIRST_EXITS]:
        mine, yours = one["rungs"][-1], other["rungs"][-1]
        target = min(mine[KEY], yours[KEY]) - TOLERANCE
        fewest = [min(r["bytes"] for r in rungs if r[KEY] >= target) for rungs in (one["rungs"], other["rungs"])]
        entries.append(
            {
                "stage": one["stage"],
                "full_ladder": {
                    "bytes": [mine["bytes"], yours["bytes"]],
                    KEY: [mine[KEY], yours[KEY]],
                    "equal": bool(round(abs(mine[KEY] - yours[KEY]), 6) <= TOLERANCE),
                    "ratio": round(mine["bytes"] / yours["bytes"], 3),
                },
                "fewest": {"bytes": fewest, "target": round(target, 4), "ratio": round(fewest[0] / fewest[1], 3)},
            }
        )
    return {
        "exits": entries,
        **{
            f"mean_ratio_{key}": round(sum(entry[key]["ratio"] for entry in entries) / len(entries), 3)
            for key in ("full_ladder", "fewest")
        },
    }
