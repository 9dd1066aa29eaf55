# SPDX-License-Identifier: Apache-2.0
"""PASCAL-Context with its five tasks, as the multi-task papers packed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mtl_perception.camera import CameraModel
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.file_dataset import (
    check_split,
    compare_count,
    FileDataset,
    read_split_file,
    select_tasks,
)
from mtl_perception.datasets.images import read_labels, read_stored
from mtl_perception.datasets.label_map import load_table
from mtl_perception.datasets.origin import Origin
from mtl_perception.datasets.pascal_parts import parts_label_set, read_human_parts, read_mat
from mtl_perception.datasets.targets import (
    axes_matrix,
    check_labels,
    decode_mask,
    decode_normals,
)
from mtl_perception.tasks import load_label_set, Task
from mtl_perception.thinning import thin
from mtl_perception.values import Array
import numpy as np
import numpy.typing as npt

_SEMANTIC = ('semseg/VOC12/{}.png', 'semseg/pascal-context/{}.png')  # the first that is there
_LABEL_MAP = 'pascal-context/trainval/{}.mat'
_FRAMES = {'train': 4998, 'val': 5105}


class PascalContextDataset(FileDataset):
    """
    PASCAL-Context: 4998 training and 5105 validation frames of various sizes, no intrinsics.

    Classes and human parts are drawn by people; edges are the borders of the 459 classes of
    PASCAL-Context; normals and saliency are what older networks predicted (distilled), normals
    only on classes found indoors. A frame without an annotated person has no parts.

    :param split: train or val: ImageSets/Context/<split>.txt
    :param tasks: of semantic, parts, saliency, normals and edges; None is all
    :param normals_axes: direction of each stored channel of the normals
    :raises DatasetError: if the folder is wrong or incomplete
    """

    origin = Origin(
        title='PASCAL-Context',
        layout='ImageSets/Context/{train,val}.txt, JPEGImages/<id>.jpg, semseg/{VOC12,'
        'pascal-context}/<id>.png, human_parts/<id>.mat, pascal-context/trainval/<id>.mat, '
        'normals_distill/<id>.png, sal_distill/<id>.png',
        source='PASCAL_MT.tgz, linked in https://github.com/facebookresearch/astmt',
    )

    def __init__(
        self,
        path: Path,
        split: str,
        *,
        tasks: tuple[str, ...] | None = None,
        normals_axes: tuple[str, ...] = ('right', 'up', 'backward'),
    ) -> None:
        check_split(split, tuple(_FRAMES))
        names = read_split_file(self.origin, path, f'ImageSets/Context/{split}.txt')
        compare_count(self.origin, path, split, len(names), _FRAMES[split])
        self._axes = axes_matrix(normals_axes)
        self._classes = load_label_set('pascal21')
        self._normals_classes = np.array(
            sorted(load_table('pascal_context_normals')['classes'].values())
        )
        available = (
            Task('semantic', 'semantic', label_set=self._classes),
            Task('parts', 'parts', label_set=parts_label_set()),
            Task('saliency', 'saliency'),
            Task('normals', 'normals'),
            Task('edges', 'edges', edge_meaning='label_borders'),
        )
        self._in_voc = {
            file.stem for file in (path / _SEMANTIC[0]).parent.glob('*.png')
        }
        super().__init__(path, names, select_tasks(available, tasks))

    def _image_file(self, name: str) -> str:
        return f'JPEGImages/{name}.jpg'

    def _target_files(self, name: str) -> Mapping[str, str]:
        files = {
            'semantic': _SEMANTIC[0 if name in self._in_voc else 1],
            'parts': 'human_parts/{}.mat',
            'saliency': 'sal_distill/{}.png',
            'normals': 'normals_distill/{}.png',
            'edges': _LABEL_MAP,
        }
        return {task.name: files[task.name].format(name) for task in self.tasks}

    def _other_files(self, name: str) -> Sequence[str]:
        needed = any(task.name == 'normals' for task in self.tasks)
        return [_LABEL_MAP.format(name)] if needed else []

    def _read_target(
        self, task: str, name: str, path: Path, camera: CameraModel | None
    ) -> Array | None:
        if task == 'semantic':
            return check_labels(read_labels(path), self._classes, str(path))
        if task == 'parts':
            return read_human_parts(path)
        if task == 'saliency':
            stored = read_stored(path)
            return decode_mask(stored[..., 0] if stored.ndim == 3 else stored)
        label_map = self._label_map(name)
        if task == 'edges':
            return label_borders(label_map)
        stored = read_stored(path)
        if stored.shape != (*label_map.shape, 3):
            msg = f'{path} is {stored.shape}, but its label map {label_map.shape}'
            raise DatasetError(msg)
        normals = decode_normals(stored, self._axes)
        normals[~np.isin(label_map, self._normals_classes)] = np.nan
        return normals

    def _label_map(self, name: str) -> Array:
        path = self.root / _LABEL_MAP.format(name)
        label_map = np.asarray(read_mat(path, 'LabelMap'))
        if label_map.ndim != 2:
            msg = f'{path}: LabelMap has shape {label_map.shape}; expected (H, W)'
            raise DatasetError(msg)
        return label_map


def label_borders(labels: Array) -> npt.NDArray[np.uint8]:
    """
    Return where labels (H, W) meet, as lines of one pixel, 0 or 1.

    Comparing labels, rather than taking the Laplacian of their numbers, loses no border where
    the numbers happen to cancel.
    """
    borders = np.zeros(labels.shape, bool)
    vertical = labels[1:] != labels[:-1]
    horizontal = labels[:, 1:] != labels[:, :-1]
    borders[1:] |= vertical
    borders[:-1] |= vertical
    borders[:, 1:] |= horizontal
    borders[:, :-1] |= horizontal
    return thin(borders)
