# SPDX-License-Identifier: Apache-2.0
"""``fleet evaluate``: accuracy of a bundle on labelled images, by exit and rung."""

from __future__ import annotations

import json as json_module
import platform as platform_module
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fleet.coders import Coder, PaperCoder, coder_named
from fleet.errors import FleetError
from fleet.link.parameters import LinkParameters
from fleet.platforms import PlatformProfile, load_profile
from fleet.resources import expanded, find_model
from fleet.runlog import check_writable

if TYPE_CHECKING:
    from fleet.bundle import Bundle
    from fleet.evaluation.accuracy import Recorded


def evaluate(
    bundle: Annotated[str, typer.Argument(help="Model bundle: a directory, or the name of one in models/.")],
    data: Annotated[str, typer.Argument(help="Directory or tar of CLASS/FILE or GROUP/FILE.")],
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file.")] = None,
    limit: Annotated[int, typer.Option(help="Only the first so many pictures; 0: all.", min=0)] = 0,
    precision: Annotated[str, typer.Option(help="Which ONNX stages run: float or int8.")] = "float",
    threads: Annotated[int, typer.Option(help="Threads of the hub's network.", min=1)] = 2,
    codec: Annotated[
        list[str] | None,
        typer.Option(help="Measure this codec; again for more. Default: the bundle's own and paper's."),
    ] = None,
    losses: Annotated[
        int, typer.Option(help="Also lose a random half of the packets of so many pictures, 20 times.", min=0)
    ] = 0,
    journeys: Annotated[
        int, typer.Option(help="Send so many pictures over the link below, in virtual time; 0: none.", min=0)
    ] = 200,
    link: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Of the journeys: ci_ms, packets, phy, loss …")
    ] = None,
    platform: Annotated[str, typer.Option(help="Of the journeys: whose times the stages take.")] = "cortex-a77-200",
    exit_ms: Annotated[float, typer.Option(help="Of the journeys: what an exit takes on the hub.", min=0)] = 5.0,
) -> None:
    """Measure a bundle on labelled pictures, through the code that device and hub run.

    Of the stage before the exit's own everything has arrived; of its own, everything up to the rung.
    """
    from fleet.bundle import Bundle as Loader  # noqa: PLC0415 - with torch, seconds that --help should not take

    if json is not None:
        json = expanded(json).absolute()
        check_writable(json)
    if precision not in ("float", "int8"):
        raise FleetError(f"precision is float or int8, not '{precision}'")
    console = Console()
    loaded = Loader.load(find_model(bundle))
    coders = [coder_named(name) for name in dict.fromkeys(codec or [loaded.coder.name, "paper", "paper-deflate"])]
    over = LinkParameters.parse(link or [])
    profile = load_profile(platform)
    if journeys and not profile.paced:
        raise FleetError(f"platform {platform} does not say how long a stage takes: choose another, or --journeys 0")
    with Progress(console=console, disable=not console.is_terminal) as progress:
        result = _measure(
            *(loaded, data, limit, precision, threads, coders, losses),
            (journeys, over, profile, exit_ms / 1000),
            progress,
        )
    if json is not None:
        json.write_text(json_module.dumps(result, indent=1) + "\n")
    _show(result, console)


def _measure(
    bundle: Bundle,
    data: str,
    limit: int,
    precision: str,
    threads: int,
    coders: Sequence[Coder],
    losses: int,
    journeys: tuple[int, LinkParameters, PlatformProfile, float],
    progress: Progress,
) -> dict[str, Any]:
    import torch  # noqa: PLC0415

    from fleet.evaluation import accuracy  # noqa: PLC0415
    from fleet.evaluation.compare import bytes_at_equal_accuracy  # noqa: PLC0415
    from fleet.evaluation.journeys import journeys as whole_frames  # noqa: PLC0415
    from fleet.evaluation.losses import DRAWS, PAYLOAD, cost_of_losses  # noqa: PLC0415
    from fleet.fusion import load_cloud  # noqa: PLC0415
    from fleet.runtime import DeviceNetwork  # noqa: PLC0415
    from fleet.sources import open_source  # noqa: PLC0415

    torch.set_num_threads(threads)
    cloud = load_cloud(bundle)
    network = DeviceNetwork(bundle, precision=precision)  # type: ignore[arg-type]
    skipped: list[str] = []
    pictures = progress.add_task("device", total=limit or None)
    with open_source(data, on_skip=skipped.append, realtime=False) as source:
        if source.live:
            raise FleetError(f"{data} is no set of pictures: give a directory or a tar of CLASS/FILE")
        frames = islice(iter(source.read, None), limit or None)
        recorded = accuracy.record(bundle, network, frames, lambda: progress.advance(pictures))
    steps = sum(len(coder.rungs(layout)) for layout in bundle.layouts.values() for coder in coders)
    exits = progress.add_task("exits", total=steps)
    known: dict[Hashable, dict[str, Any]] = {}
    codecs = {
        coder.name: {"exits": _exits(bundle, cloud, recorded, coder, known, lambda: progress.advance(exits))}
        for coder in coders
    }
    measured = codecs[coders[0].name]["exits"]
    last = measured[-1]["rungs"][-1]
    result: dict[str, Any] = {}
    if theirs := [coder.name for coder in coders[1:] if isinstance(coder, PaperCoder)]:
        result["bytes_at_equal_accuracy"] = {
            f"{coders[0].name} / {name}": bytes_at_equal_accuracy(measured, codecs[name]["exits"]) for name in theirs
        }
    if losses:
        rounds = progress.add_task("losses", total=len(bundle.layouts))
        result["losses"] = {
            "conditions": {"pictures": min(losses, len(recorded)), "draws": DRAWS, "payload": PAYLOAD, "seed": 0},
            "exits": cost_of_losses(
                bundle, cloud, recorded.first(losses), coders[0], done=lambda: progress.advance(rounds)
            ),
        }
    if journeys[0]:
        many = recorded.first(journeys[0])
        sent = progress.add_task("journeys", total=len(many))
        travelling = replace(bundle, coder=coders[0])
        result["journeys"] = whole_frames(
            travelling, cloud, many, *journeys[1:3], exit_s=journeys[3], done=lambda: progress.advance(sent)
        )
    return {
        "conditions": {
            "bundle": bundle.name,
            "identity": bundle.identity.hex(),
            "data": data,
            "pictures": len(recorded),
            "unreadable": len(skipped),
            "precision": precision,
            "payload": 244,
            "previous_stage": "complete",
            "bytes_of": f"the first {accuracy.SIZED} pictures",
            "intervals": "95 %, percentile bootstrap, seed 0",
            "machine": platform_module.machine(),
        },
        **{key: last[key] for key in last if key.startswith("accuracy")},
        "device": accuracy.accuracies(bundle.classes, recorded.local.astype("float64"), recorded),
        "codecs": codecs,
        **result,
    }


