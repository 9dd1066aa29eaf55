# SPDX-License-Identifier: Apache-2.0
"""A task: what one output of the network means, how wide it is and how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtl_perception.tasks import colours
from mtl_perception.tasks.errors import TaskError
from mtl_perception.tasks.label_set import LabelSet, load_label_set
import numpy as np
import numpy.typing as npt

# The kinds whose maps hold class ids; parts are the parts of objects, the rest background.
LABELLED_KINDS = ('semantic', 'parts')
# The kinds whose maps hold probabilities; their targets are 0, 1, or 255 = not annotated.
PROBABILITY_KINDS = ('edges', 'saliency')
_CHANNELS = {'depth': 1, 'normals': 3, 'edges': 1, 'saliency': 1}
KINDS = (*LABELLED_KINDS, *_CHANNELS)
EDGE_MEANINGS = ('contours', 'label_borders', 'depth_jumps')

__all__ = [
    'EDGE_MEANINGS',
    'KINDS',
    'LABELLED_KINDS',
    'PROBABILITY_KINDS',
    'Task',
    'TaskError',
    'standard_tasks',
]


@dataclass(frozen=True)
class Task:
    """
    One output: declared by name and kind; several of one kind may coexist.

    A semantic task and a parts task have a label set. An edges task says which edges it means:
    `contours` drawn by people, `label_borders` (of rendered rooms: of objects, and jumps of depth
    too), or `depth_jumps`. Saliency has no fields.

    Raises
    ------
    TaskError
        If the kind is unknown, or a field that the kind needs is missing or foreign to it.

    """

    name: str
    kind: str
    label_set: LabelSet | None = None
    edge_meaning: str | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            msg = f'task name {self.name!r} must be letters, digits and underscores'
            raise TaskError(msg)
        if self.kind not in KINDS:
            msg = f'task {self.name!r} has kind {self.kind!r}; use one of {", ".join(KINDS)}'
            raise TaskError(msg)
        is_labelled = self.kind in LABELLED_KINDS
        if is_labelled != (self.label_set is not None):
            wanted = 'needs a label set' if is_labelled else 'takes no label set'
            msg = f'task {self.name!r} of kind {self.kind!r} {wanted}'
            raise TaskError(msg)
        if self.kind == 'edges':
            if self.edge_meaning not in EDGE_MEANINGS:
                msg = (
                    f'task {self.name!r}: edge_meaning is {self.edge_meaning!r}; '
                    f'say which edges: {", ".join(EDGE_MEANINGS)}'
                )
                raise TaskError(msg)
        elif self.edge_meaning is not None:
            msg = f'task {self.name!r} of kind {self.kind!r} takes no edge_meaning'
            raise TaskError(msg)

    @property
    def channels(self) -> int:
        """How many raw channels the network gives for this task."""
        if self.label_set is not None:
            return len(self.label_set)
        return _CHANNELS[self.kind]

    def colourise(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return the finished map (H, W) or (H, W, 3) as a picture, (H, W, 3) RGB."""
        if self.label_set is not None:
            return colours.colourise_labels(values, self.label_set.palette)
        return colours.COLOURISE[self.kind](values)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values: dict[str, Any] = {'name': self.name, 'kind': self.kind}
        if self.label_set is not None:
            values['label_set'] = self.label_set.to_json()
        if self.edge_meaning is not None:
            values['edge_meaning'] = self.edge_meaning
        return values

    @classmethod
    def from_json(cls, values: Any) -> Task:
        """
        Read what `to_json` wrote.

        Raises
        ------
        TaskError
            If a field is missing or makes no sense.

        """
        if not isinstance(values, Mapping):
            msg = f'a task is a mapping with name and kind, not {values!r}'
            raise TaskError(msg)
        for field in ('name', 'kind'):
            if not isinstance(values.get(field), str):
                msg = f'task field {field!r} is missing or not a string: {dict(values)!r}'
                raise TaskError(msg)
        label_set = values.get('label_set')
        return cls(
            name=values['name'],
            kind=values['kind'],
            label_set=None if label_set is None else LabelSet.from_json(label_set),
            edge_meaning=values.get('edge_meaning'),
        )


def standard_tasks(label_set: str | LabelSet) -> tuple[Task, Task, Task, Task]:
    """Return the four tasks of the live node: semantic, depth, normals and edges."""
    if isinstance(label_set, str):
        label_set = load_label_set(label_set)
    return (
        Task('semantic', 'semantic', label_set=label_set),
        Task('depth', 'depth'),
        Task('normals', 'normals'),
        Task('edges', 'edges', edge_meaning='label_borders'),
    )
