# SPDX-License-Identifier: Apache-2.0
"""What every section is given: the evidence, the model, the compute plan, and the words for conditions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.errors import FleetError
from fleet.evaluation.report.sweeps import Evidence, Row, Sweep

FAMILY_NAMES: Mapping[str, str] = {
    "local": "local early exit",
    "partition": "model partition",
    "jpeg": "JPEG, standard headers",
    "jpeg-stripped": "JPEG, stripped headers",
    "webp": "WebP",
    "all": "all baselines",
}


NAMES: Mapping[str, str] = {**FAMILY_NAMES, "fleet": "FLEET", "fleet-race": "FLEET with local exits (the race)"}


def name_of(scheme: str) -> str:
    """One of ours, or a family, in words."""
    return NAMES.get(scheme, scheme)


@dataclass(frozen=True)
class Context:
    """All inputs of a report.

    Attributes:
        evidence: sweeps and losses.
        manifest: of the bundle; empty where none was given.
        evaluation: of the bundle, what `fleet evaluate` wrote; empty where there is none.
        plan: what every scheme's training spent; empty where none was given.
        study: whether pages of `fleet study` stand beside the report's.
    """

    evidence: Evidence
    manifest: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    plan: Mapping[str, Any]
    study: bool = False

    @property
    def backbone(self) -> str | None:
        """Name of the base network."""
        found = self.evidence.conditions.get("backbone", self.manifest.get("backbone"))
        return None if found is None else str(found)

    @property
    def input_size(self) -> int | None:
        """Pixels a side."""
        found = self.evidence.conditions.get("input_size", self.manifest.get("input", {}).get("size"))
        return int(found) if isinstance(found, int | float) else None

    @property
    def classes(self) -> int | None:
        """How many classes the network knows."""
        found = self.evidence.conditions.get("classes", len(self.manifest.get("classes", ())) or None)
        return int(found) if isinstance(found, int | float) else None

    def base(self) -> tuple[str, ...]:
        """Conditions that all numbers of the main sweeps share."""
        return sweep_conditions(self.evidence.main[0], self.backbone, self.input_size)

    def conditions(self, rows: Sequence[Row] = (), *more: str) -> tuple[str, ...]:
        """Conditions of a table: those of all, the hub's constant of these rows, and its own."""
        return (*self.base(), *(() if not rows else (cloud_text(rows),)), *more)

    @property
    def absent(self) -> str:
        """A sentence on the paper's rivals that no sweep has; empty where all are there."""
        names = self.evidence.absent("all")
        told = "Rivals that were not run: {}. What is said of all baselines, or of their family, is of the others."
        return told.format(", ".join(names)) if names else ""

    def members(self, family: str) -> tuple[str, ...]:
        """Names of a family's rivals; of ``all`` every one but WebP, as ``fleet sweep`` counts."""
        rivals = [(n, str(about.get("family", ""))) for n, about in self.evidence.schemes.items()]
        if family == "all":
            return tuple(n for n, f in rivals if f not in ("fleet", "") and not f.startswith("webp"))
        return tuple(n for n, f in rivals if f == family)


def sweep_conditions(sweep: Sweep, backbone: str | None = None, input_size: int | None = None) -> tuple[str, ...]:
    """A file's conditions in words."""
    c = sweep.conditions
    network = " ".join(str(part) for part in (backbone, input_size and f"{input_size}×{input_size}") if part)
    parts = [
        f"bundle {c.get('bundle', '?')} {str(c.get('identity', ''))[:16]}".rstrip()
        + (f" ({network})" if network else ""),
        f"codec {c['codec']}" if c.get("codec") else "",
        f"test split {_split(c.get('test'))}",
        f"operating points from the calibration split {_split(c.get('calibration'))}",
        f"seed {c['seed']}" if "seed" in c else "",
        f"phase {c['phase']}" if "phase" in c else "",
        f"intervals {c['intervals']}" if "intervals" in c else "",
    ]
    return tuple(part for part in parts if part)


def _split(found: Any) -> str:
    if isinstance(found, Mapping):
        size = f" ({found['pictures']} pictures)" if "pictures" in found else ""
        return f"{Path(str(found.get('data', '?'))).name}{size}"
    return "not recorded" if found is None else str(found)


def cloud_text(rows: Iterable[Row]) -> str:
    """The hub's constant of some rows."""
    found = sorted({row.cloud_ms for row in rows if row.cloud_ms is not None})
    return "cloud constant " + (", ".join(f"{ms:g}" for ms in found) + " ms" if found else "not recorded")


def missing_sweep(config: str) -> str:
    """The command that gives the rows of a configuration."""
    return f"fleet sweep runs/trace config/sweeps/{config}.yaml --output runs/sweep/{config}.json"


def load_context(evidence: Evidence, model: Path | None, plan: Path | None, *, study: bool = False) -> Context:
    """Read what stands beside the sweeps.

    Raises:
        FleetError: a file cannot be read or is no JSON mapping, or the model is another one than the sweeps'.
    """
    manifest: Mapping[str, Any] = {}
    evaluation: Mapping[str, Any] = {}
    if model is not None:
        manifest = read_mapping(model / "manifest.json")
        beside = model / "evaluation.json"
        evaluation = read_mapping(beside) if beside.is_file() else {}
        named = evidence.conditions.get("bundle")
        if named is not None and manifest.get("name") not in (None, named):
            raise FleetError(
                f"{model} is the bundle {manifest['name']}, the sweeps are of {named}: give that one's folder"
            )
    return Context(evidence, manifest, evaluation, {} if plan is None else _plan(plan), study)


def _plan(path: Path) -> Mapping[str, Any]:
    found = read_mapping(path)
    if not isinstance(found.get("schemes"), list) or not all(isinstance(s, dict) for s in found["schemes"]):
        raise FleetError(f"{path} is no compute plan: it has no list of schemes")
    return found


def read_mapping(path: Path) -> Mapping[str, Any]:
    """A JSON file that holds a mapping.

    Raises:
        FleetError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise FleetError(f"cannot read {path}: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise FleetError(f"{path} is not JSON: {' '.join(str(err).split())}") from err
    if not isinstance(found, dict):
        raise FleetError(f"{path} holds no mapping")
    return found
