# SPDX-License-Identifier: Apache-2.0
"""Replays a trace through many links: one row a link, platform and unit (``fleet sweep``)."""

from __future__ import annotations

import hashlib
import os
import platform as platform_module
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from fleet import __version__
from fleet.errors import FleetError
from fleet.evaluation.certainty import Unit
from fleet.evaluation.comparison import bound_ms, compare, describe, family
from fleet.evaluation.contest import Contest
from fleet.evaluation.curves import curves
from fleet.evaluation.judge import Judge
from fleet.evaluation.lossy import lossy
from fleet.evaluation.plan import PLAIN, VARIANTS, Plan
from fleet.evaluation.resampling import RESAMPLES, Bootstrap
from fleet.evaluation.trace import INDEX, SPLITS, Trace, picture_logits, picture_sets
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF5340
from fleet.platforms import load_profile

FORMAT = 1


@dataclass(frozen=True)
class Chunk:
    """Links that differ in their connection interval only, on one platform and for one unit.

    Attributes:
        unit: what is judged.
        platform: name or path of a profile.
        time_scale: of its times.
        links: connection intervals ascend.
    """

    unit: Unit
    platform: str
    time_scale: float
    links: tuple[LinkParameters, ...]


def run_sweep(
    trace: Trace, plan: Plan, *, workers: int, done: Callable[[int], None] = lambda _rows: None
) -> dict[str, Any]:
    """Replay a plan's links.

    Args:
        trace: of the bundle and its rivals.
        plan: what to replay.
        workers: processes.
        done: called with the rows that were finished.

    Returns:
        What ``fleet sweep`` writes: conditions, schemes, rows in the plan's order.

    Raises:
        FleetError: the trace lacks a payload that the plan needs, or a platform does not say how long a stage takes.
    """
    check(trace, plan)
    chunks = list(_chunks(plan))
    found: dict[int, list[dict[str, Any]]] = {}
    if workers == 1:
        for number, chunk in enumerate(chunks):
            found[number] = _rows_of(trace.path, plan, chunk)
            done(len(found[number]))
    else:
        # Fresh processes: a fork of one in which torch's threads run may never return.
        with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
            waiting: dict[Future[list[dict[str, Any]]], int] = {
                pool.submit(_rows_of, trace.path, plan, chunk): number for number, chunk in enumerate(chunks)
            }
            try:
                for future in as_completed(waiting):
                    found[waiting[future]] = future.result()
                    done(len(found[waiting[future]]))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    rows = [row for number in sorted(found) for row in found[number]]
    return {
        "format": FORMAT,
        "kind": "sweep" if plan.losses is None else "losses",
        "name": plan.name,
        "conditions": conditions(trace, plan),
        "schemes": schemes(trace, rows),
        "rows": rows,
    }


def _end_with_parent() -> None:
    """Let this process end when the one that began it does: a sweep that is killed leaves nobody behind."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def conditions(trace: Trace, plan: Plan) -> dict[str, Any]:
    """What holds for every row."""
    index = trace.index
    return {
        "bundle": index.bundle["name"],
        "identity": index.bundle["identity"],
        "codec": index.bundle["codec"],
        "backbone": index.bundle["backbone"],
        "input_size": index.bundle["input_size"],
        "classes": len(index.classes),
        "trace": hashlib.sha256((trace.path / INDEX).read_bytes()).hexdigest()[:16],
        **{split: {key: index.splits[split][key] for key in ("data", "pictures", "precision")} for split in SPLITS},
        "grids": {str(b): p.grid for b, p in index.payloads.items()},
        "seed": plan.seed,
        "phase": "uniformly random, the same for all schemes and links; each frame alone on the link",
        "cloud_ms": plan.cloud_s * 1000.0,
        "intervals": f"95 %, paired percentile bootstrap over the test images, {RESAMPLES} resamples",
        "target_rule": f"best local early exit on calibration less {plan.target_loss * 100:g} points",
        "guard_rule": "thresholds reach the target with what two-fold cross-validation says they owe to their images"
        if plan.guard
        else "none: thresholds are fitted to the calibration split and fall short elsewhere",
        "radio": NRF5340.name,
        "radio_note": NRF5340.note,
        **({} if plan.losses is None else {"losses": _about_losses(trace, plan)}),
        "machine": platform_module.machine(),
        "versions": {**index.versions, "fleet sweep": __version__},
    }


def _about_losses(trace: Trace, plan: Plan) -> dict[str, Any]:
    assert plan.losses is not None
    pictures = {str(payload): count for payload, (count, _) in trace.index.sets.items()}
    for payload in {link.payload for links in plan.links for link in links}:
        if f"test/{picture_sets(payload)}" in trace.index.arrays:
            pictures.setdefault(str(payload), trace.array("test", picture_sets(payload)).shape[1])
    return {
        "masks": plan.losses.masks,
        "first_pictures": pictures,
        "kind": "independent; FLEET best effort, rivals send every byte, notices are repeated",
        "points": "those without loss",
    }


def schemes(trace: Trace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What each scheme is."""
    found = {}
    for name in dict.fromkeys(name for row in rows for name in row["schemes"]):
        about = trace.index.rivals.get(name) or trace.index.rivals.get(name.removesuffix("-stripped"))
        kind = "fleet" if name in VARIANTS else about["kind"] if about is not None else "local"
        note = VARIANTS[name].note if name in VARIANTS else about["note"] if about is not None else ""
        found[name] = {"kind": kind, "family": family(name), "note": note}
        if name in VARIANTS:
            found[name] |= {"variant": asdict(VARIANTS[name]), "step": VARIANTS[name].step, "against": PLAIN}
    return found


