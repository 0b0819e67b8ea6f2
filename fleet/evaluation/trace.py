# SPDX-License-Identifier: Apache-2.0
"""A trace on disk: what every scheme gives on every image, recorded once and replayed through any number of links.

A folder with ``index.json`` and one ``.npy`` file an array, which readers map into memory. The index says of which
bundle and which images the trace is and names every finished array with its SHA-256, so a trace can grow: a recording
that was broken off goes on where it was, and another payload or a rival is added to what is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fleet.bundle import Bundle, sha256_of
from fleet.codec import CUT
from fleet.errors import FleetError
from fleet.exits import Classes
from fleet.packet import PICTURE
from fleet.resources import MANIFEST

FORMAT = 1
INDEX = "index.json"
Split = Literal["test", "calibration"]
SPLITS: tuple[Split, ...] = get_args(Split)
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class State:
    """What a hub may have of one image when it runs an exit.

    Attributes:
        stage: the exit, its own stage the newest of which something is decoded.
        own: packets of that stage, in order, 1 and more; levels where the trace has a grid, and where it has sets, a
            number in which the packets that arrived are the bits, the first the lowest.
        before: packets of the stage before, 0 and more; the same.
    """

    stage: int
    own: int
    before: int


@dataclass(frozen=True)
class Payload:
    """The states that were recorded for packets of one length.

    Attributes:
        payload: bytes of a packet.
        grid: parts into which a stage's packets are divided; 0: every packet counts. Where a hub has more packets than
            a level holds, the trace has it look at those of the level only, which can but make FLEET later.
        states: in the order of the arrays.
        sets: every set of packets is a state, not only those that arrive in order.
    """

    payload: int
    grid: int
    states: tuple[State, ...]
    sets: bool = False

    def arrived(self, got: Array, packets: Array) -> Array:
        """What a hub has of a stage once its latest packet, counted from 1, has arrived, too."""
        return got | 1 << (packets - 1) if self.sets else packets

    def whole(self, packets: Array) -> Array:
        """The level at which all packets of a stage have arrived."""
        return (1 << packets) - 1 if self.sets else self.level(packets, packets)

    def level(self, arrived: Array, packets: Array) -> Array:
        """The level that so many packets, or that set of them, of so many of a stage, have reached."""
        return arrived if self.grid == 0 else arrived * self.grid // np.maximum(packets, 1)

    def packets_of(self, level: int, packets: Array) -> Array:
        """The packets, of so many of a stage, that a level takes; the inverse of :meth:`level`."""
        return np.full_like(packets, level) if self.grid == 0 else -(-packets * level // self.grid)

    @cached_property
    def number(self) -> Array:
        """The state's place by stage, level of its own and of the stage before; -1 where there is none."""
        shape = [1 + max(v) for v in zip(*((s.stage, s.own, s.before) for s in self.states), strict=True)]
        table = np.full(shape, -1, dtype=np.int32)
        for place, s in enumerate(self.states):
            table[s.stage, s.own, s.before] = place
        return table


