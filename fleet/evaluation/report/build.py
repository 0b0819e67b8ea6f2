# SPDX-License-Identifier: Apache-2.0
"""Which sections a report has, in order, and its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fleet.errors import FleetError
from fleet.evaluation.report import (
    ablations,
    compute,
    curves,
    energy,
    figure1,
    html,
    latency,
    losses,
    markdown,
    memory,
    models,
    plan,
    scoreboard,
    sources,
    wake,
)
from fleet.evaluation.report.context import Context
from fleet.evaluation.report.document import Figure, Report, Section

SECTIONS: Mapping[str, Callable[[Context], Section]] = {
    "latency": latency.section,
    "curves": curves.section,
    "energy": energy.section,
    "compute": compute.section,
    "losses": losses.section,
    "wake-words": wake.section,
    "models": models.section,
    "figure-1": figure1.section,
    "ablations": ablations.section,
    "memory": memory.section,
    "compute-plan": plan.section,
    "sources": sources.section,
}
"""By the name that each has, in order."""


def build(context: Context, done: Callable[[], None] = lambda: None) -> Report:
    """Make the report.

    Args:
        context: its inputs.
        done: called after every section.

    Raises:
        FleetError: matplotlib is not installed.
    """
    board, data = scoreboard.section(context)
    sections = [board]
    for make in SECTIONS.values():
        sections.append(make(context))
        done()
    lead: tuple[str, ...] = (
        "What the FLEET paper evaluates, run again with this repository's code, each number beside the paper's. "
        "Written by `fleet report` from recorded sweeps; docs/evaluation.md says how to make them.",
        f"Conditions of all numbers, unless a table says otherwise: {'; '.join(context.base())}.",
    )
    if context.absent:
        lead += (context.absent,)
    return Report("FLEET: results", lead, tuple(sections), {"conditions": dict(context.evidence.conditions), **data})


def files(report: Report) -> dict[str, str]:
    """Every file of a report by its path below the output folder."""
    found = {"index.html": html.page(report), **markdown.files(report)}
    for figure in report.figures():
        found[f"figures/{figure.name}.svg"] = figure.svg
    if report.data:
        found["scoreboard.json"] = json.dumps(report.data, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    return found


def write(report: Report, folder: Path) -> list[Path]:
    """Write all files, and remove figures and pages of an earlier report that are no longer made.

    Raises:
        FleetError: the folder cannot be written.
    """
    wanted = files(report)
    paths = _written(wanted, folder)
    try:
        for path in (*folder.glob("*.md"), *folder.glob("figures/*.svg")):
            if path.relative_to(folder).as_posix() not in wanted and _ours(path):
                path.unlink()
    except OSError as err:
        raise FleetError(f"cannot write the report to {folder}: {err.strerror}") from err
    return paths


def rewrite(context: Context, names: Sequence[str], folder: Path) -> list[Path]:
    """Write some sections of a report that is there anew, and leave the rest of it as it is.

    Args:
        context: its inputs, of which only what these sections need has to be there.
        names: of :data:`SECTIONS`.
        folder: of the report.

    Raises:
        FleetError: no report there that has these sections, or it cannot be written.
    """
    index = folder / "index.html"
    try:
        whole = index.read_text(encoding="utf-8")
    except OSError as err:
        raise FleetError(f"{folder} has no report to write anew in part: {err.strerror}") from err
    except ValueError as err:
        raise FleetError(f"{index} is no page of a report: it is no text") from err
    if html.shown(context.base()[0]) not in whole:
        raise FleetError(f"{index} is about another model than {context.base()[0]}: write the whole report")
    wanted: dict[str, str] = {}
    for name in names:
        section = SECTIONS[name](context)
        changed = html.with_section(whole, section)
        if changed is None:
            raise FleetError(f"{index} has no whole section '{section.name}': write the whole report")
        whole = changed
        file, text = markdown.page(section)
        wanted[file] = text
        wanted |= {f"figures/{b.name}.svg": b.svg for b in section.blocks if isinstance(b, Figure)}
    wanted["index.html"] = whole
    return _written(wanted, folder)


def _written(wanted: Mapping[str, str], folder: Path) -> list[Path]:
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, text in wanted.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as err:
        raise FleetError(f"cannot write the report to {folder}: {err.strerror}") from err
    return [folder / name for name in wanted]


def _ours(path: Path) -> bool:
    """Whether a report wrote this file: nobody else's are removed."""
    if path.suffix == ".svg":
        return "-desc" in path.read_text(encoding="utf-8", errors="replace")[:2000]
    return path.read_text(encoding="utf-8", errors="replace").startswith(markdown.NOTICE)
