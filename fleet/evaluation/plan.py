# SPDX-License-Identifier: Apache-2.0
"""What a sweep runs, from its YAML file: links, platforms, and how FLEET decides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from fleet import strict_yaml
from fleet.errors import FleetError
from fleet.evaluation.certainty import Rule, Unit
from fleet.evaluation.schemes.ours import Manner
from fleet.inference import THRIFTY_BYTES
from fleet.link.parameters import CI_MAX_MS, CI_MIN_MS, CI_STEP_MS, LinkParameters

KEYS = {
    *("name", "platforms", "time_scales", "units", "cloud_ms", "seed", "target_loss", "guard"),
    *("fleet", "rivals", "curves", "links", "losses"),
}
LINK_KEYS = ("ci_ms", "packets", "phy", "payload", "ack", "as_published")
SPAN_KEYS = {"from", "to", "count"}
MOST_ROWS = 100_000


@dataclass(frozen=True)
class Variant:
    """A way in which FLEET decides.

    Attributes:
        rule: what an exit's certainty is.
        each: a threshold for every exit; else the paper's one for all.
        race: whether the device's own exits take part.
        patient: see :class:`fleet.evaluation.schemes.ours.Manner`, as the next two.
        parts: the same.
        fill: the same.
        hold: the same.
        picture: the same.
        thrifty: the same.
        thirds: the same.
        undecided: which of patient and hold are chosen on the calibration split, link by link, like the thresholds.
        step: of design.md section 12 that it is about, if it is.
        note: for a table's footnote.
    """

    rule: Rule = "confidence"
    each: bool = True
    race: bool = False
    patient: bool = False
    parts: bool = False
    fill: bool = False
    hold: bool = False
    picture: bool = False
    thrifty: bool = False
    thirds: bool = False
    undecided: tuple[str, ...] = ()
    step: str = ""
    note: str = ""

    @property
    def manners(self) -> tuple[Manner, ...]:
        """What of it the replay needs to know; more than one where calibration chooses."""
        patience, holds = (
            (True, False) if name in self.undecided else (getattr(self, name),) for name in ("patient", "hold")
        )
        agrees = self.rule == "agreement"
        return tuple(
            Manner(agrees, patient, self.parts, self.fill, hold, self.picture, self.thrifty, self.thirds)
            for patient in patience
            for hold in holds
        )


_PATIENT = "the last exit answers only if it is sure; the device does in the end"
_PARTS = "one threshold for an exit whose own stage has only begun, another once it is complete"
_TWO = "what the hub does with features alone: fleet-parts, and fleet-patient where calibration says so"
_FILL = "room that the newest stage leaves in an event goes to the stage before"

_HOLD = "an exit waits for the burst's last packet"
_BEST = "fleet-patient, -parts and -fill, and -hold where calibration says so"

_PICTURE = (
    "the picture itself travels, the hub answers on it, once the burst is over where that pays; "
    "the device rests, where the hub is the sooner"
)
_THIRDS = f"{_PICTURE}; a threshold for each third of it while it arrives"

VARIANTS: Mapping[str, Variant] = {
    "fleet": Variant(note="one threshold an exit"),
    "fleet-single": Variant(each=False, note="one threshold for all exits, 0.1 to 0.9, as the paper has it"),
    "fleet-race": Variant(race=True, step="7", note="with the device's own exits beside the radio"),
    "fleet-entropy": Variant("entropy", step="6", note="sure by the entropy"),
    "fleet-margin": Variant("margin", step="6", note="sure by the margin over the second likeliest"),
    "fleet-agreement": Variant("agreement", step="6", note="sure only where the exit before said the same"),
    "fleet-patient": Variant(patient=True, step="5", note=_PATIENT),
    "fleet-parts": Variant(parts=True, step="5", note=_PARTS),
    "fleet-two": Variant(parts=True, undecided=("patient",), step="5", note=_TWO),
    "fleet-two-race": Variant(parts=True, undecided=("patient",), race=True, step="5, 7", note=f"{_TWO}; with a race"),
    "fleet-fill": Variant(fill=True, step="5", note=_FILL),
    "fleet-hold": Variant(hold=True, step="5", note=_HOLD),
    "fleet-best": Variant(patient=True, parts=True, fill=True, undecided=("hold",), step="5", note=_BEST),
    "fleet-best-race": Variant(
        patient=True,
        parts=True,
        fill=True,
        undecided=("hold",),
        race=True,
        step="5, 7",
        note=f"{_BEST}, and fleet-race",
    ),
    "fleet-picture": Variant(picture=True, thirds=True, undecided=("hold",), step="4", note=_THIRDS),
    "fleet-picture-one": Variant(
        picture=True, undecided=("hold",), step="4, 5", note=f"{_PICTURE}; one threshold while it arrives"
    ),
    "fleet-picture-race": Variant(
        picture=True,
        race=True,
        thirds=True,
        undecided=("hold",),
        step="4, 7",
        note=f"{_THIRDS}; local exits beside it where they pay, and then it never rests",
    ),
    "fleet-picture-thrifty": Variant(
        picture=True,
        thrifty=True,
        thirds=True,
        undecided=("hold",),
        step="4, 5",
        note=f"{_THIRDS}; where the device rests, it goes in parts of {THRIFTY_BYTES} bytes or a packet",
    ),
}
PLAIN = "fleet"


@dataclass(frozen=True)
class LossPlan:
    """Tables of random loss, on the first test images, of which the trace has every set of packets.

    Attributes:
        shares: probabilities that a packet is lost.
        masks: runs with seeds of their own.
    """

    shares: tuple[float, ...]
    masks: int


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Attributes:
        name: for people.
        links: connection intervals ascend within each tuple; nothing else differs there but they.
        platforms: names or paths of profiles.
        time_scales: what multiplies their times.
        units: what is judged.
        cloud_s: seconds that the hub takes for an exit or a whole network.
        seed: of phases and resamples.
        target_loss: how far below the best local early exit the target lies, 0..1.
        guard: whether thresholds must reach the target with what they owe to their images to spare, see
            :meth:`fleet.evaluation.contest.Contest.guard`.
        fleet: names of :data:`VARIANTS`.
        rivals: names of schemes; None: all that the trace has.
        curves: whether every operating point is listed, too.
        losses: random loss; None: none.
    """

    name: str
    links: tuple[tuple[LinkParameters, ...], ...]
    platforms: tuple[str, ...]
    time_scales: tuple[float, ...]
    units: tuple[Unit, ...]
    cloud_s: float
    seed: int
    target_loss: float
    guard: bool
    fleet: tuple[str, ...]
    rivals: tuple[str, ...] | None
    curves: bool
    losses: LossPlan | None

    @property
    def rows(self) -> int:
        """How many rows the sweep has."""
        each = len(self.platforms) * len(self.time_scales) * len(self.units)
        each *= 1 if self.losses is None else len(self.losses.shares)
        return each * sum(map(len, self.links))


