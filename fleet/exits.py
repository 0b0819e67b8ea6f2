# SPDX-License-Identifier: Apache-2.0
"""From logits to an answer: groups, confidence, thresholds (FLEET section 3.4, early-exit trigger)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from fleet.errors import FleetError

Trigger = Literal["confidence", "entropy"]
Unit = Literal["group", "class"]


@dataclass(frozen=True)
class Classes:
    """What a bundle can recognise.

    Attributes:
        ids: a class's directory name in the data set, for example a WordNet id.
        names: in words.
        group_of: index into ``groups``, one a class.
        groups: for example vehicle, pet, animal, none.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    group_of: tuple[int, ...]
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.ids or not len(self.ids) == len(self.names) == len(self.group_of):
            raise FleetError("every class needs an id, a name and a group")
        if not all(isinstance(text, str) for text in (*self.ids, *self.names, *self.groups)):
            raise FleetError("a class's id and name and a group must be text")
        if not all(0 <= g < len(self.groups) for g in self.group_of):
            raise FleetError("a class names a group that there is not")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_manifest(cls, classes: Sequence[Mapping[str, str]], groups: Sequence[str]) -> Classes:
        """The inverse of :meth:`to_manifest`, with the groups in their order."""
        return cls(
            ids=tuple(c["id"] for c in classes),
            names=tuple(c["name"] for c in classes),
            group_of=tuple(groups.index(c["group"]) for c in classes),
            groups=tuple(groups),
        )

    def to_manifest(self) -> list[dict[str, str]]:
        """One entry a class, as a bundle's manifest has it."""
        triples = zip(self.ids, self.names, self.group_of, strict=True)
        return [{"id": i, "name": n, "group": self.groups[g]} for i, n, g in triples]

    def group_named(self, label: str | None) -> str | None:
        """The group that a folder of that name holds: a class id, a class in words, or a group; else None."""
        if label is None:
            return None
        if label in self.groups:
            return label
        for labels in (self.ids, self.names):
            if label in labels:
                return self.groups[self.group_of[labels.index(label)]]
        return None

    def group_probabilities(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sums over each group's classes.

        Args:
            probabilities: shape (..., classes).

        Returns:
            Shape (..., groups).
        """
        out: npt.NDArray[np.float64] = probabilities @ self._membership
        return out

    @cached_property
    def _membership(self) -> npt.NDArray[np.float64]:
        return np.eye(len(self.groups))[list(self.group_of)]  # (classes, groups)


@dataclass(frozen=True)
class Prediction:
    """One exit's view of a frame.

    Attributes:
        class_index: the likeliest class of the likeliest group.
        class_confidence: its probability.
        group: the likeliest group.
        group_confidence: its probability.
        certainty: what is compared with the threshold, 0..1; higher is surer.
    """

    class_index: int
    class_confidence: float
    group: str
    group_confidence: float
    certainty: float


@dataclass(frozen=True)
class Decider:
    """Turns logits into predictions and says when one is sure enough.

    Attributes:
        classes: what can be recognised.
        temperatures: by exit; logits are divided by them (temperature scaling). 1 where missing.
        thresholds: by exit; an exit answers when its certainty reaches its threshold.
        begun: by exit; thresholds while the exit's own stage has only begun to arrive, one for each of as many equal
            parts of its coefficients (:func:`part_of`): of five numbers the second holds from a fifth on.
            ``thresholds`` where missing.
        patient: the last exit, its ladder complete, does not answer unless it is sure: the device then does.
        trigger: ``confidence``: the top-1 softmax; ``entropy``: one minus the normalised entropy.
        unit: whether the trigger looks at groups or at classes.
    """

    classes: Classes
    temperatures: Mapping[int, float]
    thresholds: Mapping[int, float]
    trigger: Trigger = "confidence"
    unit: Unit = "group"
    begun: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    patient: bool = False

    def __post_init__(self) -> None:
        """Refuse what would silently decide otherwise.

        Raises:
            FleetError: an unknown trigger or unit, a temperature that is not positive, a threshold that is no number.
        """
        if self.trigger not in get_args(Trigger):
            raise FleetError(f"the trigger is {' or '.join(get_args(Trigger))}, not '{self.trigger}'")
        if self.unit not in get_args(Unit):
            raise FleetError(f"the unit is {' or '.join(get_args(Unit))}, not '{self.unit}'")
        for stage, temperature in self.temperatures.items():
            if not (math.isfinite(temperature) and temperature > 0):
                raise FleetError(f"the temperature of exit {stage} must be positive, not {temperature:g}")
        for stage, levels in (*((n, (t,)) for n, t in self.thresholds.items()), *self.begun.items()):
            if any(map(math.isnan, levels)):
                raise FleetError(f"the threshold of exit {stage} is not a number")
            if not levels:
                raise FleetError(f"exit {stage} has an empty list of thresholds")

    def predict(self, exit_stage: int, logits: npt.ArrayLike) -> Prediction:
        """The prediction of one exit.

        Args:
            exit_stage: whose temperature applies.
            logits: shape (classes,).

        Raises:
            FleetError: another number of logits than classes, or logits that are not finite.
        """
        with np.errstate(over="ignore"):
            scores = np.asarray(logits, dtype=np.float64) / self.temperatures.get(exit_stage, 1.0)
        if scores.shape != (len(self.classes),) or not np.isfinite(scores).all():
            raise FleetError(
                f"exit {exit_stage} gave {scores.shape} logits for {len(self.classes)} classes, or no numbers"
            )
        probabilities = softmax(scores)
        # A sum of probabilities may come out a rounding error above one.
        groups = self.classes.group_probabilities(probabilities).clip(max=1.0)
        group = int(groups.argmax())
        members = np.asarray(self.classes.group_of) == group
        index = int(np.where(members, probabilities, -1.0).argmax())
        return Prediction(
            class_index=index,
            class_confidence=float(probabilities[index]),
            group=self.classes.groups[group],
            group_confidence=float(groups[group]),
            certainty=float(self.certainty(probabilities)),
        )

    def certainty(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """What an exit compares with its threshold, 0..1; higher is surer.

        Args:
            probabilities: of the classes, after the temperature, shape (..., classes).

        Returns:
            Shape (...).
        """
        judged = probabilities
        if self.unit == "group":
            # A sum of probabilities may come out a rounding error above one.
            judged = self.classes.group_probabilities(probabilities).clip(max=1.0)  # (..., groups)
        sure: npt.NDArray[np.float64] = (
            judged.max(axis=-1) if self.trigger == "confidence" else 1.0 - normalised_entropy(judged)
        )
        return sure

    def confidence(self, prediction: Prediction) -> float:
        """The confidence that stands beside the answer: the group's where the unit is the group, else the class's."""
        return prediction.group_confidence if self.unit == "group" else prediction.class_confidence

    def from_air(self, class_index: int, confidence: float) -> Prediction:
        """The prediction behind an exit notice or a local answer, which carry a class and one confidence.

        Args:
            class_index: index into the classes.
            confidence: as :meth:`confidence` gave it at the other end. The one that did not travel is NaN.

        Raises:
            FleetError: there is no such class.
        """
        if not 0 <= class_index < len(self.classes):
            raise FleetError(f"class {class_index} was answered, but this bundle has {len(self.classes)} classes")
        nan = float("nan")
        by_group = self.unit == "group"
        return Prediction(
            class_index=class_index,
            class_confidence=nan if by_group else confidence,
            group=self.classes.groups[self.classes.group_of[class_index]],
            group_confidence=confidence if by_group else nan,
            certainty=confidence,
        )

    def threshold(self, exit_stage: int, *, arrived: float = 1.0) -> float:
        """From which certainty on an exit answers; infinite where it never does on its own.

        Args:
            exit_stage: which exit.
            arrived: the share of its own stage's coefficients that has arrived, 0..1; 1: all.
        """
        levels = self.begun.get(exit_stage)
        if arrived >= 1.0 or levels is None:
            return self.thresholds.get(exit_stage, float("inf"))
        return levels[int(part_of(arrived, len(levels)))]

    def is_sure(self, exit_stage: int, prediction: Prediction, *, arrived: float = 1.0) -> bool:
        """Whether the exit may answer, see :meth:`threshold`."""
        return prediction.certainty >= self.threshold(exit_stage, arrived=arrived)


BEGUN_PARTS = 3
"""Thresholds that an exit is given while its own stage arrives: on a little of it, it must be surer than on nearly all,
for more is left that is worth waiting for. More than three would have to be told from too few pictures each."""


def part_of(arrived: npt.ArrayLike, parts: int) -> npt.NDArray[np.intp]:
    """Which of so many equal parts of a stage is arriving, 0 the first, where this share of it has arrived."""
    out: npt.NDArray[np.intp] = np.minimum(np.asarray(arrived) * parts, parts - 1).astype(np.intp)
    return out


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Softmax over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    out: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return out


def normalised_entropy(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Entropy over its maximum, 0 (sure) to 1 (no idea), over the last axis.

    Args:
        probabilities: shape (..., K).

    Returns:
        Shape (...).
    """
    choices = probabilities.shape[-1]
    if choices < 2:
        return np.zeros(probabilities.shape[:-1])
    logarithms = np.log(np.where(probabilities > 0, probabilities, 1.0))  # 0 log 0 is 0
    entropy: npt.NDArray[np.float64] = -(probabilities * logarithms).sum(axis=-1) / np.log(choices)
    return entropy.clip(0.0, 1.0)
