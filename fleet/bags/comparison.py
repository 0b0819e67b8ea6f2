# SPDX-License-Identifier: Apache-2.0
"""A replay beside the run that the bag recorded: accuracy, exits, latency, energy, and every label that differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from fleet.bags.recording import Key, Recording, Said
from fleet.bags.replay import Replay
from fleet.exits import Classes

Kind = Literal["group", "class", "missing"]
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Difference:
    """A frame whose label is another one in the replay.

    Attributes:
        id: inference id.
        stamp_ns: of its picture.
        kind: ``group``, ``class`` where only the fine class differs, ``missing`` where the replay has no answer.
        bag: the bag's label.
        replay: the replay's.
    """

    id: int
    stamp_ns: int
    kind: Kind
    bag: Said
    replay: Said | None

    def line(self) -> str:
        """One line for a terminal."""
        return f"{self.id:5d}  {_words(self.bag):<44s} {_words(self.replay)}"


@dataclass(frozen=True)
class Comparison:
    """One camera's replay and its part of the bag.

    Attributes:
        recording: of the bag.
        replay: of the camera.
        classes: of the model that replayed.
    """

    recording: Recording
    replay: Replay
    classes: Classes

    @property
    def compared(self) -> list[Key]:
        """Frames that have a label in the bag and were replayed, in order."""
        frames = self.recording.frames
        return [key for key in self.replay.heard if key in frames and frames[key].label is not None]

    def differences(self) -> list[Difference]:
        """Every frame whose label is another one."""
        found = []
        for key in self.compared:
            label, said = self.recording.frames[key].label, self.replay.said.get(key)
            assert label is not None
            if kind := _kind(label, said):
                found.append(Difference(key[1], key[0], kind, label, said))
        return found

    def unlabelled(self) -> int:
        """Frames that were replayed and have no label in the bag, at its beginning and end for example."""
        return len(self.replay.heard) - len(self.compared)

    def not_replayed(self) -> int:
        """Labels of the bag whose frames it has no picture, or no packet, of."""
        frames = self.recording.frames
        return sum(frame.label is not None and key not in self.replay.heard for key, frame in frames.items())

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        differences = self.differences()
        kinds = Counter(difference.kind for difference in differences)
        return {
            "from": self.replay.source,
            self.replay.source: self.replay.total,
            "unreadable": self.replay.unreadable,
            "frames": len(self.replay.heard),
            "compared": len(self.compared),
            "frames_without_label_in_bag": self.unlabelled(),
            "labels_not_replayed": self.not_replayed(),
            "replay": self._summary((key, said) for key, said in self.replay.said.items()),
            "bag": self._summary((key, self._in_bag(key)) for key in self.compared),
            "different": {kind: kinds[kind] for kind in ("group", "class", "missing")},
            "differences": [asdict(difference) for difference in differences],
        }

    def _in_bag(self, key: Key) -> Said:
        """The bag's label, with what is comparable to a replay from pictures: the device's latency and energy."""
        frame = self.recording.frames[key]
        assert frame.label is not None
        if self.replay.source == "packets":
            return frame.label
        return Said(**{**asdict(frame.label), "latency_ms": frame.latency_ms, "energy_mj": frame.energy_mj})

    def _summary(self, answers: Iterable[tuple[Key, Said]]) -> dict[str, Any]:
        said = list(answers)
        known = [(answer, truth) for key, answer in said if (truth := self._truth(key)) is not None]
        exits = Counter(answer.exit_stage for _, answer in said)
        in_order = [(str(n), exits[n]) for n in sorted(n for n in exits if n is not None)]
        return {
            "labels": len(said),
            "frames_with_truth": len(known),
            "accuracy_groups": _share([answer.group == truth for answer, truth in known]),
            "exits": dict([*in_order, *([("device", exits[None])] if exits[None] else [])]),
            "latency_ms": _percentiles([a.latency_ms for _, a in said]),
            "energy_mj": _percentiles([a.energy_mj for _, a in said]),
        }

    def _truth(self, key: Key) -> str | None:
        frame = self.recording.frames.get(key)
        return self.classes.group_named(frame.truth) if frame is not None and frame.truth else None


def _kind(label: Said, said: Said | None) -> Kind | None:
    if said is None:
        return "missing"
    if said.group != label.group:
        return "group"
    return "class" if (said.class_index, said.class_name) != (label.class_index, label.class_name) else None


def _words(said: Said | None) -> str:
    if said is None:
        return "no answer"
    where = "device" if said.exit_stage is None else f"exit {said.exit_stage}"
    return f"{said.group:<8.8s} {said.class_name:<24.24s} {where}"


def _share(hits: Sequence[bool]) -> float | None:
    return round(float(np.mean(hits)), 4) if hits else None


def _percentiles(values: Iterable[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {f"p{q}": round(float(np.percentile(known, q)), 3) for q in PERCENTILES}
