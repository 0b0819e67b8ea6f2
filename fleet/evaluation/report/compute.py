# SPDX-License-Identifier: Apache-2.0
"""Figure 10: what becomes of the lead when the device gets faster."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.evaluation.report import paper
from fleet.evaluation.report.context import Context, missing_sweep, name_of
from fleet.evaluation.report.document import Block, Cell, Figure, NotRun, Section, Table, Text
from fleet.evaluation.report.drawing import MUTED, curve, legend, new_figure, style_of, titled
from fleet.evaluation.report.estimate import NONE, NOT_RUN, interval_ms, times
from fleet.evaluation.report.measures import Wins, largest_term, latency_terms, wins
from fleet.evaluation.report.sweeps import Row, Setting, scale_name

MEGAHERTZ = tuple(range(200, 1501, 100))


def section(context: Context) -> Section:
    """The figure and its numbers."""
    blocks: list[Block] = [Text(f"Paper: {paper.FIGURE_10}.")]
    evidence = context.evidence
    for ours in evidence.ours:
        for scale in evidence.scales:
            found = {mhz: _series(context, mhz, scale) for mhz in MEGAHERTZ}
            there = {mhz: wins(rows, ours, "all") for mhz, rows in found.items() if len(rows) > 1}
            if len(there) < 2:
                blocks.append(NotRun(f"Figure 10, {name_of(ours)}, {scale_name(scale)}", missing_sweep("compute")))
                continue
            rows = [row for mhz in there for row in found[mhz]]
            conditions = context.conditions(
                rows,
                "PHY 1M",
                "4 payloads an event",
                f"acknowledgements {evidence.papers}",
                f"time_scale {scale:g}",
                f"judged by {evidence.unit}",
                f"connection intervals {', '.join(f'{c:g}' for c in sorted({r.ci_ms for r in rows}))} ms",
            )
            blocks.append(_figure(ours, scale, there, conditions))
            blocks.append(_table(ours, scale, there, conditions))
    return Section("compute", "Compute capability (Figure 10)", tuple(blocks))


def _series(context: Context, mhz: int, scale: float) -> Sequence[Row]:
    evidence = context.evidence
    return evidence.series(Setting(f"cortex-a77-{mhz}", "1M", 4, evidence.papers, scale, evidence.unit))


def _figure(ours: str, scale: float, found: dict[int, Wins], conditions: tuple[str, ...]) -> Figure:
    name = f"figure-10-{ours}-{scale:g}".replace(".", "-")
    sheet = new_figure(name, rows=2, height=2.5)
    above, below = sheet.panels
    handles: dict[str, object] = {}
    best = [(mhz, w.best[1]) for mhz, w in found.items() if w.best is not None]
    style = style_of("fleet")
    if best:
        xs = [mhz for mhz, _ in best]
        ratios = [c.ratio for _, c in best if c.ratio is not None]
        handles["largest speed-up over all baselines"] = curve(above, xs, ratios, style, width=2)
        bounds = [(mhz, c.bound) for mhz, c in best if c.bound is not None]
        if bounds:
            (dashes,) = above.plot(*zip(*bounds, strict=True), color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
            handles["bound at the same interval"] = dashes
    above.axhline(1, color=MUTED, linewidth=1)
    above.set_ylim(0, None)
    for mhz, w in found.items():
        for first, last in w.won:
            (bar,) = below.plot(
                [mhz, mhz], [first, last], color=style["color"], linewidth=7, solid_capstyle="butt", alpha=0.75
            )
            below.plot([mhz], [last], color=style["color"], marker="_", markersize=11, markeredgewidth=2)
            handles.setdefault("connection intervals at which ours is faster", bar)
    below.set_yscale("log")
    cis = [row.ci_ms for w in found.values() for row, _ in w.points]
    ticks = [t for t in (7.5, 15, 30, 65, 150, 500, 1000, 4000) if min(cis) <= t <= max(cis)]
    below.set_yticks(ticks, [interval_ms(t) for t in ticks])
    below.set_yticks([], minor=True)
    below.set_ylim(min(cis) * 0.85, max(cis) * 1.2)
    for axes in sheet.panels:
        axes.set_xlim(150, 1550)
        axes.set_xticks(MEGAHERTZ[::2])
    titled(above, f"{name_of(ours)}, {scale_name(scale)}", "", "rival's latency / ours")
    titled(below, "", "Cortex-A77, MHz", "connection interval")
    legend(sheet, handles)
    first, last = min(found), max(found)
    alt = f"Speed-up and winning connection intervals from {first} to {last} MHz. " + " ".join(
        f"{mhz} MHz: {times(c.ratio)}, {found[mhz].range_text()}." for mhz, c in best if mhz in (first, last)
    )
    caption = (
        f"Figure 10, {name_of(ours)}, {scale_name(scale)}: against the best of all baselines, by processor frequency"
    )
    return Figure(name, caption, alt, sheet.svg(alt), conditions)


def _table(ours: str, scale: float, found: dict[int, Wins], conditions: tuple[str, ...]) -> Table:
    rows: list[tuple[Cell | str, ...]] = []
    for mhz in MEGAHERTZ:
        w = found.get(mhz)
        if w is None or w.best is None:
            rows.append(
                (f"{mhz} MHz", NONE, NONE, NONE, NONE, NONE, Cell(NOT_RUN if w is None else w.status, "", "quiet"))
            )
            continue
        row, c = w.best
        rows.append(
            (
                f"{mhz} MHz",
                w.range_text(),
                interval_ms(row.ci_ms),
                times(c.ratio),
                NONE if c.bound is None else f"{c.bound:.2f}×",
                c.rival or NONE,
                largest_term(latency_terms(row, row.schemes[ours])) or NONE,
            )
        )
    return Table(
        f"figure-10-{ours}-{scale:g}-table".replace(".", "-"),
        f"Figure 10 in numbers, {name_of(ours)}, {scale_name(scale)}",
        (
            "frequency",
            "CI range in which it is faster",
            "#best CI",
            "#speed-up",
            "#bound",
            "best rival",
            "largest term of ours",
        ),
        tuple(rows),
        conditions,
        folded=True,
    )
