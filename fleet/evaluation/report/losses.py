# SPDX-License-Identifier: Apache-2.0
"""Section 4.3: random loss from 0 to 90 %."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fleet.evaluation.report import paper
from fleet.evaluation.report.context import Context, missing_sweep, name_of
from fleet.evaluation.report.document import Block, Cell, Figure, NotRun, Section, Table
from fleet.evaluation.report.drawing import MUTED, SURFACE, curve, legend, log_axis, new_figure, style_of, titled
from fleet.evaluation.report.estimate import NONE, NOT_REACHED, NOT_RUN, times
from fleet.evaluation.report.measures import Tolerance, settings_text, tolerated_loss
from fleet.evaluation.report.sweeps import Row, scale_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Group = tuple[float, str, int]
FAMILIES = ("local", "partition", "jpeg", "jpeg-stripped")


def section(context: Context) -> Section:
    """Tolerated loss beside the paper's, latencies, and the figure."""
    groups = _groups(context)
    if not groups:
        command = missing_sweep("losses")
        return Section("losses", "Packet loss (section 4.3)", (NotRun("section 4.3, loss from 0 to 90 %", command),))
    rows = [row for found in groups.values() for row in found]
    about = context.evidence.losses[0].conditions.get("losses", {}) if context.evidence.losses else {}
    about = about if isinstance(about, dict) else {}
    counts = sorted(set(about.get("first_pictures", {}).values()))
    count = f"the first {' or '.join(map(str, counts))} pictures" if counts else "pictures not recorded"
    more = [
        f"{about['masks']} seeded masks" if "masks" in about else "",
        str(about.get("kind", "")),
        f"operating points: {about['points']}" if "points" in about else "",
    ]
    conditions = context.conditions(
        rows,
        *settings_text(rows[0].setting, without=("phy", "packets", "time_scale")),
        f"CI {rows[0].ci_ms:g} ms",
        f"random loss on {count} of the test split",
        *filter(None, more),
    )
    blocks: list[Block] = [
        _tolerance(context.evidence.ours, groups, conditions),
        *_figures(context, groups, conditions),
    ]
    blocks += [_latencies(context.evidence.ours, key, found, conditions) for key, found in groups.items()]
    return Section("losses", "Packet loss (section 4.3)", tuple(blocks))


def _groups(context: Context) -> dict[Group, list[Row]]:
    found: dict[Group, list[Row]] = {}
    for row in sorted(context.evidence.lossy, key=lambda r: (r.setting.time_scale, r.setting.loss)):
        s = row.setting
        if (s.platform, row.ci_ms, s.unit) == ("cortex-a77-200", paper.LOSS_CI_MS, context.evidence.unit):
            found.setdefault((s.time_scale, s.phy, s.packets), []).append(row)
    order = {(phy, packets): k for k, (phy, packets, _) in enumerate(paper.LOSS_AT)}
    return dict(sorted(found.items(), key=lambda item: (item[0][0], order.get(item[0][1:], 9), item[0])))


def _tolerance(ours: Sequence[str], groups: dict[Group, list[Row]], conditions: tuple[str, ...]) -> Table:
    lines: list[tuple[Cell | str, ...]] = []
    scales = sorted({scale for scale, _, _ in groups})
    for phy, packets, printed in paper.LOSS_AT:
        for scale in scales:
            rows = groups.get((scale, phy, packets), [])
            cells: list[Cell | str] = [Cell(f"{phy}, {packets} payloads", scale_name(scale)), f"{printed:.0%}"]
            cells += [_cell(tolerated_loss(rows, name)) for name in ours]
            lines.append(tuple(cells))
    return Table(
        "losses-tolerated",
        "Loss up to which ours is not slower than local early exit",
        ("link", "paper", *(name_of(name) for name in ours)),
        tuple(lines),
        conditions,
        (
            "Between the losses that were run by a straight line; in brackets where the ends of the ratios' 95 % "
            "intervals cross.",
        ),
    )


def _cell(found: Tolerance | None) -> Cell:
    if found is None:
        return Cell(NOT_RUN, "", "quiet")
    if found.loss is None or found.estimate is None:
        return Cell(NONE, "slower without any loss" if found.ended == "slower" else NOT_REACHED)
    if found.ended == "never":
        return Cell(f"more than {found.loss:.0%}", "the largest loss that was run")
    note = "beyond it the target accuracy is missed" if found.ended == "target missed" else ""
    return Cell(found.estimate.percent(0), note)


