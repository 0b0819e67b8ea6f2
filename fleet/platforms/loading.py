# SPDX-License-Identifier: Apache-2.0
"""Profiles from YAML: those that come with the package, and a user's own."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from fleet import strict_yaml
from fleet.errors import FleetError
from fleet.platforms.calibration import local_exit_macs, rate_from_energy
from fleet.platforms.profile import LAYER_TYPES, PlatformProfile
from fleet.resources import expanded

SUFFIXES = (".yaml", ".yml")
MAX_BYTES = 1 << 20
SPEEDS = ("macs_per_second", "stage_seconds", "macs_per_cycle", "calibrate", "native")
KEYS = {"name", "source", "power_mw", "mhz", "family", *SPEEDS}
FAMILY_KEYS = ("first_mhz", "last_mhz", "step_mhz", "first_power_mw", "last_power_mw")


def available() -> list[str]:
    """Names of the profiles that come with the package, slowest first."""
    return list(_shipped())


LARGEST_TIME_SCALE = 1e4  # a frame would take minutes; far above this, clocks overflow


def load_profile(name_or_path: str, *, time_scale: float = 1.0) -> PlatformProfile:
    """Load a platform profile.

    Args:
        name_or_path: one of ``available()``, or the path of a YAML file (it has a slash or ends in .yaml).
        time_scale: multiplies every time of the profile; > 0.

    Raises:
        FleetError: there is no such profile, or the file is not a valid one.
    """
    if not 0.0 < time_scale <= LARGEST_TIME_SCALE:
        msg = f"time_scale must be a number above 0 and at most {LARGEST_TIME_SCALE:g}, not {time_scale}"
        raise FleetError(msg)
    if name_or_path in _shipped():
        profile = _shipped()[name_or_path]
    elif "/" in name_or_path or name_or_path.lower().endswith(SUFFIXES):
        profile = _from_file(expanded(name_or_path))
    else:
        raise FleetError(_unknown(name_or_path))
    return replace(profile, time_scale=time_scale)


def to_yaml(profile: PlatformProfile) -> str:
    """Write a profile as YAML that ``load_profile`` reads; ``time_scale`` is the reader's choice and is not in it."""
    entries: dict[str, Any] = {"name": profile.name, "source": profile.source, "power_mw": profile.power_mw}
    if profile.macs_per_second:
        entries["macs_per_second"] = dict(profile.macs_per_second)
    if profile.stage_seconds:
        entries["stage_seconds"] = dict(profile.stage_seconds)
    if not profile.paced:
        entries["native"] = True
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)


