# SPDX-License-Identifier: Apache-2.0
"""``fleet train``: trains a backbone from a configuration and then its exits, resumably."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fleet.commands.steps_bar import steps_bar
from fleet.errors import FleetError
from fleet.resources import expanded, find_model

if TYPE_CHECKING:  # torch takes seconds to import, which `fleet --help` should not
    from fleet.bundle import Bundle
    from fleet.training.base import BaseTraining
    from fleet.training.base import Progress as BaseProgress
    from fleet.training.config import TrainingConfig
    from fleet.training.data import ImageSet
    from fleet.training.exits import ExitTraining
    from fleet.training.picture import PictureTraining
    from fleet.training.steps import StepProgress

CHECKPOINT = "checkpoint.pt"
EXITS = "exits.pt"
PICTURE = "picture.pt"
_MEASURED_SHARE = 0.65  # of the speed measured on an idle machine is what a run of hours gets


def train(
    config: Annotated[Path, typer.Argument(help="A file such as config/training/backyard.yaml.")],
    output: Annotated[Path, typer.Option(help="Folder for checkpoint, log and figure.")] = Path("runs/train"),
    data: Annotated[Path | None, typer.Option(help="Folder of the data set; default is the file's data.root.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder for decoded images.")] = Path("~/.cache/fleet"),
    weights: Annotated[Path | None, typer.Option(help="Weights to start from: .safetensors or .pth.")] = None,
    bundle: Annotated[
        str | None,
        typer.Option(help="Go on with this bundle's exits on its finished base network, which is not trained."),
    ] = None,
    new_exits: Annotated[
        bool, typer.Option("--new-exits", help="With --bundle: begin encoders and exits anew behind its base network.")
    ] = False,
    as_published: Annotated[
        bool,
        typer.Option(
            "--as-published",
            help="Train new exits as the paper has them: on whole sizes, with a fusion block for every combination "
            "of them, against the labels alone, and with the base network's own stages behind them.",
        ),
    ] = False,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint in the output folder.")] = False,
    budget_minutes: Annotated[float, typer.Option(help="Fit the epochs ahead to this time; 0 trains them all.")] = 0.0,
    threads: Annotated[int, typer.Option(help="Processor threads; 0 takes one a core.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
) -> None:
    """Train a network on a data set.

    Interrupted runs go on with --resume and end with the same weights as uninterrupted ones. A budget given
    with it changes how many epochs are left.
    """
    from fleet.training.base import BaseTraining  # noqa: PLC0415
    from fleet.training.checkpoint import only_writer  # noqa: PLC0415
    from fleet.training.data import load_training_sets  # noqa: PLC0415

    if new_exits and bundle is None:
        raise FleetError("--new-exits goes with --bundle; without one all exits are new")
    if bundle is not None and (weights is not None or budget_minutes > 0):
        raise FleetError("--bundle trains exits only: it goes with neither --weights nor --budget-minutes")
    console = Console()
    settings = _settings(config, output, resume=resume, exits_only=bundle is not None)
    if settings.picture is not None and (new_exits or as_published):
        raise FleetError(f"{config} trains the picture: --new-exits and --as-published are about encoders and exits")
    if as_published:
        if settings.exits is None:
            raise FleetError(f"{config} has no exits section, which --as-published is about")
        settings = dataclasses.replace(settings, exits=settings.exits.as_published())
    where = _device(device, threads)
    if data is None and not settings.data.root:
        msg = f"{config} names no data set; give its folder with --data"
        raise FleetError(msg)
    root = data or Path(settings.data.root)
    with console.status(f"Reading images from {root}"):
        sets = load_training_sets(settings.data, root, size=settings.input_size, cache=expanded(cache))
    with only_writer(output):
        if bundle is not None:
            new = new_exits or as_published
            _go_on(bundle, settings, sets, output, where, console, resume=resume, new_exits=new)
            return
        training = BaseTraining(settings, *sets, output, where)
        if resume:
            training.resume()
        elif weights is not None and (left := training.start_from(weights)):
            console.print(f"{weights} has other classes: {', '.join(left)} start at random")
        if budget_minutes > 0 and training.step < training.steps:
            _fit(training, budget_minutes, console)
        _train_base(training, console)
        if settings.exits is not None:
            _train_exits(training, console, resume=resume and (output / EXITS).exists())


def _settings(config: Path, output: Path, *, resume: bool, exits_only: bool) -> TrainingConfig:
    """The file's settings, or those that an interrupted run began with."""
    from fleet.training.checkpoint import load_checkpoint  # noqa: PLC0415
    from fleet.training.config import load_config, parse_config  # noqa: PLC0415

    settings = load_config(config)
    if settings.picture is not None and not exits_only:
        raise FleetError(f"{config} trains the picture of a finished bundle: name it with --bundle")
    own = PICTURE if settings.picture is not None else EXITS
    path, other = (output / name for name in ((own, CHECKPOINT) if exits_only else (CHECKPOINT, EXITS)))
    if other.exists() and (exits_only or not path.exists()):
        how = "without" if exits_only else "with"
        raise FleetError(f"{output} holds a run that was begun {how} --bundle: choose another --output")
    if not resume:
        if path.exists():
            msg = f"{output} already holds a run; add --resume to go on with it or choose another --output"
            raise FleetError(msg)
        return settings
    if exits_only:
        return settings  # its checkpoint is refused where it was begun with others
    begun = parse_config(load_checkpoint(path)["config"], str(path))
    # Exits are trained behind a finished base network, so how they are may still be decided then.
    return dataclasses.replace(begun, exits=settings.exits)


