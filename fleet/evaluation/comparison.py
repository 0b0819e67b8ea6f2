# SPDX-License-Identifier: Apache-2.0
"""One row of a sweep: results as JSON has them, the best rival of each family, and how far FLEET is ahead of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.evaluation.contest import Contest, Result
from fleet.evaluation.plan import COUNTED, FAMILIES, VARIANTS
from fleet.evaluation.resampling import Bootstrap, Means, interval
from fleet.link.parameters import LinkParameters

METRICS = ("latency_ms", "accuracy", "energy_mj", "bytes")
CODECS = ("jpeg", "jpeg-stripped", "webp", "webp-stripped")
PARTS = ("compute", "wait", "cloud", "downlink")


def family(name: str) -> str:
    """With which schemes one is compared."""
    return "fleet" if name in VARIANTS else FAMILIES.get(name, "local")


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
            ended = result.outcomes
            values = (ended.latency * 1000.0, result.right, ended.energy_mj(contest.profile), ended.sent_bytes)
            columns.update({(name, metric): v for metric, v in zip(METRICS, values, strict=True)})
    means = bootstrap.means(columns)
    described = {name: _describe(name, result, contest, means) for name, result in results.items()}
    best = best_rivals(described, "latency_ms")
    bound = bound_ms(link, contest.plan.cloud_s)
    ours = [name for name in described if name in VARIANTS and described[name]["reached"]]
    least = best_rivals(described, "energy_mj")
    codecs = {of: rival for of, rival in best.items() if of in CODECS}
    compared = {
        "speed_up": {name: ratios(name, best, "latency_ms", described, means, bound) for name in ours},
        "energy_saving": {name: ratios(name, least, "energy_mj", described, means) for name in ours},
        "byte_ratio": {name: ratios(name, codecs, "bytes", described, means, ours_over=True) for name in ours},
    }
    return {"schemes": described, "best": best, **compared}


def ratios(
    name: str,
    rivals: Mapping[str, str | None],
    metric: str,
    described: Mapping[str, Mapping[str, Any]],
    means: Mapping[tuple[str, str], Means],
    bound: float | None = None,
    *,
    ours_over: bool = False,
) -> dict[str, Any]:
    """A rival's mean over ours, or ours over theirs, with the paired interval; and over the bound."""
    found: dict[str, Any] = {}
    for of, rival in rivals.items():
        if rival is None or described[name][metric] is None or not described[rival][metric]:
            continue
        over, under = (name, rival) if ours_over else (rival, name)
        ratio = means[over, metric] / means[under, metric]
        found[of] = {
            "value": round(described[over][metric] / described[under][metric], 4),
            "95": [round(v, 4) for v in interval(ratio)],
            "scheme": rival,
        }
        if bound is not None:
            found[of]["bound"] = round(described[rival][metric] / bound, 4)
    return found


def best_rivals(described: Mapping[str, Mapping[str, Any]], metric: str) -> dict[str, str | None]:
    """The rival of each family that reaches the target with the least of a metric; of all but WebP, and of all."""
    rivals = {n: d[metric] for n, d in described.items() if d["reached"] and n not in VARIANTS}
    reached = {n: value for n, value in rivals.items() if value is not None}
    groups: dict[str, list[str]] = {
        of: [n for n in reached if family(n) == of] for of in ("local", *dict.fromkeys(FAMILIES.values()))
    }
    groups["all"] = [n for n in reached if family(n) in COUNTED]
    groups["all-webp"] = list(reached)
    return {of: min(names, key=lambda n: reached[n]) if names else None for of, names in groups.items()}


def _describe(name: str, result: Result, contest: Contest, means: Mapping[tuple[str, str], Means]) -> dict[str, Any]:
    accuracy, seconds = result.calibration
    calibration = {
        "accuracy": round(accuracy, 4),
        "latency_ms": round(seconds * 1000.0, 3),
        "guard": round(result.guard, 4),
    }
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
        "latency_parts_ms": {part: round(float(getattr(outcomes, part).mean()) * 1000.0, 4) for part in PARTS},
        "bytes": round(float(outcomes.sent_bytes.mean()), 1),
        "bytes_95": spread("bytes"),
        "packets": round(float(outcomes.packets.mean()), 3),
        "events": round(float(outcomes.events.mean()), 3),
        "exits": {n: round(share, 4) for n, share in result.shares.items()},
    }
