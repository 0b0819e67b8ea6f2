# SPDX-License-Identifier: Apache-2.0
"""What a training run is told: a YAML file read into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from fleet import strict_yaml
from fleet.errors import FleetError


@dataclass(frozen=True)
class DataConfig:
    """Where the images are and how they are split.

    Attributes:
        root: folder of the data set; ``fleet train --data`` overrides it.
        train: files or folders below the root, read in this order; ``.`` is the root itself.
        calibration: the last so many training images, never trained on (design section 10).
        classes: table of class, group and words below the root; empty where there is none.
        groups: group -> classes, for data sets without such a table; classes not named are ``none``.
    """

    root: str = ""
    train: tuple[str, ...] = (".",)
    calibration: int = 5000
    classes: str = ""
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """Epochs on images of one size (progressive resizing).

    Attributes:
        size: height and width that the network sees, in pixels.
        epochs: passes over the training images.
        smallest_crop: least share of the image's area in a random crop.
    """

    size: int
    epochs: int
    smallest_crop: float = 0.5


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training images; zero switches one off.

    Attributes:
        padding: how far a crop may reach past the border, in pixels of the stored image (reflected).
        aspect: largest change of the aspect ratio, as a factor.
        jitter: largest relative change of brightness, contrast and saturation.
        mixup: alpha of mixup's beta distribution.
        cutmix: share of the batches that get a rectangle of another image.
    """

    padding: int = 4
    aspect: float = 1.2
    jitter: float = 0.2
    mixup: float = 0.0
    cutmix: float = 0.0


@dataclass(frozen=True)
class OptimiserConfig:
    """Optimiser and its one-cycle schedule.

    Attributes:
        kind: ``sgd`` (Nesterov) or ``adamw``.
        peak: highest learning rate.
        warm_up: share of the steps until the peak.
        momentum: of SGD.
        weight_decay: not applied to biases and norms.
        batch: images a step.
        ema: decay of the averaged weights, a step.
    """

    kind: str = "sgd"
    peak: float = 0.25
    warm_up: float = 0.15
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch: int = 64
    ema: float = 0.999


@dataclass(frozen=True)
class DepthConfig:
    """Channels by the time of the next stage (:func:`fleet.depths.stage_depths`).

    Attributes:
        platform: name of a platform profile, or a file.
        first: channels behind stage 1.
        bits: what a coefficient takes on the air, on average.
        ci_ms: connection interval.
        packets: a connection event.
        payload: bytes of a packet.
    """

    platform: str = "cortex-a77-200"
    first: int = 2
    bits: float = 2.5
    ci_ms: float = 7.5
    packets: int = 4
    payload: int = 244


