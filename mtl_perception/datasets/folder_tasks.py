# SPDX-License-Identifier: Apache-2.0
"""tasks.yaml of the folder layout: which tasks a folder has and what its files' numbers mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_perception.camera import CameraError, CameraModel
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.label_map import LabelMap, make_label_map
from mtl_perception.datasets.targets import axes_matrix
from mtl_perception.tasks import LABELLED_KINDS, LabelSet, load_label_set, Task, TaskError
import numpy as np
import numpy.typing as npt

REST = '*'
_FIELDS = {
    'semantic': ('classes', 'label_set', 'ignore', 'from'),
    'parts': ('classes', 'label_set', 'ignore', 'from'),
    'depth': ('unit_m',),
    'normals': ('axes',),
    'edges': ('edge_meaning',),
    'saliency': (),
}


@dataclass(frozen=True)
class FolderTask:
    """A task, the folder of its files below labels/, and how to read them."""

    task: Task
    folder: str
    partial: bool = False  # frames may lack a file
    labels: LabelMap | None = None
    unit_m: float = 0.001
    axes: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class FolderDescription:
    """The content of tasks.yaml."""

    tasks: tuple[FolderTask, ...]
    intrinsics: tuple[float, float, float, float] | None  # fx, fy, cx, cy of all images

    def camera_for(self, width: int, height: int) -> CameraModel | None:
        """Return the intrinsics, which are those of all images as they lie on disk."""
        if self.intrinsics is None:
            return None
        fx, fy, cx, cy = self.intrinsics
        return CameraModel(width, height, fx, fy, cx, cy)


def read_folder_tasks(path: Path) -> FolderDescription:
    """
    Read tasks.yaml (docs/datasets.md has its fields).

    Raises
    ------
    DatasetError
        If the file is no YAML, or a field is unknown, missing or makes no sense.

    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f'{path} cannot be read as YAML: {" ".join(str(error).split())}'
        raise DatasetError(msg) from error
    try:
        return _parse(values)
    except (DatasetError, TaskError, CameraError) as error:
        msg = f'{path}: {error}'
        raise DatasetError(msg) from error


def _parse(values: Any) -> FolderDescription:
    _require_fields(values, ('tasks', 'camera'), 'the file')
    entries = values.get('tasks')
    if not isinstance(entries, Mapping) or not entries:
        msg = 'tasks: a mapping of task names is needed'
        raise DatasetError(msg)
    tasks = tuple(_parse_task(str(name), entries) for name in entries)
    description = FolderDescription(tasks, _parse_intrinsics(values.get('camera')))
    description.camera_for(1, 1)
    return description


def _parse_intrinsics(values: Any) -> tuple[float, float, float, float] | None:
    if values is None:
        return None
    keys = ('fx', 'fy', 'cx', 'cy')
    _require_fields(values, keys, 'camera')
    numbers = [values.get(key) for key in keys]
    if not all(isinstance(number, (int, float)) for number in numbers):
        msg = f'camera: fx, fy, cx and cy are needed, in pixels; it has {dict(values)}'
        raise DatasetError(msg)
    fx, fy, cx, cy = map(float, numbers)
    return fx, fy, cx, cy


