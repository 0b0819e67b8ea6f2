# SPDX-License-Identifier: Apache-2.0
"""``fleet calibrate``: temperatures and thresholds of a bundle, from labelled pictures of one's own."""

from __future__ import annotations

import json as json_module
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fleet.errors import FleetError
from fleet.exits import Decider
from fleet.packet import LOCAL_ANSWER_STAGE
from fleet.resources import MANIFEST, expanded, find_model
from fleet.runlog import check_writable
from fleet.training import calibrate as method

if TYPE_CHECKING:
    from fleet.bundle import Bundle
    from fleet.evaluation.accuracy import Recorded


def calibrate(
    bundle: Annotated[str, typer.Argument(help="Model bundle: a directory, or the name of one in models/.")],
    data: Annotated[
        str, typer.Argument(help="Directory or tar of CLASS/FILE or GROUP/FILE; keep other pictures for measuring.")
    ],
    trigger: Annotated[str, typer.Option(help="What makes an exit sure: confidence or entropy.")] = "confidence",
    unit: Annotated[str, typer.Option(help="Sure of what: the group or the class.")] = "group",
    single: Annotated[bool, typer.Option("--single", help="One threshold for all exits, from 0.1 to 0.9.")] = False,
    max_loss: Annotated[
        float, typer.Option(help="Points of accuracy that may be lost to the whole network.", min=0, max=100)
    ] = method.MAX_LOSS * 100,
    output: Annotated[Path | None, typer.Option(help="Write the bundle to this folder, not in place.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the numbers of every threshold to this file.")] = None,
    precision: Annotated[str, typer.Option(help="Which ONNX stages run: float or int8.")] = "float",
    threads: Annotated[int, typer.Option(help="Threads of the hub's network.", min=1)] = 2,
) -> None:
    """Choose a bundle's temperatures and thresholds anew, through the code that device and hub run.

    Each exit gets a threshold of its own: it may answer where the whole network would hardly do better. With
    --single all exits share the lowest threshold with which the answers together lose no more than --max-loss.
    Where there are pictures enough, an exit gets others while its stage arrives, higher ones where little of it has.
    Both ends of the link need the rewritten bundle: its identity changes.
    """
    from fleet.bundle import Bundle as Loader  # noqa: PLC0415 - with torch, seconds that --help should not take

    if json is not None:
        json = expanded(json).absolute()
        check_writable(json)
    if precision not in ("float", "int8"):
        raise FleetError(f"precision is float or int8, not '{precision}'")
    loaded = Loader.load(find_model(bundle))
    decider = Decider(loaded.classes, {}, {}, trigger, unit)  # type: ignore[arg-type] # refuses what is neither
    target = _target(loaded, output)
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        recorded, logits = _measure(loaded, data, precision, threads, progress)
    decider = method.with_temperatures(decider, logits, recorded.truths, recorded.classes)
    found = method.judged(decider, logits, recorded.truths, partial=True)
    if single:
        decider = replace(decider, thresholds=method.single_threshold(found, max_loss=max_loss / 100), begun={})
    else:
        whole, begun = method.two_thresholds(found, max_loss=max_loss / 100)
        decider = replace(decider, thresholds=whole, begun=begun)
    most = 1 + max(map(len, decider.begun.values()), default=0)
    how_many = "one threshold" if single else f"{most} thresholds an exit" if most > 1 else "a threshold an exit"
    lost = found.whole.mean() - method.outcome(found, decider.thresholds, decider.begun).accuracy
    kept = f"at most {max_loss:g} points lost {'in all' if single else 'an exit'}, {100 * lost:.1f} on these pictures"
    note = (
        f"`fleet calibrate` on {len(recorded)} labelled pictures, {precision} stages, {trigger} of the {unit}, "
        f"{how_many}, {kept}."
    )
    saved = _write(replace(loaded, notes={**loaded.notes, "calibration": note}), decider, target)
    result = _result(saved, found, {"data": data, "single": single, "max_loss": max_loss, "precision": precision})
    if json is not None:
        json.write_text(json_module.dumps(result, indent=1) + "\n")
    _show(result, console)
    console.print(
        f"{saved.path}: identity {loaded.identity.hex()} becomes {saved.identity.hex()}; "
        "camera and hub must both have this bundle",
        soft_wrap=True,
    )


def _target(bundle: Bundle, output: Path | None) -> Path:
    """The folder to write to, found writable before any work is done."""
    target = bundle.path if output is None else expanded(output).absolute()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise FleetError(f"cannot write the bundle to {target}: {err.strerror}") from err
    check_writable(target / MANIFEST)
    return target


