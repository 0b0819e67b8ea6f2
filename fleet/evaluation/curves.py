# SPDX-License-Identifier: Apache-2.0
"""Accuracy against latency: every operating point of every scheme on one link (FLEET Figures 7 to 9)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.evaluation.contest import Contest
from fleet.evaluation.outcomes import Outcomes, local_outcomes
from fleet.evaluation.plan import VARIANTS
from fleet.evaluation.schemes.local import choose_local
from fleet.evaluation.schemes.ours import Race
from fleet.evaluation.stopping import SINGLE, Choice, choose_each
from fleet.evaluation.trace import SPLITS
from fleet.link.parameters import LinkParameters

TARGETS = (-0.12, -0.09, -0.06, -0.04, -0.02, -0.01, 0.0, 0.01)
"""Accuracies that a threshold for every exit is chosen for, beside the row's target."""
Right = npt.NDArray[np.bool_]


def curves(contest: Contest, link: LinkParameters) -> dict[str, list[dict[str, Any]]]:
    """Accuracy, latency and energy of all points on the test split, by scheme, each with what chose it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in contest.plan.fleet:
        if not VARIANTS[name].race:
            found[name] = list(_ours(contest, name, link))
    for name in contest.local:
        found[name] = list(_local(contest, name, link))
    for name, uploads in contest.all_uploads.items():
        test, air = uploads["test"], contest.air("test", link)
        found[name] = [
            _entry(contest, test.end(p, air, cloud_s=contest.plan.cloud_s), test.judged.right[p], upload=test.names[p])
            for p in range(len(test.names))
        ]
    return found


def _ours(contest: Contest, name: str, link: LinkParameters) -> Iterator[dict[str, Any]]:
    variant = VARIANTS[name]
    calibration, tests = (
        [contest.race(variant, manner, split, link, ()) for manner in variant.manners] for split in SPLITS[::-1]
    )
    choices: list[tuple[str, Choice, Race]] = []
    if variant.each:
        for level in (contest.target + beside for beside in TARGETS):
            by_manner = [choose_each(race.runs, level) for race in calibration]
            best = min(range(len(by_manner)), key=lambda k: by_manner[k].score.rank(level))
            choices.append((f"target {level:.3f}", by_manner[best], tests[best]))
    else:
        runs, test = calibration[0].runs, tests[0]
        same = [np.full(runs.exits, level) for level in SINGLE]
        choices += [(f"{t[0]:g}", Choice(tuple(t.tolist()), runs.score(t)), test) for t in same]
    for what, choice, test in choices:
        outcomes, right, who = test.end(choice.thresholds)
        shares = np.bincount(who, minlength=len(test.names)) / len(who)
        exits = {n: round(float(share), 4) for n, share in zip(test.names, shares, strict=True) if share}
        yield _entry(contest, outcomes, right, threshold=what, calibration=choice.score.accuracy, exits=exits)


def _local(contest: Contest, name: str, link: LinkParameters) -> Iterator[dict[str, Any]]:
    exits, air = contest.local[name], contest.air("test", link)
    seen = set()
    for beside in TARGETS:
        point = choose_local(exits["calibration"], contest.target + beside)
        if point in seen:
            continue
        seen.add(point)
        answered, right, _ = exits["test"].end(point.asked, point.choice.thresholds)
        asked = [exits["test"].names[n] for n in point.asked]
        yield _entry(
            contest, local_outcomes(air, answered), right, asked=asked, calibration=point.choice.score.accuracy
        )


def _entry(contest: Contest, outcomes: Outcomes, right: Right, **about: Any) -> dict[str, Any]:
    energy = float(outcomes.energy_mj(contest.profile).mean())
    return {
        "accuracy": round(float(right.mean()), 4),
        "latency_ms": round(float(outcomes.latency.mean()) * 1000.0, 4),
        "energy_mj": None if np.isnan(energy) else round(energy, 5),
        "bytes": round(float(outcomes.sent_bytes.mean()), 1),
        **about,
    }