def parse(text: str, *, where: str, name: str) -> list[PlatformProfile]:
    """Read one YAML document: one profile, or the profiles of a family.

    Args:
        text: the document.
        where: its name in messages.
        name: the profile's name unless the document gives another.

    Raises:
        FleetError: it is not YAML, a key is missing, unknown or contradicts another, or a number is not one.
    """
    try:
        entries = strict_yaml.load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as err:
        mark = getattr(err, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark is not None else ""
        problem = getattr(err, "problem", None) or "it cannot be parsed"
        msg = f"{where} is not valid YAML{place}: {problem}".splitlines()[0]
        raise FleetError(msg) from err
    if not isinstance(entries, dict):
        msg = f"{where} must hold keys and values (power_mw: 9.3 and so on)"
        raise FleetError(msg)
    unknown = sorted(str(key) for key in entries if key not in KEYS)
    if unknown:
        msg = f"{where} has the unknown key {unknown[0]}{_closest(unknown[0], KEYS)}"
        raise FleetError(msg)
    return _Reader(where, entries).profiles(name)


class _Reader:
    """One document, and the checks that every number in it goes through."""

    def __init__(self, where: str, entries: Mapping[str, Any]) -> None:
        self._where = where
        self._entries = entries

    def profiles(self, name: str) -> list[PlatformProfile]:
        name = str(self._entries.get("name", name))
        source = self._entries.get("source")
        if not isinstance(source, str) or not source.strip():
            raise self._error("has no source: one line that says where its numbers come from")
        if "family" in self._entries:
            return self._family(name, source)
        if "power_mw" not in self._entries:
            raise self._error("has no power_mw (milliwatts of the busy processor; null if unknown)")
        raw = self._entries["power_mw"]
        power = None if raw is None else self._positive("power_mw", raw)
        speeds = [key for key in SPEEDS if key in self._entries]
        if len(speeds) != 1 and set(speeds) != {"macs_per_second", "stage_seconds"}:
            raise self._error(f"must have one of {', '.join(SPEEDS)} (it has {' and '.join(speeds) or 'none'})")
        return [
            PlatformProfile(
                name=name,
                power_mw=power,
                source=source,
                macs_per_second=self._rates(power),
                stage_seconds=self._stage_seconds(),
            )
        ]

    def _family(self, name: str, source: str) -> list[PlatformProfile]:
        family = self._mapping("family")
        missing = [key for key in FAMILY_KEYS if key not in family]
        if missing:
            raise self._error(f"has no family.{missing[0]}")
        values = {key: self._positive(f"family.{key}", family[key]) for key in FAMILY_KEYS}
        first, last, step = (round(values[key]) for key in FAMILY_KEYS[:3])
        low, high = (values[key] for key in FAMILY_KEYS[3:])
        if step < 1 or last <= first or (last - first) / step > 1000:
            raise self._error("needs family.first_mhz below last_mhz, in at most 1000 steps")
        per_cycle = self._positive("macs_per_cycle", self._entries.get("macs_per_cycle"))
        return [
            PlatformProfile(
                name=f"{name}-{mhz}",
                power_mw=low + (high - low) * (mhz - first) / (last - first),
                source=source,
                macs_per_second=dict.fromkeys(LAYER_TYPES, per_cycle * mhz * 1e6),
            )
            for mhz in range(first, last + 1, step)
        ]

    def _rates(self, power_mw: float | None) -> dict[str, float]:
        if "macs_per_cycle" in self._entries:
            per_cycle = self._positive("macs_per_cycle", self._entries["macs_per_cycle"])
            mhz = self._positive("mhz", self._entries.get("mhz"))
            return dict.fromkeys(LAYER_TYPES, per_cycle * mhz * 1e6)
        if "calibrate" in self._entries:
            calibrate = self._mapping("calibrate")
            if power_mw is None:
                raise self._error("can only be calibrated on an energy if power_mw is known")
            energy = self._positive("calibrate.energy_mj", calibrate.get("energy_mj"))
            macs = local_exit_macs(round(self._positive("calibrate.exit_stage", calibrate.get("exit_stage"))))
            return dict.fromkeys(LAYER_TYPES, rate_from_energy(macs, energy, power_mw))
        if "macs_per_second" not in self._entries:
            return {}
        rates = self._entries["macs_per_second"]
        if not isinstance(rates, dict):
            return dict.fromkeys(LAYER_TYPES, self._positive("macs_per_second", rates))
        for kind in rates:
            if kind not in LAYER_TYPES:
                raise self._error(f"has a rate for {kind} layers; there are {', '.join(LAYER_TYPES)}")
        if not rates:
            raise self._error("has no rate in macs_per_second")
        return {kind: self._positive(f"macs_per_second.{kind}", rate) for kind, rate in rates.items()}

    def _stage_seconds(self) -> dict[int, float]:
        if "stage_seconds" not in self._entries:
            return {}
        seconds: dict[int, float] = {}
        for stage, value in self._mapping("stage_seconds").items():
            if isinstance(stage, bool) or not isinstance(stage, int) or stage < 0:
                raise self._error(f"has stage_seconds for {stage!r}, which is no stage number")
            seconds[stage] = self._positive(f"stage_seconds.{stage}", value, zero=True)
        if not seconds:
            raise self._error("has no stage in stage_seconds")
        return seconds

    def _mapping(self, key: str) -> Mapping[Any, Any]:
        value = self._entries.get(key)
        if not isinstance(value, dict):
            raise self._error(f"needs keys and values under {key}")
        return value

    def _positive(self, key: str, value: object, *, zero: bool = False) -> float:
        if value is None:
            raise self._error(f"has no {key}")
        try:
            # YAML 1.1 takes 1e6 for text; whoever writes it means the number.
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number) or number < 0.0 or (number == 0.0 and not zero):
            least = "of 0 or more" if zero else "above 0"
            raise self._error(f"needs a number {least} for {key}, not {value!r}")
        return number

    def _error(self, problem: str) -> FleetError:
        return FleetError(f"{self._where} {problem}".replace("\n", " "))


@functools.cache
def _shipped() -> dict[str, PlatformProfile]:
    found: dict[str, PlatformProfile] = {}
    for entry in resources.files("fleet.platforms").iterdir():
        if entry.name.endswith(SUFFIXES):
            text = entry.read_text(encoding="utf-8")
            for profile in parse(text, where=f"profile {entry.name}", name=entry.name.rpartition(".")[0]):
                found[profile.name] = profile
    if not found:
        msg = "the platform profiles are missing from this installation of fleet: install it again"
        raise FleetError(msg)
    return dict(sorted(found.items(), key=lambda item: _slowest_first(item[1])))


def _slowest_first(profile: PlatformProfile) -> tuple[bool, float]:
    return (not profile.paced, profile.macs_per_second.get("conv", 0.0))


def _from_file(path: Path) -> PlatformProfile:
    try:
        data = path.read_bytes()[: MAX_BYTES + 1]
        text = data.decode()
    except FileNotFoundError as err:
        msg = f"there is no platform file {path}; platforms that come with fleet: {', '.join(available())}"
        raise FleetError(msg) from err
    except (OSError, ValueError) as err:
        cause = (err.strerror or str(err)).lower() if isinstance(err, OSError) else "it is not text"
        msg = f"cannot read the platform file {path}: {cause}"
        raise FleetError(msg) from err
    if len(data) > MAX_BYTES:
        msg = f"{path} is too large for a platform profile"
        raise FleetError(msg)
    profiles = parse(text, where=str(path), name=path.stem)
    if len(profiles) != 1:
        msg = f"{path} is a family of {len(profiles)} platforms; write one with a single mhz and power_mw"
        raise FleetError(msg)
    return profiles[0]


def _unknown(name: str) -> str:
    names = available()
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.75)
    ordered = close + [other for other in names if other not in close]
    return f"unknown platform {name!r}: use {', '.join(ordered)}, or the path of a YAML file"


def _closest(word: str, choices: set[str]) -> str:
    close = difflib.get_close_matches(word, sorted(choices), n=1)
    return f"; did you mean {close[0]}?" if close else f"; it may have {', '.join(sorted(choices))}"
