# SPDX-License-Identifier: Apache-2.0
"""A task as a recipe writes it."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from mtl_perception.tasks import LabelSet, load_label_set, Task, TaskError
from mtl_perception.training.errors import TrainingError


@dataclass(frozen=True)
class TaskRecipe:
    """
    One task by name and kind.

    Its classes are a label set of mtl_perception/labels, or listed in `classes`, which get
    colours of evenly spread hue.
    """

    name: str
    kind: str
    label_set: str | None = None
    classes: tuple[str, ...] | None = None
    edge_meaning: str | None = None

    def __post_init__(self) -> None:
        if self.label_set is not None and self.classes is not None:
            msg = f'label_set: {self.label_set!r} and classes are both given; keep one'
            raise TrainingError(msg)
        self.task()

    def task(self) -> Task:
        """
        Return the task.

        Raises
        ------
        TrainingError
            If it makes no sense.

        """
        try:
            labels = None if self.label_set is None else load_label_set(self.label_set)
            if self.classes is not None:
                labels = LabelSet(self.name, self.classes, _hues(len(self.classes)))
            return Task(self.name, self.kind, label_set=labels, edge_meaning=self.edge_meaning)
        except TaskError as error:
            msg = f'task {self.name!r}: {error}'
            raise TrainingError(msg) from error

    @classmethod
    def of(cls, task: Task) -> TaskRecipe:
        """Return the recipe of a task; its label set must ship with the package or be listed."""
        if task.label_set is None:
            return cls(task.name, task.kind, edge_meaning=task.edge_meaning)
        if task.label_set.name != task.name:
            return cls(task.name, task.kind, label_set=task.label_set.name)
        return cls(task.name, task.kind, classes=task.label_set.names)


def _hues(count: int) -> tuple[tuple[int, int, int], ...]:
    colours = (colorsys.hsv_to_rgb(index / count, 0.75, 0.9) for index in range(count))
    return tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colours)