def _device(wanted: str, threads: int) -> str:
    import torch  # noqa: PLC0415

    torch.set_num_threads(threads or os.cpu_count() or 1)
    found = ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
    if found not in ("cpu", "cuda") or (found == "cuda" and not torch.cuda.is_available()):
        msg = f"no device '{wanted}' here; use --device cpu"
        raise FleetError(msg)
    return found


def _fit(training: BaseTraining, minutes: float, console: Console) -> None:
    """Measure the speed here and fit the epochs ahead to the time."""
    from fleet.training.base import BaseTraining, measure_rates  # noqa: PLC0415
    from fleet.training.schedule import refit  # noqa: PLC0415

    images, config = training.train, training.config
    spoilt = BaseTraining(config, images, training.calibration, training.output, training.device.type)
    rates = measure_rates(spoilt)
    console.print("measured " + ", ".join(f"{rate:.0f} images/s at {size} pixels" for size, rate in rates.items()))
    begun = training.epochs_begun
    training.replan(refit(config.phases, begun, len(images), rates, budget_s=60 * minutes, share=_MEASURED_SHARE))


def _train_base(training: BaseTraining, console: Console) -> None:
    """The base network, from where it stands to its end."""
    settings = training.config
    console.print(
        f"{settings.backbone}, {len(training.train)} images, {len(training.train.table.names)} classes, "
        + ", ".join(f"{phase.epochs} epochs at {phase.size}" for phase in settings.phases)
        + f", {training.steps} steps, {training.step} done"
    )
    shown = len(training.rows)
    with steps_bar(console, "network") as tell:

        def listen(now: BaseProgress) -> None:
            nonlocal shown
            where = f"epoch {now.epoch.number} at {now.epoch.phase.size}"
            tell(now.step, now.steps, f"{where}: loss {now.loss:.3f}, {now.images_per_s:.0f}/s")
            if len(training.rows) > shown:
                shown = len(training.rows)
                console.print(_in_words(training.rows[-1]))

        console.print("finished: " + _in_words(training.run(listen)))


def _train_exits(base: BaseTraining, console: Console, *, resume: bool) -> None:
    """Encoders and exits behind the finished base network, with its averaged weights."""
    from fleet.backbones import Backbone  # noqa: PLC0415
    from fleet.training.exits import ExitTraining  # noqa: PLC0415

    backbone = base.ema.model
    assert isinstance(backbone, Backbone)
    training = ExitTraining(base.config, backbone, base.train, base.calibration, base.output, base.device.type)
    if resume:
        training.resume()
    _run_exits(training, console)


def _go_on(
    bundle: str,
    settings: TrainingConfig,
    sets: tuple[ImageSet, ImageSet],
    output: Path,
    device: str,
    console: Console,
    *,
    resume: bool,
    new_exits: bool,
) -> None:
    """The exits of a bundle, trained further behind its own base network, or new ones there.

    Raises:
        FleetError: the configuration has no exits, or the bundle is of another data set or network.
    """
    from fleet.baselines.store import base_network  # noqa: PLC0415
    from fleet.bundle import Bundle  # noqa: PLC0415
    from fleet.training.exits import ExitTraining  # noqa: PLC0415

    loaded = Bundle.load(find_model(bundle))
    if loaded.classes.ids != sets[0].table.names:
        raise FleetError(f"{loaded.path} recognises other classes than the data set has")
    if (loaded.backbone, loaded.input_size) != (settings.backbone, settings.input_size):
        raise FleetError(f"{loaded.path} is a {loaded.backbone} at {loaded.input_size} pixels, not as configured")
    if settings.picture is not None:
        _train_picture(loaded, settings, sets, output, device, console, resume=resume)
        return
    training = ExitTraining(settings, base_network(loaded), *sets, output, device)
    if resume:
        training.resume()
    elif new_exits:
        training.begin_behind(loaded)
    else:
        training.start_from(loaded)
    _run_exits(training, console)


def _train_picture(
    bundle: Bundle,
    settings: TrainingConfig,
    sets: tuple[ImageSet, ImageSet],
    output: Path,
    device: str,
    console: Console,
    *,
    resume: bool,
) -> None:
    """Stage 0 of a bundle, with everything else of it as it is."""
    from fleet.baselines.store import base_network  # noqa: PLC0415
    from fleet.fusion import load_cloud  # noqa: PLC0415
    from fleet.training.picture import PictureTraining  # noqa: PLC0415

    training = PictureTraining(settings, base_network(bundle), load_cloud(bundle).backbone, *sets, output, device)
    if resume:
        training.resume()
    else:
        training.start_from(bundle)
    _run_exits(training, console)


def _run_exits(training: ExitTraining | PictureTraining, console: Console) -> None:
    with steps_bar(console, "exits") as tell:

        def listen(now: StepProgress) -> None:
            tell(now.step, now.steps, f"loss {now.loss:.3f}, {now.images_per_s:.0f}/s")

        training.run(listen)
    console.print("exits: " + _in_words(training.rows[-1]))


def _in_words(row: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "time_s")


if __name__ == "__main__":
    typer.run(train)
