# SPDX-License-Identifier: Apache-2.0
"""The figure of a run: its loss and accuracies over the epochs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path


def draw_run(rows: Sequence[Mapping[str, float]], path: Path) -> bool:
    """Draw a base training's log as a PNG.

    Args:
        rows: the log, one mapping an epoch.
        path: file to write.

    Returns:
        Whether it was drawn: matplotlib is optional, and a training of hours must not end for lack of it.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (no pyplot: no window, no global state)
    except ImportError:
        return False
    figure = Figure(figsize=(8, 4), layout="constrained")
    loss, share = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    loss.plot(epochs, [row["loss"] for row in rows], marker=".")
    loss.set(xlabel="epoch", ylabel="training loss")
    for key in ("accuracy_wake_words", "accuracy_groups", "accuracy_classes"):
        if key in rows[-1]:
            share.plot(epochs, [100 * row[key] for row in rows], marker=".", label=key.removeprefix("accuracy_"))
    share.set(xlabel="epoch", ylabel="accuracy on the calibration split (%)")
    share.legend()
    for axes in (loss, share):
        axes.grid(alpha=0.3)
        for before, row in itertools.pairwise(rows):
            if row["size"] != before["size"]:
                axes.axvline(row["epoch"] - 0.5, color="grey", linestyle=":")
    figure.savefig(path, dpi=120)
    return True


def draw_exits(rows: Sequence[Mapping[str, float]], path: Path) -> bool:
    """Draw the log of an exits' training as a PNG: loss, estimated bits a coefficient, accuracies at the end.

    Args:
        rows: the log; the last one may hold the accuracies of every exit.
        path: file to write.

    Returns:
        Whether it was drawn, as :func:`draw_run`.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        return False
    figure = Figure(figsize=(12, 4), layout="constrained")
    loss, bits, share = figure.subplots(1, 3)
    loss.plot([row["step"] for row in rows], [row["loss"] for row in rows])
    loss.set(xlabel="step", ylabel="training loss")
    coded = [row for row in rows if "bits" in row]
    bits.plot([row["step"] for row in coded], [row["bits"] for row in coded])
    bits.set(xlabel="step", ylabel="bits a coefficient, estimated", ylim=(0, None))
    for key in ("accuracy_wake_words", "accuracy_groups", "accuracy_classes"):
        if found := [100 * value for name, value in rows[-1].items() if name.endswith(key)]:
            share.plot(range(1, len(found) + 1), found, marker=".", label=key.removeprefix("accuracy_"))
            share.legend()
    share.set(xlabel="exit", ylabel="accuracy on the calibration split (%)")
    for axes in (loss, bits, share):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    return True
