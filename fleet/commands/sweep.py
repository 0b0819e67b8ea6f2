# SPDX-License-Identifier: Apache-2.0
"""``fleet sweep``: a trace through thousands of link settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from fleet.errors import FleetError
from fleet.resources import expanded, find_config
from fleet.runlog import check_writable

SHOWN = 24


def sweep(
    trace: Annotated[Path, typer.Argument(help="Folder that `fleet trace` has written.")],
    config: Annotated[str, typer.Argument(help="What to sweep: a YAML file, or the name of one in config/sweeps/.")],
    output: Annotated[Path, typer.Option(help="JSON file to write.")],
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
) -> None:
    """Replay a trace over many links: latency, accuracy and energy of every scheme at its best operating point.

    Operating points are chosen on the calibration split, numbers are the test split's.
    """
    from fleet.evaluation.plan import load_plan  # noqa: PLC0415 - numpy and torch; --help should not take seconds
    from fleet.evaluation.sweep import run_sweep  # noqa: PLC0415
    from fleet.evaluation.trace import Trace  # noqa: PLC0415

    output = expanded(output).absolute()
    check_writable(output)
    named = f"sweeps/{config}"
    plan = load_plan(find_config(config if Path(config).is_file() or "/" in config else named))
    found = Trace.load(expanded(trace).absolute())
    for library in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(library, "1")  # of the workers: each has a processor to itself
    console = Console()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(plan.name, total=plan.rows)
        document = run_sweep(found, plan, workers=workers, done=lambda rows: progress.advance(task, rows))
    try:
        output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as err:
        raise FleetError(f"cannot write {output}: {err.strerror}") from err
    if plan.losses is None:
        _show(document, console)
    else:
        _show_losses(document, console)
    console.print(f"{output}: {len(document['rows'])} rows", soft_wrap=True)


def _show(document: dict[str, Any], console: Console) -> None:
    conditions, rows = document["conditions"], document["rows"]
    table = Table(
        title=f"{document['name']}: {conditions['bundle']} on {conditions['test']['pictures']} pictures",
        caption=f"cloud {conditions['cloud_ms']:g} ms; {conditions['target_rule']}; mean latency in ms",
    )
    ours = next((name for name in document["schemes"] if document["schemes"][name]["kind"] == "fleet"), None)
    for column in ("CI ms", "link", "platform", "unit", "target", ours or "", "best rival", "its", "speed-up", "bound"):
        table.add_column(column, justify="right")
    step = max(1, len(rows) // SHOWN)
    for row in rows[::step]:
        link, best = row["link"], row["best"]["all"]
        mine = row["schemes"].get(ours, {"reached": False})
        up = row["speed_up"].get(ours, {}).get("all")
        table.add_row(
            f"{link['ci_ms']:g}",
            f"{link['phy']} {link['effective_packets']}x{link['payload']} {link['ack']}"
            + (" as published" if link["as_published"] else ""),
            row["platform"] + (f" x{row['time_scale']:g}" if row["time_scale"] != 1 else ""),
            row["unit"],
            f"{row['target']:.1%}",
            f"{mine['latency_ms']:.1f}" if mine["reached"] else "not reached",
            best or "none",
            f"{row['schemes'][best]['latency_ms']:.1f}" if best else "",
            f"{up['value']:.2f}" if up else "",
            f"{up['bound']:.2f}" if up else "",
        )
    console.print(table)


def _show_losses(document: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{document['name']}: mean latency in ms, and accuracy")
    names = [name for name in document["schemes"] if any(name in row["schemes"] for row in document["rows"])]
    for column in ("CI ms", "link", "loss", *names):
        table.add_column(column, justify="right")
    for row in document["rows"]:
        link, found = row["link"], row["schemes"]
        cells = (f"{found[n]['latency_ms']:.1f} {found[n]['accuracy']:.1%}" if n in found else "" for n in names)
        table.add_row(f"{link['ci_ms']:g}", f"{link['phy']} {link['effective_packets']}", f"{row['loss']:.0%}", *cells)
    console.print(table)
