# SPDX-License-Identifier: Apache-2.0
"""``fleet export``: calibrates a trained run and writes it as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fleet.resources import expanded, find_model


def export(
    run: Annotated[Path, typer.Argument(help="Output folder of a `fleet train` that trained exits.")],
    output: Annotated[Path, typer.Option(help="Folder of the bundle.")] = Path("models/backyard"),
    data: Annotated[Path | None, typer.Option(help="Folder of the data set; default is the run's own.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder for decoded images.")] = Path("~/.cache/fleet"),
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "backyard",
    bundle: Annotated[
        str | None, typer.Option(help="The bundle whose picture was trained; it is written with it to --output.")
    ] = None,
    int8: Annotated[bool, typer.Option(help="Add int8 stages beside the float ones.")] = True,
) -> None:
    """Write a trained run as a bundle: ONNX stages, the hub's weights, temperatures and thresholds.

    Temperatures and thresholds come from the calibration split, which was not trained on; the
    ranges of the int8 stages from training images.
    """
    from fleet.bundle import Bundle  # noqa: PLC0415 - torch takes seconds, which --help should not
    from fleet.training.finish import export_run  # noqa: PLC0415
    from fleet.training.picture_export import export_picture_run  # noqa: PLC0415

    console = Console()
    before = None if bundle is None else Bundle.load(find_model(bundle))
    with console.status(f"Calibrating and writing {output}"):
        if before is None:
            found = export_run(run, output, name=name, data=data, cache=expanded(cache), int8=int8)
        else:
            found = export_picture_run(run, before, output, data=data, cache=expanded(cache))
    size = sum(file.stat().st_size for file in output.iterdir()) / 1e6
    console.print(f"{found.path}: {size:.1f} MB, identity {found.identity.hex()}")
    console.print(f"thresholds {dict(found.decider.thresholds)}")