def _require_fields(values: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(values, Mapping):
        msg = f'{where}: {values!r} should be a mapping'
        raise DatasetError(msg)
    for key in values:
        if key not in known:
            msg = f'{where}: there is no field {key!r}; there are {", ".join(known)}'
            raise DatasetError(msg)


def _parse_task(name: str, entries: Mapping[str, Any]) -> FolderTask:
    values = entries[name]
    kind = values.get('kind') if isinstance(values, Mapping) else None
    if kind not in _FIELDS:
        msg = f'task {name}: kind is {kind!r}; use one of {", ".join(_FIELDS)}'
        raise DatasetError(msg)
    _require_fields(values, ('kind', 'partial', *_FIELDS[kind]), f'task {name}')
    partial = bool(values.get('partial', False))
    if kind in LABELLED_KINDS:
        labels = _parse_labels(name, values, entries)
        task = Task(name, kind, label_set=labels.label_set)
        return FolderTask(task, str(values.get('from', name)), partial, labels=labels)
    task = Task(name, kind, edge_meaning=values.get('edge_meaning'))
    if kind == 'normals':
        return FolderTask(task, name, partial, axes=axes_matrix(tuple(values.get('axes') or ())))
    unit_m = values.get('unit_m', 0.001)
    if not isinstance(unit_m, (int, float)) or not unit_m > 0:
        msg = f'task {name}: unit_m is {unit_m!r}; write the metres of one step, such as 0.001'
        raise DatasetError(msg)
    return FolderTask(task, name, partial, unit_m=float(unit_m))


def _parse_labels(
    name: str, values: Mapping[str, Any], entries: Mapping[str, Any]
) -> LabelMap:
    where = f'task {name}'
    source = values.get('from')
    if source is None:
        label_set, numbers = _own_classes(name, values)
        return make_label_map(label_set, numbers, {}, where)
    base = entries.get(source)
    if not isinstance(base, Mapping) or base.get('kind') not in LABELLED_KINDS or 'from' in base:
        msg = f'{where}: from {source!r} is no task with label files of its own'
        raise DatasetError(msg)
    if 'ignore' in values:
        msg = f'{where}: ignore belongs to {source}, whose files these are'
        raise DatasetError(msg)
    base_set, numbers = _own_classes(str(source), base)
    classes = values.get('classes')
    if not isinstance(classes, Mapping) or not classes:
        msg = f'{where}: classes must say what each takes, such as {{vehicle: [car, bus]}}'
        raise DatasetError(msg)
    listed = {
        str(each): tuple(str(part) for part in (taken if isinstance(taken, list) else [taken]))
        for each, taken in classes.items()
    }
    named = {part for taken in listed.values() for part in taken}
    rest = tuple(each for each in base_set.names if each not in named)
    resolved = {each: rest if taken == (REST,) else taken for each, taken in listed.items()}
    return make_label_map(_label_set(name, tuple(listed)), numbers, resolved, where)


def _own_classes(name: str, values: Mapping[str, Any]) -> tuple[LabelSet, dict[str, int]]:
    """Return the classes of a task with files of its own, and the number of each in the files."""
    classes, set_name = values.get('classes'), values.get('label_set')
    if (classes is None) == (set_name is None):
        msg = f'task {name}: give either classes or label_set'
        raise DatasetError(msg)
    if set_name is not None:
        label_set = load_label_set(str(set_name))
        numbers = {each: index for index, each in enumerate(label_set.names)}
    else:
        if not isinstance(classes, list) or not any(each is not None for each in classes):
            msg = f'task {name}: classes is a list of names in the order of their numbers'
            raise DatasetError(msg)
        label_set = _label_set(name, tuple(str(each) for each in classes if each is not None))
        numbers = {str(each): index for index, each in enumerate(classes) if each is not None}
        # A number without a class, such as 0 = void, is unlabelled.
        numbers |= {f'<{i}>': i for i, each in enumerate(classes) if each is None}
    ignore = values.get('ignore', 255)
    if not isinstance(ignore, int) or ignore in numbers.values() or not 0 <= ignore < 65536:
        msg = f'task {name}: ignore is {ignore!r}; it must be a number that is no class'
        raise DatasetError(msg)
    return label_set, numbers | {'<ignore>': ignore}


def _label_set(name: str, classes: tuple[str, ...]) -> LabelSet:
    return LabelSet(name, classes, tuple(_colour(index + 1) for index in range(len(classes))))


def _colour(index: int) -> tuple[int, int, int]:
    """Return the PASCAL VOC colour: the bits of the index dealt out to R, G, B from the top."""
    colour = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            colour[channel] |= ((index >> channel) & 1) << (7 - bit)
        index >>= 3
    return colour[0], colour[1], colour[2]
