# SPDX-License-Identifier: Apache-2.0
"""One frame's label as the rules see it, and what they watch for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fleet.errors import FleetError


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one frame showed; ``none`` is a group like any other.

    Attributes:
        stamp: when the picture was taken, seconds on any clock that goes on.
        group: for example vehicle, pet, animal, none.
        class_name: the fine class in words, synonyms separated by commas.
        group_confidence: 0..1, NaN where it did not travel.
        class_confidence: 0..1, NaN where it did not travel.
        message: whatever the sighting was made from, handed back as the cause of what it does; no rule looks at it.
    """

    stamp: float
    group: str
    class_name: str = ""
    group_confidence: float = math.nan
    class_confidence: float = math.nan
    message: Any = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.group} ({self.class_name})" if self.class_name else self.group


@dataclass(frozen=True)
class Watch:
    """Groups and classes that a behaviour reacts to.

    Attributes:
        names: groups, classes in words, or one of a class's synonyms; upper and lower case are the same.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Tidy the names.

        Raises:
            FleetError: there is none, or one is empty.
        """
        names = tuple(_folded(name) for name in self.names)
        if not names or not all(names):
            raise FleetError("react_to names nothing to react to: give groups or classes, for example [vehicle]")
        object.__setattr__(self, "names", names)

    def __str__(self) -> str:
        return " or ".join(self.names)

    def confidence_in(self, sighting: Sighting) -> float | None:
        """How sure a sighting is to show something that is watched for.

        A group is judged by its own confidence and a class by its own. Where that one did not travel (an answer of
        the device carries a single one) the other stands in: a class's is at most its group's, so a group is then
        judged too strictly rather than too mildly; a class is judged by its group's for want of anything better.

        Returns:
            0..1; NaN where no confidence is known at all; None where the sighting shows something else.
        """
        known: list[float] = []
        of_group, of_class = sighting.group_confidence, sighting.class_confidence
        if _folded(sighting.group) in self.names:
            known.append(_first_number(of_group, of_class))
        if any(name in self.names for name in _spellings(sighting.class_name)):
            known.append(_first_number(of_class, of_group))
        if not known:
            return None
        return max((c for c in known if not math.isnan(c)), default=math.nan)


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def _spellings(class_name: str) -> Iterable[str]:
    """The class's whole name and each of its synonyms."""
    return (_folded(class_name), *(_folded(part) for part in class_name.split(",")))


def _first_number(*values: float) -> float:
    return next((v for v in values if not math.isnan(v)), math.nan)
