# SPDX-License-Identifier: Apache-2.0
"""The compute plan: what every scheme's training was given, so that nobody was starved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.evaluation.report.context import Context
from fleet.evaluation.report.document import Block, Cell, NotRun, Section, Table, Text
from fleet.evaluation.report.estimate import NONE, NOT_RECORDED


def section(context: Context) -> Section:
    """The table from the plan's file."""
    plan = context.plan
    blocks: list[Block] = [
        Text(
            "Every scheme starts from the same base network and gets the same data, augmentation and loss; how many "
            "images each saw is below, and differs. Where two "
            "processor cores "
            "could not afford a scheme's whole joint training, the cheaper published variant was used for theirs and "
            "ours alike; the "
            "last column gives the command for the whole one."
        )
    ]
    if not plan:
        command = "fleet report SWEEP.json --plan models/baselines/plan.json --output docs/results"
        return Section(
            "compute-plan", "Compute plan", (*blocks, NotRun("the compute plan", command, "No plan was given."))
        )
    base = plan.get("base", {})
    lines = [_line(entry) for entry in plan["schemes"]]
    named = {str(entry.get("name", entry.get("scheme", ""))) for entry in plan["schemes"]}
    for name, about in context.evidence.schemes.items():
        if about.get("family") not in ("fleet", None) and not any(name == n or name.startswith(f"{n}-") for n in named):
            lines.append(
                (name, Cell("not in the plan", str(about.get("note", "")), "quiet"), NONE, NONE, NONE, NONE, NONE, NONE)
            )
    told = (
        [f"{key.replace('_', ' ')} {value}" for key, value in base.items()]
        if isinstance(base, Mapping)
        else [str(base)]
    )
    machine = plan.get("machine")
    table = Table(
        "plan",
        "What the training of every scheme spent",
        (
            "scheme",
            "trained",
            "#images seen",
            "#epochs",
            "#hours",
            "#weights fine-tuned / new",
            "cheaper than published",
            "the whole training",
        ),
        tuple(lines),
        tuple(["base network: " + ", ".join(told)] if told else []) + ((f"on {machine}",) if machine else ()),
        tuple(str(note) for note in plan.get("notes", ())),
    )
    return Section("compute-plan", "Compute plan", (*blocks, table))


def _line(entry: Mapping[str, Any]) -> tuple[Cell | str, ...]:
    seconds = entry.get("seconds")
    tuned, new = entry.get("weights_fine_tuned"), entry.get("weights_new")
    weights = " / ".join(NONE if n is None else f"{int(n):,}" for n in (tuned, new))
    images = entry.get("images")
    command = str(entry.get("full_command") or "")
    return (
        str(entry.get("name", entry.get("scheme", "?"))),
        Cell(str(entry.get("trained", NOT_RECORDED)), str(entry.get("parts") or "")),
        NOT_RECORDED if images is None else f"{int(images):,}",
        str(entry.get("epochs", NONE)),
        NOT_RECORDED if seconds is None else f"{float(seconds) / 3600:.2f}",
        weights if (tuned, new) != (None, None) else NONE,
        Cell(str(entry.get("variant") or NONE), str(entry.get("published") or "")),
        Cell(command, "", "", code=True) if command else NONE,
    )
