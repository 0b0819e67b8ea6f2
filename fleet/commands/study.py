# SPDX-License-Identifier: Apache-2.0
"""``fleet study``: trainings that differ in one thing, side by side, and what that brings."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fleet.commands.bag import write_json
from fleet.commands.steps_bar import steps_bar
from fleet.errors import FleetError
from fleet.resources import expanded, find_model
from fleet.runlog import check_writable
from fleet.studies.config import DEPTH

if TYPE_CHECKING:  # torch takes seconds to import, which `fleet --help` should not
    from fleet.baselines.training import Run
    from fleet.bundle import Bundle
    from fleet.studies.config import Study, Variant
    from fleet.training.data import ImageSet
    from fleet.training.exits import ExitTraining

BEGUN = "begun.json"


def study(
    config: Annotated[Path, typer.Argument(help="A file such as config/studies/exits.yaml.")],
    test: Annotated[
        Path | None, typer.Option(help="Pictures that --json is about, such as DATA/val.tar.gz; never trained on.")
    ] = None,
    model: Annotated[str, typer.Option(help="The bundle whose base network they begin with.")] = "models/backyard",
    data: Annotated[Path | None, typer.Option(help="Folder of the data set; default is the file's data.root.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder for decoded images.")] = Path("~/.cache/fleet"),
    output: Annotated[Path, typer.Option(help="Folder of the trainings' checkpoints.")] = Path("runs/study"),
    only: Annotated[
        list[str] | None, typer.Option(help="A variant to train, or 'depth'; may be repeated. Default: all.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Measure everything that is finished, for `fleet report --study`.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0 takes one a core.")] = 0,
) -> None:
    """Train exits that differ in one thing behind the same base network, and measure what that brings.

    Trainings that Ctrl-C ends go on where they were, killed ones where they were last saved, minutes before. Two
    processes with one thread each (--threads 1) and different --only are faster than one with two.
    """
    import torch  # noqa: PLC0415

    from fleet.bundle import Bundle  # noqa: PLC0415
    from fleet.studies.config import load_study  # noqa: PLC0415
    from fleet.training.data import load_images, load_training_sets  # noqa: PLC0415

    console = Console()
    output, test = expanded(output), None if test is None else expanded(test)
    if json_file is not None:
        json_file = expanded(json_file).absolute()
        check_writable(json_file)
    plan = load_study(config)
    names = [*([DEPTH] if plan.depth else []), *(variant.name for variant in plan.variants)]
    if odd := [name for name in only or () if name not in names]:
        raise FleetError(f"{config} has no '{odd[0]}'; it has {', '.join(names)}")
    if (json_file is None) != (test is None):
        raise FleetError("--json needs the pictures to measure with: give both --json and --test, or neither")
    settings, where = plan.training, expanded(cache)
    if data is None and not settings.data.root:
        raise FleetError(f"{config} names no data set; give its folder with --data")
    root = expanded(data or settings.data.root)
    if test is not None and test.resolve() in {(root / name).resolve() for name in settings.data.train}:
        raise FleetError(f"{test} is what the exits are trained on: measure them with other pictures")
    torch.set_num_threads(threads or os.cpu_count() or 1)
    bundle = Bundle.load(find_model(model))
    with console.status(f"Reading images from {root}"):
        sets = load_training_sets(settings.data, root, size=settings.input_size, cache=where)
        held_out = (
            load_images([test], settings.data, root, size=settings.input_size, cache=where, split="validation")
            if test is not None
            else None
        )
    if sets[0].table.names != bundle.classes.ids:
        raise FleetError(f"{root} has other classes than {bundle.path}")
    if (bundle.backbone, bundle.input_size) != (settings.backbone, settings.input_size):
        raise FleetError(f"{bundle.path} is a {bundle.backbone} at {bundle.input_size} pixels, not as configured")
    for name in only or names:
        _train(plan, name, bundle, sets, output, console)
    if json_file is not None and test is not None and held_out is not None:
        found = _measured(plan, bundle, sets, held_out, output, console)
        found["conditions"]["test"] = {"data": test.name, "pictures": len(held_out)}
        write_json(json_file, found)
        _show(found, console)


def _train(
    plan: Study, name: str, bundle: Bundle, sets: tuple[ImageSet, ImageSet], output: Path, console: Console
) -> None:
    """One training, from where it stands to its end."""
    from fleet.training.checkpoint import only_writer  # noqa: PLC0415

    with only_writer(output / name), steps_bar(console, name) as tell:

        def listen(now: Any) -> None:
            tell(now.step, now.steps, f"loss {now.loss:.3f}")

        if name == DEPTH:
            _depth_run(plan, bundle, sets, output).train(listen)
        else:
            variant = next(v for v in plan.variants if v.name == name)
            training = _variant_run(plan, variant, bundle, sets, output)
            training.run(listen)


def _depth_run(plan: Study, bundle: Bundle, sets: tuple[ImageSet, ImageSet], output: Path) -> Run:
    """The training of exits of several depths, where it stands.

    Raises:
        FleetError: the folder holds one of other settings or behind another base network.
    """
    from fleet.baselines.store import base_network, digest  # noqa: PLC0415
    from fleet.baselines.training import Run  # noqa: PLC0415
    from fleet.studies.depth import Depths  # noqa: PLC0415

    assert plan.depth is not None
    base = base_network(bundle)
    folder = output / DEPTH
    # Its checkpoint holds the exits alone: what they hang on stands beside it.
    told = {"base": digest(base), "depth": asdict(plan.depth), "training": plan.training.to_dict()}
    text = json.dumps(told, indent=1) + "\n"
    beside = folder / BEGUN
    if (folder / f"{Depths.name}.pt").exists():
        if not beside.is_file() or beside.read_text(encoding="utf-8") != text:
            raise FleetError(f"{folder} belongs to other settings or another base network; choose another --output")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
    return Run(Depths(base, plan.depth), plan.depth.budget, plan.training, sets[0], folder)


def _variant_run(
    plan: Study, variant: Variant, bundle: Bundle, sets: tuple[ImageSet, ImageSet], output: Path
) -> ExitTraining:
    """A variant's training, where it stands.

    Raises:
        FleetError: the folder holds one of other settings or behind another base network.
    """
    from fleet.baselines.store import base_network, digest  # noqa: PLC0415
    from fleet.training.exits import CHECKPOINT, ExitTraining  # noqa: PLC0415

    folder = output / variant.name
    training = ExitTraining(plan.config_of(variant), base_network(bundle), *sets, folder)
    if (folder / CHECKPOINT).exists():
        training.resume()
        if digest(training.backbone) != digest(base_network(bundle)):
            raise FleetError(
                f"{folder} was begun behind another base network than {bundle.path}: choose another --output"
            )
    else:
        training.begin_behind(bundle)
    return training


def _measured(
    plan: Study, bundle: Bundle, sets: tuple[ImageSet, ImageSet], held_out: ImageSet, output: Path, console: Console
) -> dict[str, Any]:
    """Numbers of everything that is finished."""
    from torch.nn import ModuleDict  # noqa: PLC0415

    from fleet.evaluation.resampling import RESAMPLES  # noqa: PLC0415
    from fleet.studies import measure  # noqa: PLC0415
    from fleet.studies.depth import Depths  # noqa: PLC0415
    from fleet.training.exits import CHECKPOINT  # noqa: PLC0415

    found: dict[str, Any] = {
        "kind": "study",
        "conditions": {
            "bundle": bundle.name,
            "identity": bundle.identity.hex(),
            "backbone": bundle.backbone,
            "input_size": bundle.input_size,
            "classes": len(bundle.classes),
            "trained_on": len(sets[0]),
            "seed": plan.training.seed,
            "intervals": f"95 %, percentile bootstrap over the test images, {RESAMPLES} resamples; "
            "gains paired image by image",
            "states": {name: told for name, (told, _) in measure.ARRIVALS.items()},
        },
    }
    if plan.depth is not None and (output / DEPTH / f"{Depths.name}.pt").exists():
        run = _depth_run(plan, bundle, sets, output)
        if run.step >= run.steps:
            with console.status("exits of several depths"):
                assert isinstance(run.recipe, Depths)
                assert isinstance(run.ema.model, ModuleDict)
                right = measure.depth_right(run.recipe, run.ema.model, held_out)
            found["depth"] = {
                "width": plan.depth.width,
                "images": run.steps * plan.depth.budget.batch,
                "exits": measure.depth_numbers(right, plan.depth.convolutions),
            }
    answers = {}
    for variant in plan.variants:
        if not (output / variant.name / CHECKPOINT).exists():
            continue
        training = _variant_run(plan, variant, bundle, sets, output)
        if training.settled:
            with console.status(f"{variant.name}: every exit in {len(measure.ARRIVALS)} states"):
                answers[variant.name] = measure.variant_right(training, held_out)
    found["variants"] = measure.variant_numbers(plan, answers)
    if not answers and "depth" not in found:
        raise FleetError(f"{output} has no finished training")
    return found


def _show(found: dict[str, Any], console: Console) -> None:
    table = Table(title="accuracy of the classes, mean of all exits")
    states = list(found["conditions"]["states"])
    for column in ("variant", *states):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, about in found["variants"].items():
        means = (about["mean"][state]["accuracy_classes"][0] for state in states)
        table.add_row(name, *(f"{mean:.1%}" for mean in means))
    if found["variants"]:
        console.print(table)
    depths: dict[int, list[str]] = {}
    for row in found.get("depth", {}).get("exits", ()):
        depths.setdefault(row["convolutions"], []).append(f"{row['stage']}: {row['accuracy_classes'][0]:.1%}")
    for count, told in depths.items():
        console.print(f"exits on the device with {count} convolutions, by stage: {', '.join(told)}")
