# SPDX-License-Identifier: Apache-2.0
"""Plain YAML values into frozen dataclasses, with errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, MISSING
import math
from pathlib import Path
import types
from typing import Any, get_args, get_origin, get_type_hints, TypeVar, Union

from mtl_perception.training.errors import TrainingError
import yaml

T = TypeVar('T')


def _name(kind: Any) -> str:
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if inner[-1] is Ellipsis:
            return f'a list of {_name(inner[0])}'
        return f'a list of {len(inner)} ({", ".join(_name(each) for each in inner)})'
    if get_origin(kind) in (Union, types.UnionType):
        return ' or '.join(_name(each) for each in get_args(kind))
    names = {int: 'a whole number', float: 'a number', str: 'text', bool: 'true or false'}
    return names.get(kind, 'null' if kind is type(None) else 'a mapping')


def _refuse(value: Any, kind: Any, where: str) -> TrainingError:
    return TrainingError(f'{where}: {value!r} should be {_name(kind)}')


def _member(kinds: tuple[Any, ...], value: Any) -> Any:
    """Return the kind of a union that `value` is meant to be: text if it is text."""
    kinds = tuple(each for each in kinds if each is not type(None))
    return str if isinstance(value, str) and str in kinds else kinds[-1]


def _convert(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        return parse(kind, value, where)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        inner = _member(get_args(kind), value)
        return _convert(inner, value, where)
    if origin is tuple:
        return _convert_list(kind, value, where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _refuse(value, kind, where)
        inner = get_args(kind)[1]
        return {str(key): _convert(inner, each, f'{where}.{key}') for key, each in value.items()}
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
        raise _refuse(value, kind, where)
    # YAML 1.1 reads 1e-4 (no dot) as text; a learning rate is often written so.
    if kind is float and isinstance(value, str):
        try:
            return _convert(float, float(value), where)
        except ValueError as error:
            raise _refuse(value, kind, where) from error
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise _refuse(value, kind, where)


def _convert_list(kind: Any, value: Any, where: str) -> tuple[Any, ...]:
    inner = get_args(kind)
    if not isinstance(value, (list, tuple)):
        raise _refuse(value, kind, where)
    if inner[-1] is Ellipsis:
        inner = (inner[0],) * len(value)
    if len(inner) != len(value):
        raise _refuse(value, kind, where)
    return tuple(
        _convert(each, item, f'{where}[{index}]')
        for index, (each, item) in enumerate(zip(inner, value))
    )


def read_yaml(path: Path, what: str) -> Any:
    """
    Read a YAML file.

    :param what: names the file in messages

    Raises
    ------
    TrainingError
        If the file is missing or no YAML.

    """
    try:
        return yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        msg = f'{what} {path} cannot be read: {error.strerror}'
        raise TrainingError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f'{what} {path} is not YAML: {" ".join(str(error).split())}'
        raise TrainingError(msg) from error


def parse(cls: type[T], values: Any, where: str) -> T:
    """
    Build the dataclass `cls` from a mapping of plain values.

    Raises
    ------
    TrainingError
        If a field is unknown, missing or of the wrong type, or `cls` refuses a value; the
        message begins with `where` and the field.

    """
    if not isinstance(values, Mapping):
        msg = f'{where}: {values!r} should be a mapping of fields'
        raise TrainingError(msg)
    hints = get_type_hints(cls)
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    unknown = [str(key) for key in values if key not in known]
    if unknown:
        msg = f'{where}.{unknown[0]}: no such field; the fields are {", ".join(known)}'
        raise TrainingError(msg)
    given = {}
    for name, field in known.items():
        if name in values:
            given[name] = _convert(hints[name], values[name], f'{where}.{name}')
        elif field.default is MISSING and field.default_factory is MISSING:
            msg = f'{where}.{name}: missing; it should be {_name(hints[name])}'
            raise TrainingError(msg)
    try:
        return cls(**given)
    except TrainingError as error:
        msg = f'{where}.{error}'
        raise TrainingError(msg) from None
