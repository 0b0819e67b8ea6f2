# SPDX-License-Identifier: Apache-2.0
"""Replays a trace through many links: one row a link, platform and unit (``fleet sweep``)."""

from __future__ import annotations

import hashlib
import platform as platform_module
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet import __version__
from fleet.errors import FleetError
from fleet.evaluation.certainty import Unit
from fleet.evaluation.contest import Contest, Judge, Result
from fleet.evaluation.curves import curves
from fleet.evaluation.lossy import lossy
from fleet.evaluation.plan import COUNTED, FAMILIES, VARIANTS, Plan
from fleet.evaluation.resampling import RESAMPLES, Bootstrap, Means, interval
from fleet.evaluation.trace import INDEX, SPLITS, Trace
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF5340
from fleet.platforms import load_profile

FORMAT = 1
METRICS = ("latency_ms", "accuracy", "energy_mj")


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
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
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
        "name": plan.name,
        "conditions": conditions(trace, plan),
        "schemes": schemes(trace, rows),
        "rows": rows,
    }


def conditions(trace: Trace, plan: Plan) -> dict[str, Any]:
    """What holds for every row."""
    index = trace.index
    return {
        "bundle": index.bundle["name"],
        "identity": index.bundle["identity"],
        "codec": index.bundle["codec"],
        "trace": hashlib.sha256((trace.path / INDEX).read_bytes()).hexdigest()[:16],
        **{split: {key: index.splits[split][key] for key in ("data", "pictures", "precision")} for split in SPLITS},
        "grids": {str(b): p.grid for b, p in index.payloads.items()},
        "seed": plan.seed,
        "phase": "uniformly random, the same for all schemes and links; each frame alone on the link",
        "cloud_ms": plan.cloud_s * 1000.0,
        "intervals": f"95 %, paired percentile bootstrap over the test images, {RESAMPLES} resamples",
        "target_rule": f"best local early exit on calibration less {plan.target_loss * 100:g} points",
        "radio": NRF5340.name,
        "radio_note": NRF5340.note,
        **({} if plan.losses is None else {"losses": _about_losses(trace, plan)}),
        "machine": platform_module.machine(),
        "versions": {**index.versions, "fleet sweep": __version__},
    }


def _about_losses(trace: Trace, plan: Plan) -> dict[str, Any]:
    assert plan.losses is not None
    pictures = {str(payload): count for payload, (count, _) in trace.index.sets.items()}
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
        note = about["note"] if about is not None else ""
        found[name] = {"kind": kind, "family": family(name), "note": note}
        if name in VARIANTS:
            found[name]["variant"] = asdict(VARIANTS[name])
    return found


def family(name: str) -> str:
    """With which schemes one is compared."""
    return "fleet" if name in VARIANTS else FAMILIES.get(name, "local")


def check(trace: Trace, plan: Plan) -> None:
    """Refuse a plan that a trace cannot serve.

    Raises:
        FleetError: it lacks a payload, a rival or local exits, or a platform does not say how long a stage takes.
    """
    needed = {link.payload for links in plan.links for link in links}
    if missing := sorted(needed - set(trace.payloads)):
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


def describe(link: LinkParameters) -> dict[str, Any]:
    """A link for JSON."""
    keys = ("ci_ms", "phy", "packets", "effective_packets", "payload", "ack", "as_published", "loss")
    return {key: getattr(link, key) for key in keys}


def bound_ms(link: LinkParameters, cloud_s: float) -> float:
    """What no scheme that asks the hub can beat: half an interval, one interval, and the hub (design section 10)."""
    return 1.5 * link.ci_ms + cloud_s * 1000.0


def compare(
    results: Mapping[str, Result], contest: Contest, link: LinkParameters, bootstrap: Bootstrap
) -> dict[str, Any]:
    """Results, best rivals and speed-ups of a row."""
    columns: dict[tuple[str, str], npt.NDArray[Any]] = {}
    for name, result in results.items():
        if result.outcomes is not None:
            values = (result.outcomes.latency * 1000.0, result.right, result.outcomes.energy_mj(contest.profile))
            columns.update({(name, metric): v for metric, v in zip(METRICS, values, strict=True)})
    means = bootstrap.means(columns)
    described = {name: _describe(name, result, contest, means) for name, result in results.items()}
    best = _best(described)
    bound = bound_ms(link, contest.plan.cloud_s)
    speed_up: dict[str, dict[str, Any]] = {}
    for name in (n for n in described if n in VARIANTS and described[n]["reached"]):
        speed_up[name] = {}
        for of, rival in best.items():
            if rival is not None:
                ratio = means[rival, "latency_ms"] / means[name, "latency_ms"]
                slower = described[rival]["latency_ms"]
                speed_up[name][of] = {
                    "value": round(slower / described[name]["latency_ms"], 4),
                    "95": [round(v, 4) for v in interval(ratio)],
                    "bound": round(slower / bound, 4),
                }
    return {"schemes": described, "best": best, "speed_up": speed_up}


def _best(described: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    """The fastest rival of each family that reaches the target, of all but WebP, and of all."""
    reached = {n: d["latency_ms"] for n, d in described.items() if d["reached"] and n not in VARIANTS}
    groups: dict[str, list[str]] = {
        of: [n for n in reached if family(n) == of] for of in ("local", *dict.fromkeys(FAMILIES.values()))
    }
    groups["all"] = [n for n in reached if family(n) in COUNTED]
    groups["all-webp"] = list(reached)
    return {of: min(names, key=lambda n: reached[n]) if names else None for of, names in groups.items()}


def _describe(name: str, result: Result, contest: Contest, means: Mapping[tuple[str, str], Means]) -> dict[str, Any]:
    accuracy, seconds = result.calibration
    calibration = {"accuracy": round(accuracy, 4), "latency_ms": round(seconds * 1000.0, 3)}
    outcomes = result.outcomes
    if outcomes is None:
        return {"reached": False, "calibration": calibration, "point": result.point}
    energy = outcomes.energy_mj(contest.profile)
    radio_mj = float(outcomes.radio_uj.mean()) * 1e-3
    latency = outcomes.latency * 1000.0
    median, high = np.percentile(latency, [50, 95])

    def spread(metric: str) -> list[float] | None:
        low, top = interval(means[name, metric])
        return None if np.isnan(low) else [round(low, 4), round(top, 4)]

    mean_energy = float(energy.mean())
    known = not np.isnan(mean_energy)
    return {
        "reached": True,
        "point": result.point,
        "calibration": calibration,
        "accuracy": round(float(result.right.mean()), 4),
        "accuracy_95": spread("accuracy"),
        "latency_ms": round(float(latency.mean()), 4),
        "latency_ms_95": spread("latency_ms"),
        "median_ms": round(float(median), 4),
        "p95_ms": round(float(high), 4),
        "hub_latency_ms": round(float(outcomes.hub_latency.mean()) * 1000.0, 4),
        "energy_mj": round(mean_energy, 5) if known else None,
        "energy_mj_95": spread("energy_mj"),
        "processor_mj": round(mean_energy - radio_mj, 5) if known else None,
        "radio_mj": round(radio_mj, 5),
        "bytes": round(float(outcomes.sent_bytes.mean()), 1),
        "packets": round(float(outcomes.packets.mean()), 3),
        "events": round(float(outcomes.events.mean()), 3),
        "exits": {n: round(share, 4) for n, share in result.shares.items()},
    }
