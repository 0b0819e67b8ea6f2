# SPDX-License-Identifier: Apache-2.0
"""All schemes of a trace on one platform and one unit: operating points from calibration, results on test.

What does not hang on the link is worked out once: judged logits, the target, local early exit's points, and which
uploads are worth a try. :meth:`Contest.row` then replays one link.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.evaluation.air import Air
from fleet.evaluation.certainty import Rule
from fleet.evaluation.judge import Judge
from fleet.evaluation.outcomes import Outcomes, local_outcomes
from fleet.evaluation.plan import VARIANTS, Plan, Variant
from fleet.evaluation.schemes.local import LocalExits, LocalPoint, best_accuracy, choose_alone, choose_local
from fleet.evaluation.schemes.ours import DEVICE, Manner, Pace, Race
from fleet.evaluation.schemes.upload import Uploads, variants
from fleet.evaluation.stopping import ALIKE, NEVER, Choice, choose_each, choose_single, optimism
from fleet.evaluation.trace import (
    SPLITS,
    Split,
)
from fleet.inference import pays_to_rest
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF5340
from fleet.platforms import PlatformProfile

WHOLE = "whole-network"
"""The base network on the device, a local exit behind everything: the rival that every bundle has."""
GUARD_CI_MS = ((7.5, 12.5, 20.0, 40.0, 80.0), (250.0, 1000.0, 4000.0))
"""Intervals that a guard is the mean of: where the hub answers, and where the radio sleeps for longer than the device
computes, so that hardly any threshold but those of the device's own exits matters."""
LONG_CI_MS = 100.0


@dataclass(frozen=True)
class Result:
    """A scheme at its operating point.

    Attributes:
        point: for people and for JSON.
        calibration: accuracy and mean seconds on the calibration split.
        outcomes: on the test split, None where the target was not reached on calibration.
        right: of each image.
        shares: of the frames, by who answers.
        guard: what of the calibration's accuracy counts as owed to the choice; the target was higher by that much.
    """

    point: Mapping[str, Any]
    calibration: tuple[float, float]
    outcomes: Outcomes | None = None
    right: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    shares: Mapping[str, float] = field(default_factory=dict)
    guard: float = 0.0


