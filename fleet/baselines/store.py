# SPDX-License-Identifier: Apache-2.0
"""Weights of the baselines on disk: only what differs from the base network, with hashes and how they came about."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fleet.backbones import Backbone, build_backbone, load_weights
from fleet.baselines.registry import FAMILIES, AnyScheme, Family, State
from fleet.bundle import Bundle, sha256_of
from fleet.errors import FleetError

INDEX = "baselines.json"
FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One family of baselines.

    Attributes:
        file: its weights.
        sha256: of the file.
        temperatures: by scheme, one a row of logits.
        spent: what went into each part: images, seconds, trained weights.
        accuracy: by scheme and row, on the calibration split.
    """

    file: str
    sha256: str
    temperatures: Mapping[str, tuple[float, ...]]
    spent: tuple[Mapping[str, Any], ...]
    accuracy: Mapping[str, Any]


@dataclass(frozen=True)
class Index:
    """What ``baselines.json`` says.

    Attributes:
        base: hash of the base network's weights, which all of these need.
        classes: ids in the order of the outputs.
        notes: licence, data, training.
        entries: by family.
    """

    base: str
    classes: tuple[str, ...]
    notes: Mapping[str, str]
    entries: Mapping[str, Entry] = field(default_factory=dict)


def base_network(bundle: Bundle) -> Backbone:
    """The base network of a bundle, as the device has it, ready to run.

    Raises:
        FleetError: the bundle's weights do not fit its manifest.
    """
    backbone = build_backbone(bundle.backbone, input_size=bundle.input_size, classes=len(bundle.classes))
    load_weights(backbone, bundle.cloud_path)
    return backbone.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def digest(backbone: Backbone) -> str:
    """Hash of a network's weights; counters do not count."""
    found = hashlib.sha256()
    for key, value in sorted(backbone.state_dict().items()):
        if value.is_floating_point():
            found.update(key.encode())
            found.update(value.float().contiguous().numpy().tobytes())
    return found.hexdigest()


def save_states(path: Path, states: Mapping[str, State]) -> None:
    """Write the weights of a family's parts in half precision, where that can hold them.

    Args:
        path: of the file.
        states: by part.
    """
    shipped = {}
    for part, state in states.items():
        for key, value in state.items():
            if not key.endswith("num_batches_tracked"):
                half = value.half() if value.is_floating_point() else value
                kept = half if torch.isfinite(half).all() else value
                shipped[f"{part}/{key}"] = kept.cpu().contiguous().clone()
    save_file(shipped, path)
    path.chmod(0o644)  # safetensors keeps it to its owner


def load_states(path: Path, family: Family) -> dict[str, dict[str, Tensor]]:
    """Read what :func:`save_states` wrote.

    Raises:
        FleetError: unreadable, or a part is missing.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as err:
        raise FleetError(f"{path} is damaged or no safetensors file; fetch it again") from err
    states: dict[str, dict[str, Tensor]] = {part: {} for part in family.parts}
    for name, value in stored.items():
        part, _, key = name.partition("/")
        if part not in states:
            raise FleetError(f"{path} holds '{part}', which is no part of {family.name}")
        states[part][key] = value.float() if value.is_floating_point() else value
    if empty := [part for part, state in states.items() if not state]:
        raise FleetError(f"{path} has no weights of {empty[0]}")
    return states


def save_index(directory: Path, index: Index) -> None:
    """Write ``baselines.json``, whole at every moment."""
    content = {"format": FORMAT, **asdict(index)}
    part = directory / f"{INDEX}.part"
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(directory / INDEX)


def load_index(directory: Path) -> Index:
    """Read ``baselines.json``.

    Raises:
        FleetError: none there, or a damaged one.
    """
    path = directory / INDEX
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise FleetError(f"{path} has format {content['format']}, this version reads {FORMAT}: export them again")
        entries = {
            name: Entry(
                file=str(e["file"]),
                sha256=str(e["sha256"]),
                temperatures={k: tuple(map(float, v)) for k, v in e["temperatures"].items()},
                spent=tuple(e["spent"]),
                accuracy=e["accuracy"],
            )
            for name, e in content["entries"].items()
        }
        return Index(str(content["base"]), tuple(content["classes"]), dict(content["notes"]), entries)
    except OSError as err:
        raise FleetError(f"{directory} holds no baselines: cannot read {INDEX} ({err.strerror})") from err
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise FleetError(f"{path} is damaged: {type(err).__name__} {' '.join(str(err).split())}") from err


def begin_with(model: nn.Module, part: str, directory: Path, bundle: Bundle) -> Mapping[str, Any]:
    """Give a part that is to be trained further the weights that it has in a folder of baselines.

    Returns:
        What was spent on them (:meth:`fleet.baselines.training.Run.spent`).

    Raises:
        FleetError: no baselines there, of another base network, or without that part.
    """
    index = load_index(directory)
    if digest(base_network(bundle)) != index.base:
        raise FleetError(f"{directory} was trained from another base network than {bundle.path} has")
    family = next((f for f in FAMILIES if part in f.parts and f.name in index.entries), None)
    if family is None:
        raise FleetError(f"{directory} has no finished '{part}' to begin with")
    entry = index.entries[family.name]
    state = load_states(directory / Path(entry.file).name, family)[part]
    try:
        left = model.load_state_dict(state, strict=False)
    except RuntimeError as err:
        raise FleetError(f"{directory}: the weights of {part} do not fit its training: {str(err)[:200]}") from err
    if odd := [key for key in (*left.missing_keys, *left.unexpected_keys) if not key.endswith("num_batches_tracked")]:
        raise FleetError(f"{directory}: the weights of {part} do not fit its training: {odd[0]}")
    return entry.spent[family.parts.index(part)]


def load_schemes(bundle: Bundle, directory: str | Path, names: Iterable[str] = ()) -> dict[str, AnyScheme]:
    """Load trained baselines.

    Args:
        bundle: whose base network they began with.
        directory: as ``models/baselines``.
        names: of schemes; all that are there where empty.

    Returns:
        By name of the scheme, in a fixed order.

    Raises:
        FleetError: no baselines there, another base network, a changed file, or a name that is not there.
    """
    folder, wanted = Path(directory), set(names)
    index = load_index(folder)
    base = base_network(bundle)
    if digest(base) != index.base or tuple(bundle.classes.ids) != index.classes:
        raise FleetError(f"{folder} was trained from another base network than {bundle.path} has: train them again")
    found: dict[str, AnyScheme] = {}
    for family in FAMILIES:
        if family.name not in index.entries or (wanted and not wanted & set(family.schemes)):
            continue
        entry = index.entries[family.name]
        path = folder / Path(entry.file).name
        if not path.is_file() or sha256_of(path) != entry.sha256:
            raise FleetError(f"{path} is missing or not the file that {INDEX} describes: fetch it again")
        states = load_states(path, family)
        for scheme in family.assemble(copy.deepcopy(base), states, entry.temperatures):
            if not wanted or scheme.name in wanted:
                found[scheme.name] = scheme
    if missing := sorted(wanted - set(found)):
        raise FleetError(f"{folder} has no baseline '{missing[0]}'; it has {', '.join(found) or 'none of these'}")
    return found
