# SPDX-License-Identifier: Apache-2.0
"""What every baseline is to the evaluation: work on the device, bytes, and logits at its operating points.

A *local* scheme answers on the device, at one of its exits. An *offload* scheme computes something, sends all of it,
and the hub answers. Neither knows of links, platforms or thresholds: whoever replays them brings those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from fleet.backbones.stage import Macs
from fleet.platforms import PlatformProfile

Images = npt.NDArray[np.uint8]
"""RGB as the camera gives it, shape (B, H, W, 3)."""
NO_STAGE = -1
"""Stage number of work that is no whole stage of the base network: profiles with times by stage do not know it."""


@dataclass(frozen=True)
class Step:
    """One piece of work on the device.

    Attributes:
        name: for people, as ``stage 3`` or ``head``.
        macs: multiply-accumulates of one image by layer type. Work that is no network (an image codec) counts every
            arithmetic operation as one of a convolution, see the scheme's own derivation.
        stage: number of the base network's stage where this is one, its shape unchanged; else None.
        activations: values that are alive at its peak: input, output and what is held for later.
    """

    name: str
    macs: Macs
    stage: int | None
    activations: int


def step_seconds(profile: PlatformProfile, step: Step) -> float:
    """How long a step takes on a platform that is paced, its ``time_scale`` included.

    Raises:
        FleetError: the profile has no time for it.
    """
    seconds = profile.seconds(asdict(step.macs), NO_STAGE if step.stage is None else step.stage)
    return 0.0 if seconds is None else seconds


@dataclass(frozen=True)
class Exit:
    """One exit of a local scheme.

    Attributes:
        name: for people.
        stage: of the base network, behind which it sits.
        row: of the logits.
        shared: runs whether or not this exit is asked, once it or a later one is wanted: the stages since the exit
            before.
        own: runs only where this exit is asked: its head, or a whole network where nothing is shared.
    """

    name: str
    stage: int
    row: int
    shared: tuple[Step, ...]
    own: tuple[Step, ...]


@dataclass(frozen=True)
class Upload:
    """One operating point of an offload scheme.

    Attributes:
        name: for people.
        row: of the logits that the hub has when every byte has arrived.
        steps: all that the device does before the first byte can travel, in order.
        after: index of the upload that must have been sent before, to which this one only adds bytes; None if it begins
            with nothing.
        split: last stage on the device, 0 where only the image is prepared; None for image codecs.
        local: whether the device has answered itself behind ``steps``, so that nothing travels at all.
        settings: quality, size, width and the like.
    """

    name: str
    row: int
    steps: tuple[Step, ...]
    after: int | None = None
    split: int | None = None
    local: bool = False
    settings: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """What a scheme gives for a batch of images.

    Attributes:
        logits: before any temperature, shape (rows, B, classes), float32.
        bytes: payload bytes of every upload, shape (uploads, B), int32; (0, B) for a local scheme.
    """

    logits: npt.NDArray[np.float32]
    bytes: npt.NDArray[np.int32]


class Scheme(Protocol):
    """What local and offload schemes share.

    Attributes:
        name: as in ``models/baselines``.
        note: one line for a table's footnote: how it was trained, and what was made cheaper.
        rows: names of the rows of logits.
        temperatures: one a row, from the calibration split.
    """

    name: str
    note: str
    rows: tuple[str, ...]
    temperatures: tuple[float, ...]

    def answer(self, images: Images) -> Answers:
        """Logits and bytes of all operating points.

        Args:
            images: at the network's input size, shape (B, H, W, 3).
        """
        ...


class LocalScheme(Scheme, Protocol):
    """Answers on the device. The last exit always answers."""

    kind: Literal["local"]
    exits: tuple[Exit, ...]


class OffloadScheme(Scheme, Protocol):
    """Sends something to the hub, which answers once it has all of it."""

    kind: Literal["offload"]
    uploads: tuple[Upload, ...]


def steps_until(exits: Sequence[Exit], last: int, asked: Sequence[int]) -> tuple[Step, ...]:
    """All work of an image that is answered at an exit.

    Args:
        exits: of the scheme.
        last: index of the exit that answers.
        asked: indices of the exits that are in use; ``last`` is one of them.
    """
    found: list[Step] = []
    for index, one in enumerate(exits[: last + 1]):
        found.extend(one.shared)
        if index in asked:
            found.extend(one.own)
    return tuple(found)


def first_sure(certainty: npt.NDArray[np.float64], thresholds: Sequence[float]) -> npt.NDArray[np.intp]:
    """Which exit answers each image: the first whose certainty reaches its threshold, or else the last.

    The rule of BranchyNet (algorithm 1) and of Shallow-Deep networks (section 5.1) alike, and of :mod:`fleet.exits`.

    Args:
        certainty: of the exits in order, shape (exits, N).
        thresholds: one an exit; the last one's does not matter.

    Returns:
        Index of the exit, shape (N,).
    """
    sure = certainty >= np.asarray(thresholds, dtype=np.float64)[:, None]
    sure[-1] = True
    found: npt.NDArray[np.intp] = sure.argmax(axis=0)
    return found
