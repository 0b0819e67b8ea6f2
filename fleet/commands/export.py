# SPDX-License-Identifier: Apache-2.0
"""``fleet export``: calibrates a trained run and writes it as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fleet.resources import expanded


def export(
    run: Annotated[Path, typer.Argument(help="Output folder of a `fleet train` that trained exits.")],
    output: Annotated[Path, typer.Option(help="Folder of the bundle.")] = Path("models/backyard"),
    data: Annotated[Path | None, typer.Option(help="Folder of the data set; default is the run's own.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder for decoded images.")] = Path("~/.cache/fleet"),
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "backyard",
    int8: Annotated[bool, typer.Option(help="Add int8 stages beside the float ones.")] = True,
) -> None:
    """Write a trained run as a bundle: ONNX stages, the hub's weights, temperatures and thresholds.

    Temperatures and thresholds come from the calibration split, which was not trained on; the
    ranges of the int8 stages from training images.
    """
    from fleet.training.finish import export_run  # noqa: PLC0415 - torch takes seconds, which --help should not

    console = Console()
    with console.status(f"Calibrating and writing {output}"):
        bundle = export_run(run, output, name=name, data=data, cache=expanded(cache), int8=int8)
    size = sum(file.stat().st_size for file in output.iterdir()) / 1e6
    console.print(f"{bundle.path}: {size:.1f} MB, identity {bundle.identity.hex()}")
    console.print(f"thresholds {dict(bundle.decider.thresholds)}")