def load_plan(path: Path) -> Plan:
    """Read a sweep's file.

    Raises:
        FleetError: it cannot be read, or says something that no sweep can do.
    """
    try:
        entries = strict_yaml.load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise FleetError(f"cannot read {path}: {err.strerror}") from err
    except (yaml.YAMLError, RecursionError, ValueError) as err:
        raise FleetError(f"{path} is not valid YAML: {str(err).splitlines()[0]}") from err
    if not isinstance(entries, dict):
        raise FleetError(f"{path} must hold keys and values (platforms: [cortex-a77-200] and so on)")
    try:
        return parse_plan(entries, default_name=path.stem)
    except FleetError as err:
        raise FleetError(f"{path}: {err}") from err


def parse_plan(entries: Mapping[str, Any], *, default_name: str) -> Plan:
    """A plan from the file's keys and values.

    Raises:
        FleetError: an unknown key or a value that cannot be.
    """
    if unknown := sorted(str(key) for key in entries if key not in KEYS):
        raise FleetError(f"unknown key {unknown[0]}; there are {', '.join(sorted(KEYS))}")
    variants = _names(entries, "fleet", ("fleet", "fleet-single"))
    if wrong := [name for name in variants if name not in VARIANTS]:
        raise FleetError(f"FLEET has no variant {wrong[0]}; there are {', '.join(VARIANTS)}")
    units = _names(entries, "units", ("group",))
    if wrong := [unit for unit in units if unit not in get_args(Unit)]:
        raise FleetError(f"{wrong[0]} is no unit; there are {', '.join(get_args(Unit))}")
    plan = Plan(
        name=str(entries.get("name", default_name)),
        links=tuple(_links(entries.get("links"))),
        platforms=_names(entries, "platforms", ("cortex-a77-200",)),
        time_scales=tuple(_number("time_scales", s, above=0.0) for s in _list(entries.get("time_scales", 1.0))),
        units=tuple(units),  # type: ignore[arg-type]
        cloud_s=_number("cloud_ms", entries.get("cloud_ms", 5.0)) / 1000.0,
        seed=int(_number("seed", entries.get("seed", 0))),
        target_loss=_number("target_loss", entries.get("target_loss", 0.01)),
        guard=_truth("guard", entries.get("guard", True)),
        fleet=variants,
        rivals=_names(entries, "rivals", ()) if "rivals" in entries else None,
        curves=_truth("curves", entries.get("curves", False)),
        losses=_losses(entries["losses"]) if "losses" in entries else None,
    )
    if not 0 < plan.rows <= MOST_ROWS:
        raise FleetError(f"it has {plan.rows} rows; give 1 to {MOST_ROWS}")
    return plan


