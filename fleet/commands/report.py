# SPDX-License-Identifier: Apache-2.0
"""``fleet report``: the paper's tables and figures from what ``fleet sweep`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from fleet.errors import FleetError
from fleet.resources import expanded, find_model


def report(
    output: Annotated[Path, typer.Option(help="Folder for the page, the Markdown and the figures.")],
    sweeps: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SWEEP.json…", help="Results of `fleet sweep`; the first names the bundle."),
    ] = None,
    losses: Annotated[
        list[Path] | None,
        typer.Option(metavar="LOSSES.json", help="Results of a sweep of random losses; again for more."),
    ] = None,
    plan: Annotated[Path | None, typer.Option(metavar="PLAN.json", help="What every scheme's training spent.")] = None,
    ours: Annotated[
        list[str] | None,
        typer.Option(help="Which of ours the tables follow; again for more. Default: fleet, fleet-race."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The bundle: its network's memory, and what `fleet evaluate` found of its codec.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Write this section of a report that is there anew, from these sweeps; again for more."),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(metavar="STUDY.json", help="Results of `fleet study`; without sweeps only its pages are written."),
    ] = None,
) -> None:
    """Write the paper's tables and figures, each number beside the paper's own.

    What was not run is marked so, with the command that runs it. The same files give the same report, byte for byte.
    """
    from fleet.evaluation.report import build, studies  # noqa: PLC0415 - numpy and drawing, which --help should not load
    from fleet.evaluation.report.context import load_context  # noqa: PLC0415
    from fleet.evaluation.report.sweeps import OURS, Evidence, load_sweep  # noqa: PLC0415

    folder = expanded(output).absolute()
    if folder.exists() and not folder.is_dir():
        raise FleetError(f"cannot write the report to {output}: it is no folder")
    if odd := [name for name in only or () if name not in build.SECTIONS]:
        raise FleetError(f"a report has no section '{odd[0]}' to write anew; there are {', '.join(build.SECTIONS)}")
    console = Console()
    if study is not None:
        written = build.write(studies.report(studies.load_study(expanded(study))), folder / studies.FOLDER)
        console.print(f"{len(written)} files in {output / studies.FOLDER}: begin with README.md", soft_wrap=True)
    if not sweeps:
        if study is None:
            raise FleetError("give results of `fleet sweep`, or of `fleet study` with --study")
        if losses or plan or ours or model or only:
            raise FleetError("--losses, --plan, --ours, --model and --only go with results of `fleet sweep`")
        return
    found = [load_sweep(expanded(path)) for path in (*sweeps, *(losses or []))]
    for path, sweep in zip(losses or [], found[len(sweeps) :], strict=True):
        if sweep.kind != "losses":
            raise FleetError(f"{path} is a sweep without random losses: give it as an argument, not with --losses")
    evidence = Evidence.of(found, tuple(ours or OURS))
    if missing := [name for name in ours or () if not evidence.has(name)]:
        there = ", ".join(name for name, about in evidence.schemes.items() if about.get("family") == "fleet")
        raise FleetError(f"no sweep has '{missing[0]}'; of ours there are: {there or 'none'}")
    where = None if model is None else find_model(model)
    beside = study is not None or (folder / studies.FOLDER / "README.md").is_file()
    context = load_context(evidence, where, None if plan is None else expanded(plan), study=beside)
    if only:
        written = build.rewrite(context, only, folder)
        console.print(f"{len(written)} files in {output} written anew", soft_wrap=True)
        return
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("sections", total=len(build.SECTIONS))
        made = build.build(context, lambda: progress.advance(task))
    written = build.write(made, folder)
    console.print(f"{len(written)} files in {output}: begin with {output / 'index.html'} or README.md", soft_wrap=True)
