# SPDX-License-Identifier: Apache-2.0
"""What the datasets of image files share: completeness, sizes, derived normals, indexing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar
import warnings

from mtl_perception.camera import CameraModel
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.images import read_rgb
from mtl_perception.datasets.origin import Origin
from mtl_perception.geometry.normals_from_depth import normals_from_depth
from mtl_perception.tasks import Task
from mtl_perception.values import Array, Sample
import numpy as np
import numpy.typing as npt


class FileDataset(ABC):
    """
    Frames whose files are found by the frame's name; they are read when asked for.

    A subclass says which files a frame has and what their numbers mean.

    Raises
    ------
    DatasetError
        When built: if files are missing. When indexed: if a file is damaged, or its size is not
        the image's.

    """

    origin: ClassVar[Origin]

    def __init__(self, root: Path, names: Sequence[str], tasks: tuple[Task, ...]) -> None:
        self.root = root
        self.names = tuple(names)
        self.tasks = tasks
        self.origin.require(root, self._all_files())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        image = read_rgb(self.root / self._image_file(name))
        height, width = image.shape[:2]
        camera = self._camera(name, width, height)
        targets = self._targets(name, camera)
        for task, target in targets.items():
            if target.shape[:2] != (height, width):
                msg = (
                    f'{self.root}: {name}: target {task!r} is {target.shape[1]}x'
                    f'{target.shape[0]}, but the image is {width}x{height}'
                )
                raise DatasetError(msg)
        return Sample(image, targets, camera, name, self._pose(name))

    def _all_files(self) -> Iterable[str]:
        for name in self.names:
            yield self._image_file(name)
            yield from self._target_files(name).values()
            yield from self._other_files(name)

    def _targets(self, name: str, camera: CameraModel | None) -> dict[str, Array]:
        return {
            task: target
            for task, file in self._target_files(name).items()
            if (target := self._read_target(task, name, self.root / file, camera)) is not None
        }

    @abstractmethod
    def _image_file(self, name: str) -> str:
        """Return the image's path below the root."""

    @abstractmethod
    def _target_files(self, name: str) -> Mapping[str, str]:
        """Return, by task name, the path of the file below the root."""

    @abstractmethod
    def _read_target(
        self, task: str, name: str, path: Path, camera: CameraModel | None
    ) -> Array | None:
        """Return the target; None where this frame is not annotated for the task."""

    def _other_files(self, name: str) -> Sequence[str]:
        """Return further files that the frame needs."""
        return ()

    def _camera(self, name: str, width: int, height: int) -> CameraModel | None:
        """Return the intrinsics of the image at hand."""
        return None

    def _pose(self, name: str) -> npt.NDArray[np.float64] | None:
        """Return the camera's pose, optical frame to world, (4, 4)."""
        return None


class DepthFileDataset(FileDataset):
    """
    File datasets with depth and intrinsics, but no normals: these are derived from depth.

    `normals_window` is the window of `normals_from_depth` in pixels.
    """

    def __init__(
        self, root: Path, names: Sequence[str], tasks: tuple[Task, ...], normals_window: int
    ) -> None:
        self._normals_window = normals_window
        self._kept = frozenset(task.name for task in tasks)
        super().__init__(root, names, tasks)

    @property
    def _needs_depth(self) -> bool:
        return not self._kept.isdisjoint(('depth', 'normals'))

    def _targets(self, name: str, camera: CameraModel | None) -> dict[str, Array]:
        targets = super()._targets(name, camera)
        if 'normals' in self._kept and 'depth' in targets and camera is not None:
            depth = targets['depth']
            if depth.shape == (camera.height, camera.width):
                targets['normals'] = normals_from_depth(depth, camera, self._normals_window)
        if 'depth' not in self._kept:
            targets.pop('depth', None)
        return targets


def select_tasks(available: tuple[Task, ...], wanted: tuple[str, ...] | None) -> tuple[Task, ...]:
    """
    Return the tasks named in `wanted`, in the dataset's order; None is all.

    Raises
    ------
    DatasetError
        If a name is not among the dataset's tasks.

    """
    if wanted is None:
        return available
    names = [task.name for task in available]
    for name in wanted:
        if name not in names:
            msg = f'tasks: there is no task {name!r}; this dataset has {", ".join(names)}'
            raise DatasetError(msg)
    return tuple(task for task in available if task.name in wanted)


def check_split(split: str, known: Sequence[str]) -> str:
    """
    Return `split`.

    Raises
    ------
    DatasetError
        If the dataset has no split of that name.

    """
    if split not in known:
        msg = f'there is no split {split!r}; this dataset has {", ".join(known)}'
        raise DatasetError(msg)
    return split


def compare_count(origin: Origin, root: Path, split: str, found: int, published: int) -> None:
    """
    Warn if a split has not as many frames as its publishers say.

    What they list is what there is: a list that was cut, or folders that were copied in part,
    are complete in themselves. A subset may be wanted, so this is no error.
    """
    if found != published:
        warnings.warn(
            f'{origin.title} at {root}: {split} has {found} frames, the published split '
            f'{published}; scores on it do not compare with published ones. If you did not '
            f'choose a subset, fetch it again: {origin.source}',
            stacklevel=4,
        )


def read_split_file(origin: Origin, root: Path, file: str) -> list[str]:
    """
    Return the names that a published split file lists, one per line, in its order.

    Raises
    ------
    DatasetError
        If the file is missing, empty, or lists a name twice.

    """
    path = root / file
    if not path.is_file():
        raise origin.incomplete(root, [file])
    names = path.read_text(encoding='utf-8').split()
    if not names or len(set(names)) != len(names):
        fault = 'lists a name twice' if names else 'is empty'
        msg = f'{path} {fault}: fetch it again ({origin.source})'
        raise DatasetError(msg)
    return names