def check(trace: Trace, plan: Plan) -> None:
    """Refuse a plan that a trace cannot serve.

    Raises:
        FleetError: it lacks a payload, a rival or local exits, or a platform does not say how long a stage takes.
    """
    needed = {link.payload for links in plan.links for link in links}
    shown = {VARIANTS[name].picture for name in plan.fleet}
    there = set(trace.payloads) if False in shown else needed
    if True in shown and trace.index.picture:
        there &= {payload for payload in needed if trace.has(picture_logits(payload))}
    if missing := sorted(needed - there):
        raise FleetError(
            f"{trace.path} has no packets of {missing[0]} bytes: run `fleet trace` with --payload {missing[0]}"
        )
    if plan.rivals is not None and (unknown := sorted(set(plan.rivals) - set(trace.rivals))):
        raise FleetError(f"{trace.path} has no rival '{unknown[0]}'; it has: {', '.join(trace.rivals) or 'none'}")
    if any(VARIANTS[name].race for name in plan.fleet) and not trace.index.local_exits:
        raise FleetError(f"{trace.path} is of a bundle without local exits, and fleet-race needs some")
    for name in plan.platforms:
        if not load_profile(name).paced:
            raise FleetError(f"platform {name} does not say how long a stage takes: choose another")


def _chunks(plan: Plan) -> Iterator[Chunk]:
    for unit in plan.units:
        for platform in plan.platforms:
            for time_scale in plan.time_scales:
                for links in plan.links:
                    yield Chunk(unit, platform, time_scale, links)


@cache
def _judge(path: Path, unit: Unit) -> Judge:
    """One process judges a trace's logits once."""
    return Judge(Trace.load(path, verify=False), unit)


@cache
def _contest(path: Path, plan: Plan, unit: Unit, platform: str, time_scale: float) -> Contest:
    return Contest(_judge(path, unit), plan, load_profile(platform, time_scale=time_scale))


@cache
def _bootstrap(path: Path, unit: Unit, seed: int) -> Bootstrap:
    return Bootstrap.of(len(_judge(path, unit).images["test"]), seed=seed)


def _rows_of(path: Path, plan: Plan, chunk: Chunk) -> list[dict[str, Any]]:
    contest = _contest(path, plan, chunk.unit, chunk.platform, chunk.time_scale)
    bootstrap = _bootstrap(path, chunk.unit, plan.seed)
    hints: dict[str, tuple[float, ...]] = {}
    rows = []
    for link in chunk.links:
        about = {
            "link": describe(link),
            "platform": contest.profile.name,
            "time_scale": chunk.time_scale,
            "cloud_ms": plan.cloud_s * 1000.0,
            "unit": chunk.unit,
            "target": round(contest.target, 6),
        }
        if plan.losses is not None:
            for entry in lossy(contest, link, plan.losses):
                rows.append({**about, **entry, "link": describe(link.replace(loss=entry["loss"]))})
            continue
        bound = {"bound_ms": round(bound_ms(link, plan.cloud_s), 4)}
        rows.append({**about, **bound, **compare(contest.results(link, hints), contest, link, bootstrap)})
        if plan.curves:
            rows[-1]["curves"] = curves(contest, link)
    return rows
