# SPDX-License-Identifier: Apache-2.0
"""All baselines by name: how each is trained, and how weights become a scheme again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor, nn

from fleet.backbones import Backbone
from fleet.baselines import branchynet, clio, ensemble, jpeg, neurosurgeon, own, shallow_deep
from fleet.baselines.exit_network import EXIT_STAGES
from fleet.baselines.scheme import LocalScheme, OffloadScheme
from fleet.baselines.training import Recipe
from fleet.errors import FleetError

State: TypeAlias = Mapping[str, Tensor]
Temperatures: TypeAlias = Mapping[str, tuple[float, ...]]
AnyScheme: TypeAlias = LocalScheme | OffloadScheme
Begin: TypeAlias = Callable[[str, Backbone, Tensor], Recipe]
Assemble: TypeAlias = Callable[[Backbone, Mapping[str, State], Temperatures], list[AnyScheme]]


@dataclass(frozen=True)
class Family:
    """What is trained and stored together.

    Attributes:
        name: of the file in ``models/baselines``.
        parts: names of the trainings.
        schemes: names of the schemes that come of it.
        begin: the training of a part, from its name, a base network of its own and normalised training images.
        assemble: the schemes, from a base network of their own, the parts' weights and the temperatures by scheme;
            a scheme without temperatures gets ones.
    """

    name: str
    parts: tuple[str, ...]
    schemes: tuple[str, ...]
    begin: Begin
    assemble: Assemble


def fill(module: nn.Module, state: State, name: str) -> None:
    """Put stored weights into a module.

    Raises:
        FleetError: they belong to something else.
    """
    try:
        missing, unexpected = module.load_state_dict(dict(state), strict=False)
    except RuntimeError as err:
        raise FleetError(f"the weights of {name} do not fit: {' '.join(str(err).split())[:160]}") from err
    odd = [*unexpected, *(key for key in missing if not key.endswith("num_batches_tracked"))]
    if odd:
        raise FleetError(f"the weights of {name} do not fit: {odd[0]} and {len(odd) - 1} more names differ")


def _ones(temperatures: Temperatures, name: str, rows: int) -> tuple[float, ...]:
    found = temperatures.get(name, (1.0,) * rows)
    if len(found) != rows:
        raise FleetError(f"{name} has {rows} rows of logits, but {len(found)} temperatures")
    return found


def _branchynet(base: Backbone, states: Mapping[str, State], temperatures: Temperatures) -> list[AnyScheme]:
    network = branchynet.build(base)
    fill(network, states[branchynet.NAME], branchynet.NAME)
    return [branchynet.BranchyNet(network, _ones(temperatures, branchynet.NAME, len(EXIT_STAGES) + 1))]


def _shallow_deep(base: Backbone, states: Mapping[str, State], temperatures: Temperatures) -> list[AnyScheme]:
    network = shallow_deep.build(base)
    fill(network.heads, states[shallow_deep.NAME], shallow_deep.NAME)
    return [shallow_deep.ShallowDeep(network, _ones(temperatures, shallow_deep.NAME, len(EXIT_STAGES) + 1))]


def _ensemble(base: Backbone, states: Mapping[str, State], temperatures: Temperatures) -> list[AnyScheme]:
    members = ensemble.build_members(base)
    for n, member in members.items():
        fill(member, states[ensemble.member_name(n)], ensemble.member_name(n))
    return [ensemble.Ensemble(members, base, _ones(temperatures, ensemble.NAME, len(members) + 1))]


def _clio(base: Backbone, states: Mapping[str, State], temperatures: Temperatures) -> list[AnyScheme]:
    network = clio.ClioNetwork(base)
    fill(network.trained, states[clio.NAME], clio.NAME)
    return [clio.Clio(network, _ones(temperatures, clio.NAME, len(clio.WIDTHS)))]


def _neurosurgeon(base: Backbone, states: Mapping[str, State], temperatures: Temperatures) -> list[AnyScheme]:
    network = neurosurgeon.SplitNetwork(base)
    fill(network.trained, states[neurosurgeon.NAME], neurosurgeon.NAME)
    return [neurosurgeon.Neurosurgeon(network, _ones(temperatures, neurosurgeon.NAME, len(network.rows)))]


def _pictures(base: Backbone, states: Mapping[str, State], temperatures: Temperatures) -> list[AnyScheme]:
    fill(base, states[jpeg.NAME], jpeg.NAME)
    return [
        jpeg.Picture(kind, base, _ones(temperatures, kind, len(jpeg.settings_of(kind, base.input_size))))
        for kind in jpeg.FORMATS
    ]


def _begin_ensemble(name: str, base: Backbone, _samples: Tensor) -> Recipe:
    stage = name.removeprefix(f"{ensemble.NAME}-").removesuffix(ensemble.WHOLE)
    return ensemble.TrainMember(base, int(stage), whole=name.endswith(ensemble.WHOLE))


FAMILIES: Final[Sequence[Family]] = (
    Family(
        shallow_deep.NAME,
        (shallow_deep.NAME,),
        (shallow_deep.NAME,),
        lambda _name, base, _samples: shallow_deep.ClassifiersOnly(base),
        _shallow_deep,
    ),
    Family(
        branchynet.NAME,
        (branchynet.NAME,),
        (branchynet.NAME,),
        lambda _name, base, _samples: branchynet.Joint(base),
        _branchynet,
    ),
    Family(
        ensemble.NAME,
        tuple(ensemble.member_name(n) for n in EXIT_STAGES),
        (ensemble.NAME,),
        _begin_ensemble,
        _ensemble,
    ),
    Family(clio.NAME, (clio.NAME,), (clio.NAME,), lambda _name, base, _samples: clio.Progressive(base), _clio),
    Family(
        neurosurgeon.NAME,
        (neurosurgeon.NAME,),
        (neurosurgeon.NAME,),
        lambda _name, base, samples: neurosurgeon.Enlarging(base, samples),
        _neurosurgeon,
    ),
    Family(
        jpeg.NAME,
        (jpeg.NAME,),
        jpeg.FORMATS,
        lambda _name, base, _samples: jpeg.Compressed(base),
        _pictures,
    ),
)
SCHEMES: Final = tuple(name for family in FAMILIES for name in family.schemes)
PARTS: Final = tuple(name for family in FAMILIES for name in family.parts)


def begin(part: str, base: Backbone, samples: Tensor) -> Recipe:
    """The training of a part of a scheme.

    Args:
        part: one of ``PARTS``; ``shallow-deep-joint`` for the published training of everything; an ensemble's
            member with ``-whole`` behind its name for that of all its stages; ``local-exits`` for our own.
        base: the base network; it is copied.
        samples: normalised training images, shape (N, 3, H, W).

    Raises:
        FleetError: no such part.
    """
    own_base = copy.deepcopy(base).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if part == own.NAME:
        return own.OwnExits(own_base)
    if part == shallow_deep.Joint.name:
        return shallow_deep.Joint(own_base)
    for family in FAMILIES:
        if part.removesuffix(ensemble.WHOLE if family.name == ensemble.NAME else "") in family.parts:
            return family.begin(part, own_base, samples)
    raise FleetError(f"no baseline has a part '{part}'; there are {', '.join((*PARTS, shallow_deep.Joint.name))}")