@dataclass(frozen=True)
class TraceIndex:
    """``index.json``.

    Attributes:
        bundle: name, identity, backbone, input size, codec, last stage that is sent, and :func:`content_of`.
        classes: what is recognised.
        temperatures: by exit, and 15 for the device's own answer; what logits are divided by.
        thresholds: by exit, as the bundle has them.
        stages: number and multiply-accumulates of the device's stages in order, the head last.
        local_exits: stage, multiply-accumulates, temperature of the device's own exits for a race.
        splits: data, pictures and fingerprint, by split.
        payloads: by bytes.
        rivals: what a scheme does on the device and what it sends, by name.
        arrays: SHA-256 by name (``test/truths``), of those that are finished.
        versions: of what recorded.
        sets: the states of lossy links, by bytes of a packet, and of how many first test images.
        picture: of a bundle with a stage 0 its content, its multiply-accumulates, and whether its packets decode
            without those before them; empty without one.
    """

    bundle: Mapping[str, Any]
    classes: Classes
    temperatures: Mapping[int, float]
    thresholds: Mapping[int, float]
    stages: tuple[Mapping[str, Any], ...]
    local_exits: tuple[Mapping[str, Any], ...]
    splits: Mapping[str, Mapping[str, Any]]
    payloads: Mapping[int, Payload]
    rivals: Mapping[str, Mapping[str, Any]]
    arrays: Mapping[str, str]
    versions: Mapping[str, str]
    sets: Mapping[int, tuple[int, Payload]] = field(default_factory=dict)
    picture: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, bundle: Bundle, splits: Mapping[str, Mapping[str, Any]], versions: Mapping[str, str]) -> TraceIndex:
        """An index of a bundle of which nothing is recorded yet."""
        heads = (head for _, head in sorted(bundle.local_exits.items()))
        return cls(
            bundle={
                "name": bundle.name,
                "identity": bundle.identity.hex(),
                "backbone": bundle.backbone,
                "input_size": bundle.input_size,
                "codec": bundle.coder.name,
                "exit_stages": bundle.exit_stages,
                "content": content_of(bundle),
            },
            classes=bundle.classes,
            temperatures=dict(bundle.decider.temperatures),
            thresholds=dict(bundle.decider.thresholds),
            stages=tuple({"n": stage.n, "macs": dict(stage.macs)} for stage in bundle.stages),
            local_exits=tuple({"n": h.n, "macs": dict(h.macs), "temperature": h.temperature} for h in heads),
            splits=splits,
            payloads={},
            rivals={},
            arrays={},
            versions=versions,
            picture=picture_of(bundle),
        )

    @property
    def sent(self) -> tuple[int, ...]:
        """The stages that are sent, in order."""
        return tuple(range(1, int(self.bundle["exit_stages"]) + 1))

    def to_json(self) -> dict[str, Any]:
        """What :meth:`from_json` reads."""
        classes = self.classes
        return {
            "format": FORMAT,
            "bundle": dict(self.bundle),
            "groups": list(classes.groups),
            "classes": classes.to_manifest(),
            "temperatures": {str(n): t for n, t in self.temperatures.items()},
            "thresholds": {str(n): t for n, t in self.thresholds.items()},
            "stages": list(self.stages),
            "local_exits": list(self.local_exits),
            "splits": {name: dict(split) for name, split in self.splits.items()},
            "payloads": {str(b): {"grid": p.grid, "states": _plain(p.states)} for b, p in self.payloads.items()},
            "sets": {str(b): {"pictures": n, "states": _plain(p.states)} for b, (n, p) in self.sets.items()},
            "rivals": dict(self.rivals),
            "arrays": dict(sorted(self.arrays.items())),
            "versions": dict(self.versions),
            **({"picture": dict(self.picture)} if self.picture else {}),
        }

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> TraceIndex:
        """Read an index.

        Raises:
            FleetError: another format.
        """
        if entries.get("format") != FORMAT:
            raise FleetError(f"trace format {entries.get('format')}, this version reads {FORMAT}: record it again")
        return cls(
            bundle=entries["bundle"],
            classes=Classes.from_manifest(entries["classes"], entries["groups"]),
            temperatures={int(n): float(t) for n, t in entries["temperatures"].items()},
            thresholds={int(n): float(t) for n, t in entries["thresholds"].items()},
            stages=tuple(entries["stages"]),
            local_exits=tuple(entries["local_exits"]),
            splits=entries["splits"],
            payloads={
                int(b): Payload(int(b), int(p["grid"]), _states(p["states"])) for b, p in entries["payloads"].items()
            },
            sets={
                int(b): (int(p["pictures"]), Payload(int(b), 0, _states(p["states"]), sets=True))
                for b, p in entries.get("sets", {}).items()
            },
            rivals=entries["rivals"],
            arrays=entries["arrays"],
            versions=entries["versions"],
            picture=entries.get("picture", {}),
        )


