# SPDX-License-Identifier: Apache-2.0
"""A study: one YAML file that says which trainings are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from fleet import strict_yaml
from fleet.baselines.config import Budget
from fleet.errors import FleetError
from fleet.training.config import ExitConfig, TrainingConfig, load_config, read_settings

DEPTH = "depth"
"""What the training of exits of several depths is called among the variants."""


@dataclass(frozen=True)
class DepthStudy:
    """Exits of several depths on the device, trained side by side behind the frozen base network (Figure 1b).

    Attributes:
        budget: of the training.
        convolutions: of each kind of exit, before its fully connected layer.
        width: channels of a convolution.
    """

    budget: Budget
    convolutions: tuple[int, ...] = (0, 2, 4)
    width: int = 64

    def check(self, name: str) -> None:
        """Refuse what cannot be trained.

        Raises:
            FleetError: convolutions that do not ascend, or another number out of its range.
        """
        self.budget.check(f"{name}: budget")
        if self.budget.batch < 2:
            raise FleetError(f"{name}: budget needs two images a step, whose norms are of more than one")
        counts = list(self.convolutions)
        if not counts or counts != sorted(set(counts)) or counts[0] < 0 or self.width < 1:
            raise FleetError(f"{name}: convolutions must ascend from 0 or more, width is 1 or more")


@dataclass(frozen=True)
class Variant:
    """One training of encoders and exits.

    Attributes:
        name: as the study has it.
        about: what is different, in words.
        against: the variant that lacks this difference; empty for those that others are compared with.
        exits: its settings.
    """

    name: str
    about: str
    against: str
    exits: ExitConfig


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        training: data, augmentation and loss of all trainings.
        depth: exits of several depths; None for none.
        variants: trainings of exits.
    """

    training: TrainingConfig
    depth: DepthStudy | None
    variants: tuple[Variant, ...]

    def config_of(self, variant: Variant) -> TrainingConfig:
        """The whole configuration of a variant's training."""
        return replace(self.training, exits=variant.exits)


@dataclass(frozen=True)
class _Entry:
    about: str
    against: str = ""
    as_published: bool = False


@dataclass(frozen=True)
class _File:
    training: str
    depth: DepthStudy | None = None
    exits: dict[str, object] = field(default_factory=dict)
    variants: dict[str, _Entry] = field(default_factory=dict)


def load_study(path: Path) -> Study:
    """Read a study.

    ``exits`` holds what all variants share; a variant's own ``exits`` change some of it, and ``as_published: true``
    then what FLEET adds to the paper (:meth:`fleet.training.config.ExitConfig.as_published`).

    Raises:
        FleetError: missing, not YAML, an unknown or ill-typed key, or a comparison with a variant that is not there.
    """
    try:
        loaded = strict_yaml.load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise FleetError(f"cannot read the study {path}: {err.strerror}") from err
    except (ValueError, RecursionError, yaml.YAMLError) as err:  # ValueError: no text, no date
        raise FleetError(f"{path} is not valid YAML: {' '.join(str(err).split())}") from err
    if not isinstance(loaded, dict):
        raise FleetError(f"{path} must be a mapping of settings, not {loaded!r}")
    common = _mapping(loaded.pop("exits", {}), f"{path}: exits")
    entries = _mapping(loaded.get("variants", {}), f"{path}: variants")
    own, rest = {}, {}
    for name, entry in entries.items():
        rest[str(name)] = _mapping(entry, f"{path}: variants: {name}")
        own[str(name)] = _mapping(rest[str(name)].pop("exits", {}), f"{path}: variants: {name}: exits")
    file: _File = read_settings(_File, {**loaded, "variants": rest}, str(path))
    variants = []
    for name, about in file.variants.items():
        if name == DEPTH:
            raise FleetError(
                f"{path}: no variant can be called {DEPTH}, which is the training of exits of several depths"
            )
        if not name.replace("-", "").isalnum():
            raise FleetError(f"{path}: the variant '{name}' names a folder: use letters, digits and hyphens")
        exits: ExitConfig = read_settings(ExitConfig, {**common, **own[name]}, f"{path}: variants: {name}: exits")
        exits.check(f"{path}: variants: {name}: exits")
        exits = exits.as_published() if about.as_published else exits
        variants.append(Variant(name, " ".join(about.about.split()), about.against, exits))
    by_name = {variant.name: variant for variant in variants}
    for variant in variants:
        other = by_name.get(variant.against)
        if variant.against and other in (None, variant):
            raise FleetError(f"{path}: {variant.name} is compared with '{variant.against}', which is no other variant")
        if other is not None and len(other.exits.channels) != len(variant.exits.channels):
            raise FleetError(f"{path}: {variant.name} sends other stages than {other.name}, which it is compared with")
    if file.depth is not None:
        file.depth.check(f"{path}: depth")
    elif not variants:
        raise FleetError(f"{path} names neither depth nor variants")
    return Study(load_config(path.parent / file.training), file.depth, tuple(variants))


def _mapping(found: object, name: str) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise FleetError(f"{name} must be a mapping of settings, not {found!r}")
    return dict(found)
