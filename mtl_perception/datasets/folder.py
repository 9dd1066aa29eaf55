# SPDX-License-Identifier: Apache-2.0
"""Your own labelled images: one folder per task and split, described by tasks.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mtl_perception.camera import CameraModel
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.file_dataset import FileDataset, select_tasks
from mtl_perception.datasets.folder_tasks import read_folder_tasks
from mtl_perception.datasets.images import read_labels, read_stored
from mtl_perception.datasets.origin import Origin
from mtl_perception.datasets.targets import decode_depth, decode_mask, decode_normals
from mtl_perception.values import Array

_SUFFIXES = ('.jpg', '.jpeg', '.png')


class FolderDataset(FileDataset):
    """
    images/<split>/<frame>.jpg or .png, labels/<task>/<split>/<frame>.png and tasks.yaml.

    Several tasks may take their classes from the label files of one (`from`).

    :param split: a folder below images/
    :param tasks: names in tasks.yaml; None is all
    :param tasks_file: another tasks.yaml than the folder's own
    :raises DatasetError: if the folder or its description is wrong or incomplete
    """

    origin = Origin(
        title='Image folder',
        layout='tasks.yaml, images/<split>/<frame>.{jpg,png}, labels/<task>/<split>/<frame>.png',
        source='put your own images and labels there (docs/datasets.md shows a tasks.yaml); a '
        'task that not all frames are labelled for says partial: true',
    )

    def __init__(
        self,
        path: Path,
        split: str,
        *,
        tasks: tuple[str, ...] | None = None,
        tasks_file: Path | None = None,
    ) -> None:
        description_file = tasks_file or path / 'tasks.yaml'
        if not description_file.is_file():
            raise self.origin.incomplete(path, [str(tasks_file or 'tasks.yaml')])
        self._description = read_folder_tasks(description_file)
        self._split = split
        images = path / 'images' / split
        found = [file for file in images.glob('*') if file.suffix.lower() in _SUFFIXES]
        if not found:
            raise self.origin.incomplete(path, [f'images/{split}/<frame>.jpg'])
        self._image_names = {file.stem: file.name for file in sorted(found)}
        if len(self._image_names) < len(found):
            msg = f'{images} holds two images with the same name but for the suffix'
            raise DatasetError(msg)
        chosen = select_tasks(tuple(each.task for each in self._description.tasks), tasks)
        kept = {task.name for task in chosen}
        self._tasks = {
            each.task.name: each for each in self._description.tasks if each.task.name in kept
        }
        super().__init__(path, tuple(self._image_names), chosen)

    def _image_file(self, name: str) -> str:
        return f'images/{self._split}/{self._image_names[name]}'

    def _target_files(self, name: str) -> Mapping[str, str]:
        return {
            task: f'labels/{each.folder}/{self._split}/{name}.png'
            for task, each in self._tasks.items()
        }

    def _all_files(self) -> Iterable[str]:
        for name in self.names:
            for task, file in self._target_files(name).items():
                if not self._tasks[task].partial:
                    yield file

    def _read_target(
        self, task: str, name: str, path: Path, camera: CameraModel | None
    ) -> Array | None:
        how = self._tasks[task]
        if how.partial and not path.is_file():
            return None
        if how.labels is not None:
            return how.labels.apply(read_labels(path), str(path))
        stored = read_stored(path)
        if how.axes is not None:
            return decode_normals(stored, how.axes)
        if stored.ndim != 2:
            msg = f'{path} has {stored.shape[2]} channels; expected one'
            raise DatasetError(msg)
        if how.task.kind == 'depth':
            return decode_depth(stored, how.unit_m)
        return decode_mask(stored)

    def _camera(self, name: str, width: int, height: int) -> CameraModel | None:
        return self._description.camera_for(width, height)