def _links(value: Any) -> list[tuple[LinkParameters, ...]]:
    if not isinstance(value, list) or not all(isinstance(block, dict) for block in value) or not value:
        raise FleetError("links is a list of blocks (ci_ms, packets, phy, payload, ack, as_published)")
    families: dict[tuple[Any, ...], dict[float, LinkParameters]] = {}
    for block in value:
        if wrong := sorted(str(key) for key in block if key not in LINK_KEYS):
            raise FleetError(f"a block of links has no key {wrong[0]}; there are {', '.join(LINK_KEYS)}")
        intervals = _intervals(block.get("ci_ms", 10.0))
        rest = {key: _list(block[key]) for key in LINK_KEYS[1:] if key in block}
        for chosen in itertools.product(*rest.values()):
            settings = dict(zip(rest, chosen, strict=True))
            for ci_ms in intervals:
                if (link := _link(ci_ms, settings)) is not None:
                    families.setdefault(tuple(sorted(settings.items())), {})[ci_ms] = link
    return [tuple(found[ci_ms] for ci_ms in sorted(found)) for found in families.values()]


def _link(ci_ms: float, settings: Mapping[str, Any]) -> LinkParameters | None:
    """A link, or None where no payload fits its interval."""
    LinkParameters(ci_ms=CI_MAX_MS, **settings)  # whatever else is wrong is an error
    try:
        return LinkParameters(ci_ms=ci_ms, **settings)
    except FleetError:
        LinkParameters(ci_ms=ci_ms, payload=20, phy="1M")  # so is an interval that no link has
        return None


def _intervals(value: Any) -> list[float]:
    """Connection intervals, listed or as so many from one to another in equal ratios, in steps of 1.25 ms."""
    if not isinstance(value, dict):
        return [_number("ci_ms", ci, above=0.0) for ci in _list(value)]
    if set(value) != SPAN_KEYS:
        raise FleetError("ci_ms is a number, a list, or has from, to and count")
    low, high = (_number(f"ci_ms.{end}", value[end]) for end in ("from", "to"))
    count = int(_number("ci_ms.count", value["count"], above=1.0))
    if not CI_MIN_MS <= low < high <= CI_MAX_MS:
        raise FleetError(f"ci_ms goes from {CI_MIN_MS:g} up to {CI_MAX_MS:g}")
    exact = (low * (high / low) ** (k / (count - 1)) for k in range(count))
    return sorted({round(ci / CI_STEP_MS) * CI_STEP_MS for ci in exact})


def _losses(value: Any) -> LossPlan:
    if not isinstance(value, dict) or set(value) - {"shares", "masks"} or "shares" not in value:
        raise FleetError("losses has shares and masks")
    shares = tuple(_number("losses.shares", share) for share in _list(value["shares"]))
    if not all(share < 1.0 for share in shares):
        raise FleetError("losses.shares are probabilities below 1: nothing ever arrives at 1")
    return LossPlan(shares, int(_number("losses.masks", value.get("masks", 5), above=0.0)))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _names(entries: Mapping[str, Any], key: str, default: Sequence[str]) -> tuple[str, ...]:
    found = _list(entries[key]) if key in entries else list(default)
    if not all(isinstance(name, str) for name in found):
        raise FleetError(f"{key} is a list of names")
    return tuple(dict.fromkeys(found))


def _number(key: str, value: Any, *, above: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise FleetError(f"{key} is a number of 0 or more, not {value!r}")
    if above is not None and value <= above:
        raise FleetError(f"{key} must be above {above:g}, not {value!r}")
    return float(value)


def _truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise FleetError(f"{key} is true or false, not {value!r}")
    return value


Family = Literal["fleet", "local", "partition", "jpeg", "jpeg-stripped", "webp", "webp-stripped"]
FAMILIES: Mapping[str, Family] = {
    "clio": "partition",
    "neurosurgeon": "partition",
    "jpeg": "jpeg",
    "jpeg-stripped": "jpeg-stripped",
    "webp": "webp",
    "webp-stripped": "webp-stripped",
}
"""By scheme; what is not here and not FLEET's is local."""
COUNTED = ("local", "partition", "jpeg", "jpeg-stripped")
"""Families of which ``all`` is the best: WebP is a rival that the paper does not have, and stands beside."""
