# SPDX-License-Identifier: Apache-2.0
"""The datasets of a recipe, opened and compared with what the recipe wants to learn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_perception.datasets.dataset import Dataset, open_dataset
from mtl_perception.datasets.rooms_splits import RENDER
from mtl_perception.tasks import Task
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.recipe import Recipe


def open_frames(recipe: Recipe, root: Path) -> tuple[Dataset, Dataset]:
    """
    Open the frames to train on and those to validate on.

    Raises
    ------
    DatasetError
        If the folder is wrong or incomplete.
    TrainingError
        If the data lack a task of the recipe or mean other classes by it.

    """
    data = recipe.data
    train, validation = (
        open_split(data.kind, root, split, data.options)
        for split in (data.train, data.validation)
    )
    check_tasks(train.tasks, (*recipe.task_list(), *recipe.auxiliary_list()), data.kind)
    check_tasks(validation.tasks, recipe.task_list(), data.kind)
    return train, validation


def open_split(kind: str, root: Path, split: str, options: Mapping[str, Any]) -> Dataset:
    """
    Open one part of a data folder: a folder below it for rooms on disk and bags, else a split.

    Raises
    ------
    DatasetError
        If the folder is wrong or incomplete.

    """
    is_folder = kind == 'rooms' and root != RENDER
    if is_folder or (kind == 'rosbag' and (root / split).is_dir()):
        return open_dataset({'kind': kind, 'path': str(root / split), **options}, 'all')
    return open_dataset({'kind': kind, 'path': str(root), **options}, split)


def check_tasks(given: tuple[Task, ...], wanted: tuple[Task, ...], kind: str) -> None:
    """
    Compare a dataset's tasks with those to learn.

    Raises
    ------
    TrainingError
        If one is missing, of another kind, or has other classes.

    """
    known = {task.name: task for task in given}
    for task in wanted:
        have = known.get(task.name)
        if have is None or have.kind != task.kind:
            msg = (
                f'task {task.name!r} of kind {task.kind!r} is not in the {kind} data, which have '
                f'{", ".join(f"{each.name} ({each.kind})" for each in given)}'
            )
            raise TrainingError(msg)
        if task.label_set and have.label_set and task.label_set.names != have.label_set.names:
            msg = (
                f'task {task.name!r}: the recipe means the classes '
                f'{", ".join(task.label_set.names)}, but the data hold '
                f'{", ".join(have.label_set.names)}; name the label set of the data'
            )
            raise TrainingError(msg)


def describe_data(recipe: Recipe, train: Any, validation: Any) -> Mapping[str, Any]:
    """
    Return what a bundle should say of its data.

    Raises
    ------
    TrainingError
        If rooms were rendered with one seed for both.

    """
    data = recipe.data
    if data.kind != 'rooms':
        return {
            'source': data.kind,
            'train': data.train,
            'validation': data.validation,
            **({'options': dict(data.options)} if data.options else {}),
        }
    if train.settings['seed'] == validation.settings['seed']:
        msg = (
            f'training and validation rooms were rendered with the same seed, '
            f'{train.settings["seed"]}: they show the same worlds; render one of them with '
            'another --seed'
        )
        raise TrainingError(msg)
    return {
        'source': 'rendered rooms (python3 -m mtl_perception rooms)',
        'train': dict(train.settings),
        'validation': dict(validation.settings),
    }
