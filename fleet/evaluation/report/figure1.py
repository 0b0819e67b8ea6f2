# SPDX-License-Identifier: Apache-2.0
"""Figure 1: when images exit, deeper exits, fused stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.evaluation.report import paper, studies
from fleet.evaluation.report.context import Context, missing_sweep, name_of
from fleet.evaluation.report.curves import points_of, rows_with_curves
from fleet.evaluation.report.document import Block, Cell, Figure, NotRun, Section, Table
from fleet.evaluation.report.drawing import legend, new_figure, style_of, titled
from fleet.evaluation.report.estimate import NONE
from fleet.evaluation.report.measures import hub_stage, settings_text
from fleet.evaluation.report.sweeps import Row, scale_name


def section(context: Context) -> Section:
    """Figure 1a from recorded exits; 1b and 1c stand on pages of their own (:mod:`fleet.evaluation.report.studies`)."""
    blocks: list[Block] = []
    rows = [row for row in rows_with_curves(context) if _histograms(row, context.evidence.ours)]
    if rows:
        blocks += [_cdf(context, rows), _cdf_table(context, rows)]
    else:
        blocks.append(
            NotRun(
                "Figure 1a: share of the images that have exited behind each stage",
                missing_sweep("paper") + "    # with `curves: true`",
            )
        )
    blocks += studies.reference(found=context.study)
    return Section("figure-1", "When images exit (Figure 1)", tuple(blocks))


def _histograms(row: Row, ours: Sequence[str]) -> list[tuple[str, Mapping[str, float]]]:
    """Labelled exit shares: the paper's threshold, and the points that were chosen."""
    found: list[tuple[str, Mapping[str, float]]] = []
    at = f"one threshold of {paper.FIGURE_1A_THRESHOLD:g} (paper)"
    for point in points_of(row, "fleet-single"):
        if _single_threshold(point.get("threshold", point.get("point"))) == paper.FIGURE_1A_THRESHOLD and isinstance(
            point.get("exits"), Mapping
        ):
            found.append((at, point["exits"]))
            break
    for name in ("fleet-single", *ours):
        result = row.schemes.get(name)
        if result is not None and result.reached and result.exits:
            label = "one threshold, chosen" if name == "fleet-single" else name_of(name)
            found.append((label, result.exits))
    return found


def _single_threshold(point: Any) -> float | None:
    """The one threshold of an operating point, as a number or as its text; None where there is none or several."""
    if isinstance(point, Mapping):
        found = point.get("threshold", point.get("thresholds", point))
        values = set(found.values()) if isinstance(found, Mapping) else {found}
        point = values.pop() if len(values) == 1 else None
    try:
        return round(float(point), 3)
    except (TypeError, ValueError):
        return None


def _cumulated(exits: Mapping[str, float]) -> list[tuple[int, float]]:
    """Share that the hub's exits up to each stage have answered; answers of the device come after all stages."""
    shares: dict[int, float] = {}
    for name, share in exits.items():
        if (stage := hub_stage(name)) is not None:
            shares[stage] = shares.get(stage, 0.0) + float(share)
    total = 0.0
    found = []
    for stage in range(min((1, *shares)), max(shares, default=0) + 1):
        total += shares.get(stage, 0.0)
        found.append((stage, total))
    return found


def _cdf(context: Context, rows: Sequence[Row]) -> Figure:
    sheet = new_figure("figure-1a", columns=len(rows), height=3.0)
    handles: dict[str, object] = {}
    words = []
    keys = {"one threshold, chosen": "fleet-single", **{name_of(name): name for name in context.evidence.ours}}
    for axes, row in zip(sheet.panels, rows, strict=True):
        for label, exits in _histograms(row, context.evidence.ours):
            steps = _cumulated(exits)
            style = style_of(keys.get(label, "local"))
            (line,) = axes.step(
                [0, *(n for n, _ in steps)],
                [0, *(100 * share for _, share in steps)],
                where="post",
                color=style["color"],
                marker=style["marker"],
                linestyle=style["linestyle"],
                markersize=4,
                linewidth=1.6,
            )
            handles.setdefault(label, line)
            third = dict(steps).get(3)
            if third is not None:
                words.append(f"{scale_name(row.setting.time_scale)}, {label}: {third:.0%} by stage 3.")
        axes.set_ylim(0, 103)
        axes.set_xlim(0, None)
        told = [n for _, exits in _histograms(row, context.evidence.ours) for n, _ in _cumulated(exits)]
        axes.set_xticks(range(1 + max(told, default=1)))
        titled(
            axes,
            f"{scale_name(row.setting.time_scale)}, CI {row.ci_ms:g} ms",
            "exit behind stage",
            "images answered by the hub, %",
        )
    legend(sheet, handles)
    alt = "Share of the images answered by the hub's exits up to each stage. " + " ".join(words)
    return Figure(
        "figure-1a",
        f"Figure 1a: images that have exited, by stage. The paper draws a threshold of {paper.FIGURE_1A_THRESHOLD:g} "
        "and prints no numbers",
        alt,
        sheet.svg(alt),
        context.conditions(
            rows, *settings_text(rows[0].setting, without=("time_scale",)), "time_scale and CI by panel"
        ),
    )


def _cdf_table(context: Context, rows: Sequence[Row]) -> Table:
    lines: list[tuple[Cell | str, ...]] = []
    found = (e for row in rows for _, e in _histograms(row, context.evidence.ours))
    told = [1, *(n for e in found for n, _ in _cumulated(e))]
    stages = range(min(told), 1 + max(told))
    for row in rows:
        for label, exits in _histograms(row, context.evidence.ours):
            shares = dict(_cumulated(exits))
            own = sum(float(v) for k, v in exits.items() if hub_stage(k) is None)
            cells = [f"{shares[n]:.0%}" if n in shares else NONE for n in stages]
            lines.append(
                (Cell(label, f"{scale_name(row.setting.time_scale)}, CI {row.ci_ms:g} ms"), *cells, f"{own:.0%}")
            )
    return Table(
        "figure-1a-table",
        "Figure 1a in numbers: images answered up to each stage",
        ("operating point", *(f"#{n}" for n in stages), "#by the device"),
        tuple(lines),
        context.conditions(rows, *settings_text(rows[0].setting, without=("time_scale",))),
        folded=True,
    )
