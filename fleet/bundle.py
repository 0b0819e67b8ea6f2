# SPDX-License-Identifier: Apache-2.0
"""A bundle: a directory that holds one trained model for both ends of the link.

``manifest.json`` says everything that the two ends must share and names every other file with its SHA-256:
one ONNX file a stage and one for the head (the device's), ``cloud.safetensors`` (the hub's), and, where the device can
race the hub, one ONNX file a local exit. The first eight bytes of the manifest's own SHA-256 are the bundle's identity
on the air.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fleet.codec import Coder, StageLayout, coder_named
from fleet.errors import FleetError
from fleet.exits import Classes, Decider
from fleet.manifest import as_json, layout_from_manifest, layout_to_manifest
from fleet.packet import PICTURE

MANIFEST = "manifest.json"
FORMAT = 2
MAX_MANIFEST_BYTES = 4 << 20
MAX_INPUT_SIZE = 4096
MOST_LEVELS = 64
Precision = Literal["float", "int8"]


@dataclass(frozen=True)
class StageFile:
    """One stage of the device's network.

    Attributes:
        n: 1.. for stages, the number after the last stage for the head; 0 for the picture itself.
        files: ONNX file by precision; two precisions may share one.
        macs: multiply-accumulates by layer type, the encoder's included.
    """

    n: int
    files: Mapping[str, str]
    macs: Mapping[str, int]


@dataclass(frozen=True)
class LocalExit:
    """A head of the device's own behind one of its stages, for the race (design section 12.7).

    Attributes:
        n: the stage whose features it takes.
        file: its ONNX file, features (1, C, H, W) to logits (1, classes); the same for every precision.
        macs: multiply-accumulates by layer type.
        temperature: logits are divided by it.
        threshold: the certainty from which it answers; infinite: never.
    """

    n: int
    file: str
    macs: Mapping[str, int]
    temperature: float
    threshold: float

    def __post_init__(self) -> None:
        """Refuse what would silently decide otherwise.

        Raises:
            FleetError: negative multiply-accumulates, a temperature that is not positive, a threshold that is no
                number.
        """
        if min(self.macs.values(), default=0) < 0:
            raise FleetError(f"local exit {self.n} has negative multiply-accumulates")
        if not (math.isfinite(self.temperature) and self.temperature > 0) or math.isnan(self.threshold):
            raise FleetError(f"local exit {self.n} needs a positive temperature and a threshold that is a number")


@dataclass(frozen=True)
class Bundle:
    """One trained model.

    Attributes:
        path: the directory.
        name: as the manifest has it.
        identity: first eight bytes of the manifest's SHA-256; both ends must hold the same.
        backbone: name of the backbone.
        input_size: height and width of the network's input, pixels.
        mean: of the input's normalisation, RGB, 0..1.
        std: of the input's normalisation, RGB, 0..1.
        classes: what it recognises.
        exit_stages: N, the last stage that is sent.
        stages: the device's network in order, the head last.
        layouts: what each stage sends, by stage; under 0 the picture itself, where there is one.
        decider: temperatures and thresholds.
        coder: how coefficients are coded by default.
        cloud_file: the hub's weights.
        trained: whether the weights come from training; a fresh network is good for plumbing only.
        local_exits: the device's own exits for the race, by stage; most bundles have none.
        picture: the device's stage 0, where the picture itself travels first.
        picture_file: the hub's weights of exit 0; empty without a picture.
        fuse: k of the paper, how many stages an exit fuses.
        combinations: whether exits have a fusion block for every combination of sizes, as published.
        notes: licence, data and training, free text by key; they say nothing that a program needs.
    """

    path: Path
    name: str
    identity: bytes
    backbone: str
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: Classes
    exit_stages: int
    stages: tuple[StageFile, ...]
    layouts: Mapping[int, StageLayout]
    decider: Decider
    coder: Coder
    cloud_file: str
    trained: bool
    checksums: Mapping[str, str] = field(repr=False)
    local_exits: Mapping[int, LocalExit] = field(default_factory=dict)
    picture: StageFile | None = None
    picture_file: str = ""
    fuse: int = 2
    combinations: bool = False
    notes: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Read a bundle's manifest and check that its files are there and unharmed.

        Raises:
            FleetError: no bundle there, another format, a file that is missing or has changed.
        """
        directory = Path(path)
        manifest_path = directory / MANIFEST
        try:
            if manifest_path.stat().st_size > MAX_MANIFEST_BYTES:
                raise FleetError(f"{manifest_path} is too large to be a manifest")
            raw = manifest_path.read_bytes()
        except OSError as err:
            raise FleetError(f"{directory} is not a model bundle: cannot read {MANIFEST} ({err.strerror})") from err
        try:
            manifest = json.loads(raw)
            bundle = cls._from_manifest(directory, manifest, hashlib.sha256(raw).digest()[:8])
        except FleetError as err:
            raise FleetError(f"{manifest_path}: {_one_line(err)}") from err
        except KeyError as err:
            raise FleetError(f"{manifest_path} is damaged: it has no {_one_line(err)}") from err
        except (ValueError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as err:
            raise FleetError(f"{manifest_path} is damaged: {type(err).__name__} {_one_line(err)}") from err
        bundle.verify()
        return bundle

    @classmethod
    def _from_manifest(cls, directory: Path, m: Mapping[str, Any], identity: bytes) -> Bundle:
        if m.get("format") != FORMAT:
            raise FleetError(f"bundle format {m.get('format')}, this version reads {FORMAT}: export it again")
        classes = Classes.from_manifest(m["classes"], m["groups"])
        stages = tuple(_stage_from_manifest(s) for s in m["stages"])
        if [stage.n for stage in stages] != list(range(1, len(stages) + 1)):
            raise FleetError("the stages must be numbered from 1 on, in their order, the head last")
        layouts = {int(s["n"]): layout_from_manifest(int(s["n"]), s["latent"]) for s in m["stages"] if "latent" in s}
        if not layouts or len(layouts) == len(stages) or sorted(layouts) != list(range(1, len(layouts) + 1)):
            raise FleetError("the stages that are sent must be numbered from 1 on; the head is not one of them")
        picture, picture_file = None, ""
        if (entry := m.get("picture")) is not None:
            picture, picture_file = _stage_from_manifest({"n": PICTURE, **entry}), _text(entry["cloud"], "cloud")
            layouts = {PICTURE: layout_from_manifest(PICTURE, entry["latent"]), **layouts}
        decision = m["decision"]
        decider = Decider(
            classes=classes,
            temperatures={int(k): float(v) for k, v in decision["temperatures"].items()},
            thresholds={int(k): float(v) for k, v in decision["thresholds"].items()},
            trigger=decision["trigger"],
            unit=decision["unit"],
            begun={int(k): _levels(v) for k, v in decision.get("thresholds_begun", {}).items()},
            patient=_flag(decision.get("patient", False), "patient"),
        )
        size = int(m["input"]["size"])
        if not 1 <= size <= MAX_INPUT_SIZE:
            raise FleetError(f"an input size of {size} pixels is outside 1 to {MAX_INPUT_SIZE}")
        if picture is not None and size % (2 * layouts[PICTURE].ladder.finest):
            raise FleetError(
                f"a picture of {size} pixels has no {layouts[PICTURE].ladder.finest} blocks of an even side"
            )
        fuse, combinations = _fusion(m.get("fusion", {}), len(layouts) - (picture is not None))
        mean, std = _three(m["input"]["mean"]), _three(m["input"]["std"])
        if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise FleetError("the input's mean and std must be finite, its std positive")
        return cls(
            path=directory,
            name=_text(m["name"], "name"),
            identity=identity,
            backbone=_text(m["backbone"], "backbone"),
            input_size=size,
            mean=mean,
            std=std,
            classes=classes,
            exit_stages=max(layouts),
            stages=stages,
            layouts=layouts,
            decider=decider,
            coder=coder_named(m["codec"]),
            cloud_file=_text(m["cloud"], "cloud"),
            trained=_flag(m["trained"], "trained"),
            checksums=dict(m["files"]),
            local_exits=_local_exits(m.get("local_exits", []), len(stages)),
            picture=picture,
            picture_file=picture_file,
            fuse=fuse,
            combinations=combinations,
            notes={str(key): _text(note, f"note {key!r}") for key, note in m.get("notes", {}).items()},
        )

    def without_picture(self) -> Bundle:
        """The same model as if it had no stage 0; on disk nothing changes."""

        def rest(by_stage: Mapping[int, Any]) -> dict[int, Any]:
            return {n: value for n, value in by_stage.items() if n != PICTURE}

        decider = self.decider
        decider = replace(
            decider,
            temperatures=rest(decider.temperatures),
            thresholds=rest(decider.thresholds),
            begun=rest(decider.begun),
        )
        return replace(self, layouts=rest(self.layouts), decider=decider, picture=None, picture_file="")

    def verify(self) -> None:
        """Compare every file with the manifest.

        Raises:
            FleetError: a file is missing, has changed, or lies outside the bundle.
        """
        needed = self._files()
        if missing := sorted(needed - set(self.checksums)):
            raise FleetError(f"{self.path}: the manifest has no checksum for {missing[0]!r}")
        for name, expected in self.checksums.items():
            if name in ("", ".", "..") or set(name) & set("/\\\0"):
                raise FleetError(f"{self.path}: the manifest names a file outside the bundle: {name!r}")
            path = self.path / name
            try:
                if path.exists() and not path.is_file():  # a pipe would be waited for
                    raise FleetError(f"{self.path}: {name!r} is not a regular file")
                found = sha256_of(path)
            except (OSError, ValueError) as err:  # ValueError: no name that a file can have
                raise FleetError(f"{self.path}: {name!r} cannot be read ({getattr(err, 'strerror', err)})") from err
            if found != expected:
                raise FleetError(f"{path} is not the file that the manifest describes: export it again")

    def save(self, notes: Mapping[str, str] | None = None) -> Bundle:
        """Write the manifest of a directory that already holds all other files.

        Args:
            notes: licence, data and training, free text by key; the bundle's own where None.

        Returns:
            The bundle as it is now on disk, with its checksums and identity.

        Raises:
            FleetError: it cannot be written, or what was written does not load.
        """
        # One number is written as such: as all bundles were before there could be several.
        begun = {str(k): v[0] if len(v) == 1 else list(v) for k, v in self.decider.begun.items()}
        local = {"local_exits": [asdict(head) for _, head in sorted(self.local_exits.items())]}
        picture = {}
        if self.picture is not None:
            entry = self._stage_to_manifest(self.picture)
            del entry["n"]
            picture = {"picture": {**entry, "cloud": self.picture_file}}
        fusion = {"stages": self.fuse, "combinations": self.combinations}
        manifest = {
            "format": FORMAT,
            "name": self.name,
            "trained": self.trained,
            "backbone": self.backbone,
            "input": {"size": self.input_size, "mean": list(self.mean), "std": list(self.std)},
            "groups": list(self.classes.groups),
            "classes": self.classes.to_manifest(),
            "codec": self.coder.name,
            "decision": {
                "trigger": self.decider.trigger,
                "unit": self.decider.unit,
                "temperatures": {str(k): v for k, v in self.decider.temperatures.items()},
                "thresholds": {str(k): v for k, v in self.decider.thresholds.items()},
                **({"thresholds_begun": begun} if begun else {}),
                **({"patient": True} if self.decider.patient else {}),
            },
            **({"fusion": fusion} if fusion != {"stages": 2, "combinations": False} else {}),
            **picture,
            "stages": [self._stage_to_manifest(stage) for stage in self.stages],
            **(local if self.local_exits else {}),
            "cloud": self.cloud_file,
            "files": {f: sha256_of(self.path / f) for f in sorted(self._files())},
            "notes": dict(self.notes if notes is None else notes),
        }
        part = self.path / f"{MANIFEST}.part"  # a bundle that is rewritten is whole at every moment
        try:
            part.write_text(as_json(manifest))
            part.replace(self.path / MANIFEST)
        except OSError as err:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise FleetError(f"cannot write {self.path / MANIFEST}: {err.strerror}") from err
        return Bundle.load(self.path)

    def _files(self) -> set[str]:
        """Every file but the manifest."""
        stages = [*self.stages, *([self.picture] if self.picture else [])]
        files = (file for stage in stages for file in stage.files.values())
        hub = [self.cloud_file, *([self.picture_file] if self.picture else [])]
        return {*hub, *files, *(head.file for head in self.local_exits.values())}

    @cached_property
    def local_decider(self) -> Decider:
        """What judges the local exits: trigger and unit are the bundle's, temperatures and thresholds their own."""
        heads = self.local_exits.values()
        return replace(
            self.decider,
            temperatures={head.n: head.temperature for head in heads},
            thresholds={head.n: head.threshold for head in heads},
        )

    def _stage_to_manifest(self, stage: StageFile) -> dict[str, Any]:
        entry: dict[str, Any] = {"n": stage.n, "files": dict(stage.files), "macs": dict(stage.macs)}
        if stage.n in self.layouts:
            entry["latent"] = layout_to_manifest(self.layouts[stage.n])
        return entry

    def stage_path(self, stage: StageFile, precision: Precision) -> Path:
        """The ONNX file of a stage.

        Raises:
            FleetError: the bundle has no such precision.
        """
        if precision not in stage.files:
            raise FleetError(f"{self.path} has no {precision} stages; it has: {', '.join(sorted(stage.files))}")
        return self.path / stage.files[precision]

    def local_path(self, head: LocalExit) -> Path:
        """The ONNX file of a local exit."""
        return self.path / head.file

    @property
    def cloud_path(self) -> Path:
        """The hub's weights."""
        return self.path / self.cloud_file

    @property
    def picture_path(self) -> Path:
        """The hub's weights of exit 0."""
        return self.path / self.picture_file


def _levels(value: Any) -> tuple[float, ...]:
    """Thresholds of a stage that arrives: a number, or a list of them."""
    levels = value if isinstance(value, list) else [value]
    if len(levels) > MOST_LEVELS or any(isinstance(v, bool) or not isinstance(v, int | float) for v in levels):
        raise FleetError(f"thresholds_begun has a number, or up to {MOST_LEVELS} of them, an exit")
    return tuple(float(v) for v in levels)


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise FleetError(f"{name} must be true or false")
    return value


def _stage_from_manifest(entry: Mapping[str, Any]) -> StageFile:
    stage = StageFile(
        n=int(entry["n"]),
        files={str(k): v for k, v in entry["files"].items()},
        macs={str(k): int(v) for k, v in entry["macs"].items()},
    )
    if not stage.files or not all(isinstance(file, str) for file in stage.files.values()):
        raise FleetError(f"stage {stage.n} needs the name of a file for each precision")
    if min(stage.macs.values(), default=0) < 0:
        raise FleetError(f"stage {stage.n} has negative multiply-accumulates")
    return stage


def _local_exits(entries: Any, stages: int) -> dict[int, LocalExit]:
    """The local exits of a manifest, checked; ``stages`` counts the network's own head, behind which there is none."""
    if not isinstance(entries, list):
        raise FleetError("local_exits must be a list")
    heads: dict[int, LocalExit] = {}
    for entry in entries:
        head = LocalExit(
            n=int(entry["n"]),
            file=_text(entry["file"], "the file of a local exit"),
            macs={str(k): int(v) for k, v in entry["macs"].items()},
            temperature=float(entry["temperature"]),
            threshold=float(entry["threshold"]),
        )
        if not 1 <= head.n < stages or head.n in heads:
            raise FleetError(
                f"a local exit behind stage {head.n}: there is one at most behind each of 1 to {stages - 1}"
            )
        heads[head.n] = head
    return heads


def _fusion(entry: Any, sent: int) -> tuple[int, bool]:
    """How exits fuse the stages that are sent: how many, and whether every combination of sizes has a block."""
    if not isinstance(entry, dict) or set(entry) - {"stages", "combinations"}:
        raise FleetError("fusion has stages and combinations, and nothing else")
    stages = entry.get("stages", 2)
    if not isinstance(stages, int) or isinstance(stages, bool) or stages < 1 or (stages > sent and "stages" in entry):
        raise FleetError(f"an exit cannot fuse {stages!r} stages of {sent}")
    return stages, _flag(entry.get("combinations", False), "fusion.combinations")


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise FleetError(f"{key} must be text, not {type(value).__name__}")
    return value


def _one_line(err: Exception) -> str:
    """What stands in a file may hold line breaks; what a user is told does not."""
    return " ".join(str(err).split())


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
