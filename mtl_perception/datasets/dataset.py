# SPDX-License-Identifier: Apache-2.0
"""One interface for every source of labelled frames, and the one way to open any of them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
import inspect
from pathlib import Path
import types
from typing import Any, get_args, get_origin, get_type_hints, Protocol, runtime_checkable, Union

from mtl_perception.datasets.errors import DatasetError
from mtl_perception.tasks import Task
from mtl_perception.values import Sample

# kind -> module:class (or function), imported when asked for and called with (path, split,
# **options).
KINDS: Mapping[str, str] = {
    'nyud': 'mtl_perception.datasets.nyud:NyudDataset',
    'pascal_context': 'mtl_perception.datasets.pascal_context:PascalContextDataset',
    'cityscapes': 'mtl_perception.datasets.cityscapes:CityscapesDataset',
    'vkitti2': 'mtl_perception.datasets.vkitti2:Vkitti2Dataset',
    'synthia': 'mtl_perception.datasets.synthia:SynthiaDataset',
    'folder': 'mtl_perception.datasets.folder:FolderDataset',
    'rosbag': 'mtl_perception.datasets.rosbag:RosbagDataset',
    'rooms': 'mtl_perception.datasets.rooms_splits:open_rooms',
}


@runtime_checkable
class Dataset(Protocol):
    """
    Labelled frames in a fixed order, at their native size; indexing reads from disk.

    Can be copied to worker processes. A frame's targets are by task name; one that is not
    annotated is absent.
    """

    tasks: tuple[Task, ...]
    names: tuple[str, ...]  # unique, in order

    def __len__(self) -> int:
        """Return how many frames there are."""

    def __getitem__(self, index: int) -> Sample:
        """Return a frame; DatasetError if its files are damaged."""


def open_dataset(spec: str | Mapping[str, Any], split: str) -> Dataset:
    """
    Open a dataset.

    `spec` is a mapping with `kind`, `path` and the kind's options, or the same as one text:
    'kind:path?option=value&option=value,value'. The options are the keyword arguments of the
    kind's class or function. `split` is train, val, or what else the kind has.

    Raises
    ------
    DatasetError
        If the kind, an option or the split is unknown, or the folder is wrong or incomplete.

    """
    values = parse_spec(spec) if isinstance(spec, str) else dict(spec)
    kind, path = values.pop('kind', None), values.pop('path', None)
    if not isinstance(kind, str) or kind not in KINDS:
        msg = f'dataset kind {kind!r} is unknown; there are {", ".join(KINDS)}'
        raise DatasetError(msg)
    if not isinstance(path, (str, Path)) or not str(path):
        msg = f'dataset {kind}: the path is {path!r}; write {kind}:PATH'
        raise DatasetError(msg)
    module, _, name = KINDS[kind].partition(':')
    opener = getattr(import_module(module), name)
    options = _options(opener, kind, values)
    try:
        dataset: Dataset = opener(Path(path).expanduser(), split, **options)
    except DatasetError as error:
        msg = str(error) if str(path) in str(error) else f'{kind}:{path}: {error}'
        raise DatasetError(msg) from error
    return dataset


def parse_spec(text: str) -> dict[str, Any]:
    """
    Return 'kind:path?option=value&...' as a mapping of texts.

    Raises
    ------
    DatasetError
        If there is no kind, or an option without a value.

    """
    kind, colon, rest = text.partition(':')
    if not colon:
        msg = f'dataset {text!r} has no kind; write KIND:PATH with one of {", ".join(KINDS)}'
        raise DatasetError(msg)
    path, _, query = rest.partition('?')
    values: dict[str, Any] = {'kind': kind, 'path': path}
    for part in filter(None, query.split('&')):
        name, equals, value = part.partition('=')
        if not equals or name in values:
            msg = f'dataset {text!r}: {part!r} is no option; write ?option=value&option=value'
            raise DatasetError(msg)
        values[name] = value
    return values


def _options(opener: Any, kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Bring option values to the types of the keyword arguments."""
    parameters = inspect.signature(opener).parameters.values()
    known = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    hints = get_type_hints(opener.__init__ if inspect.isclass(opener) else opener)
    options = {}
    for name, value in values.items():
        if name not in known:
            have = f'its options are {", ".join(known)}' if known else 'it has no options'
            msg = f'dataset {kind}: there is no option {name!r}; {have}'
            raise DatasetError(msg)
        options[name] = _converted(hints[name], value, f'dataset {kind}: option {name}')
    return options


def _converted(kind: Any, value: Any, where: str) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        if value is None:
            return None
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is tuple:
        parts = list(filter(None, value.split(','))) if isinstance(value, str) else value
        inner = get_args(kind)[0]
        if isinstance(parts, (list, tuple)):
            return tuple(_converted(inner, part, where) for part in parts)
    elif kind in (str, Path):
        if isinstance(value, (str, Path)):
            return kind(value)
    elif kind in (int, float) and not isinstance(value, bool):
        try:
            return kind(value)
        except (TypeError, ValueError):
            pass
    names = {int: 'a whole number', float: 'a number'}
    msg = f'{where}: {value!r} is not {names.get(kind, "text, or a list of it")}'
    raise DatasetError(msg)
