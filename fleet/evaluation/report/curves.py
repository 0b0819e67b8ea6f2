# SPDX-License-Identifier: Apache-2.0
"""Figures 7 to 9: accuracy against latency of every operating point; and the bytes behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fleet.evaluation.report import paper
from fleet.evaluation.report.context import FAMILY_NAMES, Context, missing_sweep, name_of
from fleet.evaluation.report.document import Block, Cell, Figure, NotRun, Section, Table
from fleet.evaluation.report.drawing import MUTED, legend, log_axis, new_figure, style_of, titled
from fleet.evaluation.report.estimate import NONE, NOT_REACHED, Estimate
from fleet.evaluation.report.measures import settings_text
from fleet.evaluation.report.sweeps import Row, Setting, scale_name

FIGURES = (
    ("7", "local", paper.FIGURE_7, ("local",)),
    ("8", "partition", paper.FIGURE_8, ("partition",)),
    ("9", "jpeg", paper.FIGURE_9, ("jpeg", "jpeg-stripped", "webp")),
)
CI_MS = 10.0
BYTES_AT_MS = (7.5, 10.0, 30.0, 65.0)
Point = Mapping[str, Any]


def rows_with_curves(context: Context) -> list[Row]:
    """A row a time scale that holds all operating points: the paper's link (section 4.2), else the nearest there is."""
    evidence = context.evidence

    def distance(row: Row) -> tuple[bool, bool, bool, float]:
        s = row.setting
        link = (s.phy, s.packets) != ("1M", 4)
        return s.platform != "cortex-a77-200", s.account != evidence.papers, link, abs(math.log(row.ci_ms / CI_MS))

    found = [
        r for r in evidence.rows if isinstance(r.entries.get("curves"), Mapping) and r.setting.unit == evidence.unit
    ]
    first = min(found, key=distance, default=None)
    if first is None:
        return []
    return [
        row
        for scale in evidence.scales
        for row in found
        if (row.setting, row.ci_ms) == (_at(first, scale), first.ci_ms)
    ]


def _at(row: Row, scale: float) -> Setting:
    return replace(row.setting, time_scale=scale)


def points_of(row: Row, scheme: str) -> list[Point]:
    """A scheme's operating points that have a place in a drawing."""
    found = row.entries.get("curves", {}).get(scheme, [])
    return [
        p
        for p in found
        if isinstance(p, Mapping) and all(isinstance(p.get(k), int | float) for k in ("accuracy", "latency_ms"))
    ]


