# SPDX-License-Identifier: Apache-2.0
"""ROS parameters as a frozen dataclass: declared, described, checked and swapped as one snapshot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from fleet.errors import FleetError

S = TypeVar("S")
_HELP = "help"
_READ_ONLY = "read_only"
_RANGE = "range"


def setting(default: Any, help_text: str, *, read_only: bool = False, within: tuple[float, float] | None = None) -> Any:
    """A field of a settings dataclass that is a ROS parameter.

    Args:
        default: of the parameter's type.
        help_text: description with its unit.
        read_only: a change while running cannot apply.
        within: smallest and largest value.
    """
    return dataclasses.field(default=default, metadata={_HELP: help_text, _READ_ONLY: read_only, _RANGE: within})


def declare(node: Node, kind: type[S], changed: Callable[[S, S], None] | None = None) -> S:
    """Declare every field of a settings dataclass on a node and keep a snapshot in ``node.settings``.

    A change is checked by building the new snapshot (its ``__post_init__`` raises FleetError) before it is
    accepted, without side effects, and applied afterwards.

    Args:
        node: the node.
        kind: a frozen dataclass made of :func:`setting` fields.
        changed: called with the old and the new snapshot once a change holds.

    Raises:
        FleetError: a start value is of the wrong type or out of range.
    """
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        _widen(node, field)
        try:
            values[field.name] = node.declare_parameter(field.name, field.default, _descriptor(field)).value
        except ParameterException as err:
            raise FleetError(f"parameter {field.name}: {str(err).splitlines()[0]}") from err
    node.settings = kind(**values)  # type: ignore[attr-defined]
    for name in sorted(set(node._parameter_overrides) - set(node._parameters)):  # a typing mistake, most likely
        if not name.startswith("qos_overrides."):
            known = ", ".join(values)
            node.get_logger().warning(f"there is no parameter '{name}', it is ignored; there are: {known}")

    def merged(parameters: Sequence[Parameter]) -> S:
        names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
        changes = {p.name: p.value for p in parameters if p.name in names}
        return dataclasses.replace(node.settings, **changes)  # type: ignore[attr-defined]

    def check(parameters: Sequence[Parameter]) -> SetParametersResult:
        try:
            merged(parameters)
        except FleetError as err:
            return SetParametersResult(successful=False, reason=str(err))
        return SetParametersResult(successful=True)

    def apply(parameters: Sequence[Parameter]) -> None:
        old, new = node.settings, merged(parameters)  # type: ignore[attr-defined]
        node.settings = new  # type: ignore[attr-defined]
        if changed is not None and new != old:
            changed(old, new)

    node.add_on_set_parameters_callback(check)
    node.add_post_set_parameters_callback(apply)
    return node.settings  # type: ignore[attr-defined,no-any-return]


def _widen(node: Node, field: dataclasses.Field[Any]) -> None:
    """Take ``8`` in a file for ``8.0``, and for ``'8'``, where the parameter is a number with a point, or a text."""
    given = node._parameter_overrides.get(field.name)
    if given is not None and given.type_ == Parameter.Type.INTEGER and isinstance(field.default, float | str):
        node._parameter_overrides[field.name] = Parameter(field.name, value=type(field.default)(given.value))


def _descriptor(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=field.metadata[_HELP], read_only=field.metadata[_READ_ONLY])
    if (within := field.metadata[_RANGE]) is not None:
        low, high = within
        if isinstance(field.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    return descriptor
