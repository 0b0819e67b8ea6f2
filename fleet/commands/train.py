# SPDX-License-Identifier: Apache-2.0
"""``fleet train``: trains a backbone from a configuration, resumably."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fleet.errors import FleetError

if TYPE_CHECKING:
    from fleet.training.base import BaseTraining

EXITS = "exits.pt"
_MEASURED_SHARE = 0.65  # of the speed measured on an idle machine is what a run of hours gets


def train(
    config: Annotated[Path, typer.Argument(help="A file such as config/training/backyard.yaml.")],
    output: Annotated[Path, typer.Option(help="Folder for checkpoint, log and figure.")] = Path("runs/train"),
    data: Annotated[Path | None, typer.Option(help="Folder of the data set; default is the file's data.root.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder for decoded images.")] = Path("~/.cache/fleet"),
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint in the output folder.")] = False,
    budget_minutes: Annotated[float, typer.Option(help="Scale the epochs to this time; 0 trains them all.")] = 0.0,
    threads: Annotated[int, typer.Option(help="Processor threads; 0 takes one a core.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
) -> None:
    """Train a network on a data set.

    Interrupted runs go on with --resume and end with the same weights as uninterrupted ones.
    """
    import torch  # noqa: PLC0415  (seconds, which `fleet --help` should not take)

    from fleet.training.base import BaseTraining, measure_rates  # noqa: PLC0415
    from fleet.training.config import load_config, parse_config  # noqa: PLC0415
    from fleet.training.data import load_training_sets  # noqa: PLC0415
    from fleet.training.schedule import fit_to_budget  # noqa: PLC0415

    console = Console()
    settings = load_config(config)
    if not resume and (output / "checkpoint.pt").exists():
        msg = f"{output} already holds a run; add --resume to go on with it or choose another --output"
        raise FleetError(msg)
    if resume:
        from fleet.training.checkpoint import load_checkpoint  # noqa: PLC0415

        # The epochs were fixed when the run began; a budget would now be measured on another machine load.
        settings = parse_config(load_checkpoint(output / "checkpoint.pt")["config"], str(output))
    torch.set_num_threads(threads or os.cpu_count() or 1)
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    root = data or Path(settings.data.root)
    with console.status(f"Reading images from {root}"):
        train_set, calibration = load_training_sets(
            settings.data, root, size=settings.input_size, cache=cache.expanduser()
        )
    if budget_minutes > 0 and not resume:
        rates = measure_rates(BaseTraining(settings, train_set, calibration, output, where))
        console.print("measured " + ", ".join(f"{r:.0f} images/s at {s} pixels" for s, r in rates.items()))
        phases = fit_to_budget(
            settings.phases, len(train_set), rates, budget_s=60 * budget_minutes, share=_MEASURED_SHARE
        )
        settings = dataclasses.replace(settings, phases=phases)
    training = BaseTraining(settings, train_set, calibration, output, where)
    if resume:
        training.resume()
    console.print(
        f"{settings.backbone}, {len(train_set)} images, {len(train_set.table.names)} classes, "
        + ", ".join(f"{p.epochs} epochs at {p.size}" for p in settings.phases)
        + f", {training.steps} steps, {training.step} done"
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=training.steps, completed=training.step)
        shown = len(training.rows)

        def listen(now: object) -> None:
            nonlocal shown
            from fleet.training.base import Progress as Step  # noqa: PLC0415

            assert isinstance(now, Step)
            text = f"epoch {now.epoch.number} at {now.epoch.phase.size}: loss {now.loss:.3f}, {now.images_per_s:.0f}/s"
            bar.update(task, completed=now.step, description=text)
            if not console.is_terminal and now.step % 100 == 0:
                console.print(f"step {now.step}/{now.steps} {text}")
            if len(training.rows) > shown:
                shown = len(training.rows)
                console.print(_in_words(training.rows[-1]))

        row = training.run(listen) if training.step < training.steps else training.rows[-1]
        console.print("finished: " + _in_words(row))
    if settings.exits is not None:
        _train_exits(training, console, resume=resume and (output / EXITS).exists())


def _train_exits(base: BaseTraining, console: Console, *, resume: bool) -> None:
    """Encoders and exits behind the finished base network, with its averaged weights."""
    from fleet.backbones import Backbone  # noqa: PLC0415
    from fleet.training.exits import ExitProgress, ExitTraining  # noqa: PLC0415

    backbone = base.ema.model
    assert isinstance(backbone, Backbone)
    training = ExitTraining(base.config, backbone, base.train, base.calibration, base.output, base.device.type)
    if resume:
        training.resume()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("exits", total=training.plan.steps, completed=training.step)

        def listen(now: ExitProgress) -> None:
            text = f"exits: loss {now.loss:.3f}, {now.images_per_s:.0f}/s"
            bar.update(task, completed=now.step, description=text)
            if not console.is_terminal and now.step % 100 == 0:
                console.print(f"step {now.step}/{now.steps} {text}")

        training.run(listen)
    console.print("exits: " + _in_words(training.rows[-1]))


def _in_words(row: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "time_s")


if __name__ == "__main__":
    typer.run(train)