@dataclass(frozen=True)
class ExitConfig:
    """Training of encoders and exits on the finished base network.

    Attributes:
        channels: channels that travel, one a stage from stage 1 on; the last is N. Empty: by ``depth``.
        base: g0, bands a side of the base grid.
        rungs: sizes at which a group of coefficients ends; the last is the data set's largest.
        levels: quantiser levels.
        order: in which order bands split, ``corner`` or ``centre``.
        steps: updates.
        close_steps: of these, the first so many train every exit to rebuild its stage's features and nothing
            else, which needs no trunk and is several times as cheap.
        batch: images a step.
        exits_a_step: exits that each later step trains.
        peak: highest learning rate of AdamW.
        trunk_peak: the same for the hub's trunk, once exits need one; 0: the base network's own stages are the trunk.
        ema: decay of the averaged weights, a step; 0: the last step's weights are the result.
        hard: weight of the loss against the labels.
        soft: weight of the loss against the whole network's own answers (distillation).
        close: weight of the distance between rebuilt and true features.
        rate: weight of what the coefficients cost, a bit each.
        fuse: k of the paper, how many stages an exit fuses.
        combinations: whether every combination of the fused stages' sizes has a fusion block of its own, as published,
            in place of one block that is told how much is known.
        arrival: what training lets arrive of a stage: ``packets``, any part of them (the tail dropped, or some at
            random), or ``sizes``, as published, everything up to a rung.
    """

    base: int
    rungs: tuple[int, ...]
    channels: tuple[int, ...] = ()
    depth: DepthConfig = field(default_factory=DepthConfig)
    levels: int = 16
    order: Literal["corner", "centre"] = "centre"
    steps: int = 8000
    close_steps: int = 2000
    batch: int = 64
    exits_a_step: int = 2
    peak: float = 0.003
    trunk_peak: float = 0.0
    ema: float = 0.0
    hard: float = 0.5
    soft: float = 1.0
    close: float = 0.3
    rate: float = 0.0
    fuse: int = 2
    combinations: bool = False
    arrival: Literal["packets", "sizes"] = "packets"

    def check(self, name: str) -> None:
        """Refuse what cannot be trained, before hours of training.

        Args:
            name: what to call these settings in a message.

        Raises:
            FleetError: a number out of its range.
        """
        rungs, channels = list(self.rungs), self.channels or (1,)
        weights = (self.hard, self.soft, self.close, self.rate, self.trunk_peak)
        for fits, what in (
            (self.base >= 1, f"base is {self.base}; it is 1 or more"),
            (
                bool(rungs) and rungs == sorted(set(rungs)) and rungs[0] >= self.base,
                f"rungs must ascend from the base, {self.base}, on; not {rungs}",
            ),
            (min(channels) >= 1, f"channels must be 1 or more each, not {list(self.channels)}"),
            (2 <= self.levels <= 256, f"levels is {self.levels}; from 2 to 256"),
            (self.steps >= 1, f"steps is {self.steps}; there is 1 at least"),
            (0 <= self.close_steps <= self.steps, f"close_steps is {self.close_steps}, of {self.steps} steps"),
            (self.batch >= 1, f"batch is {self.batch}; it is 1 or more"),
            (self.exits_a_step >= 1, f"exits_a_step is {self.exits_a_step}; it is 1 or more"),
            (0 < self.peak < math.inf, f"peak is {self.peak}; a learning rate is above 0"),
            (all(0 <= w < math.inf for w in weights), f"the weights of losses and trunk_peak are 0 or more: {weights}"),
            (0 <= self.ema < 1, f"ema is {self.ema}; from 0 to less than 1"),
            (self.fuse >= 1, f"fuse is {self.fuse}; an exit fuses 1 stage at least"),
        ):
            if not fits:
                raise FleetError(f"{name}: {what}")

    def as_published(self) -> ExitConfig:
        """The same training with what the paper says of it (sections 3.2 to 3.4) in place of what FLEET adds.

        Exits are trained on whole sizes, each twice the one before, with a block for every combination of them, against
        the labels alone and behind the base network's own stages.
        """
        sizes = [self.base << k for k in range((self.rungs[-1] // self.base).bit_length())]
        paper = {"arrival": "sizes", "hard": 1.0, "soft": 0.0, "close_steps": 0, "close": 0.0, "rate": 0.0}
        return replace(self, rungs=tuple(sizes), combinations=True, trunk_peak=0.0, **paper)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PictureConfig:
    """Training of stage 0, the picture itself, and its exit for a finished bundle.

    Attributes:
        grid: blocks a side.
        luma: numbers that describe a block's brightness.
        chroma: numbers that describe it in each of the two colour planes.
        levels: quantiser levels.
        bytes: what a picture may cost on average; what is above is punished.
        rate: how hard.
        stages: so many first stages of the network are the hub's own for this exit.
        steps: updates.
        batch: images a step.
        peak: highest learning rate of AdamW, of what is new.
        own_peak: the same for the hub's own stages.
        ema: decay of the averaged weights, a step.
        hard: weight of the loss against the labels.
        soft: weight of the loss against the whole network's own answers (distillation).
        close: weight of the squared distance between the picture and what the exit makes of it.
        rate_steps: steps of the rate's model before the first one of the rest.
        keep: share of the weights that a training of a finished picture began with in those that it ends with; the mean
            of both often does better on new images than either (Wortsman et al. 2022, WiSE-FT).
    """

    grid: int = 8
    luma: int = 20
    chroma: int = 5
    levels: int = 64
    bytes: int = 360
    rate: float = 2.0
    stages: int = 13
    steps: int = 1600
    batch: int = 64
    peak: float = 0.002
    own_peak: float = 0.0005
    ema: float = 0.995
    hard: float = 0.5
    soft: float = 1.0
    close: float = 0.1
    rate_steps: int = 400
    keep: float = 0.0


@dataclass(frozen=True)
class TrainingConfig:
    """One training run.

    Attributes:
        backbone: name of the network, as in ``build_backbone``.
        input_size: size that the finished network is used at, in pixels.
        data: the images.
        phases: epochs and image sizes, in order.
        augment: random changes of the images.
        optimiser: optimiser and schedule.
        label_smoothing: share of the target given to all classes alike.
        group_weight: weight of the loss of the summed group probabilities beside the classes' own.
        seed: everything random follows from it.
        exits: training of encoders and exits behind the base network's; none trains the base network alone.
        picture: training of stage 0 for a finished bundle, by itself; none trains the rest.
    """

    backbone: str = "mobilenetv3"
    input_size: int = 64
    data: DataConfig = field(default_factory=DataConfig)
    phases: tuple[Phase, ...] = (Phase(64, 30),)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    label_smoothing: float = 0.1
    group_weight: float = 0.0
    seed: int = 1
    exits: ExitConfig | None = None
    picture: PictureConfig | None = None

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain dictionaries, lists and numbers."""
        plain = dataclasses.asdict(self)
        loaded: dict[str, Any] = yaml.safe_load(yaml.safe_dump(_listed(plain)))
        return loaded


def load_config(path: Path) -> TrainingConfig:
    """Read a training configuration.

    Raises:
        FleetError: the file is missing, not YAML, or holds an unknown or ill-typed key.
    """
    try:
        loaded = strict_yaml.load(path.read_text(encoding="utf-8"))
    except OSError as err:
        msg = f"cannot read the training configuration {path}: {err.strerror}"
        raise FleetError(msg) from err
    except (ValueError, RecursionError, yaml.YAMLError) as err:  # ValueError: no text, no date
        msg = f"{path} is not valid YAML: {' '.join(str(err).split())}"
        raise FleetError(msg) from err
    return parse_config(loaded, str(path))


def parse_config(loaded: object, name: str) -> TrainingConfig:
    """Turn a mapping, as YAML gives it, into a configuration.

    Args:
        loaded: nested mappings and lists.
        name: what to call their origin in a message.

    Raises:
        FleetError: unknown or ill-typed key.
    """
    config: TrainingConfig = _build(TrainingConfig, loaded, name)
    if config.optimiser.kind not in ("sgd", "adamw"):
        msg = f"{name}: optimiser.kind is '{config.optimiser.kind}'; use sgd or adamw"
        raise FleetError(msg)
    if config.exits is not None:
        config.exits.check(f"{name}: exits")
    if not config.phases or min(min(p.size, p.epochs) for p in config.phases) < 1:
        msg = f"{name}: phases must list at least one {{size, epochs}}, both from 1"
        raise FleetError(msg)
    return config


def read_settings(kind: Any, loaded: object, name: str) -> Any:
    """Turn a mapping, as YAML gives it, into any frozen dataclass of settings.

    Args:
        kind: the dataclass.
        loaded: nested mappings and lists.
        name: what to call their origin in a message.

    Raises:
        FleetError: unknown or ill-typed key.
    """
    return _build(kind, loaded, name)


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_listed(item) for item in value]
    return value


def _build(kind: Any, value: object, name: str) -> Any:
    """Turn plain YAML into the annotated type, naming the offending key when it does not fit."""
    origin = typing.get_origin(kind)
    if origin is types.UnionType and type(None) in typing.get_args(kind):
        return None if value is None else _build(typing.get_args(kind)[0], value, name)
    if origin is Literal and value in typing.get_args(kind):
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            msg = f"{name} must be a mapping of settings, not {value!r}"
            raise FleetError(msg)
        hints = typing.get_type_hints(kind)
        for key in value:
            if key not in hints:
                msg = f"{name}: unknown setting '{key}'; known are {', '.join(hints)}"
                raise FleetError(msg)
        needed = [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING]
        if missing := [key for key in needed if key not in value]:
            raise FleetError(f"{name} needs {', '.join(missing)}")
        return kind(**{key: _build(hints[key], item, f"{name}: {key}") for key, item in value.items()})
    if origin is tuple and isinstance(value, list):
        return tuple(_build(typing.get_args(kind)[0], item, name) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(key): _build(typing.get_args(kind)[1], item, f"{name}: {key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    truth = isinstance(value, bool)  # which Python counts among the integers
    if isinstance(kind, (type, types.UnionType)) and isinstance(value, kind) and truth == (kind is bool):
        return value
    choices = ", ".join(map(str, typing.get_args(kind))) if origin is Literal else getattr(kind, "__name__", kind)
    msg = f"{name} is {value!r}; expected {choices}"
    raise FleetError(msg)
