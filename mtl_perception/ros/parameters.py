# SPDX-License-Identifier: Apache-2.0
"""Parameters declared once: default, description, range, choices, read-only or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mtl_perception.ros.errors import RosError
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

Value = bool | int | float | str


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter; its type is that of `default`, and `limits` are both included."""

    name: str
    default: Value
    description: str
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False  # set at start only, for what needs a restart

    def descriptor(self) -> ParameterDescriptor:
        """Return what `ros2 param describe` shows."""
        descriptor = ParameterDescriptor(
            name=self.name,
            description=self.description,
            read_only=self.read_only,
            additional_constraints=f'one of {", ".join(self.choices)}' if self.choices else '',
        )
        if self.limits is not None and isinstance(self.default, int):
            first, last = (int(limit) for limit in self.limits)
            descriptor.integer_range = [IntegerRange(from_value=first, to_value=last, step=0)]
        elif self.limits is not None:
            low, high = (float(limit) for limit in self.limits)
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=low, to_value=high, step=0.0)
            ]
        return descriptor

    def refusal(self, value: Any) -> str:
        """Return why `value` cannot be taken; empty if it can. ROS itself checks the range."""
        if self.choices and value not in self.choices:
            return f'{self.name} is {value!r}; use one of {", ".join(self.choices)}'
        if isinstance(value, float) and value != value:
            return f'{self.name} is not a number (NaN)'
        return ''


def declare_parameters(
    node: Node,
    specs: Iterable[ParameterSpec],
    check: Callable[[dict[str, Value]], str] = lambda values: '',
) -> None:
    """
    Declare `specs` on `node` and refuse bad values from then on, with the reason.

    `check` is given all values as they would be after a change and returns why they do not go
    together, or an empty string.

    Raises
    ------
    RosError
        If a value given at start (command line, parameter file) is of the wrong type, out of
        range or none of the choices.

    """
    known = {spec.name: spec for spec in specs}

    def validate(changes: list[Any]) -> SetParametersResult:
        values = {name: node.get_parameter(name).value for name in known}
        for parameter in changes:
            if parameter.name in known:
                values[parameter.name] = parameter.value
        reasons = [known[name].refusal(value) for name, value in values.items()]
        reason = next(filter(None, reasons), '') or check(values)
        return SetParametersResult(successful=not reason, reason=reason)

    for spec in known.values():
        try:
            node.declare_parameter(spec.name, spec.default, spec.descriptor())
        except InvalidParameterTypeException as error:
            kind = 'number with a decimal point' if isinstance(spec.default, float) else (
                type(spec.default).__name__
            )
            raise RosError(f'parameter {spec.name} takes a {kind}: {error.args[0]}') from error
        except InvalidParameterValueException as error:
            raise RosError(f'parameter {spec.name} cannot be set: {error.args[0]}') from error
    node.add_on_set_parameters_callback(validate)
    result = validate([])
    if not result.successful:
        raise RosError(f'parameter {result.reason}')