@dataclass(frozen=True)
class Trace:
    """A trace that can be read.

    Attributes:
        path: the folder.
        index: what is in it.
    """

    path: Path
    index: TraceIndex

    @classmethod
    def load(cls, path: Path, *, verify: bool = True) -> Trace:
        """Open a trace.

        Args:
            path: its folder.
            verify: compare every finished array with its checksum.

        Raises:
            FleetError: no trace there, another format, or an array that is missing or has changed.
        """
        trace = cls(path, read_index(path))
        if verify:
            for name, expected in trace.index.arrays.items():
                file = array_path(path, name)
                if not file.is_file():
                    raise FleetError(f"{path}: {file.relative_to(path)} is missing: record the trace again")
                if sha256_of(file) != expected:
                    raise FleetError(f"{path}: {file.relative_to(path)} has changed since it was recorded")
        return trace

    def has(self, *names: str) -> bool:
        """Whether these arrays are recorded for both splits."""
        return all(f"{split}/{name}" in self.index.arrays for split in SPLITS for name in names)

    def array(self, split: Split, name: str) -> Array:
        """An array, mapped into memory.

        Raises:
            FleetError: it is not recorded yet.
        """
        if f"{split}/{name}" not in self.index.arrays:
            raise FleetError(f"{self.path} has no {name} of the {split} split: let `fleet trace` finish")
        found: Array = np.load(array_path(self.path, f"{split}/{name}"), mmap_mode="r")
        return found

    def pictures(self, split: Split) -> int:
        """How many images a split has."""
        return int(self.index.splits[split]["pictures"])

    @property
    def payloads(self) -> tuple[int, ...]:
        """Packet lengths for which FLEET is recorded whole."""
        return tuple(b for b in sorted(self.index.payloads) if self.has(fleet_logits(b)))

    @property
    def rivals(self) -> tuple[str, ...]:
        """Schemes beside FLEET that are recorded whole."""
        return tuple(name for name in sorted(self.index.rivals) if self.has(rival_logits(name), rival_bytes(name)))


def _plain(states: tuple[State, ...]) -> list[list[int]]:
    return [[s.stage, s.own, s.before] for s in states]


def _states(entries: Iterable[Iterable[int]]) -> tuple[State, ...]:
    return tuple(State(*map(int, entry)) for entry in entries)


def fleet_sets(payload: int) -> str:
    """Name of the array with the exits' logits for every set of packets, shape (states, first images, classes)."""
    return f"sets-{payload}-logits"


def fleet_logits(payload: int) -> str:
    """Name of the array with the exits' logits, shape (states, N, classes), float16, NaN where a state is not."""
    return f"fleet-{payload}-logits"


def fleet_sizes(payload: int) -> str:
    """Name of the array with the packets' bytes, shape (stages, most packets, N), 0 where there is no packet."""
    return f"fleet-{payload}-sizes"


def fleet_ends(payload: int) -> str:
    """Name of the array with the place behind each packet's last coefficient, shape (stages, most packets, N)."""
    return f"fleet-{payload}-ends"


def picture_logits(payload: int) -> str:
    """Name of the array with exit 0's logits, by packets of the picture, shape (most packets, N, classes), float16."""
    return f"picture-{payload}-logits"


def picture_sets(payload: int) -> str:
    """Name of the array with exit 0's logits for every set of packets but none, shape (sets, first images, classes)."""
    return f"picture-sets-{payload}-logits"


def picture_sizes(payload: int) -> str:
    """Name of the array with the bytes of the picture's packets, shape (most packets, N), 0 where there is none."""
    return f"picture-{payload}-sizes"


def picture_ends(payload: int) -> str:
    """Name of the array with the place behind the last coefficient of each, shape (most packets, N)."""
    return f"picture-{payload}-ends"


def coefficients(stage: int) -> str:
    """Name of the array with a stage's coefficients in its coder's order, shape (N, count)."""
    return f"coefficients-{stage}"


