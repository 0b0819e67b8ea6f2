# SPDX-License-Identifier: Apache-2.0
"""``fleet trace``: everything that a replay needs of a bundle, its rivals and two sets of images, recorded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from fleet import __version__
from fleet.errors import FleetError
from fleet.packet import MAX_PAYLOAD, MIN_PAYLOAD
from fleet.resources import expanded, find_model

if TYPE_CHECKING:
    from fleet.bundle import Bundle
    from fleet.evaluation.recorder import Pictures, Recorder
    from fleet.evaluation.trace import Split, Trace
    from fleet.fusion import CloudNetwork
    from fleet.sources import Frame

SHORT = 100
COARSE = 4
"""A stage has dozens of short packets: every state of them would be thousands an exit."""


def trace(
    bundle: Annotated[str, typer.Argument(help="Model bundle: a directory, or the name of one in models/.")],
    data: Annotated[str, typer.Argument(help="Test split: directory or tar of CLASS/FILE or GROUP/FILE.")],
    output: Annotated[Path, typer.Option(help="Folder of the trace; one that is there is completed.")],
    calibration: Annotated[
        str, typer.Option(help="Directory or tar whose last pictures are the calibration split.", show_default=False)
    ],
    calibration_pictures: Annotated[int, typer.Option(help="How many last pictures that are.", min=1)] = 2500,
    limit: Annotated[int, typer.Option(help="Only the first so many pictures of each split; 0: all.", min=0)] = 0,
    payload: Annotated[
        list[int] | None, typer.Option(help=f"Bytes of a packet; again for more. Default: {MAX_PAYLOAD}.")
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(
            help=f"Look at a stage only in so many parts; 0: at every packet. Default: {COARSE} for packets of less "
            f"than {SHORT} bytes, else 0.",
            min=0,
        ),
    ] = None,
    sets: Annotated[
        int, typer.Option(help="For losses: of so many first test pictures, every set of packets.", min=0)
    ] = 0,
    picture_only: Annotated[
        bool, typer.Option("--picture-only", help="Of FLEET, record the picture itself (stage 0) and no features.")
    ] = False,
    rivals: Annotated[Path | None, typer.Option(help="Folder of the trained rivals; none without it.")] = None,
    renew: Annotated[list[str] | None, typer.Option(help="Record this rival anew; again for more.")] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Of exits and rivals, record this split only: test or calibration; two may run at once."),
    ] = None,
    precision: Annotated[str, typer.Option(help="Which ONNX stages run: float or int8.")] = "float",
    threads: Annotated[int, typer.Option(help="Threads of the hub's network.", min=1)] = 1,
) -> None:
    """Record logits and packets of every state that `fleet sweep` may meet, for two splits.

    Operating points are chosen on the calibration split and measured on the test split. May be broken off at
    any time and goes on where it was.
    """
    from fleet.bundle import Bundle as Loader  # noqa: PLC0415 - with torch, seconds that --help should not take
    from fleet.evaluation.recorder import Pictures as Part  # noqa: PLC0415
    from fleet.evaluation.recorder import Recorder as Writer  # noqa: PLC0415
    from fleet.evaluation.recording import check_fusion  # noqa: PLC0415
    from fleet.evaluation.trace import Trace as Reader  # noqa: PLC0415
    from fleet.evaluation.trace import TraceIndex  # noqa: PLC0415

    if precision not in ("float", "int8"):
        raise FleetError(f"precision is float or int8, not '{precision}'")
    if only not in (None, "test", "calibration"):
        raise FleetError(f"--only is test or calibration, not '{only}'")
    if renew and only:
        raise FleetError("--renew forgets both splits of a rival: leave --only out")
    payloads = list(dict.fromkeys(payload or [MAX_PAYLOAD]))
    for size in payloads:
        if not MIN_PAYLOAD <= size <= MAX_PAYLOAD:
            raise FleetError(f"a payload of {size} bytes is outside {MIN_PAYLOAD} to {MAX_PAYLOAD}")
    loaded = Loader.load(find_model(bundle))
    if picture_only and loaded.picture is None:
        raise FleetError(f"--picture-only: {loaded.path} has no stage 0")
    if not picture_only:
        check_fusion(loaded)
    parts: dict[Split, Pictures] = {
        "test": Part(data, first=limit),
        "calibration": Part(calibration, last=calibration_pictures, first=limit),
    }
    versions = {"fleet": __version__, **_versions()}
    splits: dict[str, dict[str, Any]] = {
        name: {**part.describe(), "precision": precision} for name, part in parts.items()
    }
    recorder = Writer.begin(expanded(output).absolute(), TraceIndex.of(loaded, splits, versions))
    console = Console()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        _record(
            recorder,
            loaded,
            parts,
            payloads,
            grid,
            only,
            sets,
            rivals,
            renew or [],
            precision,
            threads,
            progress,
            picture_only=picture_only,
        )
    _show(Reader(recorder.path, recorder.index), console)


def _versions() -> dict[str, str]:
    import onnxruntime  # noqa: PLC0415
    import torch  # noqa: PLC0415

    return {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "numpy": np.__version__}


def _record(
    recorder: Recorder,
    bundle: Bundle,
    parts: dict[Split, Pictures],
    payloads: Sequence[int],
    grid: int | None,
    only: str | None,
    sets: int,
    rivals: Path | None,
    renew: Sequence[str],
    precision: str,
    threads: int,
    progress: Progress,
    *,
    picture_only: bool,
) -> None:
    import torch  # noqa: PLC0415

    from fleet.evaluation import recording  # noqa: PLC0415
    from fleet.evaluation.trace import SPLITS, fleet_logits, fleet_sizes  # noqa: PLC0415
    from fleet.fusion import load_cloud  # noqa: PLC0415

    torch.set_num_threads(threads)
    frames: dict[Split, list[Frame]] = {}
    for split in SPLITS:
        if rivals is not None or not recorder.has(f"{split}/local"):
            frames[split] = [f for f in parts[split].read() if bundle.classes.group_named(f.truth) is not None]
        if not recorder.has(f"{split}/local"):
            _record_device(recorder, bundle, split, frames[split], precision, progress)
    cloud = load_cloud(bundle)
    for payload in () if picture_only else payloads:
        for split in SPLITS:
            if not recorder.has(f"{split}/{fleet_sizes(payload)}"):
                task = progress.add_task(f"{split}: packets of {payload} bytes", total=len(bundle.layouts))
                recording.save_packets(recorder, bundle, split, payload, lambda t=task: progress.advance(t))  # type: ignore[misc]
        states = recording.plan_states(
            recorder, bundle, cloud, payload, (COARSE if payload < SHORT else 0) if grid is None else grid
        )
        for split in SPLITS:
            if only in (None, split) and not recorder.has(f"{split}/{fleet_logits(payload)}"):
                pictures = recorder.index.splits[split]["pictures"]
                task = progress.add_task(f"{split}: {len(states.states)} states, {payload} bytes", total=pictures)
                recording.save_exits(
                    recorder,
                    bundle,
                    cloud,
                    split,
                    states,
                    lambda n, t=task: progress.advance(t, n),  # type: ignore[misc]
                )
    if bundle.picture is not None:
        _record_picture(recorder, bundle, cloud, parts, payloads, only, sets, precision, progress)
    if sets and only != "calibration" and not picture_only:
        for payload in payloads:
            every = recording.plan_sets(recorder, bundle, cloud, payload, sets)
            task = progress.add_task(f"test: {len(every.states)} sets of packets, {payload} bytes", total=sets)
            recording.save_exits(recorder, bundle, cloud, "test", every, lambda n, t=task: progress.advance(t, n))  # type: ignore[misc]
    if rivals is not None:
        chosen = {split: seen for split, seen in frames.items() if only in (None, split)}
        _record_rivals(recorder, bundle, chosen, expanded(rivals).absolute(), renew, progress)


def _record_device(
    recorder: Recorder, bundle: Bundle, split: Split, frames: Sequence[Frame], precision: str, progress: Progress
) -> None:
    from fleet.evaluation import accuracy, recording  # noqa: PLC0415
    from fleet.runtime import DeviceNetwork  # noqa: PLC0415

    network = DeviceNetwork(bundle, precision=precision)  # type: ignore[arg-type]
    task = progress.add_task(f"{split}: device", total=len(frames))
    recorded = accuracy.record(bundle, network, frames, lambda: progress.advance(task))
    recording.save_device(recorder, bundle, split, recorded)


def _record_picture(
    recorder: Recorder,
    bundle: Bundle,
    cloud: CloudNetwork,
    parts: dict[Split, Pictures],
    payloads: Sequence[int],
    only: str | None,
    sets: int,
    precision: str,
    progress: Progress,
) -> None:
    from fleet.evaluation.recording import save_picture, save_picture_sets  # noqa: PLC0415
    from fleet.evaluation.trace import picture_logits, picture_sets  # noqa: PLC0415
    from fleet.runtime import DeviceNetwork  # noqa: PLC0415

    for split, part in parts.items():
        missing = [size for size in payloads if not recorder.has(f"{split}/{picture_logits(size)}")]
        # A picture of many short packets has too many sets of them.
        lossy = [n for n in payloads if sets and n >= SHORT and not recorder.has(f"{split}/{picture_sets(n)}")]
        lossy = lossy if split == "test" else []
        if only not in (None, split) or not (missing or lossy):
            continue
        frames = [frame for frame in part.read() if bundle.classes.group_named(frame.truth) is not None]
        network = DeviceNetwork(bundle, precision=precision)  # type: ignore[arg-type]
        latents = np.stack([network.run_picture(network.prepare(frame.image)) for frame in frames])
        for size in missing:
            task = progress.add_task(f"{split}: the picture, {size} bytes", total=len(frames))
            save_picture(recorder, bundle, cloud, split, latents, size, lambda n, t=task: progress.advance(t, n))  # type: ignore
        for size in lossy:
            save_picture_sets(recorder, bundle, cloud, latents[:sets], size)


def _record_rivals(
    recorder: Recorder,
    bundle: Bundle,
    frames: dict[Split, list[Frame]],
    folder: Path,
    renew: Sequence[str],
    progress: Progress,
) -> None:
    from fleet.baselines import load_schemes  # noqa: PLC0415
    from fleet.evaluation.rivals import forget, save_rivals  # noqa: PLC0415
    from fleet.training.readers import fit  # noqa: PLC0415

    schemes = load_schemes(bundle, folder)
    for name in renew:
        if name not in schemes:
            raise FleetError(f"there is no rival '{name}' in {folder}: choose from {', '.join(schemes)}")
        forget(recorder, name)
    for split, seen in frames.items():
        images: npt.NDArray[np.uint8] = np.stack([fit(frame.image, bundle.input_size) for frame in seen])
        task = progress.add_task(f"{split}: {', '.join(schemes)}", total=len(images) * len(schemes))
        save_rivals(recorder, schemes.values(), split, images, lambda n, t=task: progress.advance(t, n))  # type: ignore


def _show(found: Trace, console: Console) -> None:
    index = found.index
    for split, about in index.splits.items():
        console.print(f"{split}: {about['pictures']} pictures of {about['data']}", soft_wrap=True)
    for payload in found.payloads:
        known: Any = index.payloads[payload]
        console.print(
            f"packets of {payload} bytes: {len(known.states)} states" + (f", grid {known.grid}" * (known.grid > 0))
        )
    console.print(
        f"{found.path}: {index.bundle['name']} {index.bundle['identity']}, rivals: {', '.join(found.rivals) or 'none'}",
        soft_wrap=True,
    )
