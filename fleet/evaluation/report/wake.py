# SPDX-License-Identifier: Apache-2.0
"""Section 4.7: wake words, and how many images exit in the first three stages."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.evaluation.report import paper
from fleet.evaluation.report.context import FAMILY_NAMES, Context, missing_sweep, name_of
from fleet.evaluation.report.document import Block, Cell, Figure, NotRun, Section, Table, Text
from fleet.evaluation.report.drawing import MUTED, curve, legend, new_figure, style_of, titled
from fleet.evaluation.report.estimate import NONE, NOT_REACHED, times
from fleet.evaluation.report.measures import early_share, largest_term, latency_terms, settings_text
from fleet.evaluation.report.sweeps import Result, Row, Setting, scale_name

LAST_CI_MS = 65.0


def section(context: Context) -> Section:
    """The case study beside the paper's numbers."""
    evidence = context.evidence
    blocks: list[Block] = [
        Text(
            f"Paper: {paper.WAKE_ACCURACY:.2%} right at {paper.WAKE_FLEET_MS:g} ms, local early exit "
            f"{paper.WAKE_LOCAL_MS:g} ms at "
            f"the same accuracy, {paper.WAKE_SPEED_UP:g}×; {paper.WAKE_EARLY}. The paper names neither the "
            "connection interval nor "
            "the rate of that run. Its images are 224×224; the time-matched rows cost the device what those would."
        )
    ]
    there = False
    for unit in evidence.units:
        for scale in reversed(evidence.scales):
            rows = [
                row
                for row in evidence.series(Setting(paper.WAKE_PLATFORM, "1M", 4, evidence.papers, scale, unit))
                if row.ci_ms <= LAST_CI_MS
            ]
            if rows:
                blocks += _shown(context, rows)
                there = True
    if not there:
        blocks.append(NotRun(f"section 4.7 on {paper.WAKE_PLATFORM}", missing_sweep("wake-words")))
    return Section("wake-words", "Visual wake words (section 4.7)", tuple(blocks))


def _shown(context: Context, rows: Sequence[Row]) -> list[Block]:
    s = rows[0].setting
    tag = f"{s.unit}-{s.time_scale:g}".replace(".", "-")
    conditions = context.conditions(rows, *settings_text(s))
    names = [name for name in context.evidence.ours if any(name in row.schemes for row in rows)]
    lines = [_line(row, names) for row in rows]
    columns = ["CI", "local early exit"]
    for name in names:
        columns += [f"{name_of(name)}", "#local / ours", "#exits in stages 1–3", "largest term of ours"]
    table = Table(
        f"wake-words-{tag}-table",
        f"Wake words by connection interval, {scale_name(s.time_scale)}, judged by {s.unit}",
        tuple(columns),
        tuple(lines),
        conditions,
        (
            "Each scheme at its fastest operating point that reaches the target on the calibration split; accuracies "
            "of the test split.",
        ),
    )
    return [table] if len(rows) < 2 else [_figure(rows, tag, conditions, names), table]


def _line(row: Row, names: Sequence[str]) -> tuple[Cell | str, ...]:
    local = row.schemes.get(str(row.entries.get("best", {}).get("local")))
    cells: list[Cell | str] = [f"{row.ci_ms:g} ms"]
    if local is None:
        cells.append(Cell(NOT_REACHED, "", "quiet"))
    else:
        cells.append(_result(local, local.name))
    for name in names:
        result = row.schemes.get(name)
        if result is None or not result.reached:
            cells += [Cell(NOT_REACHED, "", "quiet"), NONE, NONE, NONE]
            continue
        share = early_share(result)
        cells += [
            _result(result, ""),
            times(row.compare(name, "local").ratio),
            NONE if share is None else f"{share:.0%}",
            largest_term(latency_terms(row, result)) or NONE,
        ]
    return tuple(cells)


def _result(result: Result, name: str) -> Cell:
    latency, accuracy = result.estimate("latency_ms"), result.estimate("accuracy")
    words = result.estimate("accuracy_wake_words")
    notes = [name, "" if accuracy is None else f"accuracy {accuracy.percent()}"]
    if words is not None:
        notes.append(f"wake words {words.percent()}")
    return Cell(NONE if latency is None else f"{latency.written(1)} ms", ", ".join(n for n in notes if n))


def _figure(rows: Sequence[Row], tag: str, conditions: tuple[str, ...], names: Sequence[str]) -> Figure:
    sheet = new_figure(f"wake-words-{tag}", columns=2, height=3.1)
    left, right = sheet.panels
    handles: dict[str, object] = {}
    lines = {
        name_of(n): (
            n,
            [(r.ci_ms, r.schemes[n].estimate("latency_ms")) for r in rows if n in r.schemes and r.schemes[n].reached],
        )
        for n in names
    }
    for family in ("local", "partition", "jpeg"):
        best = [(r.ci_ms, r.schemes.get(str(r.entries.get("best", {}).get(family)))) for r in rows]
        lines[FAMILY_NAMES[family]] = (family, [(ci, b.estimate("latency_ms")) for ci, b in best if b is not None])
    for label, (key, found) in lines.items():
        points = [(ci, e) for ci, e in found if e is not None]
        if not points:
            continue
        handles[label] = curve(left, [ci for ci, _ in points], [e for _, e in points], style_of(key))
    words = []
    for name in names:
        found = [(r.ci_ms, r.compare(name, "local").ratio) for r in rows]
        ratios = [(ci, e) for ci, e in found if e is not None]
        if ratios:
            curve(right, [ci for ci, _ in ratios], [e for _, e in ratios], style_of(name))
            best_ci, best_ratio = max(ratios, key=lambda pair: pair[1].value)
            words.append(f"{name_of(name)}: at most {times(best_ratio)} at {best_ci:g} ms.")
    right.axhline(1, color=MUTED, linewidth=1)
    handles["paper: 1.6×"] = right.axhline(paper.WAKE_SPEED_UP, color=MUTED, linestyle=":", linewidth=1.3)
    left.set_ylim(0, None)
    right.set_ylim(0, None)
    titled(left, "Latency", "connection interval, ms", "mean latency, ms")
    titled(right, "Local early exit / ours", "connection interval, ms", "ratio of mean latencies")
    legend(sheet, handles)
    s = rows[0].setting
    alt = f"Wake words, {scale_name(s.time_scale)}, judged by {s.unit}. " + " ".join(words)
    caption = f"Wake words on {s.platform}, {scale_name(s.time_scale)}, judged by {s.unit}"
    return Figure(sheet.name, caption, alt, sheet.svg(alt), conditions)
