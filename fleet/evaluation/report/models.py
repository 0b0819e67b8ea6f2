# SPDX-License-Identifier: Apache-2.0
"""Table 5: other base networks and other images."""

from __future__ import annotations

from fleet.evaluation.report import paper
from fleet.evaluation.report.context import Context, sweep_conditions
from fleet.evaluation.report.document import Cell, Section, Table
from fleet.evaluation.report.estimate import NONE, NOT_RUN, interval_ms, times
from fleet.evaluation.report.measures import wins
from fleet.evaluation.report.sweeps import Evidence, Setting, Sweep, scale_name


def section(context: Context) -> Section:
    """What is trained here, and how to get the rest."""
    evidences = [context.evidence, *(Evidence.of([sweep]) for sweep in context.evidence.others)]
    rows: list[tuple[Cell | str, ...]] = []
    for printed in paper.TABLE_5:
        matching = [e for e in evidences if _is(printed, *_network(context, e))]
        cis = NONE if printed.ci_ms is None else f"{printed.ci_ms[0]:g}–{printed.ci_ms[1]:g} ms"
        head = Cell(printed.label, f"{printed.data}, {printed.input_size}×{printed.input_size}, {printed.platform}")
        written = Cell(f"1–{printed.speed_up:g}×", cis)
        if not matching:
            rows.append((head, written, Cell(NOT_RUN, "", "quiet"), NONE, Cell(_command(printed), "", "", code=True)))
        for evidence in matching:
            rows += [(head, written, *line) for line in _lines(context, evidence, printed)]
    shown = [e.main[0] for e in evidences]
    conditions = tuple(dict.fromkeys(text for sweep in shown for text in _conditions(context, sweep)))
    table = Table(
        "table-5",
        "Table 5: CI range in which FLEET is faster than all baselines, and largest speed-up, for other models and "
        "data sets",
        (
            "model or data set",
            "paper",
            "ours: CI range; speed-up",
            "trained here on",
            "where it comes from, or how to get it",
        ),
        tuple(rows),
        (*conditions, "PHY 2M, 4 payloads an event, where that was run; else 1M"),
        (
            "CIFAR-10 stands in for CIFAR-100: ten classes in place of a hundred. Its row is not comparable with the "
            "paper's.",
            "The Tiny-ImageNet here has 100 of the original's 200 classes.",
            "The paper's interval range for Tiny-ImageNet is not legible in the copy that this was made from.",
        ),
    )
    return Section("models", "Other models and data sets (Table 5)", (table,))


def _network(context: Context, evidence: Evidence) -> tuple[str, int, int, str]:
    c = evidence.conditions
    main = evidence is context.evidence
    backbone = str(c.get("backbone", context.backbone if main else "mobilenetv3") or "mobilenetv3")
    size, classes = (
        c.get(key, fallback if main else None)
        for key, fallback in (("input_size", context.input_size), ("classes", context.classes))
    )
    return backbone, int(size or 0), int(classes or 0), f"{c.get('bundle', '')} {c.get('test', '')}".lower()


def _is(printed: paper.Model, backbone: str, size: int, classes: int, words: str) -> bool:
    if backbone != printed.backbone or size != printed.input_size:
        return False
    if printed.stands_in:
        return "cifar" in words or size == 32
    return classes >= 100 or classes == 0


def _conditions(context: Context, sweep: Sweep) -> tuple[str, ...]:
    main = sweep is context.evidence.main[0]
    return sweep_conditions(sweep, context.backbone if main else None, context.input_size if main else None)


def _lines(context: Context, evidence: Evidence, printed: paper.Model) -> list[tuple[Cell | str, ...]]:
    found: list[tuple[Cell | str, ...]] = []
    _, _, classes, words = _network(context, evidence)
    c = evidence.conditions
    test = c.get("test")
    pictures = f", {test['pictures']} pictures" if isinstance(test, dict) and "pictures" in test else ""
    trained = f"{c.get('bundle', '?')}: {classes or '?'} classes{pictures}"
    stands_in = (
        printed.stands_in
        if printed.stands_in and (classes == 10 or "cifar-10" in words.replace("cifar-100", ""))
        else ""
    )
    for scale in evidence.scales:
        for ours in evidence.ours:
            for phy in ("2M", "1M"):
                w = wins(
                    evidence.series(Setting(printed.platform, phy, 4, evidence.papers, scale, evidence.unit)),
                    ours,
                    "all",
                )
                if w.points:
                    break
            if w.status == NOT_RUN:
                continue
            text = w.range_text()
            note = f"{ours}, {phy}, {scale_name(scale)}"
            if w.best is not None:
                row, comparison = w.best
                text += f"; {times(comparison.ratio)} at {interval_ms(row.ci_ms)}"
                note += "" if comparison.bound is None else f", bound {comparison.bound:.2f}×"
            where = f"not comparable: {stands_in} in place of {printed.data}" if stands_in else ""
            source = evidence.main[0].path.name if w.best is None else w.best[0].sweep
            found.append((Cell(text, note), Cell(trained, where), source))
    return found or [(Cell(NOT_RUN, "on this platform", "quiet"), trained, Cell(_command(printed), "", "", code=True))]


def _command(printed: paper.Model) -> str:
    config, name = f"config/training/{printed.config}.yaml", printed.config
    change = ""
    if printed.backbone != "mobilenetv3":
        name = f"{printed.config}-{printed.backbone}"
        change = f"sed 's/^backbone:.*/backbone: {printed.backbone}/' {config} > {name}.yaml && "
        config = f"{name}.yaml"
    return f"{change}fleet train {config} --data FOLDER --output runs/{name}"