def _figures(context: Context, groups: dict[Group, list[Row]], conditions: tuple[str, ...]) -> list[Figure]:
    figures = []
    for scale in sorted({scale for scale, _, _ in groups}):
        chosen = {key: rows for key, rows in groups.items() if key[0] == scale and len(rows) > 1}
        if not chosen:
            continue
        name = f"losses-{scale:g}".replace(".", "-")
        sheet = new_figure(name, columns=len(chosen), height=3.1)
        handles: dict[str, object] = {}
        words = []
        for axes, ((_, phy, packets), rows) in zip(sheet.panels, chosen.items(), strict=True):
            words.append(_draw(context, axes, rows, handles))
            printed = next((p for a, b, p in paper.LOSS_AT if (a, b) == (phy, packets)), None)
            if printed is not None:
                handles.setdefault(
                    "paper: local becomes faster",
                    axes.axvline(100 * printed, color=MUTED, linestyle=":", linewidth=1.2),
                )
            titled(
                axes,
                f"{phy}, {packets} payloads",
                "packet loss, %",
                "mean latency, ms" if axes is sheet.panels[0] else "",
            )
        legend(sheet, handles)
        alt = f"Latency against packet loss, {scale_name(scale)}. " + " ".join(words)
        figures.append(
            Figure(
                name,
                f"Mean latency against packet loss, {scale_name(scale)}; hollow: the target accuracy is missed",
                alt,
                sheet.svg(alt),
                conditions,
            )
        )
    return figures


def _draw(context: Context, axes: Axes, rows: Sequence[Row], handles: dict[str, object]) -> str:
    for name in (*context.evidence.ours, *FAMILIES):
        points = []
        for row in rows:
            members = [name] if name in context.evidence.ours else context.members(name)
            results = [row.schemes[m] for m in members if m in row.schemes]
            found = [(r.estimate("latency_ms"), r.reached) for r in results]
            known = [
                (e, reached) for e, reached in found if e is not None and (reached or name in context.evidence.ours)
            ]
            if known:
                estimate, reached = min(known, key=lambda pair: pair[0].value)
                points.append((100 * row.setting.loss, estimate, reached))
        if not points:
            continue
        style = style_of(name)
        xs = [x for x, _, _ in points]
        line = curve(axes, xs, [e for _, e, _ in points], style)
        missed = [(x, e.value) for x, e, reached in points if not reached]
        if missed:
            axes.plot(
                *zip(*missed, strict=True),
                linestyle="",
                marker=style["marker"],
                markersize=5,
                markerfacecolor=SURFACE,
                markeredgecolor=style["color"],
            )
        handles.setdefault(name_of(name), line)
    log_axis(axes.yaxis)
    tolerated = tolerated_loss(rows, context.evidence.ours[0])
    s = rows[0].setting
    loss = None if tolerated is None else tolerated.loss
    told = "slower without loss" if loss is None else f"not slower up to {loss:.0%}"
    return f"{s.phy}, {s.packets} payloads: FLEET {told}."


def _latencies(ours: Sequence[str], key: Group, rows: Sequence[Row], conditions: tuple[str, ...]) -> Table:
    scale, phy, packets = key
    names = [n for n in ours if any(n in row.schemes for row in rows)]
    lines = []
    for row in rows:
        cells: list[Cell | str] = [f"{row.setting.loss:.0%}"]
        for name in names:
            result = row.schemes.get(name)
            latency = None if result is None else result.estimate("latency_ms")
            accuracy = None if result is None else result.estimate("accuracy")
            note = "" if accuracy is None else f"accuracy {accuracy.percent()}"
            text = NOT_REACHED if result is not None and not result.reached and latency is None else NONE
            cells.append(Cell(text if latency is None else f"{latency.written(1)} ms", note))
            for family in FAMILIES:
                c = row.compare(name, family)
                words = {"rival": "rival misses the target", "ours": NOT_REACHED}.get(c.status, NONE)
                cells.append(Cell(times(c.ratio) if c.ratio is not None else words, c.rival or ""))
        lines.append(tuple(cells))
    heads = [h for n in names for h in (f"#{name_of(n)}", *(f"#over {f}" for f in FAMILIES))]
    return Table(
        f"losses-{phy}-{packets}-{scale:g}".replace(".", "-"),
        f"Every loss: {phy}, {packets} payloads, {scale_name(scale)}",
        ("loss", *heads),
        tuple(lines),
        conditions,
        folded=True,
    )