def _exits(
    bundle: Bundle,
    cloud: Any,
    recorded: Recorded,
    coder: Coder,
    known: dict[Hashable, dict[str, Any]],
    done: Callable[[], None],
) -> list[dict[str, Any]]:
    """Every exit at every rung; what two variants of a codec give alike is computed once and kept in ``known``."""
    from fleet.evaluation import accuracy  # noqa: PLC0415

    encoded = {n: accuracy.encode(o, recorded.latents[n], coder) for n, o in bundle.layouts.items()}
    whole = {n: accuracy.received(o, encoded[n], o.rungs[-1]) for n, o in bundle.layouts.items()}
    measured = []
    for n, layout in bundle.layouts.items():
        rungs = []
        for rung in coder.rungs(layout):
            key = type(coder), n, rung
            if key not in known:
                own = accuracy.received(layout, encoded[n], rung)
                maps = [own if m == n else whole[m] for m in cloud.fused[n]]
                logits = accuracy.exit_logits(cloud, n, maps)
                known[key] = accuracy.accuracies(bundle.classes, logits, recorded)
            rungs.append(
                {
                    "size": rung,
                    "bytes": round(float(encoded[n].bytes[rung].mean()), 1),
                    "packets": round(float(encoded[n].packets[rung].mean()), 2),
                    **known[key],
                }
            )
            done()
        measured.append({"stage": n, "rungs": rungs})
    return measured


def _show(result: dict[str, Any], console: Console) -> None:
    conditions = result["conditions"]
    table = Table(title=f"{conditions['bundle']} on {conditions['pictures']} pictures of {conditions['data']}")
    for column in ("codec", "exit", "rung", "bytes", "packets", "groups", "wake words", "classes"):
        table.add_column(column, justify="right")
    for codec, measured in result["codecs"].items():
        for entry in measured["exits"]:
            for rung in entry["rungs"]:
                table.add_row(
                    *(codec, str(entry["stage"]), str(rung["size"]), f"{rung['bytes']:.0f}", f"{rung['packets']:.1f}"),
                    *(_percent(rung[key]) for key in ("accuracy_groups", "accuracy_wake_words", "accuracy_classes")),
                )
    device = result["device"]
    table.add_row(
        *("", "device", "", "", ""),
        *(_percent(device[key]) for key in ("accuracy_groups", "accuracy_wake_words", "accuracy_classes")),
    )
    table.caption = "everything of the stage before has arrived"
    console.print(table)
    for pair, found in result.get("bytes_at_equal_accuracy", {}).items():
        ratios = (
            f"{found['mean_ratio_full_ladder']} with the full ladder, {found['mean_ratio_fewest']} with fewest rungs"
        )
        console.print(f"bytes at equal accuracy, {pair}, mean of the first exits: {ratios}")
    for entry in result.get("losses", {}).get("exits", ()):
        console.print(
            f"exit {entry['stage']}, {entry['packets']} packets of {result['losses']['conditions']['payload']} bytes: "
            f"{_percent(entry['lost'])} with a random half lost, {_percent(entry['in_order'])} with half in order"
        )
    if "journeys" in result:
        _show_journeys(result["journeys"], console)


def _show_journeys(found: dict[str, Any], console: Console) -> None:
    conditions = found["conditions"]
    link = conditions["link"]
    console.print(
        f"{conditions['pictures']} whole frames, {conditions['platform']}, CI {link['ci_ms']:g} ms, "
        f"{link['effective_packets']} packets, {link['phy']}, loss {link['loss']:g}: "
        f"right {_percent(found['accuracy_groups'])}, answered by the hub {_percent(found['by_hub'])}, "
        f"latency {found['latency_ms']['median']:.1f} ms (95 %: {found['latency_ms']['p95']:.1f}), "
        f"{found['bytes']:.0f} bytes"
        + (f", {found['energy_mj']['mean']:.2f} mJ" if found["energy_mj"] is not None else "")
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
