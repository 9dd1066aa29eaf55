# SPDX-License-Identifier: Apache-2.0
"""NYU Depth V2 with labels, depth, normals and edges, as the multi-task papers packed it."""

from __future__ import annotations

from collections.abc import Mapping
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
from mtl_perception.datasets.images import read_array, read_labels, read_rgb, read_stored
from mtl_perception.datasets.label_map import make_label_map
from mtl_perception.datasets.normals_check import check_axes
from mtl_perception.datasets.origin import Origin
from mtl_perception.datasets.targets import (
    axes_matrix,
    decode_depth,
    decode_mask,
    decode_normals,
)
from mtl_perception.tasks import load_label_set, Task
from mtl_perception.values import Array, UNLABELLED

# The two packings; {} is the frame's name. Labels and depth are the same in both.
_LAYOUTS = {
    'npy': {
        'image': 'images/{}.jpg',
        'semantic': 'segmentation/{}.png',
        'depth': 'depth/{}.npy',
        'normals': 'normals/{}.npy',
        'edges': 'edge/{}.npy',
    },
    'png': {
        'image': 'images/{}.png',
        'semantic': 'segmentation/{}.png',
        'depth': 'depth/{}.npy',
        'normals': 'normals/{}.png',
        'edges': 'edge/{}.png',
    },
}
# camera_params.m of the NYU Depth V2 toolbox, colour camera.
_CAMERA = CameraModel(640, 480, 518.857901, 519.469611, 325.582449, 253.736166)
# Size of the image -> top left pixel in the full image. The colour images have a white border
# where they were undistorted; the toolbox crops it as the second, Gupta et al. as the third.
_CROPS = {(640, 480): (0, 0), (561, 427): (40, 44), (560, 425): (40, 45)}
_FRAMES = {'train': 795, 'val': 654}


class NyudDataset(FileDataset):
    """
    NYUD-v2: 795 training and 654 validation frames (the official test set), 640x480 or cropped.

    Both packings, told apart by their images: NYUD_MT (npy) and NYUDv2 (png). Edges are the
    borders of labelled objects.

    :param split: train or val: gt_sets/<split>.txt
    :param tasks: of semantic, depth, normals and edges; None is all
    :param normals_axes: direction of each stored channel of the normals
    :raises DatasetError: if the folder is wrong or incomplete, or the normals of the first frame
        contradict its depth
    """

    origin = Origin(
        title='NYUD-v2',
        layout='gt_sets/{train,val}.txt, images/<id>.{jpg,png}, segmentation/<id>.png, '
        'depth/<id>.npy, normals/<id>.{npy,png}, edge/<id>.{npy,png}',
        source='NYUD_MT.tgz, linked in '
        'https://github.com/SimonVandenhende/Multi-Task-Learning-PyTorch',
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
        names = read_split_file(self.origin, path, f'gt_sets/{split}.txt')
        compare_count(self.origin, path, split, len(names), _FRAMES[split])
        is_png = (path / _LAYOUTS['png']['image'].format(names[0])).is_file()
        self._files = _LAYOUTS['png' if is_png else 'npy']
        label_set = load_label_set('nyu40')
        # 0 is void, and class k of the label set is stored as k + 1.
        numbers = {name: index + 1 for index, name in enumerate(label_set.names)}
        void = {'void': 0, 'unlabelled': UNLABELLED}
        self._labels = make_label_map(label_set, {**numbers, **void}, {}, 'NYUD-v2')
        self._axes = axes_matrix(normals_axes)
        available = (
            Task('semantic', 'semantic', label_set=label_set),
            Task('depth', 'depth'),
            Task('normals', 'normals'),
            Task('edges', 'edges', edge_meaning='label_borders'),
        )
        super().__init__(path, names, select_tasks(available, tasks))
        if any(task.name == 'normals' for task in self.tasks):
            self._check_axes(names[0], normals_axes)

    def _image_file(self, name: str) -> str:
        return self._files['image'].format(name)

    def _target_files(self, name: str) -> Mapping[str, str]:
        return {task.name: self._files[task.name].format(name) for task in self.tasks}

    def _camera(self, name: str, width: int, height: int) -> CameraModel | None:
        corner = _CROPS.get((width, height))
        return None if corner is None else _CAMERA.cropped(*corner, width, height)

    def _read_target(
        self, task: str, name: str, path: Path, camera: CameraModel | None
    ) -> Array | None:
        if task == 'semantic':
            return self._labels.apply(read_labels(path), str(path))
        stored = read_array(path) if path.suffix == '.npy' else read_stored(path)
        if task == 'normals':
            if stored.shape[2:] != (3,):
                msg = f'{path}: normals of shape {stored.shape}; expected (H, W, 3)'
                raise DatasetError(msg)
            return decode_normals(stored, self._axes)
        # Some packings carry a channel axis of 1.
        stored = stored[..., 0] if stored.ndim == 3 else stored
        return decode_depth(stored, 1.0) if task == 'depth' else decode_mask(stored)

    def _check_axes(self, name: str, axes: tuple[str, ...]) -> None:
        depth_file = self.root / self._files['depth'].format(name)
        height, width = read_rgb(self.root / self._image_file(name)).shape[:2]
        camera = self._camera(name, width, height)
        if camera is None or not depth_file.is_file():
            return
        depth = self._read_target('depth', name, depth_file, camera)
        normals_file = self.root / self._files['normals'].format(name)
        normals = self._read_target('normals', name, normals_file, camera)
        if depth is not None and normals is not None:
            check_axes(normals, depth, camera, axes, str(normals_file))
