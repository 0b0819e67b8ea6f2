# SPDX-License-Identifier: Apache-2.0
"""Table 3: where FLEET is faster, over platforms, packets and physical layers; and what the latency is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fleet.evaluation.report import paper
from fleet.evaluation.report.context import FAMILY_NAMES, Context, missing_sweep, name_of
from fleet.evaluation.report.document import Block, Cell, Figure, NotRun, Section, Table, Text
from fleet.evaluation.report.drawing import MUTED, curve, interval_axis, legend, log_axis, new_figure, style_of, titled
from fleet.evaluation.report.estimate import NONE, NOT_REACHED, NOT_RUN, interval_ms, times
from fleet.evaluation.report.measures import largest_term, latency_terms, settings_text, wins
from fleet.evaluation.report.sweeps import Account, Row, Setting, scale_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("local", "partition", "jpeg", "jpeg-stripped", "all")
SHOWN = (0.2, 20.0)
"""Ratios that are drawn; the tables have all."""
DRAWN = ("local", "partition", "jpeg", "jpeg-stripped", "all")
EXTRA = tuple(paper.Line(f"{2 * p} packets, 1 Mbps", "cortex-a77-200", "1M", p) for p in (1, 2, 3))


def section(context: Context) -> Section:
    """All of it."""
    blocks: list[Block] = [Text(paper.TABLE_3_SETTING)]
    if not context.evidence.rows:
        return Section("latency", "Latency (Table 3)", (*blocks, NotRun("Table 3", missing_sweep("paper"))))
    blocks += _speed_ups(context)
    first = True
    for unit in context.evidence.units:
        for account in context.evidence.accounts:
            for scale in context.evidence.scales:
                if found := list(_tables(context, unit, account, scale, folded=not first)):
                    blocks += found
                    first = False
    blocks += _hundred(context)
    return Section("latency", "Latency (Table 3)", tuple(blocks))


def setting_of(line: paper.Line, account: Account, scale: float, unit: str) -> Setting:
    """Which rows belong to a line."""
    return Setting(line.platform, line.phy, line.packets, account, scale, unit)


def _tables(context: Context, unit: str, account: Account, scale: float, *, folded: bool) -> Iterator[Block]:
    evidence = context.evidence
    lines = [(line, evidence.series(setting_of(line, account, scale, unit))) for line in (*paper.TABLE_3, *EXTRA)]
    rows = [row for _, series in lines for row in series]
    if not rows:
        return
    label = f"{account}; {scale_name(scale)}; judged by {unit}"
    name = f"table-3-{unit}-{account.ack}-{'asked' if account.as_published else 'fit'}-{scale:g}".replace(
        "_", "-"
    ).replace(".", "-")
    grid = sorted({row.ci_ms for row in rows})
    conditions = context.conditions(
        rows,
        f"acknowledgements {account}",
        f"time_scale {scale:g}",
        f"judged by {unit}",
        _target_text(rows),
        f"connection intervals {', '.join(f'{ci:g}' for ci in grid)} ms",
    )
    for ours in [n for n in context.evidence.ours if any(n in row.schemes for row in rows)]:
        yield Table(
            f"{name}-{ours}",
            f"Table 3, {name_of(ours)}: CI range in which it is faster, and largest speed-up in it ({label})",
            ("row", *(FAMILY_NAMES[f] for f in COLUMNS)),
            tuple(
                (Cell(line.label, _row_note(line)), *(_cell(series, line, ours, family) for family in COLUMNS))
                for line, series in lines
            ),
            conditions,
            (*_NOTES, *([context.absent] if context.absent else [])),
            folded=folded or ours != context.evidence.ours[0],
        )
        yield Table(
            f"{name}-{ours}-why",
            f"What limits the rows of Table 3, {name_of(ours)}, at the interval of the largest speed-up over all "
            f"({label})",
            (
                "row",
                "#CI",
                "#speed-up",
                "#bound",
                "#of the bound",
                "best rival",
                "#ours, ms",
                "largest term of ours",
                "other terms",
            ),
            tuple(_why(line, series, ours) for line, series in lines),
            conditions,
            ("Bound: the best rival's latency over mean wait, one CI and the hub's time, see the scoreboard.",),
            folded=True,
        )


_NOTES = (
    "The largest speed-up is sought among the intervals at which the hub answers most images.",
    "Each cell: the CI range of the grid in which ours is faster; the largest speed-up with its 95 % interval, the "
    "interval it "
    "occurs at, and its bound. Below: what the paper prints; a dash stands for its empty cells.",
    "The paper's numbers are of 224×224 ImageNet-100 (Cortex-M33: 32×32 CIFAR-100) at 88 % and 68 %, ours of the "
    "data, size and "
    "target named below: a larger picture makes JPEG and partition send more and every stage take longer.",
)


def _row_note(line: paper.Line) -> str:
    parts = f"{line.platform}, {line.phy}, {line.packets} payload{'s' * (line.packets > 1)}"
    return f"{parts}; {line.note}" if line.note else parts


def _cell(series: Sequence[Row], line: paper.Line, ours: str, family: str) -> Cell:
    found = wins(series, ours, family)
    if family == "jpeg-stripped" or line in EXTRA:
        printed = "paper: not given"
    else:
        r = line.cells.get(family)
        cis = "" if r is None else f"{r.first_ms:g}–" + ("4 s" if r.last_ms == 4000 else f"{r.last_ms:g} ms")
        printed = "paper: –" if r is None else f"paper: {cis}, {r.low:g}–{r.high:g}×"
    if found.best is None:
        return Cell(found.range_text(), printed, "quiet")
    row, c = found.best
    missed = f"target missed at {found.unreached} of {len(found.points)} CI\n" if found.unreached else ""
    bound = "" if c.bound is None else f", bound {c.bound:.2f}×"
    return Cell(f"{found.range_text()}\n{times(c.ratio)}", f"at {interval_ms(row.ci_ms)}{bound}\n{missed}{printed}")


def _why(line: paper.Line, series: Sequence[Row], ours: str) -> tuple[Cell | str, ...]:
    found = wins(series, ours, "all")
    if found.best is None:
        return (line.label, *([NONE] * 7), Cell(found.status, "", "quiet"))
    row, c = found.best
    assert c.ratio is not None
    result = row.schemes[ours]
    latency = result.estimate("latency_ms")
    terms = latency_terms(row, result)
    others = ", ".join(f"{name} {ms:.1f} ms" for name, ms in terms.items())
    return (
        Cell(line.label, _carried(row)),
        interval_ms(row.ci_ms),
        times(c.ratio),
        NONE if c.bound is None else f"{c.bound:.2f}×",
        NONE if c.bound is None else f"{c.ratio.value / c.bound:.0%}",
        c.rival or NONE,
        NONE if latency is None else latency.written(1),
        largest_term(terms) or NONE,
        others or NONE,
    )


def _carried(row: Row) -> str:
    return "" if row.carried == row.setting.packets else f"{row.carried} of {row.setting.packets} payloads fit"


def _target_text(rows: Sequence[Row]) -> str:
    targets = sorted(
        {round(float(r.entries["target"]), 4) for r in rows if isinstance(r.entries.get("target"), int | float)}
    )
    if not targets:
        return "target accuracy not recorded"
    return "target accuracy " + (f"{targets[0]:.1%}" if len(targets) == 1 else f"{targets[0]:.1%} to {targets[-1]:.1%}")


def _hundred(context: Context) -> Iterator[Block]:
    """Section 4.2: where local early exit wins."""
    evidence = context.evidence
    rows: list[tuple[Cell | str, ...]] = []
    used: list[Row] = []
    for platform, printed in paper.CI_100.items():
        for scale in evidence.scales:
            setting = Setting(platform, "2M", 4, evidence.papers, scale, evidence.unit)
            row = evidence.row(setting, 100.0)
            cells: list[Cell | str] = [Cell(platform, scale_name(scale)), f"{printed:g}×"]
            for ours in context.evidence.ours:
                c = None if row is None else row.compare(ours, "local")
                if c is None or c.status == "missing":
                    cells.append(Cell(NOT_RUN, "", "quiet"))
                elif c.ratio is None:
                    cells.append(Cell(NOT_REACHED if c.status == "ours" else "local misses the target", "", "quiet"))
                else:
                    cells.append(Cell(f"{1 / c.ratio.value:.2f}×", f"ours is {times(c.ratio)} as fast"))
            rows.append(tuple(cells))
            used += [row] if row is not None else []
    yield Table(
        "ci-100",
        "Where local early exit wins: its speed-up over ours at a connection interval of 100 ms (section 4.2)",
        ("platform", "paper", *(name_of(name) for name in context.evidence.ours)),
        tuple(rows),
        context.conditions(
            used, "PHY 2M", "4 payloads an event", f"acknowledgements {evidence.papers}", f"judged by {evidence.unit}"
        ),
        ("Below 1: ours is faster there, too.",),
    )


def _speed_ups(context: Context) -> Iterator[Figure]:
    evidence = context.evidence
    panels = [
        (account, scale, evidence.series(Setting("cortex-a77-200", "1M", 4, account, scale, evidence.unit)))
        for account in evidence.accounts
        for scale in evidence.scales
    ]
    panels = [p for p in panels if len(p[2]) > 1]
    for ours in [n for n in context.evidence.ours if any(n in row.schemes for _, _, rows in panels for row in rows)]:
        sheet = new_figure(f"speed-up-{ours}", rows=-(-len(panels) // 2), columns=min(2, len(panels)), height=3.1)
        handles: dict[str, object] = {}
        words: list[str] = []
        for axes, (account, scale, rows) in zip(sheet.panels, panels, strict=False):
            words += _draw_speed_up(axes, rows, ours, handles)
            titled(axes, f"{account.ack}, {scale_name(scale)}", "connection interval, ms", "rival's latency / ours")
        for axes in sheet.panels[len(panels) :]:
            axes.set_visible(False)
        legend(sheet, handles)
        alt = f"Speed-up of {name_of(ours)} against connection interval. " + " ".join(dict.fromkeys(words))
        settings = settings_text(panels[0][2][0].setting, without=("account", "time_scale"))
        yield Figure(
            sheet.name,
            f"Speed-up of {name_of(ours)} over the best of each family, by connection interval; dashed: the bound over "
            "all baselines",
            alt,
            sheet.svg(alt),
            context.conditions(
                [row for _, _, rows in panels for row in rows], *settings, "acknowledgements and time_scale by panel"
            ),
            (
                f"Bands: 95 % intervals. Above the grey line ours is faster. Drawn from {SHOWN[0]:g}× to "
                f"{SHOWN[1]:g}× at most.",
            ),
        )


def _draw_speed_up(axes: Axes, rows: Sequence[Row], ours: str, handles: dict[str, object]) -> Iterator[str]:
    axes.axhline(1, color=MUTED, linewidth=1)
    largest = 1.0
    for family in DRAWN:
        found = wins(rows, ours, family)
        if found.best is None:
            continue
        style = style_of(family)
        xs = [row.ci_ms for row, _ in found.compared]
        ratios = [c.ratio for _, c in found.compared if c.ratio is not None]
        line = curve(axes, xs, ratios, style, width=2.2 if family == "all" else 1.2)
        handles.setdefault(FAMILY_NAMES[family], line)
        largest = max(largest, *(r.value for r in ratios))
        if family == "all":
            bounds = [(row.ci_ms, c.bound) for row, c in found.compared if c.bound is not None]
            if bounds:
                (dashes,) = axes.plot(*zip(*bounds, strict=True), color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
                handles.setdefault("bound, all baselines", dashes)
                largest = max(largest, *(b for _, b in bounds))
            row, c = found.best
            panel = f"{row.setting.account.ack}, {scale_name(row.setting.time_scale)}"
            yield f"{panel}: at most {times(c.ratio)} over all baselines."
    interval_axis(axes, [row.ci_ms for row in rows])
    log_axis(axes.yaxis, low=SHOWN[0], high=min(SHOWN[1], max(largest * 1.2, 2)))