def _measure(
    bundle: Bundle, data: str, precision: str, threads: int, progress: Progress
) -> tuple[Recorded, dict[int, Any]]:
    """Logits of every exit, and of the whole network under ``LOCAL_ANSWER_STAGE``."""
    import torch  # noqa: PLC0415

    from fleet.evaluation import accuracy  # noqa: PLC0415
    from fleet.fusion import load_cloud  # noqa: PLC0415
    from fleet.runtime import DeviceNetwork  # noqa: PLC0415
    from fleet.sources import open_source  # noqa: PLC0415

    torch.set_num_threads(threads)
    network = DeviceNetwork(bundle, precision=precision)  # type: ignore[arg-type]
    cloud = load_cloud(bundle)
    pictures = progress.add_task("device", total=None)
    with open_source(data, on_skip=lambda _line: None, realtime=False) as source:
        if source.live:
            raise FleetError(f"{data} is no set of pictures: give a directory or a tar of CLASS/FILE or GROUP/FILE")
        recorded = accuracy.record(bundle, network, iter(source.read, None), lambda: progress.advance(pictures))
    if len(recorded) < method.MIN_PICTURES:
        raise FleetError(
            f"{data} has {len(recorded)} labelled pictures; thresholds need {method.MIN_PICTURES} at least, "
            "and some hundreds to mean much"
        )
    exits = progress.add_task("exits", total=len(bundle.layouts))
    logits = _exits(bundle, cloud, recorded, lambda: progress.advance(exits))
    return recorded, {**logits, LOCAL_ANSWER_STAGE: recorded.local}


def _exits(bundle: Bundle, cloud: Any, recorded: Recorded, done: Callable[[], None]) -> dict[int, Any]:
    """Exits meet complete stages and begun ones, see :func:`fleet.training.calibrate.begun_shares`."""
    from fleet.evaluation import accuracy  # noqa: PLC0415

    logits = {}
    encoded = {n: accuracy.encode(o, recorded.latents[n], bundle.coder, sized=0) for n, o in bundle.layouts.items()}
    for n in bundle.layouts:
        views = []
        for m in cloud.fused[n]:
            shares = method.begun_shares(len(recorded), newest=m == n, seed=m)
            views.append(accuracy.begun(bundle.layouts[m], encoded[m], shares))
        logits[n] = accuracy.exit_logits(cloud, n, views)
        done()
    return logits


def _write(bundle: Bundle, decider: Decider, target: Path) -> Bundle:
    if target.resolve() != bundle.path.resolve():
        try:
            for name in bundle.checksums:
                shutil.copyfile(bundle.path / name, target / name)
        except OSError as err:
            raise FleetError(f"cannot write the bundle to {target}: {err.strerror}") from err
    return replace(bundle, path=target, decider=decider).save()


def _result(bundle: Bundle, found: method.Judged, conditions: dict[str, Any]) -> dict[str, Any]:
    decider, last = bundle.decider, bundle.stages[-1].n

    def row(outcome: method.Outcome) -> dict[str, Any]:
        shares = {str(n): round(share, 4) for n, share in outcome.answered.items()}
        return {
            "accuracy_groups": round(outcome.accuracy, 4),
            "mean_exit_stage": round(outcome.mean_stage(last), 3),
            "answered": {**shares, "device": round(outcome.whole, 4)},
        }

    return {
        "conditions": {
            "bundle": bundle.name,
            "identity": bundle.identity.hex(),
            "pictures": len(found.whole),
            **conditions,
            "trigger": decider.trigger,
            "unit": decider.unit,
            "maps": "every second picture's stages begun only, else complete",
            "device_counts_as_stage": last,
        },
        "whole_network": {"accuracy_groups": round(float(found.whole.mean()), 4)},
        "temperatures": {str(n): round(t, 4) for n, t in decider.temperatures.items()},
        "thresholds": {str(n): t for n, t in decider.thresholds.items()},
        "thresholds_begun": {
            str(n): [None if t == float("inf") else t for t in levels] for n, levels in decider.begun.items()
        },
        "chosen": row(method.outcome(found, decider.thresholds, decider.begun)),
        "sweep": [{"threshold": level, **row(outcome)} for level, outcome in method.sweep(found).items()],
    }


def _show(result: dict[str, Any], console: Console) -> None:
    conditions = result["conditions"]
    table = Table(
        title=f"{conditions['bundle']} on {conditions['pictures']} pictures of {conditions['data']}",
        caption=f"exits answer from this {conditions['trigger']} of the {conditions['unit']} on; "
        f"the whole network is right on {result['whole_network']['accuracy_groups']:.1%}, and counts as stage "
        f"{conditions['device_counts_as_stage']}",
    )
    for column in ("from", "groups", "mean stage", *result["chosen"]["answered"]):
        table.add_column(column, justify="right")
    chosen = "chosen" if result["thresholds"] else "no exit"
    for name, row in [*((f"{r['threshold']:.2f}", r) for r in result["sweep"]), (chosen, result["chosen"])]:
        table.add_row(
            name,
            f"{row['accuracy_groups']:.1%}",
            f"{row['mean_exit_stage']:.2f}",
            *(f"{share:.0%}" for share in row["answered"].values()),
        )
    console.print(table)
    console.print(f"thresholds {result['thresholds']}", soft_wrap=True)
    if result["thresholds_begun"]:
        console.print(f"while a stage arrives {result['thresholds_begun']}", soft_wrap=True)
