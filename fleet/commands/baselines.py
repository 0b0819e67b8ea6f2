# SPDX-License-Identifier: Apache-2.0
"""``fleet baselines``: trains what FLEET is compared with, and writes it down."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fleet.commands.steps_bar import steps_bar
from fleet.errors import FleetError
from fleet.resources import expanded, find_model

if TYPE_CHECKING:  # torch takes seconds to import, which `fleet --help` should not
    from fleet.baselines.training import Moment
    from fleet.bundle import Bundle
    from fleet.training.config import TrainingConfig
    from fleet.training.data import ImageSet

_SAMPLES = 512  # training images that quantisers take their ranges from

baselines = typer.Typer(
    name="baselines",
    help="Train what FLEET is compared with: BranchyNet, Shallow-Deep, Ensemble, CLIO, Neurosurgeon, JPEG.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Argument(help="A file such as config/baselines.yaml.")]
Model = Annotated[str, typer.Option(help="The bundle whose base network they begin with.")]
Data = Annotated[Path | None, typer.Option(help="Folder of the data set; default is data.root of the configuration.")]
Cache = Annotated[Path, typer.Option(help="Folder for decoded images.")]
Runs = Annotated[Path, typer.Option(help="Folder of the trainings' checkpoints.")]
Stored = Annotated[Path, typer.Option(help="Folder of the finished baselines.")]


@baselines.command()
def train(
    config: Config,
    model: Model = "models/backyard",
    data: Data = None,
    cache: Cache = Path("~/.cache/fleet"),
    runs: Runs = Path("runs/baselines"),
    only: Annotated[list[str] | None, typer.Option(help="A part to train; may be repeated. Default: all.")] = None,
    further: Annotated[
        Path | None, typer.Option(help="Begin with the finished weights in this folder, such as models/baselines.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Processor threads; 0 takes one a core.")] = 0,
) -> None:
    """Train baselines from the base network of a bundle.

    Interrupted trainings go on where they stopped. Two processes with one thread each (--threads 1) and different
    --only are faster than one with two.
    """
    import torch  # noqa: PLC0415

    from fleet.baselines.config import load_baselines_config  # noqa: PLC0415
    from fleet.baselines.registry import begin  # noqa: PLC0415
    from fleet.baselines.store import base_network, begin_with  # noqa: PLC0415
    from fleet.baselines.training import Run  # noqa: PLC0415
    from fleet.training.augment import normalise  # noqa: PLC0415
    from fleet.training.checkpoint import only_writer  # noqa: PLC0415

    console = Console()
    budgets = load_baselines_config(config).schemes
    parts = tuple(only or budgets)
    if odd := [part for part in parts if part not in budgets]:
        raise FleetError(f"{config} has no budget for '{odd[0]}'; it has {', '.join(budgets)}")
    torch.set_num_threads(threads or os.cpu_count() or 1)
    settings, bundle = _settings(config), _bundle(model)
    images, _ = _images(settings, data, cache, bundle)
    base = base_network(bundle)
    samples = normalise(torch.from_numpy(images.images[:_SAMPLES].copy()))
    for part in parts:
        with only_writer(runs / part):
            recipe = begin(part, base, samples)
            before = begin_with(recipe.model, part, further, bundle) if further is not None else None
            training = Run(recipe, budgets[part], settings, images, runs, before)
            _train(training, console)


def _train(training: object, console: Console) -> None:
    from fleet.baselines.training import Run  # noqa: PLC0415

    assert isinstance(training, Run)
    with steps_bar(console, training.recipe.name) as tell:

        def listen(now: Moment) -> None:
            tell(now.step, now.steps, f"loss {now.loss:.3f}")

        training.train(listen)
    console.print(f"{training.recipe.name}: {training.step} steps, loss {training.loss:.3f}")


@baselines.command()
def export(
    config: Config,
    model: Model = "models/backyard",
    data: Data = None,
    cache: Cache = Path("~/.cache/fleet"),
    runs: Runs = Path("runs/baselines"),
    output: Stored = Path("models/baselines"),
    only: Annotated[list[str] | None, typer.Option(help="A baseline; may be repeated. Default: all finished.")] = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Measure the weights that lie in --output anew; no trainings are needed.")
    ] = False,
    pictures: Annotated[int, typer.Option(help="Calibration pictures for temperatures and accuracies.")] = 2500,
    threads: Annotated[int, typer.Option(help="Processor threads; 0 takes one a core.")] = 0,
) -> None:
    """Write finished trainings with temperatures and accuracies from the calibration split, and the compute plan."""
    import torch  # noqa: PLC0415

    from fleet.baselines.card import write_card, write_plan  # noqa: PLC0415
    from fleet.baselines.finish import export_family, families, finished, is_stored, measure_again  # noqa: PLC0415

    console = Console()
    chosen = families(tuple(only or ()))
    torch.set_num_threads(threads or os.cpu_count() or 1)
    settings, bundle = _settings(config), _bundle(model)
    _, calibration = _images(settings, data, cache, bundle)
    done = False
    for family in chosen:
        if not only and not (is_stored(output, family) if stored else finished(runs, family)):
            console.print(f"{family.name} is not trained yet")
            continue
        chosen_pictures = calibration.part(0, pictures)
        with console.status(f"{family.name}: temperatures and accuracies on the calibration split"):
            if stored:
                index = measure_again(family, bundle, chosen_pictures, output)
            else:
                index = export_family(runs, family, bundle, chosen_pictures, output)
        write_card(output, index)
        write_plan(output, index, bundle, settings)
        console.print(f"{family.name} written to {output}")
        done = True
    if not done:
        raise FleetError(f"{runs} has no finished training: fleet baselines train {config} first")


@baselines.command()
def attach(
    model: Annotated[str, typer.Argument(help="The bundle that gets local exits; it is changed.")],
    config: Annotated[Path, typer.Option(help="Names the data set.")] = Path("config/baselines.yaml"),
    stored: Stored = Path("models/baselines"),
    data: Data = None,
    cache: Cache = Path("~/.cache/fleet"),
    own: Annotated[
        Path | None, typer.Option(help="Checkpoint of our own heads, `local-exits.pt`; Shallow-Deep's without it.")
    ] = None,
    stages: Annotated[
        str,
        typer.Option(help="Stages that get an exit, as 8,11,13. Default: all of our own, 8,11,13 of Shallow-Deep's."),
    ] = "",
    pictures: Annotated[int, typer.Option(help="Calibration pictures for temperatures and thresholds.")] = 2500,
) -> None:
    """Give a bundle local exits, which race against the radio: our own heads, or Shallow-Deep's.

    They sit on the same frozen base network, so the device runs its stages once. Thresholds are those with which an
    exit loses at most a point against the whole network, from the calibration split.
    """
    from fleet.baselines.card import LOCAL_EXITS_NOTE  # noqa: PLC0415
    from fleet.baselines.local import local_heads, own_heads, parse_stages  # noqa: PLC0415
    from fleet.baselines.own import STAGES  # noqa: PLC0415
    from fleet.local_exits import attach_local_exits  # noqa: PLC0415

    console = Console()
    bundle = _bundle(model)
    wanted = parse_stages(stages or ("8,11,13" if own is None else ",".join(map(str, STAGES))))
    _, calibration = _images(_settings(config), data, cache, bundle)
    with console.status("temperatures and thresholds on the calibration split"):
        told = "Shallow-Deep's internal classifiers"
        if own is None:
            heads = local_heads(bundle, stored, calibration.part(0, pictures), wanted)
        else:
            heads, told = own_heads(bundle, own, calibration.part(0, pictures), wanted)
    changed = attach_local_exits(bundle.path, heads)
    changed = changed.save({**changed.notes, LOCAL_EXITS_NOTE: told})
    for n, head in heads.items():
        console.print(f"local exit {n}: temperature {head.temperature:.3f}, threshold {head.threshold:.4f}")
    console.print(f"{changed.path} is now {changed.identity.hex()}")


def _settings(config: Path) -> TrainingConfig:
    from fleet.baselines.config import load_baselines_config  # noqa: PLC0415
    from fleet.training.config import load_config  # noqa: PLC0415

    return load_config(config.parent / load_baselines_config(config).training)


def _bundle(model: str) -> Bundle:
    from fleet.bundle import Bundle  # noqa: PLC0415

    return Bundle.load(find_model(model))


def _images(settings: TrainingConfig, data: Path | None, cache: Path, bundle: Bundle) -> tuple[ImageSet, ImageSet]:
    """Training and calibration images.

    Raises:
        FleetError: none there, or of other classes than the bundle's.
    """
    from fleet.training.data import load_training_sets  # noqa: PLC0415

    root = data or Path(settings.data.root)
    sets = load_training_sets(settings.data, root, size=bundle.input_size, cache=expanded(cache))
    if sets[0].table.names != bundle.classes.ids:
        raise FleetError(f"{root} has other classes than {bundle.path}")
    return sets