def front(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Latency and accuracy of the points that no other one beats, by latency.

    Compared by accuracy on the calibration split where that is recorded: what is drawn is not picked by what is drawn.
    """

    def accuracy(point: Point) -> float:
        found = calibrated(point)
        return float(point["accuracy"]) if found is None else found

    best = float("-inf")
    found = []
    for point in sorted(points, key=lambda p: (float(p["latency_ms"]), -accuracy(p))):
        if accuracy(point) > best:
            best = accuracy(point)
            found.append((float(point["latency_ms"]), float(point["accuracy"])))
    return found


def calibrated(point: Point) -> float | None:
    """Accuracy on the calibration split, under either of the names that files use; None where it was not recorded."""
    found = point.get("calibration_accuracy", point.get("calibration"))
    return float(found) if isinstance(found, int | float) else None


def section(context: Context) -> Section:
    """Three figures, and bytes at equal accuracy."""
    rows = rows_with_curves(context)
    blocks: list[Block] = []
    for number, family, printed, families in FIGURES:
        members = [n for f in families for n in context.members(f)]
        drawn = [row for row in rows if any(points_of(row, name) for name in members)]
        if not drawn:
            command = missing_sweep("paper") + "    # with `curves: true`"
            blocks.append(NotRun(f"Figure {number}: accuracy against latency, {FAMILY_NAMES[family]}", command))
            continue
        blocks.append(_figure(context, number, family, printed, members, drawn))
    blocks += _bytes(context)
    return Section("curves", "Accuracy against latency (Figures 7 to 9)", tuple(blocks))


def _figure(
    context: Context, number: str, family: str, printed: str, members: Sequence[str], rows: Sequence[Row]
) -> Figure:
    sheet = new_figure(f"figure-{number}", columns=len(rows), height=3.5)
    handles: dict[str, object] = {}
    words = []
    for axes, row in zip(sheet.panels, rows, strict=True):
        lowest = 1.0
        for place, name in enumerate([*context.evidence.ours, "fleet-single", *members]):
            points = points_of(row, name)
            if not points:
                continue
            style = style_of(name, place)
            line = front(points)
            axes.plot(
                [float(p["latency_ms"]) for p in points],
                [100 * float(p["accuracy"]) for p in points],
                linestyle="",
                marker=style["marker"],
                color=style["color"],
                markersize=2.6,
                alpha=0.22,
                markeredgewidth=0,
            )
            (drawn,) = axes.plot(
                [x for x, _ in line],
                [100 * y for _, y in line],
                **style,
                linewidth=1.8 if name in context.evidence.ours else 1.3,
                markersize=4,
            )
            handles.setdefault(name_of(name), drawn)
            lowest = min(lowest, *(y for _, y in line))
            words.append(
                f"{scale_name(row.setting.time_scale)}, {name}: {line[0][1]:.1%} at {line[0][0]:.1f} ms to "
                f"{line[-1][1]:.1%} at "
                f"{line[-1][0]:.1f} ms."
            )
        target = row.entries.get("target")
        if isinstance(target, int | float):
            axes.axhline(100 * target, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                "target",
                (0.012, 100 * target),
                xycoords=("axes fraction", "data"),
                ha="left",
                va="bottom",
                fontsize=8,
                color=MUTED,
            )
        log_axis(axes.xaxis)
        axes.set_ylim(max(0, 100 * lowest - 3), None)
        titled(axes, f"{scale_name(row.setting.time_scale)}, CI {row.ci_ms:g} ms", "mean latency, ms", "accuracy, %")
    legend(sheet, handles)
    alt = f"Accuracy against latency, ours and {FAMILY_NAMES[family]}. " + " ".join(words)
    settings = settings_text(rows[0].setting, without=("time_scale",))
    return Figure(
        sheet.name,
        f"Figure {number}: accuracy against mean latency, ours and {FAMILY_NAMES[family]}. Paper: {printed}",
        alt,
        sheet.svg(alt),
        context.conditions(rows, *settings, "time_scale and CI by panel"),
        (
            "Dots: every operating point on the test split. Lines: those that no other point beats on the calibration "
            "split, or on the test split where a point's calibration accuracy was not recorded.",
        ),
    )


def _bytes(context: Context) -> list[Block]:
    """Bytes against JPEG at equal accuracy: of the points that were chosen, and of the most frugal ones."""
    evidence = context.evidence
    lines: list[tuple[Cell | str, ...]] = []
    used = []
    headline = [Setting("cortex-a77-200", "1M", 4, evidence.papers, scale, evidence.unit) for scale in evidence.scales]
    near = [evidence.row(setting, ci) for setting in headline for ci in BYTES_AT_MS]
    for row in evidence.rows:
        s = row.setting
        link = (s.platform, s.phy, s.packets, s.account, s.unit)
        if link != ("cortex-a77-200", "1M", 4, evidence.papers, evidence.unit) or row not in near:
            continue
        used.append(row)
        rivals = [n for f in ("jpeg", "jpeg-stripped", "webp") for n in context.members(f)]
        for ours in [n for n in context.evidence.ours if n in row.schemes]:
            mine = row.schemes[ours]
            own = mine.estimate("bytes") if mine.reached else None
            cells: list[Cell | str] = [Cell(f"CI {row.ci_ms:g} ms, {scale_name(s.time_scale)}", name_of(ours))]
            cells.append(NOT_REACHED if own is None else f"{own.value:.0f}")
            cells.append(_fewest(row, ours))
            for name in rivals:
                result = row.schemes.get(name)
                theirs = result.estimate("bytes") if result is not None and result.reached else None
                if own is None or theirs is None:
                    cells.append(Cell(NOT_REACHED, "", "quiet"))
                    continue
                recorded = row.entries.get("byte_ratio", {}).get(ours, {}).get(name, {})
                ratio = Estimate.of(recorded.get("value"), recorded.get("95")) or own.over(theirs)
                cells.append(Cell(ratio.written(2), f"{theirs.value:.0f} bytes"))
            lines.append(tuple(cells))
    if not lines:
        return [NotRun("bytes against JPEG at equal accuracy", missing_sweep("paper"))]
    rivals = [n for f in ("jpeg", "jpeg-stripped", "webp") for n in context.members(f)]
    return [
        Table(
            "bytes",
            f"Bytes that ours sends over those of pictures, at equal accuracy. Paper: {paper.FIGURE_9}",
            ("link", "#ours, bytes", "#ours at its most frugal", *(f"#over {n}" for n in rivals)),
            tuple(lines),
            context.conditions(used, *settings_text(used[0].setting, without=("time_scale",))),
            (
                "Bytes are all of all packets until the answer, at the fastest operating point that reaches the "
                "target: FLEET goes on "
                "sending while the answer is on its way, which costs no latency. Its most frugal point that reaches "
                "the target is in "
                "the third column, where all operating points were recorded.",
            ),
        )
    ]


def _fewest(row: Row, ours: str) -> Cell | str:
    target = row.entries.get("target")
    points = [
        p
        for p in points_of(row, ours)
        if isinstance(p.get("bytes"), int | float)
        and isinstance(target, int | float)
        and (calibrated(p) or 0) >= target
    ]
    if not points:
        return NONE
    best = min(points, key=lambda p: float(p["bytes"]))
    return Cell(f"{best['bytes']:.0f}", f"{best['latency_ms']:.1f} ms")
