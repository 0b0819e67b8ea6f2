# SPDX-License-Identifier: Apache-2.0
"""Random loss (FLEET section 4.3): the first test images under several seeded masks, at the points without loss.

FLEET sends a packet once and goes on with what arrives. Loss breaks the order of packets, so the trace must have what
the hub's network says of every set of them. Rivals repeat until every byte is there
(:func:`fleet.link.transfer.reliable_bursts`). Exit notices are lost and repeated, too. Thresholds do not know how the
air will be, so they are those of the same link without loss, and beside the latency stands the accuracy that is left.
A packet that one mask loses at some share it also loses at every higher share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.errors import FleetError
from fleet.evaluation.air import Air, FloatVector
from fleet.evaluation.comparison import best_rivals, bound_ms, ratios
from fleet.evaluation.contest import Contest, Result
from fleet.evaluation.outcomes import local_outcomes
from fleet.evaluation.plan import VARIANTS, LossPlan
from fleet.evaluation.replay import replay
from fleet.evaluation.resampling import Bootstrap, Means, interval
from fleet.evaluation.schemes.ours import Manner, Race, Recorded
from fleet.evaluation.schemes.upload import Uploads
from fleet.link.airtime import T_IFS_US
from fleet.link.downlink import MAX_SENDS
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF5340
from fleet.link.transfer import reliable_bursts

Columns = Mapping[str, FloatVector]


def lossy(contest: Contest, link: LinkParameters, losses: LossPlan) -> list[dict[str, Any]]:
    """What becomes of every scheme at every loss.

    Args:
        contest: of a platform and unit.
        link: without loss.
        losses: shares and masks.

    Returns:
        One entry a share: ``loss``, the ``schemes`` that reach the target without loss, the best rivals, speed-ups.

    Raises:
        FleetError: the trace has no sets of packets, or none of ours reaches the target.
    """
    results = {name: r for name, r in contest.results(link, {}).items() if r.outcomes is not None and _plain(name)}
    shown = {VARIANTS[name].picture for name in results if name in VARIANTS}
    if not shown:
        raise FleetError("none of ours reaches the target accuracy without loss: the calibration split is too small?")
    sets = {
        picture: contest.judge.recorded_picture_sets(link, twice=contest.rests(link), alone_s=contest.alone_s)
        if picture
        else contest.judge.recorded_sets(link.payload)
        for picture in shown
    }
    images = min((recorded.packets.counts.shape[1] for recorded in sets.values()), default=0)
    if not images or len({recorded.packets.counts.shape[1] for recorded in sets.values()}) > 1:
        raise FleetError(f"{contest.judge.trace.path} has sets of packets of no images, or of different ones")
    bootstrap = Bootstrap.of(images, seed=contest.plan.seed)
    bound = bound_ms(link, contest.plan.cloud_s)
    entries = []
    for share in losses.shares:
        air = {mask: _air(contest, link.replace(loss=share), images, mask) for mask in range(losses.masks)}
        schemes: dict[str, dict[str, Any]] = {}
        means: dict[tuple[str, str], Means] = {}
        for name, result in results.items():
            recorded = sets.get(name in VARIANTS and VARIANTS[name].picture)
            masks = [_frames(contest, name, result, recorded, air[mask], mask) for mask in air]
            schemes[name], drawn = _summary(masks, bootstrap)
            means[name, "latency_ms"] = drawn
        best = best_rivals(schemes, "latency_ms")
        ours = [name for name in schemes if name in VARIANTS]
        ahead = {name: ratios(name, best, "latency_ms", schemes, means, bound) for name in ours}
        entries.append(
            {"loss": share, "bound_ms": round(bound, 4), "schemes": schemes, "best": best, "speed_up": ahead}
        )
    return entries


def _plain(name: str) -> bool:
    """Rivals, and FLEET where it is the device's and the hub's that race not."""
    if name not in VARIANTS:
        return True
    variant = VARIANTS[name]
    return not variant.race and not variant.thrifty and variant.rule == "confidence"


def _air(contest: Contest, link: LinkParameters, images: int, mask: int) -> Air:
    return Air.at_phases(link, NRF5340, np.random.default_rng([contest.plan.seed, mask, 3]).random(images))


def _frames(contest: Contest, name: str, result: Result, recorded: Recorded | None, air: Air, mask: int) -> Columns:
    images = len(air.first)
    right = result.right[:images].astype(float)
    if name in VARIANTS:
        assert recorded is not None
        levels: Mapping[str, float | None] = result.point["thresholds"]
        thresholds = [np.inf if level is None else level for level in levels.values()]
        race = lossy_race(contest, recorded, air, Manner(**result.point["manner"]), seed=mask)
        outcomes, correct, _ = race.end(thresholds)
        return {"latency": outcomes.latency, "right": correct.astype(float)}
    if name in contest.local:
        assert result.outcomes is not None
        return {"latency": local_outcomes(air, result.outcomes.latency[:images]).latency, "right": right}
    uploads = contest.uploads[name]["test"]
    point = uploads.names.index(result.point["upload"])
    return {"latency": upload_latencies(uploads, point, air, cloud_s=contest.plan.cloud_s, seed=mask), "right": right}


def lossy_race(contest: Contest, recorded: Recorded, air: Air, manner: Manner, *, seed: int) -> Race:
    """FLEET's frames on a lossy link."""
    random = np.random.default_rng([seed, 4])
    lost = random.random(recorded.packets.sizes.shape) < air.link.loss
    repeats = lost_in_a_row(random.random((MAX_SENDS, len(air.first))) < air.link.loss)
    if manner.picture:
        shown = contest.pace(picture=True)
        race = Race.of_picture(recorded, shown, air, exit_s=contest.plan.cloud_s, manner=manner, lost=lost)
        return replace(race, timeline=replace(race.timeline, repeats=repeats))
    pace = contest.pace()
    timeline = replay(
        air,
        recorded.packets,
        recorded.states,
        pace.offered,
        exit_s=contest.plan.cloud_s,
        fill=manner.fill,
        hold=manner.hold,
        lost=lost,
    )
    return Race(recorded, pace, replace(timeline, repeats=repeats), (), manner)


