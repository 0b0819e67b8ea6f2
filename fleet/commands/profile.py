# SPDX-License-Identifier: Apache-2.0
"""``fleet profile``: how long every stage takes on this machine, as a platform profile."""

from __future__ import annotations

import platform as platform_module
import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fleet.bundle import Bundle
from fleet.codec import FloatArray, encode_stage
from fleet.errors import FleetError
from fleet.packet import MAX_PAYLOAD, PICTURE
from fleet.platforms import PlatformProfile, load_profile, to_yaml
from fleet.resources import expanded, find_model
from fleet.runlog import check_writable
from fleet.runtime import DeviceNetwork

WARM_UP = 5


def profile(
    bundle: Annotated[str, typer.Argument(help="Model bundle: a directory, or the name of one in models/.")],
    output: Annotated[Path, typer.Option(help="File to write, to be given as --platform.")] = Path("platform.yaml"),
    name: Annotated[str, typer.Option(help="Name of the platform; default: this machine's.")] = "",
    power_mw: Annotated[float, typer.Option(help="Power of the busy processor in mW; 0: unknown.", min=0)] = 0.0,
    rounds: Annotated[int, typer.Option(help="Images; the median time counts.", min=3)] = 100,
    precision: Annotated[str, typer.Option(help="Which ONNX stages run: float or int8.")] = "float",
    threads: Annotated[int, typer.Option(help="Threads of one stage.", min=1)] = 1,
) -> None:
    """Time every stage of a bundle here, coding of its packets included, and write a platform profile.

    Run it on the camera; elsewhere, `fleet up --platform FILE` then takes the camera's time for every stage.
    """
    if precision not in ("float", "int8"):
        raise FleetError(f"precision is float or int8, not '{precision}'")
    output = expanded(output).absolute()
    check_writable(output)
    loaded = Bundle.load(find_model(bundle))
    network = DeviceNetwork(loaded, precision=precision, threads=threads)  # type: ignore[arg-type]
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("stages", total=rounds)
        pictures = () if loaded.picture is None else (PICTURE,)
        taken: dict[int, list[float]] = {n: [] for n in (*pictures, *network.stage_numbers)}
        for k in range(WARM_UP + rounds):
            for n, seconds in _one_image(loaded, network, k).items():
                taken[n] += [seconds] if k >= WARM_UP else []
            progress.advance(task)
    found = PlatformProfile(
        name=name or platform_module.node() or "here",
        power_mw=power_mw or None,
        source=(
            f"fleet profile, {loaded.name} {loaded.identity.hex()}, {precision}, {threads} thread(s), median of "
            f"{rounds} images, coding included, {platform_module.machine()}"
        ),
        stage_seconds={n: round(statistics.median(seconds), 7) for n, seconds in taken.items()},
    )
    try:
        output.write_text(to_yaml(found), encoding="utf-8")
    except OSError as err:
        raise FleetError(f"cannot write {output}: {err.strerror}") from err
    load_profile(str(output))  # what was written is what will be read
    _show(found, taken, console)
    console.print(f"written: {output}; use it with --platform {output}", soft_wrap=True)


def _one_image(bundle: Bundle, network: DeviceNetwork, seed: int) -> dict[int, float]:
    """Seconds of every stage for an image of noise, which takes as long as any other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (bundle.input_size, bundle.input_size, 3), dtype=np.uint8)
    features = network.prepare(pixels)
    seconds = {}
    if bundle.picture is not None:
        begun = time.perf_counter()
        _coded(bundle, PICTURE, network.run_picture(features))
        seconds[PICTURE] = time.perf_counter() - begun
    for n in network.stage_numbers:
        begun = time.perf_counter()
        output = network.run(n, features)
        if output.latent is not None:
            _coded(bundle, n, output.latent)
        seconds[n] = time.perf_counter() - begun
        features = output.features
    return seconds


def _coded(bundle: Bundle, n: int, latent: FloatArray) -> None:
    encode_stage(bundle.layouts[n], latent, inference_id=0, payload=MAX_PAYLOAD, coder=bundle.coder)


def _show(found: PlatformProfile, taken: dict[int, list[float]], console: Console) -> None:
    table = Table(title=found.name)
    for column in ("stage", "ms", "5 %", "95 %"):
        table.add_column(column, justify="right")
    for n, seconds in taken.items():
        low, high = np.percentile(seconds, [5, 95])
        table.add_row(str(n), *(f"{1000 * value:.3f}" for value in (found.stage_seconds[n], low, high)))
    table.add_row("all", f"{1000 * sum(found.stage_seconds.values()):.3f}", "", "")
    console.print(table)
