# SPDX-License-Identifier: Apache-2.0
"""Table 4: energy of an inference, ours against the most frugal baseline."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.evaluation.report import paper
from fleet.evaluation.report.context import FAMILY_NAMES, Context, missing_sweep, name_of
from fleet.evaluation.report.document import Block, Cell, Figure, NotRun, Section, Table, Text
from fleet.evaluation.report.drawing import curve, legend, log_axis, new_figure, style_of, titled
from fleet.evaluation.report.estimate import NONE, NOT_REACHED, NOT_RUN, times
from fleet.evaluation.report.measures import energy_ratio, frugal
from fleet.evaluation.report.scoreboard import ENERGY_CI_MS
from fleet.evaluation.report.sweeps import Account, Row, Setting, scale_name

PLATFORMS = ("cortex-m33-64", "cortex-a77-200", "gap8-175")


def section(context: Context) -> Section:
    """The table beside the paper's, for every account and scale."""
    evidence = context.evidence
    note = evidence.conditions.get("radio_note")
    radio = evidence.conditions.get("radio", "not recorded")
    blocks: list[Block] = [
        Text(
            "Energy is the device's: processor power × busy time, and the radio in every event until the answer. The "
            "paper does "
            f"not say at which connection interval Table 4 was measured; here it is {ENERGY_CI_MS:g} ms, or the next "
            "of the grid that can "
            "carry a packet."
        ),
        Text(f"Radio: {radio}. {note or 'How its currents and durations were found is not recorded.'}"),
    ]
    first = True
    for account in evidence.accounts:
        for scale in evidence.scales:
            found = {(p, phy): _row(context, p, phy, account, scale) for p in PLATFORMS for phy in paper.MBPS}
            rows = [row for row in found.values() if row is not None]
            if rows:
                blocks += _tables(context, found, rows, account, scale, folded=not first)
                first = False
    if first:
        blocks.append(NotRun("Table 4", missing_sweep("paper")))
    else:
        blocks.insert(2, _figure(context))
    return Section("energy", "Energy (Table 4)", tuple(blocks))


def _row(context: Context, platform: str, phy: str, account: Account, scale: float) -> Row | None:
    series = context.evidence.series(Setting(platform, phy, 4, account, scale, context.evidence.unit))
    return next((row for row in series if row.ci_ms >= ENERGY_CI_MS), None)


def _tables(
    context: Context,
    found: dict[tuple[str, str], Row | None],
    rows: Sequence[Row],
    account: Account,
    scale: float,
    *,
    folded: bool,
) -> list[Block]:
    intervals = sorted({row.ci_ms for row in rows})
    conditions = context.conditions(
        rows,
        f"acknowledgements {account}",
        f"time_scale {scale:g}",
        f"judged by {context.evidence.unit}",
        "4 payloads an event",
        f"CI {', '.join(f'{ci:g}' for ci in intervals)} ms",
        f"radio {context.evidence.conditions.get('radio', 'not recorded')}",
    )
    ours = [name for name in context.evidence.ours if any(name in row.schemes for row in rows)]
    return [
        Table(
            f"table-4-{name}-{account.ack}-{'asked' if account.as_published else 'fit'}-{scale:g}".replace(
                "_", "-"
            ).replace(".", "-"),
            f"Table 4, {name_of(name)}: mJ an inference and saving ({account}; {scale_name(scale)})",
            (
                "baseline, platform",
                *(f"#{phy}" for phy in paper.MBPS),
                "paper: FLEET",
                "paper: baseline",
                "paper: efficiency",
            ),
            tuple(_line(context, printed, found, name) for printed in paper.TABLE_4),
            conditions,
            (*_NOTES, *([context.absent] if context.absent else [])),
            folded=folded or name != context.evidence.ours[0],
        )
        for name in ours
    ]


_NOTES = (
    "Each cell: the baseline's mJ over ours with its 95 % interval; below it ours and the baseline's mJ and which "
    "one it is.",
    "Every scheme is at its fastest operating point that reaches the target, not at its most frugal one.",
    "Cortex-M33: its speed was calibrated on the paper's 4.04 mJ for local early exit, so that cell is no evidence.",
    "The paper's own: columns give the values at the slowest and the fastest rate of the range it names.",
)