class Contest:
    """All schemes on one platform.

    Args:
        judge: of the unit.
        plan: what is compared.
        profile: of the device, its time scale included.
    """

    def __init__(self, judge: Judge, plan: Plan, profile: PlatformProfile) -> None:
        self.judge, self.plan, self.profile = judge, plan, profile
        self._phases = {
            split: np.random.default_rng([plan.seed, number]).random(judge.trace.pictures(split))[judge.images[split]]
            for number, split in enumerate(SPLITS)
        }
        rivals = judge.trace.rivals if plan.rivals is None else [r for r in judge.trace.rivals if r in plan.rivals]
        about = judge.trace.index.rivals
        self._guards: dict[tuple[str, int, bool], float] = {}
        self._local_names = [name for name in rivals if about[name]["kind"] == "local"]
        self._upload_names = [name for name in rivals if about[name]["kind"] == "offload"]

    # The local schemes know no link.

    @cached_property
    def local(self) -> dict[str, dict[Split, LocalExits]]:
        """The local schemes, the whole network among them."""
        found = {
            name: {
                s: LocalExits.of(self.judge.trace.index.rivals[name], self.judge.rival(s, name), self.profile)
                for s in SPLITS
            }
            for name in self._local_names
        }
        seconds = self.pace().whole
        found[WHOLE] = {s: LocalExits((DEVICE,), self.judge.device(s), (seconds,), (0.0,)) for s in SPLITS}
        return found

    @cached_property
    def target(self) -> float:
        """Accuracy that every scheme has to reach on the calibration split."""
        return max(best_accuracy(exits["calibration"]) for exits in self.local.values()) - self.plan.target_loss

    @cached_property
    def local_guards(self) -> dict[str, float]:
        """The guards of local early exit, see :meth:`guard`."""
        if not self.plan.guard:
            return dict.fromkeys(self.local, 0.0)
        found = {}
        for name, exits in self.local.items():
            asked = choose_local(exits["calibration"], self.target).asked
            found[name] = (
                optimism(exits["calibration"].runs(asked), self.target, choose_each) if len(asked) > 1 else 0.0
            )
        return found

    @cached_property
    def local_points(self) -> dict[str, LocalPoint]:
        """The local schemes' operating points."""
        found = {}
        for name, exits in self.local.items():
            target = self.target + self.local_guards[name]
            point = choose_local(exits["calibration"], target)
            alone = choose_alone(exits["calibration"], self.target)
            reached = point.choice.score.accuracy >= target - ALIKE
            if alone is not None and not (reached and point.choice.score.cost <= alone.choice.score.cost):
                point = alone
            found[name] = point
        return found

    def guard(self, name: str, link: LinkParameters) -> float:
        """What a variant of FLEET gains in accuracy by being chosen on the images that it is judged on.

        Thresholds are fitted to the calibration split, so they keep their promise less well elsewhere the more of
        them there are. Every scheme with thresholds must reach the target with so much to spare; what has none, an
        exit that always answers, owes nothing. It is the mean over a few links of a kind, for that of one is noisy.
        """
        if not self.plan.guard:
            return 0.0
        key = name, link.payload, link.ci_ms > LONG_CI_MS
        if key not in self._guards:
            variant = VARIANTS[name]
            found = []
            for ci_ms in GUARD_CI_MS[key[2]]:
                like = LinkParameters(ci_ms=ci_ms, packets=4, payload=link.payload)
                for manner in variant.manners:
                    race = self.race(variant, manner, "calibration", like, self._teams(variant)[-1])
                    found.append(optimism(race.runs, self.target, choose_each if variant.each else choose_single))
            self._guards[key] = float(np.mean(found))
        return self._guards[key]

    @cached_property
    def all_uploads(self) -> dict[str, dict[Split, Uploads]]:
        """The uploading schemes with all their points; those with stripped headers are schemes of their own."""
        found = {}
        for name in self._upload_names:
            about = self.judge.trace.index.rivals[name]
            whole = {
                s: Uploads.of(about, self.judge.rival(s, name), self.judge.sizes(s, name), self.profile) for s in SPLITS
            }
            for suffix, points in variants(about).items():
                found[name + suffix] = {s: whole[s].only(points) for s in SPLITS}
        return found

    @cached_property
    def uploads(self) -> dict[str, dict[Split, Uploads]]:
        """The uploading schemes with the points that are worth a try."""
        found = {}
        for name, uploads in self.all_uploads.items():
            worth = uploads["calibration"].worth_trying(self.target)
            found[name] = {s: uploads[s].only(worth) for s in SPLITS}
        return found

    def pace(self, heads: Sequence[int] = (), *, picture: bool = False) -> Pace:
        """When the device has done what, with these local exits in a race, and with the picture before everything."""
        index = self.judge.trace.index
        macs = {int(h["n"]): h["macs"] for h in index.local_exits}
        shown = index.picture["macs"] if picture else None
        return Pace.of(index.stages, len(index.sent), self.profile, {n: macs[n] for n in heads}, shown)

    def air(self, split: Split, link: LinkParameters) -> Air:
        """A link at each image's phase."""
        return Air.at_phases(link, NRF5340, self._phases[split])

    def results(self, link: LinkParameters, hints: dict[str, tuple[float, ...]]) -> dict[str, Result]:
        """Every scheme on one link.

        Args:
            link: without loss.
            hints: thresholds that were good on a similar link, by scheme; the new ones are left in it.
        """
        found = {name: self._ours(VARIANTS[name], name, link, hints) for name in self.plan.fleet if self._can(name)}
        found.update({name: self._local(name, link) for name in self.local})
        found.update({name: self._upload(name, link) for name in self.uploads})
        return found

    def _can(self, name: str) -> bool:
        variant, index = VARIANTS[name], self.judge.trace.index
        return (not variant.race or bool(index.local_exits)) and (not variant.picture or bool(index.picture))

    def _ours(self, variant: Variant, name: str, link: LinkParameters, hints: dict[str, tuple[float, ...]]) -> Result:
        guard = self.guard(name, link)
        target = self.target + guard
        best: tuple[Choice, tuple[int, ...], Manner] | None = None
        waits: tuple[Choice, tuple[int, ...], Manner] | None = None
        names: tuple[str, ...] = ()
        for heads, manner in itertools.product(self._teams(variant), variant.manners):
            race = self.race(variant, manner, "calibration", link, heads)
            key = f"{name} {heads} {manner}"
            known = [hints[key]] if key in hints else []
            choice = choose_each(race.runs, target, known) if variant.each else choose_single(race.runs, target)
            hints[key] = choice.thresholds
            if best is None or choice.score.better(best[0].score, target):
                best, names = (choice, heads, manner), race.names
            never = (NEVER,) * race.exits
            waiting = Choice(never, race.runs.score(np.asarray(never)))
            if waits is None or waiting.score.better(waits[0].score, self.target):
                waits = waiting, heads, manner
        assert best is not None
        assert waits is not None
        if best[0].score.accuracy < target - ALIKE <= waits[0].score.accuracy + guard:
            best, guard, target = waits, 0.0, self.target  # no threshold, nothing owed
        choice, heads, manner = best
        score = choice.score
        levels = {n: _level(t) for n, t in zip(names, choice.thresholds, strict=False)}
        point = {"thresholds": levels, "manner": asdict(manner)}
        if score.accuracy < target - ALIKE:
            return Result(point, (score.accuracy, score.cost), guard=guard)
        test = self.race(variant, manner, "test", link, heads)
        outcomes, right, who = test.end(choice.thresholds)
        shares = np.bincount(who, minlength=len(test.names)) / len(who)
        said = {n: float(share) for n, share in zip(test.names, shares, strict=True) if share}
        return Result(point, (score.accuracy, score.cost), outcomes, right, said, guard)

    def _teams(self, variant: Variant) -> list[tuple[int, ...]]:
        """Which local exits may run: none without a race, else none, each alone, and all."""
        stages = tuple(int(h["n"]) for h in self.judge.trace.index.local_exits)
        if not variant.race:
            return [()]
        return list(dict.fromkeys([(), *((n,) for n in stages), stages]))

    @property
    def alone_s(self) -> float:
        """Seconds that a device takes for the whole network once it has shown the picture."""
        pace = self.pace(picture=True)
        return pace.whole - (pace.picture or 0.0)

    def rests(self, link: LinkParameters) -> bool:
        """Whether a device that has shown the longest picture and does not race waits for the answer."""
        counts = self.judge.recorded_picture("calibration", link.payload, thrifty=False).packets.counts
        return pays_to_rest(self.alone_s, int(counts.max()), link)

    def race(
        self, variant: Variant, manner: Manner, split: Split, link: LinkParameters, heads: tuple[int, ...]
    ) -> Race:
        """FLEET on one link, replayed."""
        rule: Rule = "confidence" if variant.rule == "agreement" else variant.rule
        if variant.picture:
            # A device that does not rest is not thrifty: its own answer would come before the rest of the picture.
            thrifty = variant.thrifty and self.rests(link)
            recorded = self.judge.recorded_picture(split, link.payload, thrifty=thrifty)
        else:
            recorded = self.judge.recorded(split, link.payload, rule)
        rows = tuple(recorded.local_stages.index(n) for n in heads)
        return Race.on(
            recorded,
            self.pace(heads, picture=variant.picture),
            self.air(split, link),
            exit_s=self.plan.cloud_s,
            local=rows,
            manner=manner,
        )

    def _local(self, name: str, link: LinkParameters) -> Result:
        point = self.local_points[name]
        exits, score = self.local[name]["test"], point.choice.score
        guard = self.local_guards[name] if len(point.asked) > 1 else 0.0
        levels = {exits.names[n]: _level(t) for n, t in zip(point.asked[:-1], point.choice.thresholds, strict=False)}
        about = {"exits": [exits.names[n] for n in point.asked], "thresholds": levels}
        if score.accuracy < self.target + guard - ALIKE:
            return Result(about, (score.accuracy, score.cost), guard=guard)
        answered, right, who = exits.end(point.asked, point.choice.thresholds)
        shares = np.bincount(who, minlength=len(exits.names)) / len(who)
        said = {n: float(share) for n, share in zip(exits.names, shares, strict=True) if share}
        outcomes = local_outcomes(self.air("test", link), answered)
        return Result(about, (score.accuracy, score.cost), outcomes, right, said, guard)

    def _upload(self, name: str, link: LinkParameters) -> Result:
        uploads = self.uploads[name]["calibration"]
        air, cloud_s = self.air("calibration", link), self.plan.cloud_s
        costs = [float(uploads.end(p, air, cloud_s=cloud_s).latency.mean()) for p in range(len(uploads.names))]
        best = int(np.argmin(costs))
        point, accuracy = {"upload": uploads.names[best]}, uploads.accuracy(best)
        if accuracy < self.target - 1e-9:
            return Result(point, (accuracy, costs[best]))
        test = self.uploads[name]["test"]
        outcomes = test.end(best, self.air("test", link), cloud_s=cloud_s)
        return Result(point, (accuracy, costs[best]), outcomes, test.judged.right[best])


def _level(threshold: float) -> float | None:
    """A threshold for JSON, which has no infinity."""
    return round(threshold, 6) if np.isfinite(threshold) else None
