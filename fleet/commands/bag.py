# SPDX-License-Identifier: Apache-2.0
"""``fleet bag``: record a running system, and replay what was recorded through the code that ran it."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console
from rich.progress import Progress

from fleet.description import LOG_LEVELS, check_start
from fleet.errors import FleetError
from fleet.resources import expanded
from fleet.runlog import check_writable
from fleet.sources.frame import printable
from fleet.supervisor import Command, Supervisor

if TYPE_CHECKING:
    from fleet.bags.evaluation import Evaluation

LONGEST = 2000  # characters of a line

bag = typer.Typer(name="bag", help="Record a running system, and replay recordings.", no_args_is_help=True)


@bag.command()
def record(
    output: Annotated[
        Path | None, typer.Option(help="Directory of the bag; must not be there yet. Default: named by the time.")
    ] = None,
    storage: Annotated[str, typer.Option(help="mcap or sqlite3.")] = "mcap",
    namespace: Annotated[
        list[str] | None, typer.Option(help="Camera to record; again for more. Default: every camera that is heard.")
    ] = None,
    duration: Annotated[float, typer.Option(help="Seconds from the first message on; 0: until Ctrl-C.", min=0)] = 0.0,
    images: Annotated[bool, typer.Option(help="Record pictures too; the camera encodes them for that.")] = True,
    features: Annotated[bool, typer.Option(help="Record all features too, not only what the radio carried.")] = False,
    log_level: Annotated[str, typer.Option(help=f"Of the recorder: {', '.join(LOG_LEVELS)}.")] = "info",
) -> None:
    """Record what a replay needs of a running system: pictures, packets, labels, reports, the link.

    Ctrl-C ends the bag properly. `ros2 bag record --all` gives a bag that works as well.
    """
    from fleet.bags.writer import check_storage  # noqa: PLC0415
    from fleet.commands.up import node_environment  # noqa: PLC0415

    check_storage(storage)
    for camera in namespace or ():
        check_start(camera, log_level)
    check_start("camera", log_level)
    path = (expanded(output) if output else Path(time.strftime("fleet_%Y_%m_%d-%H_%M_%S"))).absolute()
    check_new(path)
    if find_spec("rclpy") is None:
        raise FleetError("ROS 2 (rclpy) is not installed for this Python: run 'make' in the repository, or source ROS")
    cameras = json_module.dumps(["/" + camera.strip("/") for camera in namespace] if namespace else [""])
    settings = {
        "output": json_module.dumps(str(path)),
        "storage": json_module.dumps(storage),
        "cameras": cameras,
        "duration": str(float(duration)),
        "images": str(images).lower(),
        "features": str(features).lower(),
    }
    arguments = [part for name, value in settings.items() for part in ("-p", f"{name}:={value}")]
    argv = (sys.executable, "-m", "fleet_bag_node", "--ros-args", *arguments, "--log-level", log_level)
    recorder = Command("bag_node", argv, ends_run=True, needed=True)
    raise typer.Exit(Supervisor([recorder], report=_say, environment=node_environment()).run())


def check_new(path: Path) -> None:
    """Find out before a recording whether its bag can be made.

    Raises:
        FleetError: it is there already, or its folder is not.
    """
    if path.exists() or path.is_symlink():
        raise FleetError(f"{path} exists already: give another --output")
    if not path.parent.is_dir():
        raise FleetError(f"cannot write {path}: its directory is not there")


@bag.command()
def evaluate(
    path: Annotated[Path, typer.Argument(metavar="BAG", help="Directory of a bag, or an .mcap or .db3 file.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="images: whole pipeline, in virtual time. packets: the hub alone, as they came. auto: images, if any.",
        ),
    ] = "auto",
    camera: Annotated[
        list[str] | None, typer.Option(metavar="NAMESPACE", help="This camera; again for more. Default: all.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model bundle. Default: the one that the bag names.")] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="From images: another link than the bag's. ci_ms, packets, phy, loss …"),
    ] = None,
    platform: Annotated[
        str | None, typer.Option(help="From images: another platform than the bag's; cortex-a77-500 if it names none.")
    ] = None,
    exit_ms: Annotated[
        float | None, typer.Option(help="What an exit takes on the hub. Default: as the bag's hub says, else 5.", min=0)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of event phases and losses.", min=0)] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file.")] = None,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="More settings of the link.")
    ] = None,
) -> None:
    """Replay a bag offline, and say what is different to the labels in it. Twice the same gives the same."""
    from fleet.bags.evaluation import From, Wishes, evaluate_bag  # noqa: PLC0415 - with torch, which takes seconds

    known: dict[str, From] = {name: name for name in get_args(From)}
    if source not in known:
        raise FleetError(f"--from is {', '.join(list(known)[:-1])} or {list(known)[-1]}, not '{source}'")
    if json is not None:
        json = expanded(json).absolute()
        check_writable(json)
    wishes = Wishes(
        source=known[source],
        cameras=tuple(camera or ()),
        model=model,
        link=(*(link or ()), *(settings or ())),
        platform=platform,
        exit_ms=exit_ms,
        seed=seed,
    )
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:

        def begin(what: str, total: int) -> Callable[[], None]:
            task = progress.add_task(what, total=total)
            return lambda: progress.advance(task)

        found = evaluate_bag(expanded(path), wishes, begin)
    if json is not None:
        write_json(json, found.as_json())
    for line in lines(found):
        typer.echo(printable(line, LONGEST))  # names and words in it come from whoever made the bag


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write the numbers.

    Raises:
        FleetError: they cannot be written.
    """
    try:
        path.write_text(json_module.dumps(content, indent=1, allow_nan=False) + "\n")
    except OSError as err:
        raise FleetError(f"cannot write {path}: {err.strerror}") from err