def _line(
    context: Context, printed: paper.Energy, found: dict[tuple[str, str], Row | None], ours: str
) -> tuple[Cell | str, ...]:
    cells: list[Cell | str] = [Cell(FAMILY_NAMES[printed.family], printed.platform)]
    members = context.members(printed.family)
    for phy in paper.MBPS:
        row = found[printed.platform, phy]
        cells.append(Cell(NOT_RUN, "", "quiet") if row is None else _cell(row, ours, printed.family, members))
    first, last = printed.mbps
    at = f"{first:g}–{last:g} Mbps"
    cells += [
        Cell(f"{printed.fleet_mj[0]:g}–{printed.fleet_mj[1]:g}", printed.note or at),
        Cell(f"{printed.baseline_mj[0]:g}–{printed.baseline_mj[1]:g}", at),
        Cell(f"{printed.efficiency[0]:g}–{printed.efficiency[1]:g}×", at),
    ]
    return tuple(cells)


def _cell(row: Row, ours: str, family: str, members: Sequence[str]) -> Cell:
    c = energy_ratio(row, ours, family, members)
    if c.ratio is None:
        words = {"ours": NOT_REACHED, "rival": "no rival reaches the target"}.get(c.status, NOT_RUN)
        return Cell(words, "", "quiet")
    mine = row.schemes[ours].estimate("energy_mj")
    theirs = None if c.rival not in row.schemes else row.schemes[str(c.rival)].estimate("energy_mj")
    parts = [NONE if e is None else f"{e.value:.2f}" for e in (mine, theirs)]
    return Cell(times(c.ratio), f"{parts[0]} / {parts[1]} mJ, {c.rival}")


def _figure(context: Context) -> Figure:
    evidence = context.evidence
    scales = [
        s
        for s in evidence.scales
        if any(_row(context, p, phy, evidence.papers, s) for p in PLATFORMS for phy in paper.MBPS)
    ]
    sheet = new_figure("energy-by-phy", rows=len(scales), columns=len(PLATFORMS), height=2.6)
    handles: dict[str, object] = {}
    words, rows = [], []
    for k, (scale, platform) in enumerate((s, p) for s in scales for p in PLATFORMS):
        axes = sheet.panels[k]
        found = [(x, _row(context, platform, phy, evidence.papers, scale)) for x, phy in enumerate(paper.MBPS)]
        for name in (*context.evidence.ours, "local", "partition", "jpeg", "jpeg-stripped"):
            points = []
            for x, row in found:
                result = None
                if row is not None:
                    result = (
                        row.schemes.get(name) if name in context.evidence.ours else frugal(row, context.members(name))
                    )
                energy = None if result is None or not result.reached else result.estimate("energy_mj")
                if energy is not None:
                    points.append((x, energy))
            if not points:
                continue
            style = style_of(name)
            line = curve(axes, [x for x, _ in points], [e for _, e in points], style)
            handles.setdefault(name_of(name), line)
            if name == "fleet":
                words.append(
                    f"{platform}, {scale_name(scale)}: FLEET {points[0][1].value:.2f} to {points[-1][1].value:.2f} mJ."
                )
        rows += [row for _, row in found if row is not None]
        axes.set_xticks(range(len(paper.MBPS)), list(paper.MBPS))
        log_axis(axes.yaxis)
        titled(axes, f"{platform}\n{scale_name(scale)}", "PHY", "mJ an inference" if k % len(PLATFORMS) == 0 else "")
    legend(sheet, handles)
    alt = "Energy of an inference by physical layer. " + " ".join(words)
    return Figure(
        sheet.name,
        "Energy of an inference by platform and physical layer; of each family the most frugal scheme that reaches "
        "the target",
        alt,
        sheet.svg(alt),
        context.conditions(
            rows, "4 payloads an event", f"acknowledgements {evidence.papers}", f"judged by {evidence.unit}"
        ),
    )
