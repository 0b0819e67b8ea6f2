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
        if not name.replace("-", "").isalnum():
            raise FleetError(f"{path}: the variant '{name}' names a folder: use letters, digits and hyphens")
        exits: ExitConfig = read_settings(ExitConfig, {**common, **own[name]}, f"{path}: variants: {name}: exits")
        exits = exits.as_published() if about.as_published else exits
        variants.append(Variant(name, about.about, about.against, exits))
    names = {variant.name for variant in variants}
    for variant in variants:
        if variant.against and (variant.against not in names or variant.against == variant.name):
            raise FleetError(f"{path}: {variant.name} is compared with '{variant.against}', which is no other variant")
    return Study(load_config(path.parent / file.training), file.depth, tuple(variants))


def _mapping(found: object, name: str) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise FleetError(f"{name} must be a mapping of settings, not {found!r}")
    return dict(found)