def lost_in_a_row(lost: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How many are lost before the first that is not, over the first axis."""
    out: npt.NDArray[np.int64] = np.logical_and.accumulate(lost, axis=0).sum(axis=0)
    return out


def upload_latencies(uploads: Uploads, point: int, air: Air, *, cloud_s: float, seed: int) -> FloatVector:
    """Seconds until the device holds the answer of a scheme that needs every byte, packets and notices being lost.

    Args:
        uploads: of the scheme.
        point: which of them.
        air: a lossy link, with as many images as are wanted.
        cloud_s: seconds that the hub takes.
        seed: of the losses.
    """
    link, ready = air.link, uploads.ready_s[point]
    sizes = uploads.sizes[point][: len(air.first)]
    if not sizes.any():
        return np.full(len(sizes), ready)
    random = np.random.default_rng([seed, 5])
    first = air.event_from(np.full(len(sizes), ready))
    arrived = np.empty(len(sizes))
    for image, size in enumerate(sizes.tolist()):
        bursts = reliable_bursts(size, link, rng=random)
        end_us = sum(air.poll_us + air.up_us[n] + 2 * T_IFS_US for n in bursts[-1]) - T_IFS_US
        arrived[image] = air.first[image] + (first[image] + len(bursts) - 1) * link.ci_s + end_us * 1e-6
    repeats = random.geometric(1.0 - link.loss, len(sizes)) - 1  # nothing else would end the frame
    out: FloatVector = air.time_of(air.event_from(arrived + cloud_s) + repeats) + air.notice_us * 1e-6
    return out


def _summary(masks: Sequence[Columns], bootstrap: Bootstrap) -> tuple[dict[str, Any], Means]:
    """Means over masks and images, and the latency's resampled means; an image counts with the mean of its masks."""
    latency, right = (np.mean([found[key] for found in masks], axis=0) for key in ("latency", "right"))
    means = bootstrap.means({("", "latency_ms"): latency * 1000.0, ("", "accuracy"): right})
    return {
        "reached": True,
        "latency_ms": round(float(latency.mean()) * 1000.0, 4),
        "latency_ms_95": [round(v, 4) for v in interval(means["", "latency_ms"])],
        "accuracy": round(float(right.mean()), 4),
        "accuracy_95": [round(v, 4) for v in interval(means["", "accuracy"])],
    }, means["", "latency_ms"]