def rival_logits(name: str) -> str:
    """Name of the array with a rival's logits, shape (rows, N, classes), float16."""
    return f"rival-{name}-logits"


def rival_bytes(name: str) -> str:
    """Name of the array with the bytes of a rival's uploads, shape (uploads, N)."""
    return f"rival-{name}-bytes"


def array_path(path: Path, name: str) -> Path:
    """The file of an array."""
    return path / f"{name}.npy"


def read_index(path: Path) -> TraceIndex:
    """The index of a trace.

    Raises:
        FleetError: there is none, or it is damaged.
    """
    file = path / INDEX
    try:
        return TraceIndex.from_json(json.loads(file.read_text(encoding="utf-8")))
    except OSError as err:
        raise FleetError(f"{path} is no trace: cannot read {INDEX} ({err.strerror}); `fleet trace` makes one") from err
    except FleetError as err:
        raise FleetError(f"{file}: {err}") from err
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise FleetError(f"{file} is damaged: {type(err).__name__} {err}".splitlines()[0]) from err


def content_of(bundle: Bundle) -> str:
    """SHA-256 of what decides an exit's logits: networks and layouts, without thresholds, local exits and notes."""
    manifest = json.loads((bundle.path / MANIFEST).read_text(encoding="utf-8"))
    parts = {key: manifest[key] for key in ("backbone", "input", "classes", "codec", "stages")}
    files = {bundle.cloud_file, *(file for stage in bundle.stages for file in stage.files.values())}
    parts["files"] = {name: bundle.checksums[name] for name in sorted(files)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def picture_of(bundle: Bundle) -> dict[str, Any]:
    """What an index says of a bundle's stage 0 at first; empty where it has none."""
    if bundle.picture is None:
        return {}
    manifest = json.loads((bundle.path / MANIFEST).read_text(encoding="utf-8"))
    files = {bundle.picture_file, *bundle.picture.files.values()}
    parts = {
        "picture": manifest["picture"],
        "files": {name: bundle.checksums[name] for name in sorted(files)},
        "cut": CUT,
    }
    content = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    alone = bundle.coder.decodes_alone(bundle.layouts[PICTURE])
    return {"content": content, "macs": dict(bundle.picture.macs), "alone": alone}


def picture_set_states(payload: int, most: int, *, twice: bool) -> Payload:
    """As :func:`picture_states`, where any packets may be missing.

    Args:
        payload: bytes of a packet.
        most: the most packets that a picture has.
        twice: all of them are sent a second time, as a stage 2; what has arrived is the union of both.
    """
    sets = range(1, 1 << most)
    again = [State(2, own, before) for before in range(1 << most) for own in sets] if twice else []
    return Payload(payload, 0, (*(State(1, own, 0) for own in sets), *again), sets=True)


def picture_states(payload: int, most: int, burst: int) -> Payload:
    """What a hub may have of one image's picture, as of a ladder of its own.

    Args:
        payload: bytes of a packet.
        most: the most packets that a picture has.
        burst: so many of them are offered at a time, each time as the next stage.
    """
    places = (divmod(packet, burst) for packet in range(most))
    return Payload(payload, 0, tuple(State(part + 1, own + 1, burst * (part > 0)) for part, own in places))


def all_states(
    payload: int, grid: int, most: Mapping[int, int], before: Mapping[int, int | None], *, sets: bool = False
) -> Payload:
    """Every state that a hub can be in.

    Args:
        payload: bytes of a packet.
        grid: see :class:`Payload`.
        most: the most packets that an image has, by stage.
        before: the stage that an exit fuses with its own, or None, by exit.
        sets: any packets may be missing.
    """

    def levels(stage: int | None) -> Iterable[int]:
        if stage is None:
            return range(1)
        return range(2 ** most[stage]) if sets else range(1 + (grid or most[stage]))

    found = [
        State(n, own, earlier) for n in sorted(most) for earlier in levels(before[n]) for own in levels(n) if own > 0
    ]
    return Payload(payload, grid, tuple(found), sets)