def lines(found: Evaluation) -> list[str]:
    """The outcome for a terminal."""
    conditions = found.conditions
    out = [
        f"{conditions['bag']} with {conditions['bundle']} ({conditions['identity']}), "
        f"{conditions['exit_ms']:g} ms an exit, seed {conditions['seed']}"
    ]
    out += [f"note: {note}" for note in found.notes]
    for name, camera in found.cameras.items():
        told = camera.as_json()
        device = conditions["devices"].get(name)
        how = f"{told[told['from']]} {told['from']}"
        if device is not None:
            link = device["links"][0]
            how += (
                f", {device['platform']}, CI {link['ci_ms']:g} ms, {link['effective_packets']} packets, {link['phy']}, "
                f"loss {link['loss']:g}"
            )
        out += ["", f"{name}: {told['frames']} frames from {how}"]
        if told["unreadable"]:
            out.append(f"  {told['unreadable']} {told['from']} cannot be read")
        rows = [("", "replay", "bag"), *_rows(told["replay"], told["bag"])]
        width = max(len(middle) for _, middle, _ in rows)
        out += [f"  {what:<8s} {middle:<{width}s}  {last}" for what, middle, last in rows]
        out += _differences(camera, told)
    return out


def _rows(replay: dict[str, Any], in_bag: dict[str, Any]) -> list[tuple[str, str, str]]:
    def right(told: dict[str, Any]) -> str:
        share = told["accuracy_groups"]
        return "unknown" if share is None else f"{share:.1%} of {told['frames_with_truth']}"

    def spread(told: dict[str, Any], key: str, unit: str) -> str:
        if told[key] is None:
            return "unknown"
        return ", ".join(f"{name} {value:.2f}" for name, value in told[key].items()) + f" {unit}"

    def exits(told: dict[str, Any]) -> str:
        return ", ".join(f"{stage}: {count}" for stage, count in told["exits"].items()) or "none"

    return [
        ("labels", str(replay["labels"]), str(in_bag["labels"])),
        ("right", right(replay), right(in_bag)),
        ("exits", exits(replay), exits(in_bag)),
        ("latency", spread(replay, "latency_ms", "ms"), spread(in_bag, "latency_ms", "ms")),
        ("energy", spread(replay, "energy_mj", "mJ"), spread(in_bag, "energy_mj", "mJ")),
    ]


def _differences(camera: Any, told: dict[str, Any]) -> list[str]:
    counts = told["different"]
    out = [
        f"  of {told['compared']} labels {counts['group']} have another group, {counts['class']} another class only, "
        f"{counts['missing']} have no answer"
    ]
    for key, what in (
        ("frames_without_label_in_bag", "frames have no label in the bag"),
        ("labels_not_replayed", f"labels of the bag have no {told['from']} in it"),
    ):
        if told[key]:
            out.append(f"  {told[key]} {what}")
    found = camera.differences()
    if found:
        out.append(f"  {'id':>5s}  {'bag':<44s} replay")
        out += [f"  {difference.line()}" for difference in found]
    return out


def _say(line: str) -> None:
    print(f"fleet: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the user's line
